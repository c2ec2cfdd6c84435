"""How many moves may leave a host at once: the host's own last word, whatever the site's limits say.

A move that finds no slot is turned away and tried again, instead of standing in the queue with the steps that steer,
close and stop the moves before it. Those have slots of the worker that no move can take.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from temporalio.exceptions import ApplicationError

from models import failures

FOR_OTHERS = 16
"""Slots of a host's worker for everything but moves: short steps, and now and then a guest's shutdown."""
AGAIN_AFTER = timedelta(seconds=15)


class MoveSlots:
    def __init__(self, host: str, most: int) -> None:
        self._host = host
        self._most = most
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, migration_id: str) -> Iterator[None]:
        """A slot while the move's step runs; another attempt of the same step shares it. Raises HostUnavailable, to be
        tried again."""
        with self._lock:
            if migration_id not in self._running and len(self._running) >= self._most:
                raise ApplicationError(
                    f"{self._most} moves leave {self._host} already, as many as its settings allow (slots). It is "
                    f"tried again. Where the site's settings (slots) bound these moves, they wait instead",
                    type=failures.HOST_UNAVAILABLE,
                    next_retry_delay=AGAIN_AFTER,
                )
            self._running[migration_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[migration_id] -= 1
                if not self._running[migration_id]:
                    del self._running[migration_id]
