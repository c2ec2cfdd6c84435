"""One host's activities and the control worker's, each with its queue, its deadlines and a summary people can read.

Workflows call these; nothing else in workflows/ names an activity.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from models import queues
from models.disks import DiskImage, DisksReport, PrepareDisks, SettleDisks
from models.events import Delivered, Delivery, EventBatch, Teller, Told, WebhookNames
from models.host import Findings, HostReport, SiteSettings, VmSheet, VmSighting
from models.migration import (
    AgentsAnswer,
    AgentsQuery,
    ClosePath,
    Endpoint,
    LimitPath,
    MoveResult,
    MoveVm,
    OpenPath,
    PathLimit,
    PathReport,
    VmRef,
    Window,
)
from models.planning import (
    Dirtying,
    LabelOrder,
    LabelReport,
    LinkSpeed,
    MeasureDirtying,
    Opening,
    OpeningQuery,
    ProbeLink,
)
from models.steering import Steered, SteerMove
from workflows.calls import deadlines

with workflow.unsafe.imports_passed_through():
    from activities.control import ControlActivities
    from activities.events import EventActivities
    from activities.host import HostActivities
    from activities.opening import OpeningActivities
    from activities.planning import PlanningActivities
    from activities.steering import SteeringActivities
    from activities.telling import TellActivities

_call = workflow.execute_activity_method


class Control:
    """The control worker of a site."""

    def __init__(self, site: str) -> None:
        self._site = site

    async def hosts(self) -> SiteSettings:
        return await _call(ControlActivities.list_hosts, **self._to("list the hosts"))

    async def answering(self, hosts: list[str]) -> dict[str, bool]:
        """Host -> whether its worker polls its queue."""
        names = {queues.host(self._site, host): host for host in hosts}
        query = AgentsQuery(queues=tuple(names))
        answer: AgentsAnswer = await _call(
            ControlActivities.agents_polling, query, **self._to(f"is a worker there for {_list(hosts)}?")
        )
        return {host: answer.polled.get(queue, False) for queue, host in names.items()}

    async def opening(self, windows: Sequence[Window], at: datetime) -> datetime:
        """The first moment from `at` on at which one of these windows is open. Raises ActivityError."""
        query = OpeningQuery(windows=tuple(windows), at=at)
        answer: Opening = await _call(OpeningActivities.next_opening, query, **self._to("when may it start?"))
        return answer.at

    async def tell(self, batch: EventBatch) -> Told:
        """Hand events over to their delivery."""
        what = f"tell {len(batch.events)} events" if len(batch.events) > 1 else "tell what happened"
        return await _call(TellActivities.tell_events, batch, **self._to(what))

    def _to(self, what: str) -> ActivityConfig:
        summary = f"{self._site}: {what}"
        return ActivityConfig(task_queue=queues.control(self._site), summary=summary, **deadlines.CONTROL)


class Host:
    """One host's worker."""

    def __init__(self, site: str, name: str) -> None:
        self.site = site
        self.name = name
        self.owner: VmRef | None = None
        """The VM that orders are about, with the operation's fencing token."""
        self._queue = queues.host(site, name)

    async def describe(self) -> HostReport:
        return await _call(HostActivities.describe_host, **self._to(deadlines.QUESTION, "describe yourself"))

    async def has(self, ref: VmRef) -> VmSighting:
        """Before the move: a quick question, a dead host is found out fast."""
        return await _call(HostActivities.look_for_vm, ref, **self._to(deadlines.QUESTION, f"is {ref.vm} there?"))

    async def where_is(self, ref: VmRef) -> VmSighting:
        """After the move: the answer matters, so it is waited for through an outage."""
        return await _call(HostActivities.look_for_vm, ref, **self._to(deadlines.CONFIRM, f"is {ref.vm} there?"))

    async def inspect(self, ref: VmRef) -> VmSheet:
        return await _call(HostActivities.inspect_vm, ref, **self._to(deadlines.QUESTION, f"inspect {ref.vm}"))

    async def admit(self, sheet: VmSheet) -> Findings:
        return await _call(
            HostActivities.admit_vm, sheet, **self._to(deadlines.QUESTION, f"can you take {sheet.vm.name}?")
        )

    async def measure_dirtying(self, ref: VmRef) -> Dirtying:
        what = f"how fast does {ref.vm} dirty its memory?"
        order = MeasureDirtying(vm=ref)
        return await _call(PlanningActivities.measure_dirtying, order, **self._to(deadlines.MEASURE, what))

    async def probe_link(self, migration_id: str) -> LinkSpeed:
        order = ProbeLink(migration_id=migration_id)
        return await _call(PlanningActivities.probe_link, order, **self._to(deadlines.MEASURE, "probe the link"))

    async def label(self, order: LabelOrder) -> LabelReport:
        return await _call(PlanningActivities.label_vm, order, **self._to(deadlines.PREPARE, f"label {order.vm.vm}"))

    async def open_path(self, order: OpenPath) -> Endpoint:
        what = f"listen for {order.peer}" if order.endpoint is None else f"connect to {order.peer}"
        return await _call(HostActivities.open_path, order, **self._to(deadlines.PREPARE, what))

    async def move(self, order: MoveVm) -> MoveResult:
        what = f"move {order.vm.vm} to {order.destination}"
        return await _call(HostActivities.move_vm, order, **self._to(deadlines.move(order.policy), what))

    async def limit(self, migration_id: str, mib: int) -> PathLimit:
        order = LimitPath(migration_id=migration_id, bytes_per_second=mib << 20, vm=self.owner)
        what = f"bound the link to {mib} MiB/s" if mib else "take the bound off the link"
        return await _call(HostActivities.limit_path, order, **self._to(deadlines.STEER, what))

    async def limit_to(self, migration_id: str, bytes_per_second: int) -> PathLimit:
        order = LimitPath(migration_id=migration_id, bytes_per_second=bytes_per_second)
        what = (
            f"its share of the link is {bytes_per_second >> 10} KiB/s" if bytes_per_second else "no bound on the link"
        )
        return await _call(HostActivities.limit_path, order, **self._to(deadlines.STEER, what))

    async def start_post_copy(self, ref: VmRef) -> VmSighting:
        what = f"let {ref.vm} switch now, its last memory follows"
        return await _call(HostActivities.start_post_copy, ref, **self._to(deadlines.STEER, what))

    async def steer(self, order: SteerMove) -> Steered:
        what = "pause the move" if order.held_until else "change its goals"
        return await _call(SteeringActivities.steer_move, order, **self._to(deadlines.STEER, what))

    async def revive(self, ref: VmRef) -> VmSighting:
        what = f"{ref.vm} must not stay paused"
        return await _call(SteeringActivities.revive_vm, ref, **self._to(deadlines.DISCARD, what))

    async def prepare_disks(self, migration_id: str, disks: Sequence[DiskImage]) -> DisksReport:
        order = PrepareDisks(migration_id=migration_id, disks=tuple(disks), vm=self.owner)
        what = f"make {len(order.disks)} empty disk images"
        return await _call(HostActivities.prepare_disks, order, **self._to(deadlines.PREPARE, what))

    async def settle_disks(self, migration_id: str, disks: Sequence[DiskImage], keep: bool) -> DisksReport:
        order = SettleDisks(migration_id=migration_id, disks=tuple(disks), keep=keep, vm=self.owner)
        what = f"{'keep' if keep else 'remove'} {len(order.disks)} copied disk images"
        return await _call(HostActivities.settle_disks, order, **self._to(deadlines.CLOSE, what))

    async def discard(self, ref: VmRef) -> VmSighting:
        what = f"remove the paused leftover of {ref.vm}"
        return await _call(HostActivities.discard_incoming, ref, **self._to(deadlines.DISCARD, what))

    async def close_path(self, migration_id: str) -> PathReport:
        order = ClosePath(migration_id=migration_id)
        return await _call(HostActivities.close_path, order, **self._to(deadlines.CLOSE, "close the data path"))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=self._queue, summary=f"{self.name}: {what}"[:200], **deadline)


class Courier:
    """The delivery of a site's events."""

    def __init__(self, site: str) -> None:
        self._site = site

    async def webhooks(self) -> WebhookNames:
        return await _call(EventActivities.list_webhooks, **self._to(deadlines.COURIER, "who wants events?"))

    async def teller_runs(self, teller: Teller) -> bool:
        what = f"does {teller.workflow_id} still run?"
        return await _call(EventActivities.teller_runs, teller, **self._to(deadlines.COURIER, what))

    async def deliver(self, order: Delivery, within: timedelta) -> Delivered:
        what = f"{order.event.type} {int(order.event.sequence)} to {order.webhook}"
        return await _call(EventActivities.deliver_event, order, **self._to(deadlines.delivery(within), what))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=queues.events(self._site), summary=what[:200], **deadline)


def _list(hosts: list[str]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
