"""`novacron store` on a host: what it says to people and machines, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from click.testing import CliRunner, Result

from dwcp.encoding.store import Store
from models.store import StoreSettings, StoreUse
from novacron.cli import cli

PAGE = 4096


def novacron(*args: str) -> Result:
    return CliRunner().invoke(cli, ["store", *args], prog_name="novacron")


def line(told: Result) -> dict[str, Any]:
    (only,) = told.stdout.splitlines()
    found: dict[str, Any] = json.loads(only)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A store with one visit of three pages."""
    settings = StoreSettings(folder=str(tmp_path / "store"), leave_free_mib=0)
    draft = Store(settings).begin(StoreUse(settings=settings, vm="vm-1"), 3)
    assert draft is not None
    pages = os.urandom(3 * PAGE)
    os.pwrite(draft.fd, pages, 0)
    keys = [blake3(pages[at : at + PAGE]).digest(16) for at in range(0, 3 * PAGE, PAGE)]
    assert draft.commit(b"map", b"".join(keys), 3) is not None
    return settings.folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "base.img"
    path.write_bytes(os.urandom(5 * PAGE))
    return path


def host_file(tmp_path: Path, **store: object) -> str:
    tls = {name: f"/tls/{name}" for name in ("certificate", "key", "authority")}
    facts = {"site": "s", "host": "h", "migration_address": "192.0.2.1", "tls": tls, "store": store}
    path = tmp_path / "host.json"
    path.write_text(json.dumps(facts))
    return str(path)


def test_stats_are_for_people_and_for_machines(folder: str) -> None:
    told = novacron("stats", "--folder", folder)
    assert told.exit_code == 0
    assert "of 16.0 GiB" in told.stdout
    assert "1 visits of VMs, 12.0 KiB" in told.stdout
    found = line(novacron("stats", "--folder", folder, "--json"))
    assert (found["visits"], found["visit_pages"], found["damaged"]) == (1, 3, 0)


def test_the_hosts_settings_say_where_the_store_is_and_what_it_indexes(
    tmp_path: Path, folder: str, image: Path
) -> None:
    settings = host_file(tmp_path, folder=folder, images=[str(image)], limit_mib=64, leave_free_mib=0)
    assert line(novacron("stats", "--settings", settings, "--json"))["limit_bytes"] == 64 << 20
    done = line(novacron("index", "--settings", settings, "--json"))
    assert (done["indexed"], done["blocks"], done["skipped"]) == ([str(image)], 5, [])
    told = novacron("index", "--settings", settings)
    assert "1 unchanged" in told.stdout
    assert told.exit_code == 0


def test_images_are_indexed_and_forgotten_by_hand(folder: str, image: Path) -> None:
    told = novacron("index", "--folder", folder, str(image))
    assert told.exit_code == 0
    assert "indexed 1 images: 20.0 KiB read" in told.stdout
    assert f"{image} 100 % of 20.0 KiB" in told.stderr
    assert line(novacron("stats", "--folder", folder, "--json"))["images"] == 1
    assert line(novacron("index", "--forget", "--folder", folder, str(image), "--json")) == {"dropped": [str(image)]}
    assert line(novacron("stats", "--folder", folder, "--json"))["images"] == 0


def test_a_skipped_image_is_told_and_ends_with_1(folder: str, tmp_path: Path) -> None:
    told = novacron("index", "--folder", folder, str(tmp_path / "none"))
    assert told.exit_code == 1
    assert "none: No such file or directory" in told.stderr


def test_verify_ends_with_1_when_it_finds_new_damage(folder: str) -> None:
    told = novacron("verify", "--folder", folder)
    assert told.exit_code == 0
    assert "verified 12.0 KiB: 1 visits and 0 images, 0 with damage" in told.stdout
    (slab,) = Path(folder).glob("visits/*/slab")
    with slab.open("r+b") as file:
        file.write(b"?!")
    told = novacron("verify", "--folder", folder)
    assert told.exit_code == 1
    assert f"damaged: {slab.parent}, 1 pages" in told.stdout
    told = novacron("verify", "--folder", folder, "--json")
    assert told.exit_code == 0
    assert line(told)["damage"] == [{"what": str(slab.parent), "pages": 1, "new": False}]


def test_prune_frees_down_to_what_is_asked(folder: str) -> None:
    assert line(novacron("prune", "--folder", folder, "--json"))["removed"] == 0
    done = line(novacron("prune", "--to", "0", "--folder", folder, "--json"))
    assert done["removed"] == 1
    assert done["freed_bytes"] >= 3 * PAGE
    assert "freed 0 B" in novacron("prune", "--folder", folder).stdout


WRONG = [
    (["stats", "--settings", "/nonexistent/host.json"], 2, "settings file /nonexistent/host.json"),
    (["stats", "--settings", "/a", "--folder", "/b"], 2, "--settings or --folder, not both"),
    (["prune", "--to", "-1"], 2, "--to"),
    (["index", "--forget", "--folder", "/nonexistent"], 2, "--forget needs"),
    (["index", "--folder", "/nonexistent"], 2, "no images"),
    (["stats", "--folder", "/etc"], 1, "/etc holds other files"),
]


@pytest.mark.parametrize(("args", "code", "words"), WRONG)
def test_what_is_wrong_is_named(args: list[str], code: int, words: str) -> None:
    told = novacron(*args)
    assert told.exit_code == code
    assert words in told.stderr
    told = novacron(*args, "--json")
    assert told.exit_code == code
    assert words in line(told)["error"]["message"]


def test_help_has_units_defaults_and_trade_offs() -> None:
    text = " ".join(" ".join(novacron(name, "--help").stdout.split()) for name in ("prune", "index", "verify"))
    for words in ("in MiB", "Default: its limit", "later moves send more", "20 bytes for a block", "at the cost of"):
        assert words in text
