"""How a move that did not happen is told."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, TimeoutError, TimeoutType

from models.host import VmReport, VmSighting
from workflows import errors
from workflows.move import ending
from workflows.site import verdict

HAS = VmReport(name="counter", uuid="5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01", state="running", memory_mib=1, vcpus=1)
HERE, NOT_HERE = VmSighting(host="a", present=True, vm=HAS), VmSighting(host="a", present=False)
THERE, NOT_THERE = VmSighting(host="b", present=True, vm=HAS), VmSighting(host="b", present=False)
STAYED = verdict.judge(HERE, NOT_THERE)
DOUBLE = verdict.judge(HERE, THERE)
LOST = verdict.judge(NOT_HERE, NOT_THERE)
BROKE = ApplicationError("it broke.", type="DataPathFailed")
DOUBT = ApplicationError("libvirt would not say", type="Ambiguous")
STOPPED = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("error", "where", "stop", "kind"),
    [
        (BROKE, None, None, "DataPathFailed"),
        (BROKE, STAYED, None, "DataPathFailed"),
        (None, STAYED, None, "MigrationFailed"),
        (DOUBT, STAYED, None, "MigrationFailed"),
        (STOPPED, None, "why", "Cancelled"),
        (STOPPED, STAYED, "why", "Cancelled"),
        (BROKE, STAYED, "too late", "DataPathFailed"),
        (STOPPED, DOUBLE, "why", "Ambiguous"),
        (BROKE, DOUBLE, None, "Ambiguous"),
        (STOPPED, LOST, "why", "MigrationFailed"),
    ],
)
def test_the_type_follows_from_the_vm_first_and_the_cause_second(
    error: BaseException | None, where: verdict.Verdict | None, stop: str | None, kind: str
) -> None:
    told = ending.failure("counter", error, where, stop, ["something is left"])
    assert told.type == kind
    assert told.non_retryable
    assert (where.reason if where else "counter was not touched") in told.message
    assert "Note: something is left." in told.message
    assert (told.category == ApplicationErrorCategory.BENIGN) == (kind == "Cancelled")


def test_the_cause_is_in_the_message() -> None:
    assert "it broke. " in ending.failure("counter", BROKE, STAYED, None, []).message
    assert "Cancelled: why." in ending.failure("counter", STOPPED, STAYED, "why", []).message
    assert "Cancelled: no reason given." in ending.failure("counter", STOPPED, STAYED, "", []).message


def test_a_silent_host_is_told_as_unavailable() -> None:
    silence = TimeoutError("x", type=TimeoutType.SCHEDULE_TO_START, last_heartbeat_details=[])
    kind, message = errors.explain(silence)
    assert kind == "HostUnavailable"
    assert "did not answer within the deadline" in message


@pytest.mark.parametrize("bug", [KeyError("x"), RuntimeError("x"), GeneratorExit()])
def test_a_bug_of_ours_or_an_eviction_undoes_nothing(bug: BaseException) -> None:
    """The run is parked as it is until a worker that fits comes back."""
    assert not errors.handled(bug)


@pytest.mark.parametrize("failure", [BROKE, STOPPED])
def test_failures_and_cancels_are_handled(failure: BaseException) -> None:
    assert errors.handled(failure)
