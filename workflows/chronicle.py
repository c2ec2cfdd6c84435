"""What the outside sees of a running move: the progress query, current details, and search attributes.

Percent never runs back, and reports that arrive after their phase has passed are dropped. Details cost no event; search
attributes do, so they change with the phase and at most every tenth percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

from models.migration import Phase, Progress
from workflows import details
from workflows import search_attributes as sa

_STEP = 10.0
_MAX_NOTES = 20
_CROSSING = ("moving", "post-copy")
"""Phases in which the move step reports."""


class Chronicle:
    def __init__(self) -> None:
        self.progress = Progress()
        self.notes: list[str] = []
        self._title = ""
        self._published = 0.0

    def begin(self, title: str, vm: str, site: str, hosts: Sequence[str]) -> None:
        """Set everything a search needs, so that a start by Temporal's own CLI or UI has it too."""
        self._title = title
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
        """Both hosts are known."""
        self._title = title
        workflow.upsert_search_attributes([sa.HOST_IDS.value_set(list(hosts))])
        self._show()

    def enter(self, phase: Phase) -> None:
        percent = 100.0 if phase == "done" else float(self.progress.percent)
        changes: dict[str, object] = {"phase": phase, "percent": percent, "elapsed": elapsed()}
        if phase not in _CROSSING:
            changes |= {"eta": None, "raw_rate": 0.0, "wire_rate": 0.0}
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
        workflow.set_current_details(details.markdown(self._title, self.progress, self.notes))


def elapsed() -> float:
    """Seconds since the workflow started, by the workflow's clock."""
    return max(0.0, (workflow.now() - workflow.info().start_time).total_seconds())
