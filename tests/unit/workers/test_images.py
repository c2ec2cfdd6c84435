"""A host worker keeps the host's images known, by itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dwcp.encoding.store import Store
from models.store import StoreSettings
from workers import images


def test_images_that_the_settings_name_become_known_without_being_asked(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(os.urandom(64 * 4096))
    settings = StoreSettings(folder=str(tmp_path / "store"), limit_mib=64, images=(str(image),))
    stop = images.keep_known(settings)
    assert stop
    deadline = time.monotonic() + 20
    while not (found := Store(settings).images()):
        assert time.monotonic() < deadline, "the image was not indexed"
        stop.wait(0.02)
    stop.set()
    assert [info.blocks for info in found] == [64]


def test_without_images_or_without_a_store_there_is_nothing_to_do(tmp_path: Path) -> None:
    folder = str(tmp_path / "store")
    assert images.keep_known(StoreSettings(folder=folder)) is None
    assert images.keep_known(StoreSettings(folder=folder, limit_mib=0, images=("/x",))) is None
