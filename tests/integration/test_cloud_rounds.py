"""Rounds of a move to a cloud on the real libvirt: a guest that writes all the time is seen as of one moment, bitmaps
miss nothing, also after its power was cut and it was started again, and nothing of it is left."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.scene import Scene
from workers.lab.errors import run
from workers.lab.hosts import Host

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
NAME = "leaver"


@pytest.fixture
def host(scene: Scene) -> Iterator[Host]:
    scene.lab.boot_guest(NAME, "host-a", memory_mib=192, fill=0, check=1, scratch=64)
    try:
        yield next(host for host in scene.hosts if host.name == "host-a")
    finally:
        scene.lab.destroy_guest(NAME)
        scene.lab.settings.scratch_image("host-a", NAME).unlink(missing_ok=True)


def test_rounds_show_one_moment_each_and_miss_nothing(host: Host) -> None:
    inside = [*host.enter(network=False), f"--wd={ROOT}"]
    told = run(*inside, sys.executable, "-m", "tests.integration.rounds", NAME, within=240)
    seen = json.loads(told)
    assert [each["telling"] for each in seen["rounds"]] == [False, True, True, True]
    for each in seen["rounds"]:
        assert each["found again"]
        assert each["the bitmap misses nothing"]
        assert each["the moment stands still"]
    assert all(each["blocks"] for each in seen["rounds"][:3]), "a guest that starts again writes what it wrote before"
    assert seen["off"]
    assert seen["equal when off"]
    assert seen["autostart"] == 1
    assert seen["checkpoints"] == seen["left"] == []
