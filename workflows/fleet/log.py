"""What the outside sees of an operation on many VMs: progress, a table of VMs as current details, search attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

from models.fleet import FleetPhase, FleetProgress, StuckVm, VmLine
from workflows import details
from workflows import search_attributes as sa
from workflows.fleet.window import Window

_MOST_LINES, _MOST_ROWS, _MOST_NOTES = 200, 50, 20


class FleetLog:
    def __init__(self) -> None:
        self.progress = FleetProgress()
        self.notes: list[str] = []
        self._title = ""

    def begin(self, title: str, site: str, hosts: Sequence[str], phase: FleetPhase) -> None:
        self._title = title
        updates: list[SearchAttributeUpdate[Any]] = [
            sa.SITE.value_set(site),
            sa.HOST_IDS.value_set(list(hosts)[:_MOST_LINES]),
        ]
        if workflow.info().typed_search_attributes.get(sa.INITIATOR) is None:
            updates.append(sa.INITIATOR.value_set("temporal"))
        workflow.upsert_search_attributes(updates)
        self.enter(phase)

    def enter(self, phase: FleetPhase) -> None:
        if phase != self.progress.phase or workflow.info().typed_search_attributes.get(sa.PHASE) is None:
            workflow.upsert_search_attributes([sa.PHASE.value_set(phase)])
        self.progress = self.progress.model_copy(update={"phase": phase})
        self._show()

    def tell(self, **figures: object) -> None:
        """Newer figures of FleetProgress."""
        self.progress = self.progress.model_copy(update=figures)
        self._show()

    def note(self, text: str) -> None:
        if len(self.notes) < _MOST_NOTES and text not in self.notes:
            self.notes.append(text[:4000])
            self._show()

    def _show(self) -> None:
        workflow.set_current_details(markdown(self._title, self.progress, self.notes))


def figures(
    window: Window, moving_for: float, moved: int = 0, moved_mib: int = 0, failed: int = 0
) -> dict[str, object]:
    """A window as figures of FleetProgress, on top of what windows before it did. `moving_for`: seconds since the first
    move of all began."""
    done, done_mib = moved + len(window.moved), moved_mib + window.moved_mib
    tasks = [*window.waiting.values(), *(start.task for start in window.running.values())]
    left_mib = sum(task.load.memory_mib for task in tasks)
    rate = done_mib / moving_for if moving_for > 0 else 0
    return {
        "total": done + len(tasks) + failed + len(window.failed),
        "waiting": len(window.waiting),
        "running": len(window.running),
        "moved": done,
        "failed": failed + len(window.failed),
        "memory_mib": done_mib + left_mib,
        "memory_moved_mib": done_mib,
        "eta": left_mib / rate if rate > 0 else None,
    }


def lines(
    window: Window,
    busy: Iterable[str] = (),
    stuck: Iterable[StuckVm] = (),
    before: Mapping[str, str] = MappingProxyType({}),
) -> tuple[VmLine, ...]:
    """What people want to see first: what moves, what went wrong, then the rest. `before`: VMs that windows before this
    one moved, with where to."""
    held = set(busy)
    found = [
        VmLine(vm=vm, fate="busy", note="another operation holds it; its end is waited for")
        if vm in held
        else VmLine(vm=vm, fate="moving", to=start.to, note=start.why[:300])
        for vm, start in window.running.items()
    ]
    found += [VmLine(vm=each.vm, fate="failed", note=each.why[:300]) for each in window.failed]
    found += [VmLine(vm=each.vm, fate="stuck", note=f"{each.choice}: {each.why}"[:300]) for each in stuck]
    found += [VmLine(vm=vm, fate="waiting", note=task.why[:300]) for vm, task in window.waiting.items()]
    found += [VmLine(vm=each.vm, fate="moved", to=each.to) for each in reversed(window.moved)]
    found += [VmLine(vm=vm, fate="moved", to=to) for vm, to in sorted(before.items())]
    return tuple(found[:_MOST_LINES])


def markdown(title: str, progress: FleetProgress, notes: Sequence[str] = ()) -> str:
    """The progress page."""
    percent = 100 * progress.memory_moved_mib / progress.memory_mib if progress.memory_mib else 0
    rows = [
        ("phase", progress.phase + (", paused" if progress.paused else "")),
        (
            "VMs",
            f"{progress.moved} moved, {progress.running} moving, {progress.waiting} waiting, {progress.failed} failed",
        ),
        ("memory", f"{details.size(progress.memory_moved_mib << 20)} of {details.size(progress.memory_mib << 20)}"),
    ]
    if progress.eta is not None and progress.running:
        rows.append(("all moved in", details.duration(progress.eta)))
    if progress.drained is not None:
        drained = progress.drained
        rows.append(("drained", f"{drained.host} said so at {drained.asked_at:%Y-%m-%d %H:%M:%S %Z}: no running VM"))
    if progress.note:
        rows.append(("note", progress.note))
    page = [f"### {details.cell(title)}", "", f"`{details.bar(percent)}` {percent:.1f} %", "", "| | |", "|---|---|"]
    page += [f"| {name} | {details.cell(value)} |" for name, value in rows]
    if progress.vms:
        page += ["", "| VM | | to | |", "|---|---|---|---|"]
        page += [f"| {vm.vm} | {vm.fate} | {vm.to} | {details.cell(vm.note)} |" for vm in progress.vms[:_MOST_ROWS]]
    if notes:
        page += ["", *(f"- {details.cell(note)}" for note in notes)]
    return "\n".join(page) + "\n"
