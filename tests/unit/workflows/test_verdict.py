"""Where is the VM? The whole table, and what may follow from each answer."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.host import VmReport, VmSighting, VmState
from workflows.site.verdict import Answer, Silence, judge

UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"
STATES: tuple[VmState, ...] = (
    "running",
    "paused",
    "shutdown",
    "shutoff",
    "crashed",
    "blocked",
    "suspended",
    "unknown",
)


def answer(host: str, state: VmState | None, job: bool = False, reason: int = 0) -> VmSighting:
    if state is None:
        return VmSighting(host=host, present=False)
    report = VmReport(name="counter", uuid=UUID, state=state, reason=reason, memory_mib=1, vcpus=1, job=job)
    return VmSighting(host=host, present=True, vm=report)


@pytest.mark.parametrize(
    ("source", "destination", "kind"),
    [
        (None, "running", "moved"),
        ("shutoff", "running", "moved"),
        ("crashed", "blocked", "moved"),
        ("running", None, "stayed"),
        ("running", "shutoff", "stayed"),
        ("paused", None, "stayed"),
        ("running", "paused", "leftover"),
        ("blocked", "paused", "leftover"),
        ("running", "running", "two copies"),
        ("paused", "running", "handed over"),
        ("paused", "paused", "two copies"),
        ("shutdown", "running", "two copies"),
        (None, None, "lost"),
        ("shutoff", None, "lost"),
        (None, "paused", "stranded"),
        ("unknown", "running", "unknown"),
        (None, "unknown", "unknown"),
        ("running", "unknown", "unknown"),
    ],
)
def test_two_answers_give_one_verdict(source: VmState | None, destination: VmState | None, kind: str) -> None:
    verdict = judge(answer("a", source), answer("b", destination))
    assert verdict.kind == kind
    assert "a " in verdict.reason
    assert "b " in verdict.reason


@pytest.mark.parametrize(
    ("source", "kind"),
    [("running", "leftover"), ("paused", "handed over"), (None, "arrived"), ("shutoff", "arrived")],
)
def test_a_vm_that_stands_whole_at_its_destination(source: VmState | None, kind: str) -> None:
    whole = answer("b", "paused", reason=1)
    verdict = judge(answer("a", source), whole)
    assert (verdict.kind, verdict.arrived) == (kind, True)
    assert not verdict.worth_another_look, "nobody runs it meanwhile"
    for other in (answer("b", "paused", job=True, reason=1), answer("b", "paused", reason=2)):
        assert not judge(answer("a", source), other).arrived


def test_a_vm_that_stands_still_at_its_source_alone_is_told_from_one_that_runs() -> None:
    assert judge(answer("a", "paused"), answer("b", None)).stands
    for source in (answer("a", "running"), answer("a", "paused", job=True), answer("a", None)):
        assert not judge(source, answer("b", None)).stands
    assert not judge(answer("a", "paused"), answer("b", "paused")).stands


@pytest.mark.parametrize("destination", [None, "paused", "running"])
@pytest.mark.parametrize("source", ["running", "paused"])
def test_a_job_on_the_source_settles_nothing(source: VmState, destination: VmState | None) -> None:
    assert judge(answer("a", source, job=True), answer("b", destination)).kind == "unsettled"


@pytest.mark.parametrize("job", [False, True])
@pytest.mark.parametrize(
    ("source", "destination", "kind"),
    [
        (12, ("running", 10), "split"),
        (13, ("running", 11), "split"),
        (12, ("running", 11), "split"),
        (13, ("running", 10), "split"),
        (13, ("blocked", 11), "split"),
        (12, ("paused", 12), "split"),
        (13, ("paused", 13), "split"),
        (12, ("paused", 2), "unsettled"),
        (12, ("running", 2), "unsettled"),
        (12, (None, 0), "torn"),
        (13, ("shutoff", 0), "torn"),
        (None, ("running", 11), "torn"),
        (None, ("running", 10), "torn"),
    ],
)
def test_a_vm_in_post_copy_has_two_halves(
    source: int | None, destination: tuple[VmState | None, int], kind: str, job: bool
) -> None:
    here = answer("a", "paused", job, source) if source else answer("a", None)
    assert judge(here, answer("b", destination[0], reason=destination[1])).kind == kind


def test_a_split_says_which_hosts_know_that_it_broke_off() -> None:
    def broken(source: int, destination: int) -> tuple[str, ...]:
        return judge(answer("a", "paused", True, source), answer("b", "running", reason=destination)).broken_off

    assert broken(12, 10) == ()
    assert broken(13, 10) == ("a",)
    assert broken(12, 11) == ("b",)
    assert broken(13, 11) == ("a", "b")


def test_a_split_is_gone_on_with_at_once_and_the_loss_of_a_half_is_looked_at_again() -> None:
    half = answer("a", "paused", True, 13)
    assert not judge(half, answer("b", "running", reason=11)).worth_another_look
    assert judge(half, answer("b", None)).worth_another_look
    assert "post-copy that broke off" in judge(half, answer("b", None)).reason


@pytest.mark.parametrize("reason", [10, 11])
def test_a_running_vm_and_another_half_are_two_copies(reason: int) -> None:
    assert judge(answer("a", "running"), answer("b", "running", reason=reason)).kind == "two copies"


@pytest.mark.parametrize("told", [None, "running", "paused"])
def test_silence_of_either_host_is_never_a_verdict(told: VmState | None) -> None:
    silent = Silence("b", "no worker")
    for source, destination in ((silent, answer("a", told)), (answer("a", told), silent)):
        verdict = judge(source, destination)
        assert verdict.kind == "unknown"
        assert not verdict.worth_another_look, "it was waited for already"
        assert "b did not answer (no worker)" in verdict.reason


def test_a_host_that_does_not_tell_the_state_gives_no_verdict() -> None:
    assert judge(VmSighting(host="a", present=True), answer("b", "running")).kind == "unknown"


answers: st.SearchStrategy[Answer] = st.one_of(
    st.builds(answer, st.just("h"), st.sampled_from((None, *STATES)), st.booleans(), st.integers(0, 14)),
    st.builds(Silence, st.just("h"), st.just("gone")),
)


@given(answers, answers)
def test_something_may_be_removed_only_where_the_source_says_it_runs_the_vm(
    source: Answer, destination: Answer
) -> None:
    if judge(source, destination).kind == "leftover":
        assert isinstance(source, VmSighting)
        assert source.vm is not None
        assert source.vm.state in ("running", "blocked", "shutdown")
        assert not source.vm.job
        assert isinstance(destination, VmSighting)
        assert destination.vm is not None
        assert destination.vm.state in ("paused", "suspended")
        assert (destination.vm.state, destination.vm.reason) not in (("paused", 12), ("paused", 13))


@given(answers, answers)
def test_something_is_removed_at_the_source_only_beside_a_vm_that_runs_or_stands_whole(
    source: Answer, destination: Answer
) -> None:
    if judge(source, destination).kind == "handed over":
        assert isinstance(source, VmSighting)
        assert source.vm is not None
        assert source.vm.state in ("paused", "suspended")
        assert not source.vm.job
        assert isinstance(destination, VmSighting)
        assert destination.vm is not None
        whole = destination.vm.state in ("paused", "suspended") and destination.vm.reason == 1
        assert whole or destination.vm.state in ("running", "blocked", "shutdown")


@given(answers, answers)
def test_it_is_let_run_at_its_destination_only_where_the_source_says_that_it_is_gone(
    source: Answer, destination: Answer
) -> None:
    if judge(source, destination).kind == "arrived":
        assert isinstance(source, VmSighting)
        assert source.vm is None or source.vm.state in ("shutoff", "crashed")


def test_moved_needs_both_hosts_word() -> None:
    for source, destination in product((None, *STATES), repeat=2):
        if judge(answer("a", source), answer("b", destination)).kind == "moved":
            assert source in (None, "shutoff", "crashed")
            assert destination in ("running", "blocked", "shutdown")


@pytest.mark.parametrize(
    "destination", [answer("b", None), answer("b", "paused"), answer("b", "running"), Silence("b", "")]
)
def test_a_source_paused_with_a_job_or_silent_must_keep_its_data_path(destination: Answer) -> None:
    assert judge(answer("a", "paused", job=True), destination).switching
    assert judge(Silence("a", "dead"), destination).switching
    assert not judge(answer("a", "running", job=True), destination).switching
    assert not judge(answer("a", "paused"), destination).switching
    assert not judge(answer("a", None), destination).switching
