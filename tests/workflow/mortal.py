"""Workers that die: the real activities of a move, each in attempts that end in the middle, without any clean-up.

A moment is right after something changed outside the worker: an answer of the cloud came, libvirt or qemu-img did what
they were asked, a ledger was written; the last one is when all is done and the answer is not given yet. At its moment
an attempt is gone as if its process had been killed: whatever else it tries to do, in an `except` or a `finally`, has
no effect on anything of these. The next attempt is another process: it knows what was heartbeaten, and nothing else.

The steps are the activities that the classes have, so a new one dies as well.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from clouds.disks import images
from clouds.disks.ledger import Ledger
from tests.clouds.fake_arrival import Domain, FakeLibvirt
from tests.clouds.fake_source import FakeDomain
from tests.workflow.fake_site import activities_of

LIBVIRT = (
    "create",
    "shutdown",
    "destroyFlags",
    "setAutostart",
    "undefineFlags",
    "backupBegin",
    "abortJob",
    "defineXML",
)
"""Its calls that change something."""

Plan = Callable[[int], int | None]
"""Number of the attempt, from 1 -> the moment at which it dies, from 1; None: it may live."""


def at_each_moment(attempt: int) -> int | None:
    """The first attempt dies at its first moment, the second at its second, and so on until one is done before that."""
    return attempt


def always(moment: int) -> Plan:
    """Each attempt."""
    return lambda attempt: moment


def once(moment: int) -> Plan:
    """Only the first attempt, at this moment, or with its answer if it has no more."""
    return lambda attempt: moment if attempt == 1 else None


class Killed(BaseException):
    """The worker's process is no more."""


class Death:
    def __init__(self, plan: Plan, for_good: str = "") -> None:
        """`for_good`: the one step whose workers die, and no other takes over."""
        self._plan = plan
        self._for_good = for_good
        self.died: Counter[str] = Counter()
        """Activity -> attempts that were killed."""
        self._tried: Counter[tuple[str, str]] = Counter()
        self._beats: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._unanswered: set[tuple[str, str]] = set()
        """Steps whose answer was lost already."""
        self._lock = threading.Lock()
        self._lives = self._dead = False
        self._moments = 0
        self._dies_at: int | None = None

    def work(self, now: Callable[[], object]) -> object:
        """The activities of `now()`, a process at a time; to be given to a worker."""
        found = SimpleNamespace()
        for method in activities_of(now()):
            setattr(found, method.__name__, self._mortal(now, method))
        return found

    def look(self) -> None:
        """Before something has an effect: not of the dead."""
        if self._dead:
            raise Killed

    def moment(self) -> None:
        with self._lock:
            self.look()
            self._moments += self._lives
            if self._lives and self._moments == self._dies_at:
                self._dead = True
                raise Killed

    def _mortal(self, now: Callable[[], object], method: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(method)
        orders = [name for name in hints if name != "return"]
        if not orders:
            return method  # it has no order, so it is no step of a move
        name = method.__name__

        async def step(order: Any) -> Any:
            return await self._live_through(name, lambda: getattr(now(), name), order)

        step.__annotations__ = {"order": hints[orders[0]], "return": hints["return"]}
        return activity.defn(name=f"novacron.{name}")(step)

    async def _live_through(self, name: str, method: Callable[[], Callable[..., Any]], order: Any) -> Any:
        key = (name, str(order))
        async with _beating():
            while True:
                environment = ActivityEnvironment()
                environment.info = dataclasses.replace(
                    environment.info, heartbeat_details=list(self._beats.get(key, ()))
                )
                environment.on_heartbeat = lambda *details: self._beat(key, details)
                try:
                    with self._attempt(key):
                        work = method()
                        if inspect.iscoroutinefunction(work):
                            done = await environment.run(work, order)
                        else:
                            done = await asyncio.to_thread(environment.run, work, order)
                        self._answer(key)
                        return done
                except Killed:
                    self.died[name] += 1
                    if self._for_good:
                        raise ApplicationError("its worker is dead", type="HostUnavailable") from None

    @contextmanager
    def _attempt(self, key: tuple[str, str]) -> Iterator[None]:
        assert not self._lives, "the steps of a move follow one another"
        self._tried[key] += 1
        self._lives, self._dead, self._moments = True, False, 0
        self._dies_at = self._plan(self._tried[key]) if self._for_good in ("", key[0]) else None
        try:
            yield
        except Exception as error:
            if self._dead:
                raise Killed from error  # an SDK's thread was hit; what came of that, nobody hears
            raise
        finally:
            self._lives = self._dead = False

    def _answer(self, key: tuple[str, str]) -> None:
        self.look()
        if self._dies_at is not None and key not in self._unanswered:
            self._unanswered.add(key)
            raise Killed

    def _beat(self, key: tuple[str, str], details: tuple[Any, ...]) -> None:
        if not self._dead:
            self._beats[key] = details

    def hold(self, patch: pytest.MonkeyPatch) -> None:
        """Everything that has an effect asks here."""
        told = threading.excepthook
        patch.setattr(threading, "excepthook", lambda args: None if args.exc_type is Killed else told(args))
        self._around(patch, http.client.HTTPConnection, "putrequest", moment=False)
        self._around(patch, http.client.HTTPConnection, "getresponse")
        self._around(patch, images, "_run")
        self._around(patch, Ledger, "write")
        for fake in (FakeDomain, Domain, FakeLibvirt):
            for name in LIBVIRT:
                if hasattr(fake, name):
                    self._around(patch, fake, name)

    def _around(self, patch: pytest.MonkeyPatch, owner: object, name: str, *, moment: bool = True) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **named: Any) -> Any:
            self.look()
            found = original(*args, **named)
            if moment:
                self.moment()
            return found

        patch.setattr(owner, name, call)


@asynccontextmanager
async def _beating() -> Any:
    """For the server, all attempts are one."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(1)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
