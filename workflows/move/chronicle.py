"""What the outside sees of a move: the progress query, current details, search attributes, events, figures, the log.

Percent never runs back, and reports that arrive after their phase has passed are dropped. Details cost no event; search
attributes do, so they change with the phase and at most every tenth percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ApplicationError

from models import events, failures
from models.decisions import MOST_DECISIONS, Decision, GoalReport, Mark, Story
from models.migration import MigrationOutcome, Phase, Progress
from workflows import details
from workflows import search_attributes as sa
from workflows.events.telling import Telling
from workflows.move import figures
from workflows.site.verdict import Verdict

_STEP = 10.0
_MAX_NOTES = 20
_MAX_MARKS = 64
_CROSSING = ("moving", "post-copy")
"""Phases in which the move step reports."""
_ENDS = ("done", "failed", "cancelled")
"""Told with all there is to say, by events of their own."""


class Chronicle:
    def __init__(self) -> None:
        self.progress = Progress()
        self.notes: list[str] = []
        self._title = ""
        self._vm = ""
        self._hosts: tuple[str, ...] = ()
        self.marks: list[Mark] = [Mark(phase="checking", at=0)]
        self.decisions: list[Decision] = []
        self.moving_since = 0.0
        """Seconds from the start of the workflow to that of the move step; 0: not begun."""
        self._published = 0.0
        self._moves = False
        """The run is a move; a recovery tells no phases of one."""
        self._telling = Telling()

    def begin(self, title: str, vm: str, site: str, hosts: Sequence[str]) -> None:
        """Set everything a search needs, so that a start by Temporal's own CLI or UI has it too."""
        self._title, self._vm = title, vm
        updates: list[SearchAttributeUpdate[Any]] = [
            sa.VM_ID.value_set(vm),
            sa.SITE.value_set(site),
            sa.HOST_IDS.value_set(list(hosts)),
            sa.PHASE.value_set(self.progress.phase),
            sa.PROGRESS.value_set(0.0),
        ]
        initiator = workflow.info().typed_search_attributes.get(sa.INITIATOR)
        if initiator is None:
            updates.append(sa.INITIATOR.value_set("temporal"))
        workflow.upsert_search_attributes(updates)
        self._telling.about(site, vm)
        self._moves = bool(hosts)
        if self._moves:
            self.tell(events.MoveStarted(vm=vm, to=hosts[-1], initiator=(initiator or "temporal")[:256]))
        self._show()

    def between(self, title: str, hosts: Sequence[str]) -> None:
        """Source and destination are known."""
        self._title, self._hosts = title, tuple(hosts)
        workflow.upsert_search_attributes([sa.HOST_IDS.value_set(list(hosts))])
        self._show()

    def enter(self, phase: Phase) -> None:
        percent = 100.0 if phase == "done" else float(self.progress.percent)
        changes: dict[str, object] = {"phase": phase, "percent": percent, "elapsed": elapsed()}
        if phase != self.progress.phase and len(self.marks) < _MAX_MARKS:
            self.marks.append(Mark(phase=phase, at=elapsed()))
        if phase == "moving" and not self.moving_since:
            self.moving_since = elapsed()
        if phase not in _CROSSING:
            changes |= {"eta": None, "eta_low": None, "eta_high": None, "raw_rate": 0.0, "wire_rate": 0.0}
        if phase == "done":
            changes |= {"memory_remaining": 0, "disk_remaining": 0}
        self.progress = self.progress.model_copy(update=changes)
        workflow.upsert_search_attributes([sa.PHASE.value_set(phase), sa.PROGRESS.value_set(percent)])
        self._published = percent
        workflow.logger.info("%s: %s", self._title, phase)
        if self._moves and phase not in _ENDS:
            self.tell(events.MovePhase(vm=self._vm, phase=phase, percent=percent, hosts=self._hosts))
        self._show()

    def take(self, report: Progress) -> None:
        """A report of the move step."""
        if self.progress.phase not in _CROSSING:
            return
        if report.phase == "post-copy" and self.progress.phase == "moving":
            self.enter("post-copy")
        percent, phase = float(max(report.percent, self.progress.percent)), self.progress.phase
        self.progress = report.model_copy(update={"phase": phase, "percent": percent, "elapsed": elapsed()})
        if percent - self._published >= _STEP:
            self._published = percent
            workflow.upsert_search_attributes([sa.PROGRESS.value_set(percent)])
        self._show()

    def tell(self, event: events.EventData) -> None:
        """An event for whoever listens; nothing waits for it."""
        self._telling.tell(event)

    def done(self, outcome: MigrationOutcome) -> MigrationOutcome:
        self.enter("done")
        outcome = outcome.model_copy(update={"marks": tuple(self.marks), "decisions": tuple(self.decisions)})
        kept = outcome.model_dump(include=set(events.MoveFinished.model_fields))
        self._telling.tell(events.MoveFinished(**kept), final=True)
        figures.moved(outcome, elapsed())
        return outcome

    def failed(self, failure: ApplicationError, where: Verdict | None) -> None:
        """`where` is None while nothing had touched the VM."""
        kind, message = failure.type or failures.MIGRATION_FAILED, failure.message[:4000]
        cancelled = kind == failures.CANCELLED
        self.enter("cancelled" if cancelled else "failed")
        self.note(message)
        if (where.kind == "two copies") if where else kind in (failures.AMBIGUOUS, failures.TWO_COPIES):
            self.alarm(message)
        end = events.MoveFailed(vm=self._vm, error=kind, message=message)
        stopped = events.MoveCancelled(vm=self._vm, message=message)
        self._telling.tell(stopped if cancelled else end, final=True)
        figures.failed(kind, elapsed())

    def alarm(self, message: str) -> None:
        """Two live copies were seen: an event and a figure that ring."""
        self._telling.tell(events.TwoCopies(vm=self._vm, message=message[:4000]), final=True)
        figures.two_copies()

    async def close(self) -> None:
        """The run may end after this: every event is handed over, every update has its answer."""
        await self._telling.end()
        await workflow.wait_condition(workflow.all_handlers_finished)

    def decide(self, decision: Decision) -> None:
        """A decision of the move step; told twice, it is one."""
        if any(known.number == decision.number for known in self.decisions):
            return
        self.decisions = sorted([*self.decisions, decision], key=lambda each: each.number)[-MOST_DECISIONS:]
        told = {name: getattr(decision, name) for name in ("number", "action", "value", "reason")}
        self.tell(events.MoveDecision(vm=self._vm, **told))
        figures.decided(decision.action)
        self._show()

    def story(self, goals: Sequence[GoalReport] = ()) -> Story:
        source, destination = self._hosts if len(self._hosts) == 2 else ("", "")
        return Story(
            vm=self._vm or "unknown",
            source=source,
            destination=destination,
            phase=self.progress.phase,
            elapsed=elapsed(),
            moving_since=self.moving_since,
            marks=tuple(self.marks),
            decisions=tuple(self.decisions),
            goals=tuple(goals),
            notes=tuple(self.notes),
        )

    def note(self, text: str) -> None:
        """Something the reader of the outcome should know."""
        if len(self.notes) < _MAX_NOTES and text not in self.notes:
            self.notes.append(text[:4000])
            self._show()

    def remark(self, text: str) -> None:
        """What is going on right now."""
        self.progress = self.progress.model_copy(update={"note": text[:4000]})
        self._show()

    def _show(self) -> None:
        workflow.set_current_details(details.markdown(self._title, self.progress, self.notes, self.decisions))


def elapsed() -> float:
    """Seconds since the workflow started, by the workflow's clock."""
    return max(0.0, (workflow.now() - workflow.info().start_time).total_seconds())
