"""A VM that comes from a cloud, on the real libvirt: defined over what was there, started, taken back, kept; nothing is
left of an attempt that was undone, and the way back goes while QEMU runs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.scene import Scene
from workers.lab.errors import run
from workers.lab.settings import SCRATCH_FOLDER

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(scene: Scene) -> Iterator[str]:
    """Where QEMU may read, as the host sees it."""
    found = scene.lab.settings.scratch_image("host-a", "comer").parent / "comer"
    found.mkdir(mode=0o755, parents=True)
    yield f"{SCRATCH_FOLDER}/comer"
    shutil.rmtree(found)


def test_it_comes_goes_back_and_stays(scene: Scene, folder: str) -> None:
    host = next(host for host in scene.hosts if host.name == "host-a")
    inside = [*host.enter(network=False), f"--wd={ROOT}"]
    seen = json.loads(run(*inside, sys.executable, "-m", "tests.integration.arriving", folder, within=150))
    assert seen.pop("left") == []
    assert seen.pop("autostart") == 1
    assert all(seen.values()), seen
