"""A move to a cloud, as calls: the source's host sends its disks, the control worker works in the cloud."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from models import queues
from models.cloud_cache import BasesKept, BasesWeighed, CacheReport, CacheRequest, KeepBases, WeighBases
from models.cloud_move import (
    CheckInstance,
    CloudPlaces,
    CloudSizes,
    DiskSent,
    EndInstance,
    InstanceChecked,
    InstanceEnded,
    MakeImage,
    PlaceQuery,
    PlaceReport,
    Probe,
    Removed,
    RemoveThings,
    RoundBegun,
    RoundOrder,
    RunInstance,
    SendDisk,
    SettleSource,
    SourceFacts,
    SourceSettled,
    SourceStopped,
    StartSource,
    StopSource,
)
from models.clouds import CloudImage, Instance
from models.disks import DiskImage
from models.host import VmSighting
from models.migration import VmRef
from workflows import errors
from workflows.calls import deadlines

with workflow.unsafe.imports_passed_through():
    from activities.cloud import CloudActivities
    from activities.cloud_bases import CloudBaseActivities
    from activities.cloud_cache import CloudCacheActivities
    from activities.cloud_disks import CloudDiskActivities

_call = workflow.execute_activity_method
_WAIT = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED


def bounded(
    within: float, attempts: int = 0, heartbeat: float | None = None, start: float | None = None
) -> ActivityConfig:
    """`within` seconds for all attempts together; `start`: a host that does not pick it up by then is dead."""
    config = ActivityConfig(
        schedule_to_close_timeout=timedelta(seconds=within),
        start_to_close_timeout=timedelta(seconds=within),
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=1),
            maximum_interval=timedelta(seconds=60),
            maximum_attempts=attempts,
            non_retryable_error_types=list(errors.FINAL),
        ),
        cancellation_type=_WAIT,
    )
    if heartbeat:
        config["heartbeat_timeout"] = timedelta(seconds=heartbeat)
    if start:
        config["schedule_to_start_timeout"] = timedelta(seconds=start)
    return config


COPY = bounded(30 * 86400, heartbeat=20)
"""A disk while the VM runs: patience is free. A worker that dies costs the heartbeat's time."""
ROUND = bounded(15 * 60, attempts=10)
SETTLE = bounded(15 * 60)
"""Clean-up, through a short outage."""
ASK = bounded(300, attempts=5, heartbeat=20)
"""A question to a cloud."""
UNDO = bounded(6 * 3600, heartbeat=20)
"""Ending an instance and starting its source again: nothing else gives the VM back, so it is tried for long."""


def last_copy(downtime: float) -> ActivityConfig:
    """A disk while the VM is off: an hour, or ten times what it may be away; then it is undone."""
    return bounded(max(3600.0, 10 * downtime), heartbeat=20)


def cold_copy() -> ActivityConfig:
    """All of a disk while the VM is off, as was asked for."""
    return bounded(7 * 86400, heartbeat=20)


class SourceHost:
    """The host that the VM leaves."""

    def __init__(self, site: str, name: str) -> None:
        self.site = site
        self.name = name
        self._queue = queues.host(site, name)

    async def inspect(self, ref: VmRef) -> SourceFacts:
        what = f"what is {ref.vm} made of?"
        return await _call(CloudDiskActivities.inspect_source, ref, **self._to(deadlines.QUESTION, what))

    async def begin_round(self, order: RoundOrder) -> RoundBegun:
        what = f"round {order.number}: hold the disks as they are now"
        return await _call(CloudDiskActivities.begin_round, order, **self._to(ROUND, what))

    async def end_round(self, order: RoundOrder) -> VmSighting:
        return await _call(CloudDiskActivities.end_round, order, **self._to(ROUND, f"round {order.number}: let go"))

    async def send(self, order: SendDisk, deadline: ActivityConfig) -> DiskSent:
        what = f"send {'what changed of ' if order.base else ''}{order.disk.target} to {order.place}"
        return await _call(CloudDiskActivities.send_disk, order, **self._to(deadline, what))

    async def stop(self, order: StopSource) -> SourceStopped:
        config = self._to(bounded(order.within + 300, attempts=10, heartbeat=15), f"shut {order.vm.vm} down for good")
        return await _call(CloudDiskActivities.stop_source, order, **config)

    async def start(self, order: StartSource) -> VmSighting:
        return await _call(CloudDiskActivities.start_source, order, **self._to(UNDO, f"let {order.vm.vm} run again"))

    async def weigh_bases(self, order: WeighBases) -> BasesWeighed:
        config = self._to(bounded(120, attempts=3, heartbeat=60), f"what would bases of {order.place} save?")
        return await _call(CloudBaseActivities.weigh_bases, order, **config)

    async def keep_bases(self, order: KeepBases) -> BasesKept:
        config = self._to(bounded(3600, attempts=5, heartbeat=300), f"let disks stay in {order.place} as bases")
        return await _call(CloudBaseActivities.keep_bases, order, **config)

    async def settle(
        self, move: str, ref: VmRef, disks: Sequence[DiskImage], place: str, *, remove: bool
    ) -> SourceSettled:
        order = SettleSource(move=move, vm=ref, disks=tuple(disks), remove=remove, place=place)
        what = f"remove {ref.vm} and its images" if remove else "forget rounds and ledgers"
        return await _call(CloudDiskActivities.settle_source, order, **self._to(SETTLE, what))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=self._queue, summary=f"{self.name}: {what}"[:200], **deadline)


class CloudSite:
    """The clouds of a site, through its control worker."""

    def __init__(self, site: str, place: str = "") -> None:
        self._site = site
        self._place = place

    async def places(self) -> CloudPlaces:
        return await _call(CloudActivities.list_clouds, **self._to(deadlines.CONTROL, "which clouds are there?"))

    async def sizes(self) -> CloudSizes:
        return await _call(CloudActivities.list_cloud_sizes, self._place, **self._to(ASK, "which sizes are there?"))

    async def report(self, size: str) -> PlaceReport:
        query = PlaceQuery(place=self._place, size=size)
        return await _call(CloudActivities.place_report, query, **self._to(ASK, f"sizes, quotas and prices for {size}"))

    async def cache(self, wanted: CacheRequest) -> CacheReport:
        config = self._to(bounded(3600, attempts=5, heartbeat=20), f"{wanted.action} what is kept as bases")
        return await _call(CloudCacheActivities.look_at_cache, wanted, **config)

    async def make_image(self, order: MakeImage) -> CloudImage:
        config = self._to(bounded(3600, attempts=10, heartbeat=20), f"image {order.name}")
        return await _call(CloudActivities.make_cloud_image, order, **config)

    async def run(self, order: RunInstance) -> Instance:
        config = self._to(bounded(900, attempts=10, heartbeat=20), f"run {order.name} as {order.size}")
        return await _call(CloudActivities.run_instance, order, **config)

    async def check(self, instance: str, verify: Probe | None) -> InstanceChecked:
        order = CheckInstance(place=self._place, instance=instance, verify=verify)
        config = self._to(bounded(3600 + 1800, attempts=10, heartbeat=20), f"does {instance} run, and answer?")
        return await _call(CloudActivities.check_instance, order, **config)

    async def end(self, token: str, instance: str, *, terminate: bool) -> InstanceEnded:
        order = EndInstance(place=self._place, token=token, instance=instance, terminate=terminate)
        what = f"{'terminate' if terminate else 'stop'} {instance or 'what this move started'}"
        return await _call(CloudActivities.end_instance, order, **self._to(UNDO, what))

    async def remove(self, image: str, disks: Sequence[str]) -> Removed:
        order = RemoveThings(place=self._place, image=image, disks=tuple(disks))
        what = f"remove {f'image {image} and ' if image else ''}{len(order.disks)} disks"
        config = self._to(bounded(3600, heartbeat=20), what)
        return await _call(CloudActivities.remove_cloud_things, order, **config)

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        summary = f"{self._place or self._site}: {what}"[:200]
        return ActivityConfig(task_queue=queues.control(self._site), summary=summary, **deadline)
