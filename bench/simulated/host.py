"""HostActivities of one simulated host: the names, types and errors of the real ones, over records.

A move is a job of the host, not of the activity that watches it: an attempt that dies leaves the job alone, and the
next one attaches to it, as it is with libvirt.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from temporalio import activity
from temporalio.client import Client

from activities.errors import final, retryable
from activities.signals import Signals
from bench.simulated.faults import Fault
from bench.simulated.site import HOST_MIB, RESERVE_MIB, Copy, Host, Site
from models import failures
from models.datapath import DataPathStatus, FlowStatus
from models.disks import DisksReport, PrepareDisks, SettleDisks
from models.fleet import StopResult, StopVm
from models.host import DiskReport, Finding, Findings, HostReport, VmSheet, VmSighting
from models.migration import (
    ClosePath,
    Endpoint,
    LimitPath,
    MoveResult,
    MoveVm,
    OpenPath,
    PathLimit,
    PathReport,
    Progress,
    VmRef,
)

MIB = 1 << 20
TURN = 1.0
"""Seconds between two reports of a move, as in activities/move.py."""
CPU_XML = (
    "<cpu mode='custom' match='exact' check='full'>\n  <model fallback='forbid'>EPYC-Rome</model>\n"
    "  <vendor>AMD</vendor>\n"
    + "".join(
        f"  <feature policy='require' name='{name}'/>\n"
        for name in ("x2apic", "tsc-deadline", "hypervisor", "tsc_adjust", "arch-capabilities", "xsaves", "ibrs")
    )
    + "</cpu>"
)
"""About as long as a real one: it is part of the history of every move."""


@dataclass
class Job:
    """A move as the hypervisor runs it."""

    seconds: float
    task: asyncio.Task[bool]
    """True: the VM has switched."""
    began: float


class SimulatedHost:
    """The activities of one host."""

    def __init__(self, site: Site, host: Host, median: float, client: Client | None = None) -> None:
        """`median`: seconds that the memory of a VM takes to cross."""
        self._site = site
        self._host = host
        self._median = median
        self._client = client
        self._jobs: dict[str, Job] = {}

    @activity.defn(name="novacron.describe_host")
    async def describe_host(self) -> HostReport:
        return HostReport(
            site=self._site.name,
            host=self._host.name,
            uuid=self._host.name,
            libvirt_version="9.0.0",
            qemu_version="7.2.0",
            cpu_model="EPYC-Rome",
            cpus=64,
            memory_total_mib=HOST_MIB,
            memory_free_mib=max(0, self._host.free_mib),
            memory_reserve_mib=RESERVE_MIB,
            vms=tuple(copy.report() for copy in self._host.copies.values()),
            migrations=tuple(self._host.paths),
        )

    @activity.defn(name="novacron.inspect_vm")
    async def inspect_vm(self, ref: VmRef) -> VmSheet:
        copy = self._copy(ref)
        if copy is None:
            raise final(failures.NOT_FOUND, f"{self._host.name} has no VM {ref.vm!r}")
        disk = DiskReport(target="vda", path=f"/var/lib/libvirt/images/{ref.vm}.qcow2", identity=f"nfs:4711:{ref.vm}")
        return VmSheet(
            vm=copy.report(),
            host=self._host.name,
            machine="pc-q35-7.2",
            arch="x86_64",
            emulator="/usr/bin/qemu-system-x86_64",
            virt_type="kvm",
            cpu_xml=CPU_XML,
            disks=(disk,),
            qemu_version="7.2.0",
            host_uuid=self._host.name,
            token=self._host.tokens.get(ref.vm, 0),
        )

    @activity.defn(name="novacron.admit_vm")
    async def admit_vm(self, sheet: VmSheet) -> Findings:
        free = self._host.free_mib - RESERVE_MIB
        blockers = []
        if free < sheet.vm.memory_mib:
            blockers.append(("room", f"{self._host.name} has {free} MiB, {sheet.vm.name} needs {sheet.vm.memory_mib}"))
        if self._fault(sheet.vm.name, self._host.name) == "refused":
            blockers.append(("network", f"{self._host.name} has no bridge br-tenant"))
        remedy = "Choose another host."
        return Findings(
            items=tuple(Finding(id=id, severity="blocker", what=what, remedy=remedy) for id, what in blockers)
        )

    @activity.defn(name="novacron.look_for_vm")
    async def look_for_vm(self, ref: VmRef) -> VmSighting:
        return self._sighting(ref)

    @activity.defn(name="novacron.discard_incoming")
    async def discard_incoming(self, ref: VmRef) -> VmSighting:
        self._check(ref)
        copy = self._copy(ref)
        if copy is not None and not copy.incoming:
            raise final(failures.REFUSED, f"{ref.vm} on {self._host.name} is no leftover of an incoming migration")
        self._host.copies.pop(ref.vm, None)
        return self._sighting(ref)

    @activity.defn(name="novacron.open_path")
    async def open_path(self, order: OpenPath) -> Endpoint:
        self._check(order.vm)
        if order.endpoint is not None and order.vm and self._fault(order.vm.vm, order.peer) == "path":
            raise final(failures.DATA_PATH_FAILED, f"{order.peer} does not answer on port {order.endpoint.port}")
        self._host.paths[order.migration_id] = order
        return order.endpoint or Endpoint(address="10.0.0.2", port=49152)

    @activity.defn(name="novacron.limit_path")
    async def limit_path(self, order: LimitPath) -> PathLimit:
        return PathLimit(bytes_per_second=order.bytes_per_second)

    @activity.defn(name="novacron.prepare_disks")
    async def prepare_disks(self, order: PrepareDisks) -> DisksReport:
        self._host.images |= {image.path for image in order.disks}
        return DisksReport(paths=tuple(image.path for image in order.disks))

    @activity.defn(name="novacron.settle_disks")
    async def settle_disks(self, order: SettleDisks) -> DisksReport:
        if not order.keep:
            self._host.images -= {image.path for image in order.disks}
        return DisksReport(paths=tuple(image.path for image in order.disks))

    @activity.defn(name="novacron.start_post_copy")
    async def start_post_copy(self, ref: VmRef) -> VmSighting:
        raise final(failures.REFUSED, f"{ref.vm}: simulated hosts know no post-copy")

    @activity.defn(name="novacron.close_path")
    async def close_path(self, order: ClosePath) -> PathReport:
        opened = self._host.paths.pop(order.migration_id, None)
        self._jobs.pop(order.migration_id, None)
        return PathReport(status=_status(opened) if opened else None)

    @activity.defn(name="novacron.move_vm")
    async def move_vm(self, order: MoveVm) -> MoveResult:
        self._check(order.vm)
        loop = asyncio.get_running_loop()
        job = self._jobs.get(order.migration_id)
        attached = job is not None
        if job is None:
            self._begin(order)
            seconds = self._site.faults.seconds(order.vm.vm, order.destination, self._median)
            job = Job(seconds, asyncio.create_task(self._run(order, seconds)), loop.time())
            self._jobs[order.migration_id] = job
        signals = Signals(self._client, loop)
        try:
            while not job.task.done():
                progress = _progress(order, job, loop.time())
                activity.heartbeat(progress)
                signals(progress.elapsed, progress)
                await asyncio.wait([job.task], timeout=TURN)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is None or details.cancel_requested:
                self._abort(order, job)
                raise
            raise retryable(failures.HOST_UNAVAILABLE, f"the move of {order.vm.vm} goes on; attach to it") from None
        if not job.task.result():
            raise final(failures.MIGRATION_FAILED, f"{order.vm.vm}: the data path broke; it stays on {order.source}")
        memory = order.memory_mib * MIB
        return MoveResult(seconds=job.seconds, downtime_ms=40, memory_total=memory, iterations=3, attached=attached)

    def _check(self, ref: VmRef | None) -> None:
        """Obey nobody with an older token than was seen."""
        if ref is None:
            return
        known = self._host.tokens.get(ref.vm, 0)
        if ref.token < known:
            raise final(
                failures.REFUSED, f"{ref.vm}: {self._host.name} has seen owner token {known}, the order has {ref.token}"
            )
        self._host.tokens[ref.vm] = ref.token

    def _begin(self, order: MoveVm) -> None:
        there = self._site.hosts[order.destination]
        if order.migration_id not in self._host.paths or order.migration_id not in there.paths:
            raise final(failures.DATA_PATH_FAILED, f"no data path {order.migration_id} on both hosts")
        copy = self._copy(order.vm)
        if copy is None or copy.job:
            raise final(failures.MIGRATION_FAILED, f"{order.vm.vm} is not on {order.source}, or a job runs on it")
        if there.free_mib < copy.memory_mib or order.vm.vm in there.copies:
            raise final(failures.MIGRATION_FAILED, f"{order.destination} cannot make room for {order.vm.vm}")
        self._site.begin(order.vm.vm, order.source, order.destination)

    async def _run(self, order: MoveVm, seconds: float) -> bool:
        vm, fault = order.vm.vm, self._fault(order.vm.vm, order.destination)
        broken = fault in ("broken", "leftover")
        await asyncio.sleep(seconds / 2 if broken else seconds)
        if broken:
            self._site.stay(vm, order.source, order.destination, leftover=fault == "leftover")
        else:
            self._site.switch(vm, order.source, order.destination)
        return not broken

    def _abort(self, order: MoveVm, job: Job) -> None:
        if job.task.cancel():
            self._site.stay(order.vm.vm, order.source, order.destination)

    def _fault(self, vm: str, destination: str) -> Fault:
        return self._site.faults.of(vm, destination)

    def _copy(self, ref: VmRef) -> Copy | None:
        return self._host.copies.get(ref.vm)

    def _sighting(self, ref: VmRef) -> VmSighting:
        copy = self._copy(ref)
        return VmSighting(
            host=self._host.name,
            present=copy is not None,
            vm=copy.report() if copy else None,
            token=self._host.tokens.get(ref.vm, 0),
        )


class SimulatedFleetHost:
    """FleetHostActivities of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @activity.defn(name="novacron.stop_vm")
    async def stop_vm(self, order: StopVm) -> StopResult:
        return StopResult(stopped=False, why=f"{order.vm} on {self._host.name}: simulated guests do not shut down")


def _progress(order: MoveVm, job: Job, now: float) -> Progress:
    done = min(1.0, (now - job.began) / job.seconds)
    memory = order.memory_mib * MIB
    return Progress(
        phase="moving",
        percent=round(100 * done, 1),
        eta=round(job.seconds * (1 - done), 1),
        elapsed=order.started + job.seconds * done,
        memory_total=memory,
        memory_remaining=int(memory * (1 - done)),
        iteration=1 + int(2 * done),
        raw_rate=memory / job.seconds,
        wire_rate=memory / job.seconds / 3,
        wire_bytes=int(memory * done / 3),
        raw_bytes=int(memory * done),
        lanes_alive=2,
        link="tls",
    )


def _status(opened: OpenPath) -> DataPathStatus:
    """What an end recorded. Both ends agree on the digest; the source is the one that was told where to connect."""
    flow = FlowStatus(service="ram", ordinal=0, open=False)
    if opened.endpoint is None:
        flow = flow.model_copy(update={"raw_in": MIB, "digest_in": opened.migration_id})
        return DataPathStatus(
            role="destination", migration_id=opened.migration_id, pid=2, state="closed", flows=(flow,), raw_in=MIB
        )
    flow = flow.model_copy(update={"raw_out": MIB, "digest_out": opened.migration_id})
    return DataPathStatus(
        role="source", migration_id=opened.migration_id, pid=1, state="closed", flows=(flow,), raw_out=MIB,
        wire_out=MIB // 3,
    )  # fmt: skip
