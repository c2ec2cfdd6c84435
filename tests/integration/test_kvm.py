"""A host's activities on real parts: libvirt, QEMU, a data path at each end; no Temporal server and no workflow.

The activities run where they run in production, inside the host: this file is also the program that is started there
(`python test_kvm.py SETTINGS ACTIVITY INPUT`). It runs one activity in Temporal's ActivityEnvironment and prints what
came of it. SIGTERM cancels the activity, SIGUSR1 tells it that its worker stops, SIGKILL is SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.fence import Fence
from activities.host import HostActivities
from activities.recovery import RecoveryActivities
from models.base import Model
from models.host import Findings, HostReport, HostSettings, VmSheet, VmSighting
from models.migration import ClosePath, Endpoint, MigrationPolicy, MoveResult, MoveVm, OpenPath, PathReport, VmRef
from models.recovery import Welcome, Welcomed
from workers.lab.guests import Guest
from workers.lab.hosts import Host
from workers.lab.lab import Lab
from workers.lab.settings import LabSettings

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

M = TypeVar("M", bound=Model)
A, B = "host-a", "host-b"
SLOW = MigrationPolicy(bandwidth_mib=16)
"""Slow enough to do something in the middle of the move."""


class Failed(Exception):
    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(f"{told['type']}: {told['message']}")
        self.type: str = told["type"]
        self.final: bool = told["final"]


class Running:
    """An activity that runs inside a host."""

    def __init__(self, host: Host, activity: str, order: Model | None) -> None:
        given = order.model_dump_json() if order else ""
        self.process = subprocess.Popen(
            [*host.enter(network=False), sys.executable, __file__, str(host.worker_settings), activity, given],
            stdout=subprocess.PIPE,
            text=True,
        )

    def told(self, within: float = 120) -> dict[str, Any]:
        out, _ = self.process.communicate(timeout=within)
        told: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return told

    def result(self, model: type[M], within: float = 120) -> M:
        told = self.told(within)
        if "failed" in told:
            raise Failed(told["failed"])
        return model.model_validate(told["result"])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class HostSide:
    def __init__(self, lab: Lab, name: str) -> None:
        self.name = name
        self.host = Host(lab.settings, name)

    def begin(self, activity: str, order: Model | None = None) -> Running:
        return Running(self.host, activity, order)

    def run(self, activity: str, model: type[M], order: Model | None = None) -> M:
        return self.begin(activity, order).result(model)

    def sighting(self, ref: VmRef) -> VmSighting:
        return self.run("look_for_vm", VmSighting, ref)

    @property
    def migrations(self) -> list[str]:
        folder = self.host.folder / "novacron" / "migrations"
        return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = Lab(LabSettings(name="k", port=24133))
    lab.down()
    try:
        lab.up(workers=False)
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="module")
def sides(lab: Lab) -> tuple[HostSide, HostSide]:
    """Two hosts that were just started, and welcomed as a reconciliation would."""
    pair = HostSide(lab, A), HostSide(lab, B)
    for side in pair:
        assert not side.run("describe_host", HostReport).reconciled
        side.run("welcome_host", Welcomed, Welcome())
    return pair


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Guest:
    return lab.boot_guest("web", A, memory_mib=256, fill=64, dirty=1)


@pytest.fixture
def where(sides: tuple[HostSide, HostSide], guest: Guest) -> tuple[HostSide, HostSide]:
    """(the host that runs the guest, the other one): tests move it to and fro."""
    ref = VmRef(vm=guest.name, uuid=guest.uuid)
    return sides if sides[0].sighting(ref).present else (sides[1], sides[0])


class Path2:
    """A data path between two hosts, closed at the end whatever happens."""

    def __init__(self, source: HostSide, destination: HostSide, policy: MigrationPolicy) -> None:
        self.id = uuid4().hex[:16]
        self.source, self.destination, self.policy = source, destination, policy

    def __enter__(self) -> Path2:
        listen = OpenPath(migration_id=self.id, peer=self.source.name, policy=self.policy)
        endpoint = self.destination.run("open_path", Endpoint, listen)
        dial = OpenPath(migration_id=self.id, peer=self.destination.name, endpoint=endpoint, policy=self.policy)
        assert self.source.run("open_path", Endpoint, dial) == endpoint
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> list[PathReport]:
        return [
            side.run("close_path", PathReport, ClosePath(migration_id=self.id))
            for side in (self.source, self.destination)
        ]

    def order(self, guest: Guest) -> MoveVm:
        return MoveVm(
            migration_id=self.id,
            vm=VmRef(vm=guest.name, uuid=guest.uuid),
            source=self.source.name,
            destination=self.destination.name,
            policy=self.policy,
        )

    @property
    def started(self) -> bool:
        return (self.source.host.folder / "novacron" / "migrations" / self.id / "started").exists()


def wait_until(holds: Callable[[], bool], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def in_the_middle(path: Path2, guest: Guest) -> None:
    """Return once libvirt's job of this move runs."""
    ref = VmRef(vm=guest.name, uuid=guest.uuid)
    wait_until(lambda: path.started)
    wait_until(lambda: (vm := path.source.sighting(ref).vm) is not None and vm.job)


def test_a_host_reports_itself_and_its_vms(sides: tuple[HostSide, HostSide], guest: Guest) -> None:
    here, there = (side.run("describe_host", HostReport) for side in sides)
    (vm,) = (vm for vm in (*here.vms, *there.vms) if vm.name == guest.name)
    assert (vm.uuid, vm.state, vm.memory_mib, vm.persistent, vm.job) == (guest.uuid, "running", 256, False, False)
    assert here.uuid != there.uuid
    assert here.memory_free_mib > 0
    assert here.qemu_version


def test_a_vm_that_fits_is_admitted(where: tuple[HostSide, HostSide], guest: Guest) -> None:
    sheet = where[0].run("inspect_vm", VmSheet, VmRef(vm=guest.name))
    assert sheet.vm.uuid == guest.uuid
    assert sheet.machine.startswith("pc-q35")
    assert sheet.disks
    assert all(disk.identity for disk in sheet.disks)
    assert where[1].run("admit_vm", Findings, sheet).items == ()


def test_a_vm_that_does_not_fit_is_refused_by_name(where: tuple[HostSide, HostSide], guest: Guest) -> None:
    sheet = where[0].run("inspect_vm", VmSheet, VmRef(vm=guest.name))
    huge = sheet.model_copy(update={"vm": sheet.vm.model_copy(update={"memory_mib": 1 << 30})})
    unknown = sheet.model_copy(update={"machine": "pc-q35-99.9"})
    strange_cpu = sheet.model_copy(
        update={"cpu_xml": "<cpu mode='custom' match='exact'><model>Skylake-Server</model></cpu>"}
    )

    def refused(side: HostSide, vm: VmSheet) -> list[str]:
        return [finding.id for finding in side.run("admit_vm", Findings, vm).items]

    assert refused(where[1], huge) == ["room"]
    assert "machine" in refused(where[1], unknown)
    assert refused(where[1], strange_cpu) == ["cpu"]
    assert refused(where[0], sheet) == ["host-uuid", "already-there"]


def test_a_vm_that_is_not_there_is_not_found(sides: tuple[HostSide, HostSide]) -> None:
    nobody = VmRef(vm="nobody")
    with pytest.raises(Failed, match="nobody") as failed:
        sides[0].run("inspect_vm", VmSheet, nobody)
    assert (failed.value.type, failed.value.final) == ("NotFound", True)
    assert not sides[0].sighting(nobody).present
    assert not sides[0].run("discard_incoming", VmSighting, nobody).present


def test_a_running_vm_is_never_discarded(where: tuple[HostSide, HostSide], guest: Guest) -> None:
    ref = VmRef(vm=guest.name, uuid=guest.uuid)
    with pytest.raises(Failed, match="no leftover") as failed:
        where[0].run("discard_incoming", VmSighting, ref)
    assert failed.value.type == "Refused"
    assert where[0].sighting(ref).present


def test_a_vm_moves_over_the_data_path(lab: Lab, where: tuple[HostSide, HostSide], guest: Guest) -> None:
    source, destination = where
    ref = VmRef(vm=guest.name, uuid=guest.uuid)
    with lab.heartbeats(guest.name) as heard, Path2(source, destination, MigrationPolicy()) as path:
        result = source.run("move_vm", MoveResult, path.order(guest))
        assert not result.attached
        assert result.memory_total > 256 << 20
        assert result.iterations > 0
        assert not source.sighting(ref).present
        seen = destination.sighting(ref).vm
        assert seen is not None
        assert seen.state == "running"
        ours, theirs = (report.status for report in path.close())
        assert ours is not None
        assert theirs is not None
        sent = {flow.service: flow.digest_out for flow in ours.flows}
        assert sent == {flow.service: flow.digest_in for flow in theirs.flows}
        assert ours.raw_out > 64 << 20
        heard.wait_for(lambda story: story.hosts[-1] == destination.name, 30, "a heartbeat on the destination")
    assert source.migrations == destination.migrations == []


def test_a_killed_attempt_costs_nothing_the_next_one_attaches(where: tuple[HostSide, HostSide], guest: Guest) -> None:
    with Path2(*where, SLOW) as path:
        first = where[0].begin("move_vm", path.order(guest))
        in_the_middle(path, guest)
        first.signal(signal.SIGKILL)
        first.process.communicate(timeout=10)
        result = where[0].run("move_vm", MoveResult, path.order(guest))
        assert result.attached
        assert result.memory_total > 256 << 20
    assert where[1].sighting(VmRef(vm=guest.name, uuid=guest.uuid)).present


def test_a_stopping_worker_leaves_the_move_going_on(where: tuple[HostSide, HostSide], guest: Guest) -> None:
    with Path2(*where, SLOW) as path:
        first = where[0].begin("move_vm", path.order(guest))
        in_the_middle(path, guest)
        first.signal(signal.SIGUSR1)
        with pytest.raises(Failed, match="goes on") as failed:
            first.result(MoveResult, within=15)
        assert not failed.value.final
        assert where[0].run("move_vm", MoveResult, path.order(guest)).attached


def test_a_cancel_aborts_the_move_and_the_vm_stays(where: tuple[HostSide, HostSide], guest: Guest) -> None:
    ref = VmRef(vm=guest.name, uuid=guest.uuid)
    with Path2(*where, SLOW) as path:
        move = where[0].begin("move_vm", path.order(guest))
        in_the_middle(path, guest)
        move.signal(signal.SIGTERM)
        with pytest.raises(Failed) as failed:
            move.result(MoveResult, within=30)
        assert failed.value.type == "CancelledError"
        seen = where[0].sighting(ref).vm
        assert seen is not None
        assert (seen.state, seen.job) == ("running", False)
        assert not where[1].run("discard_incoming", VmSighting, ref).present


def test_a_data_path_that_dies_ends_the_move_and_the_vm_stays(where: tuple[HostSide, HostSide], guest: Guest) -> None:
    ref = VmRef(vm=guest.name, uuid=guest.uuid)
    with Path2(*where, SLOW) as path:
        move = where[0].begin("move_vm", path.order(guest))
        in_the_middle(path, guest)
        config = f"/run/novacron/migrations/{path.id}/config.json".encode()
        inside = {process.pid for process in where[0].host.processes()}
        victims = [pid for pid in inside if config in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(Failed) as failed:
            move.result(MoveResult, within=60)
        assert failed.value.type == "DataPathFailed"
        assert failed.value.final
        seen = where[0].sighting(ref).vm
        assert seen is not None
        assert seen.state == "running"
        wait_until(lambda: not where[1].run("discard_incoming", VmSighting, ref).present)
    assert where[0].migrations == where[1].migrations == []


def test_a_libvirtd_that_restarts_in_the_middle_costs_the_move_but_not_the_vm(
    lab: Lab, where: tuple[HostSide, HostSide], guest: Guest
) -> None:
    ref = VmRef(vm=guest.name, uuid=guest.uuid)
    with Path2(*where, SLOW) as path:
        move = where[0].begin("move_vm", path.order(guest))
        in_the_middle(path, guest)
        lab.stop(f"{where[0].name}.libvirtd")
        lab.start(f"{where[0].name}.libvirtd")
        told = move.told()
        assert "result" in told or told["failed"]["type"] == "MigrationFailed"
        stayed, other = (where[1], where[0]) if "result" in told else where
        seen = stayed.sighting(ref).vm
        assert seen is not None
        assert seen.state == "running"
        wait_until(lambda: not other.run("discard_incoming", VmSighting, ref).present)


def main(settings: str, activity: str, given: str) -> None:
    """Runs inside a host: one activity, in ActivityEnvironment; its result or failure as JSON on stdout."""
    from workers import logs

    logs.to_stderr()
    told_settings = HostSettings.model_validate_json(Path(settings).read_bytes())
    fence = Fence(told_settings)
    host, recovery = HostActivities(told_settings, fence=fence), RecoveryActivities(told_settings, fence)
    method = getattr(recovery if hasattr(recovery, activity) else host, activity)
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: print(*details, file=sys.stderr, flush=True)
    inputs: dict[str, type[Model]] = {
        "inspect_vm": VmRef, "look_for_vm": VmRef, "discard_incoming": VmRef, "admit_vm": VmSheet,
        "open_path": OpenPath, "close_path": ClosePath, "move_vm": MoveVm, "welcome_host": Welcome,
    }  # fmt: skip
    orders = [inputs[activity].model_validate_json(given)] if given else []
    signal.signal(signal.SIGTERM, lambda *_: environment.cancel())
    signal.signal(signal.SIGUSR1, lambda *_: environment.worker_shutdown())
    try:
        told = {"result": environment.run(method, *orders).model_dump(mode="json")}
    except Exception as error:
        kind = (error.type if isinstance(error, ApplicationError) else None) or type(error).__name__
        final = isinstance(error, ApplicationError) and error.non_retryable
        told = {"failed": {"type": kind, "message": str(error), "final": final}}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
