"""A wall clock of its own for one process and all it starts, which can jump while it runs (clock.c).

The machine's clock cannot be moved for one lab alone, and a time namespace has no CLOCK_REALTIME.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from workers.lab.errors import run

_SOURCE = Path(__file__).with_name("clock.c")


def set_offset(folder: Path, seconds: int) -> None:
    """From now on the clocks of this folder are off by so many seconds."""
    file = _file(folder)
    if not file.exists():
        file.write_bytes(bytes(8))
    with file.open("r+b", buffering=0) as out:  # in place: it is mapped
        out.write(struct.pack("=q", seconds))


@contextmanager
def preloaded(folder: Path) -> Iterator[None]:
    """What is started meanwhile has the movable clock."""
    library = folder / "clock.so"
    if not library.exists():
        run("gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl")
    with patch.dict(os.environ, {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(_file(folder))}):
        yield


def _file(folder: Path) -> Path:
    return folder / "clock"
