"""novacron.MoveMany: VMs chosen by labels, by name or by host move, as many at once as the slots allow. It always ends.

It goes through the site's VMs in the order of their names, a page at a time. After each page it goes on as a new run
and takes along what is under way, so that ten thousand VMs need no long history and no large payload, and the window of
moves stays full across pages. One that fails is tried again, then named, and holds no other up.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from models import failures, queues
from models.fleet import (
    FailedVm,
    FleetPlan,
    MoveManyOutcome,
    MoveManyRequest,
    MoveManyState,
    PlannedMove,
    StuckVm,
    Survey,
    SurveyRequest,
)
from workflows import errors, request
from workflows.fleet import log as fleet_log
from workflows.fleet import placement
from workflows.fleet.desk import FleetDesk
from workflows.fleet.window import Task, Window
from workflows.site.survey import survey

_EXAMPLE = '{"labels": {"tier": "gold"}, "to": "host-b"}'
_MOST_NAMED = 100


@workflow.defn(name="novacron.MoveMany")
class MoveMany(FleetDesk):
    def __init__(self) -> None:
        super().__init__()
        self._plan = FleetPlan()
        self._last = False
        """The page in hand is the last one."""

    @workflow.run
    async def run(self, raw: Any = None, state: MoveManyState | None = None) -> MoveManyOutcome:
        self._request = wanted = _read(raw)
        self._site = queues.site_of(workflow.info().task_queue)
        self._state = state or MoveManyState(since=workflow.now(), slots=wanted.slots)
        self._paused, self._slots, self._since = self._state.paused, self._state.slots, self._state.since
        title = f"{'plan of moves' if wanted.dry_run else 'moves'}: {_chosen(wanted)} → {wanted.to or 'anywhere'}"
        hosts = [*wanted.hosts, *([wanted.to] if wanted.to else [])]
        self._log.begin(title, self._site, hosts, "planned" if wanted.dry_run else "moving")
        page = await self._next_page()
        if wanted.dry_run:
            self._plan = plan_page(page, wanted)
            return self._outcome(Window(wanted.slots, {}), self._plan)
        window = Window(self._slots, {each.name: each for each in page.rooms}, wanted.attempts)
        convoy = self._over(self._site, window, wanted.policy)
        convoy.adopt(window.resume(self._state.pending, wanted.to))
        window.refresh({each.name: each for each in page.rooms})
        self._take(page, window)
        self._last = not page.more
        await convoy.run(lambda: not self._last and self._ending is None and not window.waiting)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if not self._last and self._ending is None:
            after = page.vms[-1].name if page.vms else self._state.after
            workflow.continue_as_new(
                args=[wanted.model_dump(mode="json", exclude_unset=True), self._carry(window, after)]
            )
        self._log.enter("done" if self._ending is None else "cancelled")
        self._tell()
        return self._outcome(window)

    async def _next_page(self) -> Survey:
        wanted = self._request
        return await survey(
            self._site,
            SurveyRequest(
                labels=wanted.labels, vms=wanted.vms, hosts=wanted.hosts, after=self._state.after, most=wanted.page
            ),
        )

    def _take(self, page: Survey, window: Window) -> None:
        """A VM that is at its destination already is done, and no move."""
        for each in page.vms:
            if each.why_not:
                window.failed.append(FailedVm(vm=each.name, why=f"{each.why_not}, on {each.host}"))
            elif each.host != self._request.to:
                window.add([Task(each, self._request.to)])
        if (to := self._request.to) in page.unfit:
            self._log.note(f"{to} takes no VM now: {page.unfit[to]}")

    def _carry(self, window: Window, after: str) -> MoveManyState:
        """What the next run takes along."""
        so_far = self._state
        return so_far.model_copy(
            update={
                "after": after,
                "slots": window.slots,
                "paused": self._paused,
                "pending": self._convoy.pending() if self._convoy else (),
                "moved": so_far.moved + len(window.moved),
                "memory_moved_mib": so_far.memory_moved_mib + window.moved_mib,
                "failed": so_far.failed + len(window.failed),
                "failures": (*so_far.failures, *window.failed)[:_MOST_NAMED],
                "runs": so_far.runs + 1,
            }
        )

    def _outcome(self, window: Window, plan: FleetPlan | None = None) -> MoveManyOutcome:
        done = self._carry(window, "")
        return MoveManyOutcome(
            phase=self._log.progress.phase,
            seconds=self._elapsed(),
            moved=done.moved,
            failed=done.failed,
            memory_moved_mib=done.memory_moved_mib,
            failures=done.failures,
            plan=plan,
            runs=self._state.runs,
        )

    def _tell(self) -> None:
        assert self._convoy is not None
        window, before = self._convoy.window, self._state
        figures = fleet_log.figures(window, self._elapsed(), before.moved, before.memory_moved_mib, before.failed)
        note = "" if self._last else "more VMs follow after this page: the figures are of what is known so far"
        lines = fleet_log.lines(window, self._convoy.busy)
        self._log.tell(**figures, vms=lines, paused=self._paused, elapsed=self._elapsed(), note=note)

    @workflow.query(description="Of a dry run: what would move where")
    def plan(self) -> FleetPlan:
        return self._plan


def plan_page(page: Survey, wanted: MoveManyRequest) -> FleetPlan:
    """Where the VMs of one page would go. Destinations are asked when the moves start."""
    rooms = {each.name: each for each in page.rooms}
    moves: list[PlannedMove] = []
    stuck: list[StuckVm] = []
    for each in page.vms:
        if each.host == wanted.to:
            continue
        choice = placement.Choice(each.name, None, each.why_not)
        if not each.why_not and wanted.to:
            choice = placement.given(each, wanted.to, rooms, lambda _: True)
        elif not each.why_not:
            choice = placement.choose(each, rooms)
        if choice.host is None:
            stuck.append(StuckVm(vm=each.name, memory_mib=each.memory_mib, why=choice.reason, choice="skip"))
            continue
        taken = rooms[choice.host]
        rooms[choice.host] = taken.model_copy(update={"free_mib": max(0, taken.free_mib - each.memory_mib)})
        moves.append(
            PlannedMove(vm=each.name, source=each.host, to=choice.host, memory_mib=each.memory_mib, why=choice.reason)
        )
    notes = ["more VMs follow after this page"] if page.more else []
    notes += [f"{host} takes none: {why}" for host, why in sorted(page.unfit.items())]
    return FleetPlan(
        moves=tuple(moves),
        stuck=tuple(stuck),
        memory_mib=sum(move.memory_mib for move in moves),
        notes=tuple(notes[:20]),
    )


def _read(raw: object) -> MoveManyRequest:
    wanted = request.read_as(MoveManyRequest, raw, _EXAMPLE)
    if not (wanted.labels or wanted.vms or wanted.hosts):
        raise errors.final(
            failures.INVALID_INPUT, f"input: nothing chooses VMs. Give labels, vms or hosts, for example {_EXAMPLE}"
        )
    return wanted


def _chosen(wanted: MoveManyRequest) -> str:
    parts = [f"{key}={value}" for key, value in sorted(wanted.labels.items())]
    parts += [f"{len(wanted.vms)} VMs"] if wanted.vms else []
    parts += [f"on {', '.join(wanted.hosts[:3])}"] if wanted.hosts else []
    return " ".join(parts)
