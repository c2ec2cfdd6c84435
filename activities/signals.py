"""Which progress is worth an event in the workflow's history, and the sending of it.

The heartbeat carries every sample; a signal costs history and a workflow task. So signals are sparse: a new phase, a
change of the link, five percent more, or a pause that grows by a fifth each time; and never more than MOST per move.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from typing import Protocol

from temporalio import activity
from temporalio.client import Client

from models.decisions import Decision
from models.migration import Progress

SIGNAL, DECISION = "novacron.progress", "novacron.decision"
MOST = 80
STEP = 5.0
"""Percent."""
FIRST_PAUSE, GROWTH = 2.0, 1.2

logger = logging.getLogger(__name__)


class Sparse:
    """Pure: is this progress, at this time, worth a signal?"""

    def __init__(self) -> None:
        self._last: Progress | None = None
        self._at = 0.0
        self._pause = FIRST_PAUSE
        self._sent = 0

    def worth(self, now: float, progress: Progress) -> bool:
        last = self._last
        if self._sent >= MOST:
            return False
        news = last is None or progress.phase != last.phase or progress.link != last.link
        if not news and last is not None and progress.percent < last.percent + STEP:
            if now - self._at < self._pause:
                return False
            self._pause *= GROWTH
        self._last, self._at, self._sent = progress, now, self._sent + 1
        return True


class Sink(Protocol):
    def __call__(self, now: float, progress: Progress) -> None: ...


class Signals:
    """Sends what is worth it to the activity's own workflow, without waiting: progress must not slow the move."""

    def __init__(self, client: Client | None, loop: asyncio.AbstractEventLoop | None) -> None:
        self._client = client
        self._loop = loop
        self._sparse = Sparse()
        info = activity.info()
        self._workflow_id, self._run_id = info.workflow_id, info.workflow_run_id

    def __call__(self, now: float, progress: Progress) -> None:
        if self._sparse.worth(now, progress):
            self._send(SIGNAL, progress)

    def decided(self, decision: Decision) -> None:
        """Every one is told: they are few. Told twice, its number says that it is the same."""
        self._send(DECISION, decision)

    def _send(self, name: str, what: Progress | Decision) -> None:
        if self._client is None or self._loop is None or self._workflow_id is None:
            return
        handle = self._client.get_workflow_handle(self._workflow_id, run_id=self._run_id)
        asyncio.run_coroutine_threadsafe(handle.signal(name, what), self._loop).add_done_callback(self._done)

    def _done(self, sent: Future[None]) -> None:
        if not sent.cancelled() and (error := sent.exception()):
            # The workflow has the heartbeat's details and the result; a lost picture of the way there is no failure.
            logger.warning("news of %s was not delivered: %s", self._workflow_id, error)
