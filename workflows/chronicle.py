"""What the outside sees of a running move: the progress query, current details, and search attributes.

Percent never runs back, and reports that arrive after their phase has passed are dropped. Details cost no event; search
attributes do, so they change with the phase and at most every tenth percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

from models.decisions import MOST_DECISIONS, Decision, GoalReport, Mark, Story
from models.migration import Phase, Progress
from workflows import details
from workflows import search_attributes as sa

_STEP = 10.0
_MAX_NOTES = 20
_MAX_MARKS = 64
_CROSSING = ("moving", "post-copy")
"""Phases in which the move step reports."""


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
        if workflow.info().typed_search_attributes.get(sa.INITIATOR) is None:
            updates.append(sa.INITIATOR.value_set("temporal"))
        workflow.upsert_search_attributes(updates)
        self._show()

    def between(self, title: str, hosts: Sequence[str]) -> None:
        """Both hosts are known: source, destination."""
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

    def decide(self, decision: Decision) -> None:
        """A decision of the move step; told twice, it is one."""
        if any(known.number == decision.number for known in self.decisions):
            return
        self.decisions = sorted([*self.decisions, decision], key=lambda each: each.number)[-MOST_DECISIONS:]
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
