"""How each phase of a move is met: by an event, and where the phase is too short for that, by holding it open.

| phase | held open by | met when |
| --- | --- | --- |
| checking | the destination's worker stands still | Temporal has given it a question |
| preparing | the link is cut | the source's data path process is there, dialling |
| early, middle | a bound on the bandwidth | the move reports 2 %, or 20 to 60 %, by the seed |
| switching | the destination's libvirtd stands still | the source's VM is paused, and nothing crosses any more |
| post-copy | a bound on the bandwidth | the move reports post-copy |
| confirming | the destination's worker stands still | the workflow says so |
| cleaning | the source's data path process stands still | the workflow says so |
| idle | | no move runs |
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from models.migration import MigrationPolicy
from models.migration import Phase as Reported
from novacron import watch
from tests.chaos.ground import Ground
from tests.integration.scene import GUEST, Handle

Phase = Literal["checking", "preparing", "early", "middle", "switching", "post-copy", "confirming", "cleaning", "idle"]
PHASES: tuple[Phase, ...] = get_args(Phase)

MET_WITHIN = 60.0
QUIET_LOOKS = 8
"""Looks, a tenth of a second apart, that must find no byte more."""

PLAIN = MigrationPolicy(codec="none", store=False, page_memory_mib=64)
SLOW = PLAIN.model_copy(update={"bandwidth_mib": 14})
"""Some seven seconds for this guest: its middle can be met."""
HYBRID = PLAIN.model_copy(update={"bandwidth_mib": 8, "mode": "hybrid"})

POLICIES: dict[Phase, MigrationPolicy] = {
    "early": SLOW,
    "middle": SLOW,
    "switching": SLOW,
    "post-copy": HYBRID,
    "confirming": SLOW,
    "cleaning": SLOW,
}


class NotMet(Exception):
    """The phase was not met: nothing was tested."""


Start = Callable[["Meeting"], Awaitable[Handle]]


@dataclass
class Meeting:
    """A move at the phase that was asked for."""

    ground: Ground
    phase: Phase
    chance: random.Random
    source: str
    destination: str
    policy: MigrationPolicy
    begin: Start
    handle: Handle | None = None
    remarks: list[str] = field(default_factory=list)
    """What the fault has to tell of its own check; anything here is a failure."""

    @property
    def move(self) -> Handle:
        assert self.handle is not None, "no move was started"
        return self.handle

    def side(self, end: str) -> str:
        return self.source if end == "source" else self.destination


async def by_sdk(meeting: Meeting) -> Handle:
    """Start the move as any Temporal client could."""
    return await meeting.ground.scene.start(meeting.destination, meeting.policy, source=meeting.source)


@contextlib.asynccontextmanager
async def met(meeting: Meeting) -> AsyncIterator[None]:
    """Start the move and meet its phase; what held it open is let go at the end."""
    async with _MEET[meeting.phase](meeting):
        yield


@contextlib.asynccontextmanager
async def _idle(meeting: Meeting) -> AsyncIterator[None]:
    yield


@contextlib.asynccontextmanager
async def _checking(meeting: Meeting) -> AsyncIterator[None]:
    ground = meeting.ground
    with ground.held(ground.lab.pid_of(f"{meeting.destination}.worker")):
        meeting.handle = await meeting.begin(meeting)
        await _until(lambda: _pending(meeting, "novacron.admit_vm"), "no question to the destination")
        yield


@contextlib.asynccontextmanager
async def _preparing(meeting: Meeting) -> AsyncIterator[None]:
    lab = meeting.ground.lab
    await asyncio.to_thread(lab.cut)
    try:
        meeting.handle = await meeting.begin(meeting)
        await _until(lambda: _dials(meeting), "the source's data path was not started")
        yield
    finally:
        await asyncio.to_thread(lab.heal)


@contextlib.asynccontextmanager
async def _moving(meeting: Meeting) -> AsyncIterator[None]:
    meeting.handle = await meeting.begin(meeting)
    percent = 2 if meeting.phase == "early" else meeting.chance.uniform(20, 60)
    await _percent(meeting, percent)
    yield


@contextlib.asynccontextmanager
async def _switching(meeting: Meeting) -> AsyncIterator[None]:
    ground = meeting.ground
    meeting.handle = await meeting.begin(meeting)
    await _percent(meeting, 20)
    with ground.held(ground.lab.pid_of(f"{meeting.destination}.libvirtd")):
        await _until(lambda: _paused(meeting), "the source was not paused for the switch")
        await _quiet(meeting)
        yield


@contextlib.asynccontextmanager
async def _post_copy(meeting: Meeting) -> AsyncIterator[None]:
    meeting.handle = await meeting.begin(meeting)
    await _percent(meeting, 5)
    await meeting.handle.execute_update("post_copy_now")
    await _reported(meeting, "post-copy")
    yield


@contextlib.asynccontextmanager
async def _confirming(meeting: Meeting) -> AsyncIterator[None]:
    ground = meeting.ground
    meeting.handle = await meeting.begin(meeting)
    await _percent(meeting, 20)
    with ground.held(ground.lab.pid_of(f"{meeting.destination}.worker")):
        await _reported(meeting, "confirming")
        yield


@contextlib.asynccontextmanager
async def _cleaning(meeting: Meeting) -> AsyncIterator[None]:
    ground = meeting.ground
    with contextlib.ExitStack() as path:
        async with _confirming(meeting):
            path.enter_context(ground.held(ground.scene.data_path(meeting.source)))
        await _reported(meeting, "cleaning")
        yield


_MEET: dict[Phase, Callable[[Meeting], contextlib.AbstractAsyncContextManager[None]]] = {
    "checking": _checking,
    "preparing": _preparing,
    "early": _moving,
    "middle": _moving,
    "switching": _switching,
    "post-copy": _post_copy,
    "confirming": _confirming,
    "cleaning": _cleaning,
    "idle": _idle,
}


async def _percent(meeting: Meeting, percent: float) -> None:
    try:
        await meeting.ground.scene.middle(meeting.move, percent, MET_WITHIN)
    except (AssertionError, TimeoutError) as error:
        raise NotMet(f"{percent:.0f} % of the move was never seen: {error}") from error


async def _reported(meeting: Meeting, phase: Reported) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MET_WITHIN):
            async for progress in watch.follow(meeting.ground.nc.client, meeting.move, every=0.1):
                if progress.phase == phase:
                    return
    raise NotMet(f"the phase {phase} was never reported")


async def _pending(meeting: Meeting, activity: str) -> bool:
    described = await meeting.move.describe()
    return any(pending.activity_type.name == activity for pending in described.raw_description.pending_activities)


async def _dials(meeting: Meeting) -> bool:
    try:
        await asyncio.to_thread(meeting.ground.scene.data_path, meeting.source)
    except AssertionError:
        return False
    return True


async def _paused(meeting: Meeting) -> bool:
    state = (await asyncio.to_thread(meeting.ground.domains, meeting.source)).get(GUEST)
    return state is not None and state[0] == "paused"


async def _quiet(meeting: Meeting) -> None:
    """Nothing crosses any more: the destination has all memory, and the request to start the VM awaits its libvirtd."""
    before, same = -1, 0
    async with asyncio.timeout(MET_WITHIN):
        while same < QUIET_LOOKS:
            await asyncio.sleep(0.1)
            status = await asyncio.to_thread(meeting.ground.scene.data_path_status, meeting.source)
            before, same = status.raw_out, same + 1 if status.raw_out == before else 0


async def _until(holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + MET_WITHIN
    while not await holds():
        if loop.time() > deadline:
            raise NotMet(otherwise)
        await asyncio.sleep(0.05)
