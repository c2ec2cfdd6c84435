"""novacron.Slots: lets moves begin so that no limit of the site is exceeded, whoever started them.

One runs per site that has limits, while moves run or wait. A move asks before it opens anything, and begins when it is
told so; who is next is decided in sharing/slots.py. The signal to a move only wakes it: what counts is this run's
answer to its question, so a word of a run that was terminated meanwhile lets nobody begin.

Why many operations at once cannot lock each other out: what waits here are moves. A move takes all of its slots at once
or none, and needs nothing of any operation while it holds them, so it ends, and its slots are free again. An operation
(an evacuation, say) holds no slot. Its own window only bounds how many of its moves stand in this line.

Should this workflow be lost, the limits hold all the same: nobody can begin without an answer. Whoever asks, or gives
back, next starts it again, and it first asks every move of the site what it holds (`counted`). Moves that ended without
a word are found out by the look that it takes every minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from models import queues
from models.slots import MOST_LINES, WAKE, GiveBack, SlotAnswer, SlotLimits, SlotLine, SlotsState, SlotWish
from workflows import details, errors
from workflows.calls.fleet import FleetControl
from workflows.calls.site import Control
from workflows.calls.slots import SlotKeeper
from workflows.sharing import slots

_LOOK_EVERY = 60.0
"""Seconds between looks for moves that ended without a word, and for other settings."""
_COUNT_AGAIN = 5.0
_IDLE = 300.0
_LOOKED_AT = 400
_COUNTING = "the moves of the site are being counted"
_NO_PLACE = f"{MOST_LINES} moves stand in the line already"


@workflow.defn(name="novacron.Slots")
class SiteSlots:
    @workflow.init
    def __init__(self, state: SlotsState | None = None) -> None:
        known = state or SlotsState()
        self._lines: dict[str, SlotLine] = {each.wish.workflow_id: each for each in known.lines}
        self._turns = dict(known.turns)
        self._limits = known.limits
        self._counted = known.counted
        self._changed = True
        self._waking: set[asyncio.Task[None]] = set()
        self._site = queues.site_of(workflow.info().task_queue)
        self._looked_at = ""

    @workflow.run
    async def run(self, state: SlotsState | None = None) -> None:
        serving = asyncio.create_task(self._serve())
        while not self._counted:
            if not await self._count():
                await workflow.sleep(_COUNT_AGAIN, summary="before the moves of the site are counted again")
        while await self._rest():
            await self._look()
        serving.cancel()

    async def _rest(self) -> bool:
        """Until the next look; False once nobody has moved or waited for a while."""
        if not self._lines:
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(lambda: bool(self._lines), timeout=_IDLE)
        if not self._lines:
            return False
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(self._is_long, timeout=_LOOK_EVERY, timeout_summary="look who has ended")
        if self._is_long():
            await workflow.wait_condition(lambda: not self._waking)
            workflow.continue_as_new(self.slots())
        return True

    async def _serve(self) -> None:
        """Decide once for all that came in together."""
        while True:
            await workflow.wait_condition(lambda: self._changed)
            self._changed = False
            self._admit()
            self._show()

    def _admit(self) -> None:
        if not self._counted:
            return
        for key, turn in slots.admit(list(self._lines.values()), self._limits, workflow.now(), self._turns).items():
            line = self._lines[key]
            self._lines[key] = line.model_copy(
                update={"held": turn.begins, "found": False, "why": turn.why[:500], "before": turn.before}
            )
            if turn.begins:
                self._turns[line.wish.tenant] = workflow.now()
                self._wake(line.wish)
        tenants = {line.wish.tenant for line in self._lines.values()}
        self._turns = {tenant: at for tenant, at in self._turns.items() if tenant in tenants}

    def _wake(self, wish: SlotWish) -> None:
        task = asyncio.create_task(self._call(wish))
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _call(self, wish: SlotWish) -> None:
        try:
            await workflow.get_external_workflow_handle(wish.workflow_id, run_id=wish.run_id).signal(WAKE)
        except FailureError as error:
            if errors.cancelled(error):
                raise
            self._drop(wish)  # it has ended

    async def _count(self) -> bool:
        """Ask all moves of the site what they hold. What they said to this run themselves is newer."""
        try:
            self._limits = (await Control(self._site).hosts()).slots or SlotLimits()
            found = (await SlotKeeper(self._site).count()).wishes
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            workflow.logger.warning("%s: %s", self._site, errors.explain(error)[1])
            return False
        for wish in found:
            if wish.workflow_id not in self._lines and len(self._lines) < MOST_LINES:
                self._lines[wish.workflow_id] = SlotLine(wish=wish, held=wish.held, found=True)
                if wish.asking:  # the answer on its way may be no: it is to ask again
                    self._wake(wish)
        self._counted = self._changed = True
        return True

    async def _look(self) -> None:
        """Drop moves that have ended without a word, some at a time, and read the settings again."""
        before = dict(self._lines)
        watched = self._next_few(sorted(before))
        try:
            self._limits = (await Control(self._site).hosts()).slots or SlotLimits()
            states = (await FleetControl(self._site).await_moves(watched, within=0)).states if watched else {}
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            return
        for key in watched:
            if states.get(key) != "running":
                self._drop(before[key].wish)
        self._changed = True

    def _next_few(self, keys: Sequence[str]) -> list[str]:
        """Around and around."""
        rest = [key for key in keys if key > self._looked_at] or list(keys)
        self._looked_at = rest[:_LOOKED_AT][-1] if rest else ""
        return rest[:_LOOKED_AT]

    def _drop(self, wish: SlotWish) -> None:
        """Unless another run of the same VM has asked meanwhile."""
        line = self._lines.get(wish.workflow_id)
        if line is not None and line.wish.run_id == wish.run_id:
            del self._lines[wish.workflow_id]
            self._changed = True

    def _is_long(self) -> bool:
        return workflow.info().is_continue_as_new_suggested()

    def _show(self) -> None:
        lines = sorted(self._lines.values(), key=lambda line: (not line.held, line.before))
        rows = [
            f"| {line.wish.workflow_id} | {line.wish.source} → {line.wish.to} | {'moves' if line.held else 'waits'} | "
            f"{details.cell(line.why)} |"
            for line in lines[:50]
        ]
        moving = sum(line.held for line in lines)
        title = details.cell(f"slots of {self._site}: {moving} moves, {len(lines) - moving} wait")
        workflow.set_current_details("\n".join([f"### {title}", "", "| move | | | |", "|---|---|---|---|", *rows]))

    @workflow.signal(description="A move asks to begin; not for people")
    def ask(self, wish: SlotWish) -> None:
        known = self._lines.get(wish.workflow_id)
        if known is not None and known.wish == wish and not known.found:
            return
        if known is None and len(self._lines) >= MOST_LINES and not wish.held:
            return  # it asks again
        self._lines[wish.workflow_id] = SlotLine(wish=wish, held=wish.held)
        self._changed = True

    @workflow.signal(description="A move has ended, or waits no longer; not for people")
    def give_back(self, order: GiveBack) -> None:
        line = self._lines.get(order.workflow_id)
        if line is not None and line.wish.run_id == order.run_id:
            self._drop(line.wish)

    @workflow.query(description="May this move (workflow id) begin, and if not, why not?")
    def may_begin(self, workflow_id: str) -> SlotAnswer:
        if not self._counted:
            return SlotAnswer(granted=False, why=_COUNTING, counting=True)
        line = self._lines.get(workflow_id)
        if line is None:
            return SlotAnswer(granted=False, why=_NO_PLACE)
        return SlotAnswer(granted=line.held and not line.found, why=line.why)

    @workflow.query(description="Who moves, who waits for what and behind whom, and the limits")
    def slots(self) -> SlotsState:
        return SlotsState(
            lines=tuple(self._lines.values()), turns=self._turns, limits=self._limits, counted=self._counted
        )
