"""What the controller's steps do on the host: the throttle is bounded, a paused guest runs again when that is safe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clouds.kvm import revival, throttle
from clouds.kvm.connection import Session
from clouds.kvm.errors import Refused
from clouds.kvm.migration import (
    AUTO_CONVERGE,
    POSTCOPY,
    UNBOUNDED_MIB,
    Departing,
    Departure,
    MigrateCall,
    flags,
    parameters,
)
from models.migration import MigrationPolicy, VmRef, may_switch

WEB = VmRef(vm="web")
FOLDER = Path("/run/novacron/migrations/m1")
OUT = {"type": 2, "operation": 5, "memory_total": 100, "memory_remaining": 40, "memory_iteration": 2}


class Qemu:
    """Keeps migration parameters and checks them as QEMU does."""

    def __init__(self, auto_converge: bool = True, gone: Exception | None = None) -> None:
        self.set: dict[str, int] = {"cpu-throttle-initial": 20, "max-cpu-throttle": 99}
        self._auto_converge = auto_converge
        self._gone = gone

    def __call__(self, domain: Any, command: str) -> str:
        if self._gone:
            raise self._gone
        asked = json.loads(command)
        if asked["execute"] == "query-migrate-capabilities":
            return json.dumps({"return": [{"capability": "auto-converge", "state": self._auto_converge}]})
        merged = self.set | asked["arguments"]
        if merged["max-cpu-throttle"] < merged["cpu-throttle-initial"]:
            return json.dumps({"error": {"class": "GenericError", "desc": "max_cpu_throttle is below the initial one"}})
        self.set = merged
        return json.dumps({"return": {}})


@pytest.fixture
def session(connection: Any) -> Session:
    return Session("/socket", None, lambda _: connection)


def departure(session: Session, connection: Any) -> Departure:
    return Departure(lambda listen: Session("/socket", listen, lambda _: connection), WEB)


def test_the_throttle_is_bounded_before_the_move_and_never_above_what_the_controller_said(domain: Any) -> None:
    qemu = Qemu()
    assert throttle.arm(domain, qemu) == ""
    assert qemu.set["max-cpu-throttle"] == throttle.LEAST
    for percent in (20, 60, 40):
        assert throttle.bound(domain, percent, qemu) == ""
        assert qemu.set["max-cpu-throttle"] == percent
    assert throttle.disarm(domain, qemu) == ""
    assert (qemu.set["cpu-throttle-initial"], qemu.set["max-cpu-throttle"]) == (20, 99)


def test_a_throttle_that_cannot_be_had_is_an_objection_and_no_error(
    domain: Any, failure: Callable[..., Exception]
) -> None:
    assert "not started with auto-converge" in throttle.bound(domain, 20, Qemu(auto_converge=False))
    assert throttle.arm(domain, Qemu(gone=failure(84, text="no such command"))) == "no such command"


@pytest.mark.parametrize("gone", [True, False])
def test_a_move_starts_with_auto_converge_only_when_it_is_bounded(
    session: Session, domain: Any, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    monkeypatch.setattr(throttle, "arm", lambda _: "no monitor" if gone else "")
    call = MigrateCall(session, Departing(WEB, FOLDER, MigrationPolicy(max_slowdown=40), downtime_ms=75))
    call._run()
    ((_, _, _, given),) = [each for each in domain.calls if each[0] == "migrate"]
    assert bool(given & AUTO_CONVERGE) == (not gone)
    assert ("downtime", 75) in domain.calls


def test_leave_for_post_copy_is_told_to_libvirt_at_the_start() -> None:
    allowed = Departing(WEB, FOLDER, MigrationPolicy(allow_post_copy=True, bandwidth_mib=8))
    assert flags(False, allowed) & POSTCOPY
    assert parameters(allowed)["bandwidth.postcopy"] == 8
    assert not flags(False, Departing(WEB, FOLDER, MigrationPolicy())) & POSTCOPY
    assert [may_switch(MigrationPolicy(mode=mode)) for mode in ("pre-copy", "hybrid", "post-copy")] == [
        False, True, True,
    ]  # fmt: skip


def test_orders_of_the_controller_reach_libvirt_and_its_objections_come_back(
    connection: Any, domain: Any, failure: Callable[..., Exception]
) -> None:
    source = departure(Session("/socket", None, lambda _: connection), connection)
    assert (source.set_downtime(150), source.set_bandwidth(0), source.set_bandwidth(7), source.pause()) == (
        "",
        "",
        "",
        "",
    )
    assert domain.calls == [("downtime", 150), ("speed", UNBOUNDED_MIB), ("speed", 7), ("suspend",)]
    domain.fails["downtime"] = failure(55, text="domain is not being migrated")
    assert source.set_downtime(300) == "domain is not being migrated"


def test_a_guest_at_its_switch_is_not_asked_for_figures_while_nothing_crosses(connection: Any, domain: Any) -> None:
    source = departure(Session("/socket", None, lambda _: connection), connection)
    domain.now, domain.stats = [3, 2], AssertionError("it would wait for the switch")
    assert source.look(held=True).job == "migration"
    domain.now, domain.stats = [1, 1], OUT
    assert source.look(held=True).sample is not None


@pytest.mark.parametrize(
    ("state", "job", "status", "revived"),
    [
        ([1, 5], {"type": 0}, "running", "runs already"),
        ([3, 2], {"type": 0}, "paused", "yes"),
        ([3, 2], OUT, "paused", "no"),
        ([3, 2], {"type": 0}, "postmigrate", "no"),
        ([3, 2], {"type": 0}, "finish-migrate", "no"),
        ([5, 1], {"type": 0}, "shutdown", "no"),
    ],
)
def test_a_guest_left_paused_runs_again_only_when_it_never_left(
    session: Session,
    domain: Any,
    monkeypatch: pytest.MonkeyPatch,
    state: list[int],
    job: Any,
    status: str,
    revived: str,
) -> None:
    monkeypatch.setattr(revival, "run_status", lambda _: status)
    domain.now, domain.stats = state, job
    if revived == "no":
        with pytest.raises(Refused, match="not touched"):
            revival.revive(session, WEB)
    else:
        revival.revive(session, WEB)
    assert (("resume",) in domain.calls) == (revived == "yes")
