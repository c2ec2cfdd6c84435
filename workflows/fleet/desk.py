"""What people may ask of any operation on many VMs while it runs: how far it is, pause, go on, other slots.

The base of those workflows; each adds its own verbs.
"""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

from models import failures
from models.fleet import FleetProgress, Slots
from models.migration import MigrationPolicy
from workflows import errors
from workflows.fleet.convoy import Convoy
from workflows.fleet.log import FleetLog
from workflows.fleet.window import Window


class FleetDesk:
    def __init__(self) -> None:
        self._log = FleetLog()
        self._convoy: Convoy | None = None
        self._paused = False
        self._slots = Slots()
        self._since: datetime = workflow.now()
        """When the operation began, also of the runs before this one."""
        self._ending: str | None = None
        """How it is to end, once people said so."""
        self._halted = False
        """No further move is started."""

    def _over(self, site: str, window: Window, policy: MigrationPolicy) -> Convoy:
        """Drive this window, as people want it driven right now."""
        self._convoy = convoy = Convoy(site, window, policy, self._tell)
        convoy.paused, convoy.stopping = self._paused, self._halted
        window.slots = self._slots
        return convoy

    def _tell(self) -> None:
        raise NotImplementedError

    def _elapsed(self) -> float:
        return max(0.0, (workflow.now() - self._since).total_seconds())

    @workflow.query(description="How far it is: phase, counts, memory, ETA, VMs; of an evacuation the proof, too")
    def progress(self) -> FleetProgress:
        return self._log.progress.model_copy(update={"elapsed": self._elapsed()})

    @workflow.update(description="Start no further move; those under way go on")
    def pause(self) -> str:
        self._paused = True
        self._changed()
        return "paused: moves under way go on, no other starts"

    @workflow.update(description="Go on after a pause")
    def go_on(self) -> str:
        self._paused = False
        self._changed()
        return "going on"

    @workflow.update(description='Change how many moves run at once. Argument: {"total": 50, "out": 2, "into": 2, ...}')
    def set_slots(self, slots: Slots) -> str:
        self._slots = slots
        self._changed()
        return f"slots from now on: {slots.total} in all, {slots.out} out of and {slots.into} into a host"

    @workflow.update(description="Start no further move, and end when those under way have ended. Argument: the reason")
    def cancel(self, reason: str = "") -> str:
        self._log.note(f"cancelled: {reason or 'no reason given'}")
        return self._stop_all("cancelled")

    @cancel.validator
    def _may_cancel(self, reason: str = "") -> None:
        if self._log.progress.phase != "resuming":  # bringing VMs back can be stopped, too
            self._refuse_if_ending()

    def _refuse_if_ending(self) -> None:
        if self._ending is not None:
            raise errors.final(failures.REFUSED, f"it is ending already ({self._ending}). Wait for its result")

    def _stop_all(self, ending: str) -> str:
        """No further move is started."""
        self._ending, self._halted = ending, True
        self._changed()
        return "no further move is started; those under way go on to their end"

    def _changed(self) -> None:
        if self._convoy is not None:
            self._convoy.paused, self._convoy.stopping = self._paused, self._halted
            self._convoy.window.slots = self._slots
            self._convoy.wake()
            self._tell()
