"""Activities of a control worker about an instance that comes home: which it is, its disks, its stop and its return.

An instance is stopped, or runs, when the cloud says so, and never because an order to that end was taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from temporalio import activity

from activities import errors
from activities.accounts import Accounts
from activities.cloud import GONE, RUNS_WITHIN, ask, beating, sizes_of
from clouds.capabilities import OFFERS, Adapter, Instances
from clouds.errors import NotFound, OperationFailed
from models import failures
from models.cloud_bring import (
    CheckArrival,
    Checked,
    HostProbe,
    InstanceFacts,
    InstanceOfVm,
    InstanceQuery,
    SnapshotVolume,
)
from models.cloud_move import Probe
from models.clouds import Instance, Size, Snapshot
from models.host import SiteSettings

STOPPED = "stopped"


class CloudInstanceActivities:
    def __init__(self, settings: SiteSettings, accounts: Accounts | None = None) -> None:
        self._accounts = accounts or Accounts(settings.clouds, f"the control worker of {settings.site}")

    @activity.defn(name="novacron.find_instance")
    async def find_instance(self, query: InstanceQuery) -> InstanceFacts:
        """The one instance that is meant, and what can be had of it. Of several that have the VM's name the one that
        is not stopped; others were rolled back."""
        adapter = self._adapter(query.place)
        instances = _instances(adapter)

        def look() -> InstanceFacts:
            named = _named(instances, query)
            awake = [each for each in named if each.state != STOPPED]
            meant = awake if len(awake) == 1 else named
            found = instances.get_instance(meant[0].id) if len(meant) == 1 else None  # some lists tell no disks
            offers = OFFERS[adapter.cloud]
            export = offers["ImageExport"]
            volumes = _volumes(found) if found else ()
            return InstanceFacts(
                instance=found,
                candidates=tuple(f"{each.id} ({each.state})" for each in named[:64]),
                volumes=volumes,
                sizes=_sizes(adapter, volumes) if query.sizes else (),
                size=_size(adapter, found.size) if found else None,
                export=adapter.image_export is not None,
                warm=adapter.block_delta is not None,
                why_not="" if adapter.image_export is not None else f"{export.state}: {export.how}",
            )

        return await beating(look)

    @activity.defn(name="novacron.look_at_instance")
    async def look_at_instance(self, order: InstanceOfVm) -> Instance:
        """As the cloud tells it now. Raises NotFound."""
        instances = _instances(self._adapter(order.place))
        return await beating(lambda: instances.get_instance(order.instance))

    @activity.defn(name="novacron.snapshot_volume")
    async def snapshot_volume(self, order: SnapshotVolume) -> Snapshot:
        """Ready when it returns. One that is not wanted any more, or goes wrong, is removed."""
        adapter = self._adapter(order.place)
        exports, images = adapter.image_export, adapter.image_import
        if exports is None or images is None:
            raise errors.final(failures.REFUSED, f"{order.place} cannot give its disks out")
        try:
            made = await beating(lambda: exports.create_snapshot(order.volume, order.token))
            name = made.id
            while made.state == "pending":
                await self._pause(order.place)
                made = await beating(lambda: images.get_snapshot(name))
            if made.state != "ready":
                raise errors.of(
                    OperationFailed(f"snapshot {name} is {made.state}", "See its state in the provider's console.")
                )
        except asyncio.CancelledError:
            if activity.is_cancelled() and not activity.is_worker_shutdown():
                await asyncio.to_thread(_drop, adapter, order)
            raise
        return made

    @activity.defn(name="novacron.stop_instance")
    async def stop_instance(self, order: InstanceOfVm) -> Instance:
        """Stopped, by the cloud's word, when it returns. One that is terminated is not stopped: its disks may be gone
        with it."""
        instances = _instances(self._adapter(order.place))
        seen = await beating(lambda: instances.get_instance(order.instance))
        if seen.state not in (STOPPED, *GONE):
            await beating(lambda: instances.stop_instance(order.instance))
        return await self._until(order, STOPPED)

    @activity.defn(name="novacron.start_instance")
    async def start_instance(self, order: InstanceOfVm) -> Instance:
        """Running, by the cloud's word, when it returns."""
        instances = _instances(self._adapter(order.place))
        seen = await beating(lambda: instances.get_instance(order.instance))
        if seen.state == "stopping":
            await self._until(order, STOPPED)
        if seen.state not in ("running", "pending", *GONE):
            await beating(lambda: instances.start_instance(order.instance))
        return await self._until(order, "running")

    @activity.defn(name="novacron.check_arrival")
    async def check_arrival(self, order: CheckArrival) -> Checked:
        """Does people's own service answer? Asked until it does, or is out of time."""
        wanted = order.verify
        until = time.monotonic() + wanted.within
        while True:
            why = await beating(lambda: ask(_probe(wanted), wanted.address))
            if not why:
                return Checked(good=True, said=f"{wanted.kind} {wanted.address} answers")
            if time.monotonic() > until:
                said = f"{wanted.kind} {wanted.address} did not answer well within {wanted.within:.0f} s: {why}"
                return Checked(good=False, said=said[:4000])
            activity.heartbeat()
            await asyncio.sleep(1)

    async def _until(self, order: InstanceOfVm, state: str) -> Instance:
        instances = _instances(self._adapter(order.place))
        until = time.monotonic() + RUNS_WITHIN
        while True:
            seen = await beating(lambda: instances.get_instance(order.instance))
            if seen.state == state:
                return seen
            if seen.state in GONE:
                raise errors.final(failures.REFUSED, f"instance {order.instance} is {seen.state}: it cannot be {state}")
            if time.monotonic() > until:
                raise errors.retryable(
                    failures.CLOUD_UNAVAILABLE,
                    f"instance {order.instance} is {seen.state} after {RUNS_WITHIN:.0f} s, and not {state}",
                )
            await self._pause(order.place)

    def _adapter(self, place: str) -> Adapter:
        try:
            return self._accounts.adapter(place)
        except Exception as error:
            raise errors.of(error) from error

    async def _pause(self, place: str) -> None:
        activity.heartbeat()
        await asyncio.sleep(self._accounts.poll(place))


def _instances(adapter: Adapter) -> Instances:
    assert adapter.instances is not None
    return adapter.instances


def _named(instances: Instances, query: InstanceQuery) -> list[Instance]:
    """By its id where that was given, else by the VM's name."""
    if query.instance:
        try:
            found = [instances.get_instance(query.instance)]
        except NotFound:
            return []
    else:
        found = [each for each in _all(instances) if each.name == query.vm]
    return [each for each in found if each.state not in ("terminating", *GONE)]


def _all(instances: Instances) -> Iterator[Instance]:
    page = ""
    while True:
        answer = instances.list_instances(page)
        yield from answer.items
        page = answer.next
        if not page:
            return


def _volumes(instance: Instance) -> tuple[str, ...]:
    """The one that boots first."""
    return tuple(disk.disk for disk in sorted(instance.disks, key=lambda disk: (not disk.boot, disk.device)))


def _sizes(adapter: Adapter, volumes: tuple[str, ...]) -> tuple[int, ...]:
    """None are known of a cloud that does not give its disks out."""
    exports = adapter.image_export
    return tuple(exports.volume_size(volume) for volume in volumes) if exports is not None else ()


def _size(adapter: Adapter, name: str) -> Size | None:
    if adapter.catalogue is None:
        return None
    return next((size for size in sizes_of(adapter) if size.name == name), None)


def _probe(wanted: HostProbe) -> Probe:
    return Probe(kind=wanted.kind, port=wanted.port, path=wanted.path, within=wanted.within)


def _drop(adapter: Adapter, order: SnapshotVolume) -> None:
    """The token finds what the order made; one that it had not made yet is made, and removed at once."""
    assert adapter.image_export is not None
    assert adapter.image_import is not None
    adapter.image_import.delete_disk(adapter.image_export.create_snapshot(order.volume, order.token).id)
