"""The updates and queries of a move to a cloud, from one, or between two. Each update is answered, or refused with what
holds instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures
from models.cloud_move import CloudStanding, CutOverRequest, DiskSent, RoundReport, Stage
from models.migration import Phase, Progress
from workflows import errors
from workflows.cloud.rounds import Round
from workflows.move.chronicle import Chronicle

_OPEN: tuple[Stage, ...] = ("planning", "copying", "waiting", "testing", "cutting over")
_PHASES: dict[Stage, Phase] = {
    "planning": "checking",
    "copying": "moving",
    "waiting": "waiting",
    "testing": "waiting",
    "cutting over": "confirming",
    "kept": "cleaning",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""How each stage shows in the search attribute that all operations share."""


class Copy(Protocol):
    """The disks on their way, in any direction."""

    rounds: list[Round]
    reports: list[RoundReport]
    made: list[str]

    @property
    def disks(self) -> tuple[DiskSent, ...]: ...
    @property
    def held(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def saved_bytes(self) -> int: ...
    async def round(self, obey: Callable[[], None]) -> None: ...
    def decided(self, reason: str) -> None: ...


class Steered:
    """Base of all moves to, from and between clouds, which set these."""

    _wanted: CutOverRequest
    _moved = "the VM runs in the cloud already: roll_back takes it home"
    _gives_up = "the instance is stopped"

    def __init__(self) -> None:
        self._chronicle = Chronicle()
        self._task: asyncio.Task[Any] | None = None
        self._stage: Stage = "planning"
        self._stop: str | None = None
        self._cut_now = False
        self._give_back: str | None = None
        self._let = False
        self._why = ""
        """What stopped the last cut-over."""
        self._runs_on = ""
        self._kept_until: datetime | None = None

    def _enter(self, stage: Stage, note: str = "") -> None:
        self._stage = stage
        self._chronicle.enter(_PHASES[stage])
        if note:
            self._chronicle.remark(note)

    async def _try(self, what: str, work: Callable[..., Any], *args: Any, **named: Any) -> bool:
        """Clean-up: what cannot be done becomes a note."""
        try:
            await work(*args, **named)
        except ActivityError as error:
            self._chronicle.note(f"{what} ({errors.explain(error)[1]})")
            return False
        return True

    def _obey(self) -> None:
        """A cancel may come while a step that cannot be interrupted completes: look before the next one starts."""
        if self._stop is not None or workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError

    def _goes_to(self) -> str:
        """Where the VM runs after the move: a place, or a host."""
        raise NotImplementedError

    def _copied(self) -> Copy | None:
        """None before the VM's disks are known."""
        raise NotImplementedError

    def _instance_id(self) -> str:
        """In the cloud; empty: none is known."""
        raise NotImplementedError

    @workflow.query(description="How far it is: phase, and what goes on right now")
    def progress(self) -> Progress:
        return self._chronicle.progress

    @workflow.query(description="Rounds, disks in the cloud, instance, where the VM runs, how long the source is kept")
    def standing(self) -> CloudStanding:
        copy = self._copied()
        return CloudStanding(
            stage=self._stage,
            runs_on=self._runs_on,
            rounds=tuple(copy.reports) if copy else (),
            sent_bytes=copy.sent_bytes if copy else 0,
            saved_bytes=copy.saved_bytes if copy else 0,
            disks=copy.disks if copy else (),
            instance=self._instance_id(),
            why=self._why[:4000],
            source_kept_until=self._kept_until,
            notes=tuple(self._chronicle.notes),
        )

    @workflow.update(description="Give the move up; the VM runs on at its source. Argument: the reason, as text")
    def cancel(self, reason: str = "") -> str:
        stage, self._stop = self._stage, reason or "no reason given"
        if self._task is not None:
            self._task.cancel()
        return f"cancelled while {stage}; the VM runs at its source when the workflow has ended, and nothing is left"

    @cancel.validator
    def _still_open(self, reason: str = "") -> None:
        if self._stage not in _OPEN or self._runs_on == self._goes_to():
            raise self._refused("cancel", self._moved)

    @workflow.update(description="Cut over as soon as one more round is across, whatever was waited for")
    def cut_over_now(self) -> str:
        self._cut_now = True
        return f"{self._wanted.vm} is cut over to {self._goes_to()} after one more round"

    @cut_over_now.validator
    def _can_cut(self) -> None:
        if self._stage not in ("planning", "copying", "waiting", "testing"):
            raise self._refused("cut_over_now", f"the move is {self._stage}")

    @workflow.update(
        description="Stop the VM where it runs and let it run at its source again, as it was at the cut-over: what was "
        "written since stays on the disks that are stopped. Argument: the reason, as text"
    )
    def roll_back(self, reason: str = "") -> str:
        self._give_back = reason or "no reason given"
        return f"rolling back: {self._gives_up}, then {self._wanted.vm} runs at its source again"

    @roll_back.validator
    def _is_kept(self, reason: str = "") -> None:
        if self._stage != "kept" or self._let or self._give_back is not None:
            raise self._refused("roll_back", f"the move is {self._stage}: only a kept source can be rolled back to")

    @workflow.update(description="Do not keep the source any longer; what becomes of it, the request says (then)")
    def let_go(self) -> str:
        self._let = True
        return f"the source of {self._wanted.vm} is let go: {self._wanted.then}"

    @let_go.validator
    def _can_let_go(self) -> None:
        if self._stage != "kept" or self._give_back is not None:
            raise self._refused("let_go", f"the move is {self._stage}")

    def _refused(self, update: str, why: str) -> Exception:
        return errors.final(failures.REFUSED, f"{update}: {why}")
