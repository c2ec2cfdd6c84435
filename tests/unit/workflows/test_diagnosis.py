"""What is wrong with a VM follows from the answers of all hosts; nothing goes unless exactly one copy runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.host import VmReport, VmSighting, VmState
from workflows.recovery.diagnosis import diagnose

UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"
Seen = tuple[VmState, int, bool] | None
"""State, libvirt's reason, job; None: not there."""

RUNNING: Seen = ("running", 1, False)
BUSY: Seen = ("running", 1, True)
INCOMING: Seen = ("paused", 2, False)
BY_HAND: Seen = ("paused", 1, False)
BEHIND, AHEAD = ("paused", 13, False), ("running", 11, False)
OFF: Seen = ("shutoff", 1, False)


def sightings(*seen: Seen) -> list[VmSighting]:
    return [_sighting(number, each) for number, each in enumerate(seen)]


def _sighting(number: int, seen: Seen) -> VmSighting:
    if seen is None:
        return VmSighting(host=f"h{number}", present=False)
    state, reason, job = seen
    vm = VmReport(name="web", uuid=UUID, state=state, reason=reason, job=job, memory_mib=1, vcpus=1)
    return VmSighting(host=f"h{number}", present=True, vm=vm)


@pytest.mark.parametrize(
    ("seen", "kind", "host", "leftovers"),
    [
        ([RUNNING, None, None], "well", "h0", ()),
        ([None, RUNNING, OFF], "well", "h1", ()),
        ([INCOMING, RUNNING, INCOMING], "well", "h1", ("h0", "h2")),
        ([BUSY, INCOMING], "unsettled", "h0", ()),
        ([BY_HAND, None], "well", "h0", ()),
        ([INCOMING, None], "stranded", "h0", ()),
        ([("paused", 1, True), None], "stranded", "h0", ()),
        ([None, OFF], "off", "h1", ()),
        ([OFF, OFF], "off", None, ()),
        ([None, None], "gone", None, ()),
        ([RUNNING, RUNNING], "two copies", None, ()),
        ([BY_HAND, BY_HAND], "handed over", "h0", ()),
        ([INCOMING, None, BY_HAND], "handed over", "h0", ()),
        ([BY_HAND, BY_HAND, INCOMING], "two copies", None, ()),
        ([INCOMING, ("paused", 1, True)], "two copies", None, ()),
        ([RUNNING, AHEAD], "two copies", None, ()),
        ([BEHIND, AHEAD, AHEAD], "two copies", None, ()),
        ([BEHIND, AHEAD], "split", "h0", ()),
        ([AHEAD, None, BEHIND], "split", "h2", ()),
        ([BEHIND, None], "torn", None, ()),
        ([BEHIND, BEHIND], "unknown", None, ()),
        ([RUNNING, ("unknown", 0, False)], "unknown", None, ()),
    ],
)
def test_each_constellation_has_its_name(
    seen: list[Seen], kind: str, host: str | None, leftovers: tuple[str, ...]
) -> None:
    found = diagnose(sightings(*seen))
    assert (found.kind, found.host, found.leftovers) == (kind, host, leftovers)
    assert "h0" in found.reason or "do not have it" in found.reason


def test_the_only_copy_may_wait_to_be_let_run_where_it_is_paused_by_order() -> None:
    assert diagnose(sightings(BY_HAND, None)).waits
    for seen in (RUNNING, INCOMING, ("paused", 1, True), ("paused", 5, False)):
        assert not diagnose(sightings(seen, None)).waits


STATES = st.tuples(
    st.sampled_from(["running", "blocked", "paused", "shutoff", "crashed", "shutdown", "suspended", "unknown"]),
    st.sampled_from([0, 1, 2, 5, 10, 11, 12, 13]),
    st.booleans(),
)


@given(st.lists(st.none() | STATES, min_size=1, max_size=5))
def test_whatever_hosts_answer_nothing_is_removed_unless_exactly_one_copy_runs(seen: list[Seen]) -> None:
    answers = sightings(*seen)
    found = diagnose(answers)
    if found.leftovers:
        assert found.kind == "well"
        running = [each for each in answers if each.vm and each.vm.state in ("running", "blocked", "shutdown")]
        assert [each.host for each in running] == [found.host]
        assert running[0].vm
        assert not running[0].vm.job
        assert found.host not in found.leftovers
    if found.kind == "split":
        assert found.host != found.other


@given(st.lists(st.none() | STATES, min_size=2, max_size=5), st.randoms())
def test_the_order_of_the_answers_changes_nothing(seen: list[Seen], random: st.DrawFn) -> None:
    answers = sightings(*seen)
    mixed = list(answers)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert diagnose(mixed).kind == diagnose(answers).kind
    assert set(diagnose(mixed).leftovers) == set(diagnose(answers).leftovers)
