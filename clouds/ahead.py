"""A Reader that reads ahead: a cloud answers slowly, and who writes to another one asks for a block at a time.

Blocks are asked for in the order of the ranges that will be read, `parallel` of them at once at most, which bounds the
memory. Whoever reads in another order is answered as well, without the gain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from clouds.disks.content import BLOCK, Reader, read_block, touched

Range = tuple[int, int]


class Ahead:
    """A context manager: nothing reads on behind the caller's back when it has ended."""

    def __init__(self, source: Reader, parallel: int, ranges: Iterable[Range] | None = None) -> None:
        """`ranges`: what will be read, ascending; by default what may be data. `source` is read from several threads,
        and this from one."""
        self.size = source.size
        self._source = source
        self._parallel = parallel
        self._ranges = tuple(source.data() if ranges is None else ranges)
        self._coming: Iterator[int] = iter(())
        self._asked: deque[tuple[int, Future[bytes]]] = deque()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="ahead")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def data(self) -> tuple[Range, ...]:
        return self._ranges

    def read(self, offset: int, length: int) -> bytes:
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        data = b"".join(self._block(index) for index in range(first, last + 1))
        return data[offset - first * BLOCK :][:length]

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """(index, data) of all in the ranges, each filled up with zeros behind the disk's end."""
        for index in touched(self.size, self._ranges):
            yield index, self._block(index)

    def _block(self, index: int) -> bytes:
        while self._asked and self._asked[0][0] < index:
            self._asked.popleft()
        if not self._asked or self._asked[0][0] != index:
            self._begin_at(index)
        self._ask()
        if not self._asked or self._asked[0][0] != index:  # outside the ranges
            return self._get(index)
        data = self._asked.popleft()[1].result()
        self._ask()
        return data

    def _begin_at(self, index: int) -> None:
        """Anew: it is read from another place than was expected."""
        for _, future in self._asked:
            future.cancel()
        self._asked.clear()
        self._coming = (each for each in touched(self.size, self._ranges) if each >= index)

    def _ask(self) -> None:
        while len(self._asked) < self._parallel and (index := next(self._coming, None)) is not None:
            self._asked.append((index, self._pool.submit(self._get, index)))

    def _get(self, index: int) -> bytes:
        return read_block(self._source, index).data
