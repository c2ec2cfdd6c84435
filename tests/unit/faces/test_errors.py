"""Every end of a run is one of our errors, with its own exit code."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError

from novacron import errors


def told(cause: BaseException) -> errors.NovaCronError:
    return errors.from_workflow(WorkflowFailureError(cause=cause))


@pytest.mark.parametrize(
    ("kind", "expected", "code"),
    [
        ("InvalidInput", errors.InvalidInput, 2),
        ("NotFound", errors.NotFound, 5),
        ("Refused", errors.Refused, 6),
        ("Cancelled", errors.Cancelled, 7),
        ("Ambiguous", errors.Ambiguous, 8),
        ("MigrationFailed", errors.MigrationFailed, 1),
        ("DataPathFailed", errors.DataPathFailed, 1),
        ("HostUnavailable", errors.HostUnavailable, 1),
        ("Something", errors.MigrationFailed, 1),
    ],
)
def test_a_type_becomes_a_class_and_keeps_its_words(kind: str, expected: type, code: int) -> None:
    error = told(ApplicationError("the words", type=kind))
    assert type(error) is expected
    assert (str(error), error.exit_code) == ("the words", code)


def test_a_cancel_and_a_termination_are_told_apart() -> None:
    assert type(told(CancelledError("x"))) is errors.Cancelled
    assert type(told(TerminatedError("x"))) is errors.Ambiguous


def test_already_moving_names_the_run_and_how_to_watch_it() -> None:
    error = errors.AlreadyMoving("vm/lab/counter", "run-1")
    assert "run-1" in str(error)
    assert "novacron watch counter" in error.remedy
