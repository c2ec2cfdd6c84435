"""One combination from start to judgement.

The judge asks the machine, never NovaCron: one running copy, its counter and memory, and what was left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field

from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from models import failures
from tests.chaos.faults import Fault
from tests.chaos.ground import HOSTS, Ground
from tests.chaos.phases import Meeting, NotMet, met
from tests.chaos.results import Row
from tests.chaos.table import Combination
from tests.integration.scene import GUEST, Handle
from workers.lab.errors import LabError
from workers.lab.proof import WHOLE_WALK

ENDED_WITHIN = 200.0
WALKED_WITHIN = 60.0
SETTLED_WITHIN = 60.0
DOCUMENTED = frozenset(value for name, value in vars(failures).items() if name.isupper())
"""Types of failures that docs/workflows/migrate-vm.md explains."""


@dataclass
class Trial:
    combination: Combination
    seed: int
    outcome: str = ""
    told: str = ""
    """What the workflow itself said."""
    copies: int = 0
    counter_ok: bool = False
    left: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self) -> Row:
        return Row(
            what=self.combination.what,
            phase=self.combination.phase,
            seed=self.seed,
            outcome=self.outcome,
            copies=self.copies,
            counter_ok=self.counter_ok,
            orphans=len(self.left),
            seconds=round(self.seconds, 1),
        )

    def ends(self, outcome: str) -> None:
        """As it may; a failure seen before stands."""
        if not self.problems:
            self.outcome = outcome

    def fails(self, outcome: str, why: str) -> None:
        """The first failure names the outcome."""
        self.ends(outcome)
        self.problems.append(why)


async def run(ground: Ground, combination: Combination, seed: int) -> Trial:
    """Try it, judge it, and leave the ground clean. Raises nothing but a cancel and what rebuilding the lab raises."""
    trial = Trial(combination, seed)
    fault = combination.entry.make()
    begun = time.monotonic()
    try:
        await ground.ready()
        if fault.scratch:
            await ground.boot(scratch=fault.scratch)
        await ground.define(random.Random(f"{seed}/{combination.name}/defined").random() < 0.5)
        await _try(ground, trial, fault)
    except NotMet as error:
        trial.fails("not met", str(error))
    except Exception as error:  # of the lab, of Temporal, of a fault: the combination has failed, the rest go on
        trial.fails("error", f"{type(error).__name__}: {error}")
    trial.seconds = time.monotonic() - begun
    if trial.problems:
        await _clean(ground, trial)
    return trial


async def _try(ground: Ground, trial: Trial, fault: Fault) -> None:
    combination = trial.combination
    (here,) = ground.held_on()
    there = next(name for name in HOSTS if name != here)
    chance = random.Random(f"{trial.seed}/{combination.name}")
    meeting = Meeting(ground, combination.phase, chance, here, there, combination.policy, fault.begin)
    try:
        try:
            await fault.arm(meeting)
            async with met(meeting):
                await fault.strike(meeting)
            await fault.heal(meeting)
            status = await _ended(meeting.handle, trial)
        finally:
            await fault.restore(ground)
        for remark in meeting.remarks:
            trial.fails("wrong answer", remark)
        await _judge(ground, trial, fault, meeting, status)
    finally:
        await fault.clear(ground)


async def _ended(handle: Handle | None, trial: Trial) -> WorkflowExecutionStatus | None:
    """Wait for the workflow's end, through an outage of Temporal."""
    if handle is None:
        return None
    async with asyncio.timeout(ENDED_WITHIN):
        while True:
            with contextlib.suppress(RPCError):
                try:
                    outcome = await handle.result()
                    trial.told = "; ".join(outcome.notes)
                except WorkflowFailureError as error:
                    cause = error.cause
                    trial.told = str(cause) if isinstance(cause, ApplicationError) else repr(cause)
                    if isinstance(cause, ApplicationError) and cause.type not in DOCUMENTED:
                        trial.fails("unnamed error", trial.told)
                return (await handle.describe()).status
            await asyncio.sleep(0.5)


async def _judge(
    ground: Ground, trial: Trial, fault: Fault, meeting: Meeting, status: WorkflowExecutionStatus | None
) -> None:
    """How it ended; and where the move did not bring the VM across, that one command does."""
    running, held = ground.running_on(), ground.held_on()
    trial.copies = len(running)
    story = ground.scene.heard.story()
    trial.counter_ok = story.unbroken
    if len(running) > 1:
        trial.fails("doubled", f"it runs on {running}")
        return
    if not running and meeting.phase in fault.ends_the_guest:
        trial.ends("stopped")
        await ground.boot(meeting.source)
    elif not held:
        trial.fails("lost", f"no host has it; the workflow: {status}, {trial.told}")
        return
    elif status == WorkflowExecutionStatus.COMPLETED:
        trial.ends("moved")
        if running != (meeting.destination,):
            trial.fails("lied", f"the workflow completed, and it runs on {running}")
    elif status is None:
        trial.ends("untouched")
        if running != (meeting.source,):
            trial.fails("lost", f"no move ran, and it runs on {running}")
    else:
        told = status != WorkflowExecutionStatus.TERMINATED and running == (meeting.source,)
        trial.ends("stayed" if told else "recovered")
        await _recover(ground, trial, fault, meeting, told)
    await _walked(ground, trial)
    trial.left = await ground.orphans()
    if trial.left:
        trial.fails("orphans", f"left behind: {'; '.join(trial.left)}")


async def _recover(ground: Ground, trial: Trial, fault: Fault, meeting: Meeting, told: bool) -> None:
    """One command, as a user would give it; or several at once. `told`: the workflow said itself that the VM stayed."""
    command = await recovery(ground, meeting, told)
    answers = await asyncio.gather(*(ground.command(*command) for _ in range(fault.recoveries)))
    if all(code for code, _ in answers):
        trial.fails("not recovered", f"`novacron {' '.join(command)}`: {answers[0][1]}")


async def recovery(ground: Ground, meeting: Meeting, told: bool) -> list[str]:
    """A new move where the workflow said that the VM stayed; else `novacron recover`."""
    if not told and await _has(ground, "recover"):
        return ["recover", GUEST]
    if not told:
        await _without_a_job(ground)
    on = ground.running_on()
    to = meeting.source if on == (meeting.destination,) else meeting.destination
    return ["migrate", GUEST, "--to", to, "--disks", meeting.policy.disks, "--page-memory", "64", "--no-store"]


_commands: dict[str, bool] = {}


async def _has(ground: Ground, command: str) -> bool:
    if command not in _commands:
        code, _ = await ground.command(command, "--help", within=30)
        _commands[command] = code == 0
    return _commands[command]


async def _without_a_job(ground: Ground) -> None:
    """Until the move that nobody watches any more has ended in libvirt."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLED_WITHIN
    while loop.time() < deadline:
        held = ground.held_on()
        if len(held) == 1 and ground.running_on() == held:
            return
        await asyncio.sleep(0.5)


async def _walked(ground: Ground, trial: Trial) -> None:
    """The guest beats where it is, and has walked through its whole memory there since."""
    on = ground.held_on()
    if len(on) != 1:
        trial.fails("lost" if not on else "doubled", f"at the end QEMU processes hold it on {on}")
        return
    heard = ground.scene.heard
    enough = heard.story().checks_by_host.get(on[0], 0) + WHOLE_WALK
    try:
        story = await asyncio.to_thread(
            heard.wait_for,
            lambda story: bool(story.bad) or story.checks_by_host.get(on[0], 0) >= enough,
            WALKED_WITHIN,
            f"whole walk of {GUEST} through its memory on {on[0]}",
        )
    except LabError as error:
        trial.counter_ok = False
        trial.fails("silent", str(error))
        return
    trial.counter_ok = trial.counter_ok and story.unbroken
    if not trial.counter_ok:
        trial.fails("broken", f"the guest's life is broken: {story.model_dump_json()}")


async def _clean(ground: Ground, trial: Trial) -> None:
    """For the next combination; the lab is built again where sweeping does not do."""
    try:
        async with asyncio.timeout(120):
            await ground.ready()
            await ground.sweep()
            left = await ground.orphans()
        if not left:
            return
        trial.problems.append(f"the lab was rebuilt: {left}")
    except Exception as error:  # whatever it is, the lab is what must go
        trial.problems.append(f"the lab was rebuilt: {error}")
    await ground.rebuild()
