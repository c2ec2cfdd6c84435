"""What a dead operation left on a host is found by its own words: configuration files and marks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.fence import Fence
from activities.recovery import RecoveryActivities
from models.datapath import DataPathConfig, Service
from models.disks import DiskImage
from models.host import HostSettings
from models.recovery import FindMarks

UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"


@pytest.fixture
def settings() -> Iterator[HostSettings]:
    with tempfile.TemporaryDirectory(prefix="recovery-", dir="/tmp") as state:
        yield HostSettings(
            site="lab",
            host="host-a",
            state_dir=state,
            migration_address="10.0.0.1",
            tls={"certificate": "/c", "key": "/k", "authority": "/a"},
        )


def test_data_paths_are_told_with_their_vm_and_unreadable_ones_without(settings: HostSettings) -> None:
    config = DataPathConfig(
        role="source",
        migration_id="m1",
        peer_name="b",
        address="10.0.0.2",
        port=49152,
        services=(Service(name="ram", path="/r"),),
        tls=settings.tls,
        owner_token=7,
        vm=UUID,
    )
    for name, text in (("m1", config.model_dump_json()), ("m2", "{"), ("m3", None)):
        folder = Path(settings.state_dir) / "migrations" / name
        folder.mkdir(parents=True, exist_ok=True)
        if text is not None:
            (folder / "config.json").write_text(text)
    found = RecoveryActivities(settings, Fence(settings)).list_paths().paths
    assert [(path.migration_id, path.role, path.vm, path.token) for path in found] == [
        ("m1", "source", UUID, 7),
        ("m2", None, None, 0),
        ("m3", None, None, 0),
    ]


def test_marks_are_found_and_nothing_else(settings: HostSettings, tmp_path: Path) -> None:
    ours, plain, away = (DiskImage(target=name, path=f"{tmp_path}/{name}") for name in ("vda", "vdb", "vdc"))
    for image in (ours, plain):
        Path(image.path).touch()
    Path(f"{ours.path}.novacron").write_text("m1")
    found = RecoveryActivities(settings, Fence(settings)).find_marks(FindMarks(disks=(ours, plain, away)))
    assert json.loads(found.model_dump_json()) == {"marks": {ours.path: "m1"}}
