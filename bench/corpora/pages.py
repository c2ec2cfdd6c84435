"""Pages of RAM into a file, and where they come from: a process's memory, files in the page cache, a guest's RAM."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.lab.errors import LabError

PAGE: Final = 4096
LIMIT: Final = 256 << 20
"""Bytes of the largest corpus."""
CHUNK: Final = 1 << 20
ZERO: Final = bytes(PAGE)
POISON: Final = b"\xcc" * PAGE
"""What Linux fills the memory of its own start-up code with once that has run."""


class PageFile:
    """Takes pages until it is full; counts what they are."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._file = path.open("wb")
        self._left = limit // PAGE
        self.pages = 0
        self.zero = 0
        self.poison = 0
        """Dropped: no running system's content, and nobody's gain."""

    @property
    def full(self) -> bool:
        return self._left == 0

    def add(self, some: bytes | memoryview) -> None:
        """Any number of whole pages; what is beyond the limit is left out."""
        for at in range(0, len(some) - PAGE + 1, PAGE):
            if self.full:
                return
            page = bytes(some[at : at + PAGE])
            if page == POISON:
                self.poison += 1
                continue
            self._file.write(page)
            self.zero += page == ZERO
            self.pages += 1
            self._left -= 1

    def close(self) -> None:
        self._file.close()


def add_processes(out: PageFile, pids: Sequence[int]) -> None:
    """The resident pages of processes, by address, as far as they may be read.

    Memory that is shared is taken once: the pages that any of them has touched, at the first one's address; the first
    is their common parent. Raises LabError when the kernel does not let us read.
    """
    with contextlib.ExitStack() as stack:
        opened = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has just ended
                opened.append(_Process.open(pid, stack))
        for process in opened:
            for start, end, shared in process.spans():
                if not shared:
                    _add_span(out, process, [process], start, end)
                elif process is opened[0]:
                    _add_span(out, process, opened, start, end)


@dataclass(frozen=True)
class _Process:
    maps: list[str]
    memory: int
    pagemap: int

    @classmethod
    def open(cls, pid: int, stack: contextlib.ExitStack) -> _Process:
        folder = Path(f"/proc/{pid}")
        try:
            memory = stack.enter_context((folder / "mem").open("rb", buffering=0))
            pagemap = stack.enter_context((folder / "pagemap").open("rb", buffering=0))
        except PermissionError as error:
            raise LabError(f"cannot read the memory of process {pid}: {error}; run as root") from error
        return cls((folder / "maps").read_text().splitlines(), memory.fileno(), pagemap.fileno())

    def spans(self) -> Iterator[tuple[int, int, bool]]:
        """Start, end, shared."""
        for line in self.maps:
            span, mode, *_, name = [*line.split(maxsplit=5), ""][:6]
            if "r" in mode and name not in ("[vvar]", "[vsyscall]"):
                start, end = (int(edge, 16) for edge in span.split("-"))
                yield start, end, mode[3] == "s"


def _add_span(out: PageFile, owner: _Process, touched_by: Sequence[_Process], start: int, end: int) -> None:
    """The pages of a span that any of `touched_by` has in memory."""
    for at in range(start, end, CHUNK):
        size = min(CHUNK, end - at)
        maps = [os.pread(process.pagemap, size // PAGE * 8, at // PAGE * 8) for process in touched_by]
        present = [any(some[i + 7 : i + 8] >= b"\x80" for some in maps) for i in range(0, size // PAGE * 8, 8)]
        if any(present):
            some = os.pread(owner.memory, size, at)
            for i in range(len(some) // PAGE):
                if present[i]:
                    out.add(some[i * PAGE : (i + 1) * PAGE])


def add_cached(out: PageFile, files: Iterable[Path]) -> None:
    """The pages of `files` that the page cache holds, the last one of each filled up with zeros, as in the cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    for path in files:
        size = path.stat().st_size
        if out.full or not size:
            continue
        pages = -(-size // PAGE)
        resident = (ctypes.c_ubyte * pages)()
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
            view = ctypes.c_char.from_buffer(mapped)
            failed = libc.mincore(ctypes.byref(view), ctypes.c_size_t(pages * PAGE), resident)
            del view
            if failed:
                raise LabError(f"mincore of {path} failed: {os.strerror(ctypes.get_errno())}")
            for i in range(pages):
                if resident[i] & 1:
                    out.add(mapped[i * PAGE : (i + 1) * PAGE].ljust(PAGE, b"\0"))


def add_file(out: PageFile, path: Path) -> None:
    """A file of raw pages."""
    with path.open("rb") as file:
        while not out.full and (some := file.read(CHUNK)):
            out.add(some)
