"""Heartbeats of a disk on its way: they keep how far it came, and end the step when it is to end."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from temporalio import activity
from temporalio.exceptions import CancelledError

from activities.heartbeat import detached, why_stop
from clouds import errors as clouds
from clouds.capabilities import Adapter
from clouds.disks.content import Reader
from models.clouds import Cursor

BEAT_EVERY = 3.0


class Pulse:
    """Heartbeats that keep the newest cursor, and end the step when it is to end.

    A thread of its own beats too: a cloud that answers slowly (each of its calls has a deadline, and is tried again)
    must not look like a dead worker, or a second attempt would send beside this one.
    """

    def __init__(self, what: str, outdated: Callable[[], bool]) -> None:
        self._what = what
        self._outdated = outdated
        told = activity.info().heartbeat_details
        self.resume = Cursor.model_validate(told[0]) if told and told[0] else None
        self._last = self.resume
        self._looked = time.monotonic()
        self._over = threading.Event()

    @contextmanager
    def beating(self) -> Iterator[None]:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._beat_on,), name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _beat_on(self) -> None:
        while not self._over.wait(BEAT_EVERY):
            self._tell()

    def _tell(self) -> None:
        activity.heartbeat(self._last.model_dump(mode="json") if self._last else None)

    def __call__(self, cursor: Cursor) -> None:
        self._last = cursor
        self.beat()

    def drop(self, adapter: Adapter) -> None:
        """What was half sent is of no use to anybody."""
        if self._last is not None and adapter.image_import is not None:
            with contextlib.suppress(clouds.CloudError):  # the cloud's own limit, or its owner, ends it then
                adapter.image_import.delete_disk(self._last.disk)

    def forget(self) -> None:
        """What was on its way is no more: the next heartbeats tell of nothing, until something else is."""
        self.resume = self._last = None

    def beat(self) -> None:
        self._tell()
        match why_stop():
            case "cancel":
                raise CancelledError(f"{self._what} was cancelled")
            case "detach":
                raise detached(self._what)
        if time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            if self._outdated():
                raise detached(self._what)


class Beating:
    """A Reader that beats: comparing a large disk takes long, and sends nothing."""

    def __init__(self, source: Reader, pulse: Pulse) -> None:
        self.size = source.size
        self._source = source
        self._pulse = pulse

    def read(self, offset: int, length: int) -> bytes:
        self._pulse.beat()
        return self._source.read(offset, length)

    def data(self) -> Iterable[tuple[int, int]]:
        return self._source.data()
