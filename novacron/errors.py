"""What can go wrong, seen from outside: one small hierarchy, each with its remedy and the command line's exit code.

| class | exit code | the VM |
| --- | --- | --- |
| InvalidInput | 2 | untouched: the request is wrong |
| AlreadyMoving | 3 | is being moved by another run |
| Unreachable | 4 | unknown: Temporal or a worker does not answer |
| LeasesUnavailable | 4 | as the message says: the owner records do not answer |
| NotFound | 5 | no host has it, or no such migration |
| Refused | 6 | untouched: a check said no |
| Cancelled | 7 | on its source |
| Ambiguous | 8 | needs a human: the hosts' answers do not fit together |
| TwoCopies | 8 | needs a human at once: more than one host holds a live copy |
| MigrationFailed and all others | 1 | on its source, as the message says |
"""

from __future__ import annotations

from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError


class NovaCronError(Exception):
    """Base of all. `remedy` says what to do next; empty when the message already does."""

    exit_code = 1
    remedy = ""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        if remedy is not None:
            self.remedy = remedy

    @property
    def type(self) -> str:
        return type(self).__name__


class InvalidInput(NovaCronError):
    exit_code = 2
    remedy = "Correct the named field and start again."


class AlreadyMoving(NovaCronError):
    exit_code = 3

    def __init__(self, workflow_id: str, run_id: str | None) -> None:
        name = workflow_id.rpartition("/")[2]
        what, remedy = (
            f"{name} is already moving",
            f"Watch it with `novacron watch {name}`, or stop it with `novacron cancel {name}`.",
        )
        if workflow_id.startswith("host/"):
            what, remedy = f"{name} is in maintenance already", f"`novacron host status {name}` shows it."
        elif not workflow_id.startswith("vm/"):
            what, remedy = f"{workflow_id} runs already", "Wait for its end, or cancel it."
        super().__init__(f"{what}: workflow {workflow_id}, run {run_id or 'unknown'}", remedy)
        self.workflow_id = workflow_id
        self.run_id = run_id


class Unreachable(NovaCronError):
    exit_code = 4


class NotFound(NovaCronError):
    exit_code = 5
    remedy = "`novacron vm list` shows what runs where."


class NoSuchRun(NotFound):
    """Nothing runs under this id, or no longer."""

    def __init__(self, what: str, said: str) -> None:
        name = what.rpartition("/")[2]
        if what.startswith("host/"):
            super().__init__(
                f"{name} is not in maintenance: {what} does not run ({said})",
                f"`novacron host evacuate {name}` puts it there; `novacron hosts` shows which are.",
            )
        else:
            super().__init__(f"{what}: no such run, or it has ended: {said}")

    @property
    def type(self) -> str:
        return NotFound.__name__


class Refused(NovaCronError):
    exit_code = 6
    remedy = "Nothing was changed. Remove the reason given and start again."


class Cancelled(NovaCronError):
    exit_code = 7


class Ambiguous(NovaCronError):
    exit_code = 8
    remedy = "Nothing was destroyed. Follow the recovery drill in docs/workflows/migrate-vm.md."


class TwoCopies(Ambiguous):
    remedy = "Nothing was destroyed. Do not guess: docs/workflows/recover-vm.md says how to tell them apart."


class LeasesUnavailable(NovaCronError):
    exit_code = 4
    remedy = "Bring the store of the owner records back (docs/operations.md), and start again."


class MigrationFailed(NovaCronError):
    remedy = "The history of the run in Temporal's UI has every step. Start it again when the cause is gone."


class DataPathFailed(MigrationFailed):
    pass


class HostUnavailable(MigrationFailed):
    remedy = "`novacron hosts` shows which workers answer."


class LabFailed(NovaCronError):
    pass


_BY_TYPE: dict[str, type[NovaCronError]] = {
    kind.__name__: kind
    for kind in (
        InvalidInput,
        NotFound,
        Refused,
        Cancelled,
        Ambiguous,
        TwoCopies,
        LeasesUnavailable,
        MigrationFailed,
        DataPathFailed,
        HostUnavailable,
    )
}


def from_update(error: WorkflowUpdateFailedError) -> NovaCronError:
    """Why a running move did not do what it was asked."""
    cause = error.cause
    kind = _BY_TYPE.get(cause.type or "", Refused) if isinstance(cause, ApplicationError) else Refused
    told = cause.message if isinstance(cause, ApplicationError) else str(cause)
    return kind(told, "The move goes on: `novacron watch` shows it.")


def from_workflow(error: WorkflowFailureError) -> NovaCronError:
    """The end of a run, as one of ours."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return _BY_TYPE.get(cause.type or "", MigrationFailed)(cause.message)
    if isinstance(cause, CancelledError):
        return Cancelled("cancelled; the VM stays on its source", "`novacron vm list` shows where it runs.")
    if isinstance(cause, TerminatedError):
        return Ambiguous(f"the run was terminated from outside, so its clean-up did not happen: {cause.message}")
    return MigrationFailed(str(cause))
