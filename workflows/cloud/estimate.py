"""What a move to a cloud would meet, take and cost. Pure: the VM's facts and the place's offer in, a plan out.

Nothing is measured here: times are for two link speeds, and prices are those of a dated list.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.cloud_cache import BasesWeighed
from models.cloud_guests import GuestForecast
from models.cloud_move import CloudMoveRequest, CloudPlan, Cost, IntoCloudRequest, PlaceReport, SourceFacts, cloud_of
from models.clouds import Firmware, Price, Size
from models.host import Finding
from workflows.cloud import outfit
from workflows.cloud.rounds import when

FAST, SLOW = 125_000_000, 12_500_000
"""Bytes a second of 1 Gbit/s and of 100 Mbit/s."""
HOURS = 730
"""Of a month."""
GB = 1 << 30
STORAGE = {"aws": "gp3", "azure": "StandardSSD_LRS", "gcp": "pd-balanced", "oci": "block-volume"}
"""The disks that adapters make unless told otherwise, by their name in clouds/prices."""
SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class Machine:
    """What a VM is made of, as far as a size has to suit it."""

    architecture: str
    """Empty: not known."""
    firmware: Firmware
    memory_mib: int
    vcpus: int
    disks: int = 1


def plan(
    wanted: CloudMoveRequest, facts: SourceFacts, offer: PlaceReport, guest: GuestForecast | None = None
) -> CloudPlan:
    warm = goes_warm(wanted, facts, offer)
    capacity = sum(disk.capacity for disk in facts.disks)
    held = sum(min(disk.allocated, disk.capacity) for disk in facts.disks)
    return CloudPlan(
        vm=wanted.vm,
        source=facts.host,
        place=wanted.to,
        warm=warm,
        cached=offer.cache and wanted.cache != "off",
        steps=steps(wanted, facts, warm),
        findings=(*findings(wanted, facts, offer), *outfit.findings(wanted, facts, guest)),
        disk_bytes=capacity,
        send_bytes=held,
        seconds=(round(held / FAST, 1), round(held / SLOW, 1)),
        costs=costs(wanted, capacity, offer.prices),
        prices_as_of=offer.prices[0].as_of if offer.prices else None,
        prices_source=offer.prices[0].source if offer.prices else "",
        prepared=guest.report if guest else None,
    )


def with_bases(made: CloudPlan, weighed: BasesWeighed) -> CloudPlan:
    """The same with what bases of the place would save."""
    left = made.send_bytes - min(weighed.saved or 0, made.send_bytes)
    return made.model_copy(
        update={
            "saved_bytes": weighed.saved,
            "cache": weighed.reason,
            "seconds": (round(left / FAST, 1), round(left / SLOW, 1)),
        }
    )


def goes_warm(wanted: CloudMoveRequest, facts: SourceFacts, offer: PlaceReport) -> bool:
    return wanted.mode != "cold" and facts.running and offer.warm


def steps(wanted: CloudMoveRequest, facts: SourceFacts, warm: bool) -> tuple[str, ...]:
    disks = f"{len(facts.disks)} disk{'s' if len(facts.disks) != 1 else ''}"
    if warm:
        first: tuple[str, ...] = (
            f"copy {disks} to {wanted.to} while {wanted.vm} runs",
            f"send what changed, in rounds, {wanted.rounds} at most",
            f"cut over {when(wanted)}: shut {wanted.vm} down on {facts.host}, send the last changes",
        )
    else:
        first = (f"shut {wanted.vm} down on {facts.host}" if facts.running else f"{wanted.vm} is off already",)
        first = (*first, f"copy {disks} to {wanted.to}")
    if wanted.prepare:
        first = (*first, _prepared(wanted, facts)) if warm else (*first[:-1], _prepared(wanted, facts), first[-1])
    verify = f"ask {wanted.verify.kind} of it" if wanted.verify else "no check of your own is asked for"
    after = "remove it with its disks" if wanted.then == "remove" else "leave it there, shut off"
    return (
        *first,
        "compare the hash of every disk with what the cloud was given",
        f"make an image, run it as {wanted.size}, wait until it runs; {verify}",
        "the owner record names the cloud: from here on the VM runs there. Remove image and snapshots",
        f"keep the source for {wanted.keep_source_for:g} s to roll back to; then {after}",
    )


def _prepared(wanted: CloudMoveRequest, facts: SourceFacts) -> str:
    return (
        f"make the guest ready for {cloud_of(wanted.to)}, in a layer over its first image that is sent with the rest; "
        f"the image on {facts.host} stays as it is"
    )


def findings(wanted: CloudMoveRequest, facts: SourceFacts, offer: PlaceReport) -> tuple[Finding, ...]:
    return (*_of_the_source(wanted, facts), *of_the_place(wanted, _machine(facts), offer, prepared=wanted.prepare))


def _of_the_source(wanted: CloudMoveRequest, facts: SourceFacts) -> tuple[Finding, ...]:
    found = [_blocker("disk", each, "Detach it, or move it by hand.") for each in facts.obstacles]
    if not facts.persistent:
        what = f"{wanted.vm} is transient: {facts.host} would forget it when it stops, and could not roll back"
        found.append(_blocker("transient", what, "Define it first (virsh dumpxml, virsh define)."))
    if not facts.disks and not facts.obstacles:
        found.append(
            _blocker("no-disk", f"{wanted.vm} has no disk that could be sent", "There is nothing to boot from.")
        )
    if wanted.to not in facts.accounts:
        what = f"the worker of {facts.host} has no cloud account for {wanted.to} in its settings"
        found.append(_blocker("account", what, "Add it to `clouds` there: the host sends its own disks."))
    if facts.host_kernel:
        what = f"{wanted.vm} boots a kernel file of its host: its disks may have no boot loader"
        found.append(_warning("host-kernel", what, "Install a kernel and a boot loader in the guest."))
    if wanted.mode == "warm" and not facts.running:
        found.append(_warning("off", f"{wanted.vm} is off: it is copied cold", "Nothing to do."))
    return tuple(found)


def _machine(facts: SourceFacts) -> Machine:
    return Machine(facts.architecture, facts.firmware, facts.memory_mib, facts.vcpus, len(facts.disks))


def of_the_place(
    wanted: IntoCloudRequest, vm: Machine, offer: PlaceReport, *, prepared: bool = False
) -> tuple[Finding, ...]:
    """`prepared`: the guest is made ready for the place."""
    found = []
    if wanted.mode == "warm" and not offer.warm:
        what = f"{wanted.to} takes no changed blocks"
        found.append(_blocker("warm", what, "Use mode auto or cold."))
    if vm.disks > offer.most_disks:
        what = f"{wanted.vm} has {vm.disks} disks, and an image at {wanted.to} takes {offer.most_disks}"
        found.append(_blocker("disks", what, "Move it elsewhere, or detach the others and move them by hand."))
    if offer.size is None:
        near = f"Sizes that come near: {', '.join(offer.like)}." if offer.like else "`novacron cloud sizes` lists them."
        found.append(_blocker("size", f"{wanted.to} has no size {wanted.size}", near))
        return tuple(found)
    size = offer.size
    if vm.architecture and vm.architecture.replace("aarch64", "arm64") != size.architecture:
        what = f"{wanted.vm} is {vm.architecture}, and {size.name} is {size.architecture}"
        found.append(_blocker("architecture", what, "Choose a size of the VM's architecture."))
    if vm.firmware not in size.firmware:
        what = f"{wanted.vm} boots by {vm.firmware}, and {size.name} by {' or '.join(size.firmware) or 'neither'}"
        found.append(_blocker("firmware", what, "Choose another size, or change the guest's boot."))
    if size.memory_mib < vm.memory_mib or size.vcpus < vm.vcpus:
        what = f"{size.name} has {size.vcpus} vCPUs, {size.memory_mib} MiB; {wanted.vm} {vm.vcpus}, {vm.memory_mib}"
        found.append(_warning("smaller", what, "Choose a larger size, unless the guest makes do with it."))
    if size.drivers and not prepared:
        what = f"{size.name} needs {' and '.join(size.drivers)} in the guest's initramfs; the guest is sent as it is"
        found.append(
            _warning("drivers", what, "Add them, mount by UUID, use DHCP. A test cut-over shows whether it boots.")
        )
    return (*found, *_of_quotas(size, wanted, offer))


def _of_quotas(size: Size, wanted: IntoCloudRequest, offer: PlaceReport) -> tuple[Finding, ...]:
    full = [
        quota
        for quota in offer.quotas
        if quota.unit == "vCPU" and quota.used is not None and quota.used + size.vcpus > quota.limit
    ]
    return tuple(
        _blocker(
            "quota",
            f"{quota.name}: {quota.used:g} of {quota.limit:g} are used, and {size.name} needs {size.vcpus}",
            f"Have it raised at {cloud_of(wanted.to)}, or end an instance.",
        )
        for quota in full
    )


def costs(wanted: IntoCloudRequest, capacity: int, prices: tuple[Price, ...]) -> tuple[Cost, ...]:
    """Running it, its disks, and the snapshots for as long as the move keeps them."""
    size = -(-capacity // GB)
    hour = price(prices, wanted.size, "hour")
    disk = price(prices, STORAGE.get(cloud_of(wanted.to), ""), "gb-month")
    snapshots = price(prices, SNAPSHOT, "gb-month")
    return (
        Cost(what=f"{wanted.size}, {HOURS} hours", usd=times(hour, HOURS), per="month"),
        Cost(what=f"{size} GiB of disks", usd=times(disk, size), per="month"),
        Cost(what=f"{size} GiB of snapshots, if kept; the move removes them", usd=times(snapshots, size), per="month"),
    )


def price(prices: tuple[Price, ...], item: str, per: str) -> float | None:
    return next((price.usd for price in prices if price.item == item and price.per == per), None)


def times(usd: float | None, count: float) -> float | None:
    return None if usd is None else round(usd * count, 2)


def _blocker(id: str, what: str, remedy: str) -> Finding:
    return Finding(id=id, severity="blocker", what=what, remedy=remedy)


def _warning(id: str, what: str, remedy: str) -> Finding:
    return Finding(id=id, severity="warning", what=what, remedy=remedy)
