"""The worker processes' settings and connection: what is wrong is said in one line, what is away is waited for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from models.host import HostSettings, SiteSettings
from workers import runtime
from workers.runtime import BadSettings, connect, load

GOOD = {
    "site": "lab",
    "host": "host-a",
    "migration_address": "10.0.0.1",
    "tls": {"certificate": "/c", "key": "/k", "authority": "/a"},
}


def written(folder: Path, content: object) -> Path:
    file = folder / "host.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_good_settings_are_read(tmp_path: Path) -> None:
    assert load(HostSettings, written(tmp_path, GOOD)).host == "host-a"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**GOOD, "slots": 0}, r"slots: .*got '0'"),
        ({**GOOD, "slot": 4}, r"slot: .*got '4'"),
        ({**GOOD, "tls": {"certificate": "c"}}, r"tls\.certificate: .*got 'c'"),
        ({key: GOOD[key] for key in GOOD if key != "migration_address"}, "migration_address: Field required"),
        ("{", "the whole file"),
    ],
)
def test_bad_settings_name_file_field_and_value(tmp_path: Path, content: object, said: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(BadSettings, match=said) as raised:
        load(HostSettings, file)
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"none\.json: No such file"):
        load(SiteSettings, tmp_path / "none.json")


async def test_a_typo_in_temporals_profile_is_an_error_and_not_a_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "temporal.toml"
    profile.write_text('[profile.default]\naddres = "127.0.0.1:1"\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(profile))
    with pytest.raises(BadSettings, match="addres"):
        await connect(asyncio.Event())


async def test_a_server_that_is_away_is_dialled_until_the_worker_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "none.toml"))
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(runtime, "DIAL_AGAIN", (0.01,))
    stop = asyncio.Event()
    dialled = 0

    def count(message: str, *_: object) -> None:
        nonlocal dialled
        dialled += "cannot be reached" in message
        if dialled == 3:
            stop.set()

    monkeypatch.setattr(runtime.logger, "warning", count)
    assert await connect(stop) is None
    assert dialled == 3
