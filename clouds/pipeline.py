"""Blocks through a bounded number of hands: work in any order, results strictly in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], parallel: int) -> Generator[tuple[T, R], None, None]:
    """(item, result) in the order of `items`, with at most `parallel` of them taken and not yet given back.

    The first error, in order, is raised after all that run have ended: nothing goes on behind the caller's back. The
    same holds when the caller closes the generator; `contextlib.closing` does, whatever ends the loop.
    """
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="blocks")
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            if len(waiting) == parallel:
                oldest, future = waiting.popleft()
                yield oldest, future.result()
            waiting.append((item, pool.submit(work, item)))
        while waiting:
            oldest, future = waiting.popleft()
            yield oldest, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
