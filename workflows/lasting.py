"""Work that a cancel must not interrupt: clean-up, and everything after the point of no return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def to_the_end(work: Coroutine[Any, Any, Result], *, on_cancel: Callable[[], None]) -> Result:
    """Await `work` to its own end. Each cancel that comes meanwhile is reported to `on_cancel` and goes no further."""
    task = asyncio.create_task(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                return task.result()
            on_cancel()
