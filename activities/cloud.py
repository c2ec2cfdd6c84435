"""Activities of a control worker in a cloud: what it offers, and its images and instances.

Each makes or ends what its token names, however often it runs, and waits for the end that the provider reports. Nothing
is taken for ended because a question went wrong.
"""

from __future__ import annotations

import asyncio
import difflib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import TypeVar

from temporalio import activity

from activities import errors
from activities.accounts import Accounts
from clouds.capabilities import CAPABILITIES, MOST_DISKS, OFFERS, Adapter, Instances
from clouds.errors import NotFound, OperationFailed
from clouds.tokens import TAG
from models.cloud_move import (
    MOST_SIZES,
    CheckInstance,
    CloudPlace,
    CloudPlaces,
    CloudSizes,
    EndInstance,
    InstanceChecked,
    InstanceEnded,
    MakeImage,
    PlaceQuery,
    PlaceReport,
    Probe,
    Removed,
    RemoveThings,
    RunInstance,
)
from models.clouds import CloudImage, ImageOrder, Instance, InstanceOrder, Price, Size
from models.host import SiteSettings

T = TypeVar("T")
RUNS_WITHIN = 900.0
"""An instance that does not run after this long is taken for one that will not."""
GONE = ("terminated",)
MOST_PRICES = 500
"""Of an answer: they go into histories."""
_PROBE_TIMEOUT = 5.0


class CloudActivities:
    def __init__(self, settings: SiteSettings, accounts: Accounts | None = None) -> None:
        self._accounts = accounts or Accounts(settings.clouds, f"the control worker of {settings.site}")

    @activity.defn(name="novacron.list_clouds")
    async def list_clouds(self) -> CloudPlaces:
        """The accounts of this worker's settings, and what each can do. Nothing is asked of the clouds."""
        places = (
            CloudPlace(place=place, offers={name: OFFERS[_cloud(place)][name].state for name in CAPABILITIES})  # type: ignore[index]
            for place in self._accounts.places
        )
        return CloudPlaces(places=tuple(places))

    @activity.defn(name="novacron.list_cloud_sizes")
    async def list_cloud_sizes(self, place: str) -> CloudSizes:
        def ask() -> CloudSizes:
            adapter = self._catalogue(place)
            sizes = sorted(sizes_of(adapter), key=lambda size: (size.vcpus, size.memory_mib, size.name))
            assert adapter.catalogue is not None
            shown = tuple(sizes[:MOST_SIZES])
            prices = _relevant(adapter.catalogue.prices(), {size.name for size in shown})
            return CloudSizes(sizes=shown, prices=prices, more=len(sizes) > MOST_SIZES)

        return await beating(ask)

    @activity.defn(name="novacron.place_report")
    async def place_report(self, query: PlaceQuery) -> PlaceReport:
        """What a plan has to know of the place. Reading its sizes also shows that the credentials are good."""

        def ask() -> PlaceReport:
            adapter = self._catalogue(query.place)
            names: list[str] = []
            found = None
            for size in sizes_of(adapter):
                names.append(size.name)
                found = size if size.name == query.size else found
            assert adapter.catalogue is not None
            return PlaceReport(
                size=found,
                like=tuple(difflib.get_close_matches(query.size, names, n=5)) if found is None else (),
                quotas=adapter.catalogue.quotas(),
                prices=_relevant(adapter.catalogue.prices(), {query.size}),
                warm=adapter.block_delta is not None,
                most_disks=MOST_DISKS.get(adapter.cloud, PlaceReport().most_disks),
                cache=adapter.cache is not None and adapter.cache.bounds is not None,
                export=adapter.image_export is not None,
            )

        return await beating(ask)

    @activity.defn(name="novacron.make_cloud_image")
    async def make_cloud_image(self, order: MakeImage) -> CloudImage:
        """A bootable image of disks that are there; ready when it returns. One that goes wrong is removed."""
        adapter = self._adapter(order.place)
        images = adapter.image_import
        assert images is not None
        wanted = ImageOrder(
            name=order.name,
            token=order.token,
            disks=order.disks,
            architecture=order.architecture,
            firmware=order.firmware,
        )
        made = await beating(lambda: images.create_image(wanted))
        image, until = made.id, time.monotonic() + RUNS_WITHIN
        while made.state == "pending" and time.monotonic() < until:
            await self._pause(order.place)
            made = await beating(lambda: images.get_image(image))
        if made.state != "ready":
            await beating(lambda: images.delete_image(image))
            raise errors.of(
                OperationFailed(
                    f"image {made.id} is {made.state}", "It was removed; another one is made by the next cut-over."
                )
            )
        return made

    @activity.defn(name="novacron.run_instance")
    async def run_instance(self, order: RunInstance) -> Instance:
        """The one instance of this token. It may be pending yet."""
        instances = self._instances(order.place)
        network = order.network
        wanted = InstanceOrder(
            name=order.name,
            image=order.image,
            size=order.size,
            zone=network.zone,
            subnet=network.subnet,
            security_groups=network.security_groups,
        )
        return await beating(lambda: instances.create_instance(wanted, order.token))

    @activity.defn(name="novacron.check_instance")
    async def check_instance(self, order: CheckInstance) -> InstanceChecked:
        """Does it run, and does people's own service answer? Looks until it does, or is out of time."""
        instances = self._instances(order.place)
        until = time.monotonic() + RUNS_WITHIN
        while True:
            seen = await beating(lambda: instances.get_instance(order.instance))
            if seen.state != "pending" or time.monotonic() > until:
                break
            await self._pause(order.place)
        if seen.state != "running":
            return InstanceChecked(instance=seen, good=False, said=f"instance {seen.id} is {seen.state}")
        if order.verify is None:
            return InstanceChecked(instance=seen, good=True, said=f"instance {seen.id} runs")
        return await self._verify(order, seen, order.verify)

    async def _verify(self, order: CheckInstance, seen: Instance, probe: Probe) -> InstanceChecked:
        addresses = seen.public_addresses if probe.address == "public" else seen.private_addresses
        if not addresses:
            return InstanceChecked(instance=seen, good=False, said=f"instance {seen.id} has no {probe.address} address")
        until = time.monotonic() + probe.within
        while True:
            why = await beating(lambda: ask(probe, addresses[0]))
            if not why:
                return InstanceChecked(instance=seen, good=True, said=f"{probe.kind} {addresses[0]} answers")
            if time.monotonic() > until:
                said = f"{probe.kind} {addresses[0]} did not answer well within {probe.within:.0f} s: {why}"
                return InstanceChecked(instance=seen, good=False, said=said[:4000])
            await self._pause(order.place)

    @activity.defn(name="novacron.end_instance")
    async def end_instance(self, order: EndInstance) -> InstanceEnded:
        """Terminate or stop all that this token made, and return when the provider says that it is so."""
        instances = self._instances(order.place)
        mine = await beating(lambda: _of_token(instances, order))
        for each in mine:
            await beating(lambda each=each: _end(instances, each, order.terminate))  # type: ignore[misc]
        wanted = GONE if order.terminate else ("stopped", *GONE)
        for each in mine:
            while await beating(lambda each=each: _state(instances, each)) not in wanted:  # type: ignore[misc]
                await self._pause(order.place)
        return InstanceEnded(instances=tuple(mine))

    @activity.defn(name="novacron.remove_cloud_things")
    async def remove_cloud_things(self, order: RemoveThings) -> Removed:
        """Images first: a disk that an image is made of cannot go before it."""
        images = self._adapter(order.place).image_import
        assert images is not None
        if order.image:
            await beating(lambda: images.delete_image(order.image))
        for disk in order.disks:
            await beating(lambda disk=disk: images.delete_disk(disk))  # type: ignore[misc]
        for token in order.begun:
            await beating(lambda token=token: images.delete_disk_of(token))  # type: ignore[misc]
        return Removed(count=len(order.disks) + bool(order.image))

    def _adapter(self, place: str) -> Adapter:
        try:
            return self._accounts.adapter(place)
        except Exception as error:
            raise errors.of(error) from error

    def _catalogue(self, place: str) -> Adapter:
        adapter = self._adapter(place)
        adapter.require("Catalogue")
        return adapter

    def _instances(self, place: str) -> Instances:
        instances = self._adapter(place).instances
        assert instances is not None
        return instances

    async def _pause(self, place: str) -> None:
        activity.heartbeat()
        await asyncio.sleep(self._accounts.poll(place))


async def beating(work: Callable[[], T]) -> T:
    """An SDK's blocking call in a thread; beats while it takes long, and tells its errors in Temporal's types."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        while not task.done():
            activity.heartbeat()
            await asyncio.wait([task], timeout=2)
        return task.result()
    except asyncio.CancelledError:
        await asyncio.wait([task])  # it cannot be interrupted, and must not go on behind an undo
        raise
    except Exception as error:
        told = errors.of(error)
        if told is error:
            raise
        raise told from error


def _relevant(prices: tuple[Price, ...], sizes: set[str]) -> tuple[Price, ...]:
    """Those of these sizes, and of all that is not asked for by the hour: a region's whole list is long."""
    return tuple(price for price in prices if price.per != "hour" or price.item in sizes)[:MOST_PRICES]


def _cloud(place: str) -> str:
    return place.partition(":")[0]


def sizes_of(adapter: Adapter) -> Iterator[Size]:
    assert adapter.catalogue is not None
    page = ""
    while True:
        found = adapter.catalogue.list_sizes(page)
        yield from found.items
        page = found.next
        if not page:
            return


def _of_token(instances: Instances, order: EndInstance) -> list[str]:
    """By its tag, and by its id where that is known: a fresh instance may not be listed yet."""
    found = {order.instance} if order.instance else set()
    page = ""
    while True:
        answer = instances.list_instances(page)
        found |= {each.id for each in answer.items if each.tags.get(TAG) == order.token and each.state not in GONE}
        page = answer.next
        if not page:
            return sorted(found)


def _end(instances: Instances, instance: str, terminate: bool) -> None:
    if terminate:
        instances.terminate_instance(instance)
    elif _state(instances, instance) not in ("stopped", *GONE):
        instances.stop_instance(instance)


def _state(instances: Instances, instance: str) -> str:
    try:
        return instances.get_instance(instance).state
    except NotFound:
        return "terminated"


def ask(probe: Probe, address: str) -> str:
    """One try. Empty: it is well; else what was met."""
    try:
        match probe.kind:
            case "tcp":
                socket.create_connection((address, probe.port), timeout=_PROBE_TIMEOUT).close()
            case "http":
                url = f"http://{address}:{probe.port}{probe.path}"
                urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT).close()
            case "ping":
                command = ["ping", "-c", "1", "-W", str(int(_PROBE_TIMEOUT)), address]
                subprocess.run(command, check=True, capture_output=True, timeout=2 * _PROBE_TIMEOUT)
    except (OSError, urllib.error.URLError, subprocess.SubprocessError, ValueError) as error:
        return str(error)[:500] or type(error).__name__
    return ""
