"""The adapter against a played libvirt: sessions that heal, errors in our words, one move seen from its source."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clouds.kvm import leftover
from clouds.kvm.connection import Session
from clouds.kvm.decision import PAUSED_POSTCOPY, PAUSED_POSTCOPY_FAILED
from clouds.kvm.errors import Final, HostUnavailable, KvmError, NotFound, Refused
from clouds.kvm.inventory import look_for, vm_report
from clouds.kvm.leftover import discard_incoming, reason_to_keep
from clouds.kvm.migration import (
    ABORT_ON_ERROR,
    LIVE,
    NON_SHARED_DISK,
    PAUSED,
    PEER2PEER,
    PERSIST_DEST,
    POSTCOPY,
    POSTCOPY_RESUME,
    UNDEFINE_SOURCE,
    Departing,
    Departure,
    MigrateCall,
    Sight,
    destination_uri,
    flags,
    parameters,
)
from clouds.kvm.progress import JobSample
from models.migration import MigrationPolicy, VmRef

WEB = VmRef(vm="web")
FOLDER = Path("/run/novacron/migrations/m1")
OUT = {"type": 2, "operation": 5, "memory_total": 100, "memory_remaining": 40, "memory_iteration": 2}


@pytest.fixture
def session(connection: Any) -> Session:
    return Session("/socket", None, lambda _: connection)


def test_a_dead_connection_is_replaced_and_listened_to_again(connection: Any) -> None:
    opened = []
    session = Session("/socket", lambda each: opened.append(each), lambda _: connection)
    session.call("ask", lambda c: c.isAlive())
    session.call("ask", lambda c: c.isAlive())
    assert len(opened) == 1
    connection.alive = 0
    session.call("ask", lambda c: c.isAlive())
    assert len(opened) == 2
    assert connection.closed == 1


def test_a_session_closes_what_it_opened(connection: Any) -> None:
    with Session("/socket", None, lambda _: connection) as session:
        session.find(WEB)
    assert connection.closed == 1


@pytest.mark.parametrize(
    ("code", "area", "kind"),
    [
        (42, 10, NotFound),
        (38, 7, HostUnavailable),
        (1, 13, HostUnavailable),
        (68, 10, HostUnavailable),
        (8, 10, Final),
        (1, 10, Final),
    ],
)
def test_libvirts_errors_become_ours_by_what_the_caller_can_do(
    session: Session, failure: Any, code: int, area: int, kind: type[KvmError]
) -> None:
    def fail(_: object) -> None:
        raise failure(code, area, "its words")

    with pytest.raises(kind, match="cannot weigh the VM: its words"):
        session.call("weigh the VM", fail)


def test_a_bug_is_not_dressed_up_as_a_libvirt_error(session: Session) -> None:
    with pytest.raises(ZeroDivisionError):
        session.call("divide", lambda _: 1 // 0)


def test_a_libvirtd_that_is_away_is_not_an_absent_vm(failure: Any) -> None:
    def closed(_: str) -> Any:
        raise failure(38, 7, "Failed to connect socket")

    with pytest.raises(HostUnavailable):
        Session("/socket", None, closed).find(WEB)


def test_a_vm_is_found_by_uuid_when_there_is_one_and_else_by_name(session: Session, domain: Any) -> None:
    uuid = "0" * 36
    domain._uuid = uuid
    assert session.find(VmRef(vm="renamed", uuid=uuid)) is domain
    assert session.find(VmRef(vm="renamed")) is None
    with pytest.raises(NotFound, match="renamed"):
        session.get(VmRef(vm="renamed"))


def test_a_report_tells_state_reason_and_job(domain: Any, failure: Any) -> None:
    domain._uuid = "0" * 36
    domain.now, domain.stats = [3, 2], failure(84)  # an incoming job: "available only on the source host"
    report = vm_report(domain)
    assert (report.state, report.reason, report.job, report.memory_mib, report.vcpus) == ("paused", 2, True, 512, 2)


def test_looking_for_a_vm_answers_present_or_absent(session: Session, domain: Any) -> None:
    domain._uuid = "0" * 36
    assert look_for(session, "host-a", WEB).present
    assert not look_for(session, "host-a", VmRef(vm="other")).present


def test_a_vm_that_vanishes_while_it_is_looked_at_is_absent(session: Session, domain: Any, failure: Any) -> None:
    domain.fails["state"] = failure(42)
    assert not look_for(session, "host-a", WEB).present


# the move


def departing(copies: tuple[str, ...] = (), resume: bool = False, **policy: Any) -> Departing:
    return Departing(WEB, FOLDER, MigrationPolicy.model_validate(policy), copies, resume)


def test_a_vm_that_is_defined_takes_its_definition_along() -> None:
    assert flags(False, departing()) == LIVE | PEER2PEER | ABORT_ON_ERROR | PAUSED
    assert flags(True, departing()) == flags(False, departing()) | PERSIST_DEST | UNDEFINE_SOURCE


@pytest.mark.parametrize("mode", ["post-copy", "hybrid"])
def test_libvirt_has_to_know_of_post_copy_before_it_starts(mode: str) -> None:
    assert flags(False, departing(mode=mode)) == LIVE | PEER2PEER | ABORT_ON_ERROR | POSTCOPY


def test_disks_are_copied_over_a_socket_of_their_own_and_only_those_that_are_named() -> None:
    wanted = departing(copies=("vda", "vdb"))
    assert flags(False, wanted) == flags(False, departing()) | NON_SHARED_DISK
    assert parameters(wanted)["disks_uri"] == "unix:///run/novacron/migrations/m1/nbd.sock"
    assert parameters(wanted)["migrate_disks"] == ["vda", "vdb"]


def test_going_on_with_post_copy_copies_no_disk_again() -> None:
    wanted = departing(copies=("vda",), resume=True, mode="hybrid", bandwidth_mib=5)
    assert flags(False, wanted) == LIVE | PEER2PEER | ABORT_ON_ERROR | POSTCOPY | POSTCOPY_RESUME
    assert flags(False, departing(resume=True)) == flags(False, wanted), "also under another policy than it began with"
    assert parameters(wanted).keys() == {"migrate_uri", "bandwidth", "bandwidth.postcopy"}


def test_no_move_has_parallel_streams_or_a_tunnel() -> None:
    import libvirt

    never = libvirt.VIR_MIGRATE_PARALLEL | libvirt.VIR_MIGRATE_TUNNELLED
    for mode in ("pre-copy", "post-copy", "hybrid"):
        for resume in (False, True):
            assert not flags(True, departing(("vda",), resume, mode=mode)) & never


def test_flags_and_names_are_libvirts_own() -> None:
    import libvirt

    assert flags(True, departing(("vda",))) | flags(False, departing(resume=True)) == (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        | libvirt.VIR_MIGRATE_NON_SHARED_DISK
        | libvirt.VIR_MIGRATE_PAUSED
        | libvirt.VIR_MIGRATE_POSTCOPY
        | libvirt.VIR_MIGRATE_POSTCOPY_RESUME
    )
    assert set(parameters(departing(("vda",), bandwidth_mib=8, mode="hybrid"))) == {
        libvirt.VIR_MIGRATE_PARAM_URI,
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH,
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY,
        libvirt.VIR_MIGRATE_PARAM_DISKS_URI,
        libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS,
    }
    assert (PAUSED_POSTCOPY, PAUSED_POSTCOPY_FAILED) == (
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
    )


def run(call: MigrateCall) -> MigrateCall:
    ended = threading.Event()
    call.on_end = ended.set
    call.start()
    assert ended.wait(10)
    return call


def test_libvirt_is_called_with_the_data_paths_sockets_and_the_policy(session: Session, domain: Any) -> None:
    call = run(MigrateCall(session, departing(max_downtime_ms=500, bandwidth_mib=8)))
    assert call.state == "succeeded"
    assert domain.calls == [
        ("downtime", 500),
        (
            "migrate",
            "qemu+unix:///system?socket=/run/novacron/migrations/m1/virt.sock",
            {"migrate_uri": "unix:///run/novacron/migrations/m1/ram.sock", "bandwidth": 8},
            flags(False, departing()),
        ),
    ]
    assert destination_uri(FOLDER) == domain.calls[1][1]


def test_no_bound_on_bandwidth_is_libvirts_default() -> None:
    assert "bandwidth" not in parameters(departing(mode="post-copy"))


def test_a_call_that_fails_keeps_libvirts_words(session: Session, domain: Any, failure: Any) -> None:
    domain.fails["migrate"] = failure(9, 10, "job 'migration out' failed: socket closed")
    call = run(MigrateCall(session, departing()))
    assert (call.state, call.error) == ("failed", "job 'migration out' failed: socket closed")


@pytest.fixture
def departure(connection: Any) -> Departure:
    def session_of(listen: Callable[[Any], None]) -> Session:
        return Session("/socket", listen, lambda _: connection)

    return Departure(session_of, WEB)


def test_a_look_tells_state_job_and_figures(departure: Departure, domain: Any) -> None:
    assert departure.look() == Sight("running", 1)
    domain.now, domain.stats = [3, 2], OUT
    assert departure.look() == Sight("paused", 2, "migration", JobSample(total=100, remaining=40, iteration=2))
    domain.stats = {"type": 2, "operation": 2}
    assert departure.look().job == "other"


def test_a_vm_that_is_gone_or_goes_meanwhile_is_seen_as_gone(
    departure: Departure, domain: Any, connection: Any, failure: Any
) -> None:
    domain.fails["state"] = failure(42)
    assert departure.look() == Sight(None)
    connection.domains.clear()
    assert departure.look() == Sight(None)


def test_a_vm_that_stops_meanwhile_has_no_job(departure: Departure, domain: Any, failure: Any) -> None:
    domain.stats = failure(55, 10, "domain is not running")
    assert departure.look().job == "none"


def test_the_final_figures_are_heard_for_this_vm_and_this_kind_of_job(
    departure: Departure, domain: Any, connection: Any
) -> None:
    heard = threading.Event()
    departure.on_completed = heard.set
    departure.look()
    listener, *_ = connection.listeners
    listener(connection, domain, {"operation": 3}, None)
    assert departure.completed is None
    figures = {"operation": 5, "downtime": 79, "memory_total": 9, "memory_iteration": 3, "time_elapsed": 3600}
    listener(connection, domain, figures, None)
    assert departure.completed is not None
    assert (departure.completed.downtime_ms, departure.completed.iterations, departure.completed.seconds) == (
        79,
        3,
        3.6,
    )
    assert heard.is_set()


def test_a_new_pass_of_this_vm_is_heard(departure: Departure, domain: Any, connection: Any) -> None:
    heard = threading.Event()
    departure.on_pass = heard.set
    departure.look()
    _, listener, _ = connection.listeners
    other = type(domain)("other")
    listener(connection, other, 2, None)
    assert not heard.is_set()
    listener(connection, domain, 2, None)
    assert heard.is_set()


def test_it_is_heard_that_this_guest_stands_still_and_that_it_runs_again(
    departure: Departure, domain: Any, connection: Any
) -> None:
    import libvirt

    heard: list[str] = []
    departure.on_suspended = lambda: heard.append("stands")
    departure.on_resumed = lambda: heard.append("runs")
    departure.look()
    *_, listener = connection.listeners
    listener(connection, type(domain)("other"), libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 1, None)
    listener(connection, domain, libvirt.VIR_DOMAIN_EVENT_STOPPED, 3, None)
    assert heard == []
    listener(connection, domain, libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 1, None)
    listener(connection, domain, libvirt.VIR_DOMAIN_EVENT_RESUMED, 1, None)
    assert heard == ["stands", "runs"]


def test_an_abort_without_a_job_is_an_answer_and_not_an_error(departure: Departure, domain: Any, failure: Any) -> None:
    assert departure.abort() == ""
    domain.fails["abort"] = failure(55, 10, "no job is active")
    assert departure.abort() == "no job is active"


def test_the_downtime_is_not_set_again_to_go_on_with_post_copy(session: Session, domain: Any) -> None:
    assert run(MigrateCall(session, departing(resume=True))).state == "succeeded"
    assert [name for name, *_ in domain.calls] == ["migrate"]


def test_post_copy_is_started_or_libvirt_objects(departure: Departure, domain: Any, failure: Any) -> None:
    assert departure.start_post_copy() == ""
    domain.fails["post-copy"] = failure(55, 10, "no job is active")
    assert departure.start_post_copy() == "no job is active"
    domain.fails["post-copy"] = failure(38, 7, "socket closed")
    with pytest.raises(HostUnavailable):
        departure.start_post_copy()


# the leftover

PAUSED_FOR_MIGRATION, STARTING = [3, 2], [3, 11]


def test_an_incoming_vm_whose_job_is_open_is_discarded(
    session: Session, domain: Any, connection: Any, failure: Any
) -> None:
    domain.now, domain.stats = PAUSED_FOR_MIGRATION, failure(84)
    discard_incoming(session, WEB)
    assert domain.calls == [("destroy",)]
    assert connection.domains == []
    discard_incoming(session, WEB)


@pytest.mark.parametrize(
    ("now", "stats", "persistent", "status", "kept"),
    [
        ([1, 2], {"type": 0}, 0, "running", True),
        ([1, 10], {"type": 0}, 0, "running", True),
        ([1, 11], {"type": 0}, 0, "running", True),
        ([3, 12], OUT, 0, "postmigrate", True),
        ([3, 13], OUT, 0, "postmigrate", True),
        ([5, 1], {"type": 0}, 1, "", True),
        (PAUSED_FOR_MIGRATION, OUT, 0, "finish-migrate", True),
        (PAUSED_FOR_MIGRATION, {"type": 0}, 0, "postmigrate", True),
        (PAUSED_FOR_MIGRATION, {"type": 0}, 1, "inmigrate", True),
        (PAUSED_FOR_MIGRATION, {"type": 0}, 0, "inmigrate", False),
        (PAUSED_FOR_MIGRATION, {"type": 0}, 0, "paused", False),
        (STARTING, {"type": 0}, 0, "prelaunch", False),
    ],
    ids=[
        "it runs",
        "it runs in post-copy",
        "it runs in a post-copy that broke off",
        "it is the half of a VM",
        "it is the half of a VM whose post-copy broke off",
        "it is off",
        "it is leaving at this moment",
        "it has been handed over",
        "it is defined here",
        "it never got all of its memory",
        "it never ran",
        "it never got any memory",
    ],
)
def test_only_a_vm_that_never_ran_here_may_go(
    domain: Any,
    monkeypatch: pytest.MonkeyPatch,
    now: list[int],
    stats: dict[str, Any],
    persistent: int,
    status: str,
    kept: bool,
) -> None:
    domain.now, domain.stats, domain.persistent = now, stats, persistent
    monkeypatch.setattr(leftover, "run_status", lambda _: status)
    assert bool(reason_to_keep(domain)) == kept


def test_a_refusal_touches_nothing(session: Session, domain: Any) -> None:
    with pytest.raises(Refused, match="not touched"):
        discard_incoming(session, WEB)
    assert domain.calls == []


def test_a_leftover_that_does_not_go_is_tried_again_later(session: Session, domain: Any, failure: Any) -> None:
    domain.now, domain.stats, domain.connection = PAUSED_FOR_MIGRATION, failure(84), None
    with pytest.raises(HostUnavailable, match="still here"):
        discard_incoming(session, WEB, within=0)
