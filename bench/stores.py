"""Content stores of the bench's hosts: fresh for each row, or as an earlier move left them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from dwcp.encoding.store import Store
from dwcp.errors import StoreFailed
from models.store import StoreSettings


@contextlib.contextmanager
def stores(folder: Path, like: Path | None) -> Iterator[Path]:
    """A new folder for the stores of a row: empty, or a copy of `like`.

    Gone afterwards, since stores are large; whoever wants to keep it moves it away.
    """
    if like is None:
        folder.mkdir()
    else:
        subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", str(like), str(folder)], check=True)
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)


def index_images(settings: StoreSettings) -> None:
    """Let a store learn the blocks of the disk images in its settings. Raises StoreFailed."""
    done = Store(settings).index_images()
    if not done.indexed:
        raise StoreFailed(f"the store in {settings.folder} knows no image of {settings.images}: {done.skipped}")
