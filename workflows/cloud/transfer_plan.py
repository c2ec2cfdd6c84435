"""What a move between clouds would meet, take and cost. Pure: what both clouds said in, a plan out.

Bytes are those of whole disks: how much of a disk was ever written, a cloud tells with its first snapshot, and a plan
makes none. So they, times and traffic are the most that the first copy can come to.
"""

from __future__ import annotations

from models.cloud_bring import InstanceFacts
from models.cloud_move import Cost, PlaceReport, cloud_of
from models.cloud_transfer import CloudTransferRequest, TransferPlan
from models.clouds import Price
from models.host import Finding
from workflows.cloud import arrival_plan, estimate
from workflows.cloud.arrival_plan import EGRESS, ran
from workflows.cloud.estimate import FAST, GB, SLOW, Machine
from workflows.cloud.rounds import when

ARCHIVES = ("gcp", "oci")
"""Clouds that take a disk as one archive: it is read once to know it, and once to send it."""
ONE_DISK = ("oci",)
"""Clouds that make images of a boot disk alone."""


def plan(
    wanted: CloudTransferRequest, facts: InstanceFacts, offer: PlaceReport, at_source: tuple[Price, ...]
) -> TransferPlan:
    """`at_source`: prices of the cloud that it leaves."""
    warm = goes_warm(wanted, facts, offer)
    capacity = sum(facts.sizes)
    prices = offer.prices or at_source
    return TransferPlan(
        vm=wanted.vm,
        source=wanted.source,
        place=wanted.to,
        instance=facts.instance.id if facts.instance else "",
        volumes=facts.volumes,
        warm=warm,
        steps=steps(wanted, facts, offer, warm),
        findings=findings(wanted, facts, offer),
        disk_bytes=capacity,
        send_bytes=capacity,
        seconds=(round(capacity / FAST, 1), round(capacity / SLOW, 1)),
        costs=costs(wanted, capacity, offer, at_source),
        prices_as_of=prices[0].as_of if prices else None,
        prices_source=prices[0].source if prices else "",
    )


def goes_warm(wanted: CloudTransferRequest, facts: InstanceFacts, offer: PlaceReport) -> bool:
    return wanted.mode != "cold" and facts.warm and offer.warm and ran(facts)


def reads_back(wanted: CloudTransferRequest, offer: PlaceReport) -> bool:
    return wanted.read_back and offer.export


def machine(wanted: CloudTransferRequest, facts: InstanceFacts) -> Machine:
    """What the VM is made of, as its size has it."""
    size = facts.size
    return Machine(
        architecture=size.architecture if size else "",
        firmware=wanted.firmware,
        memory_mib=size.memory_mib if size else 0,
        vcpus=size.vcpus if size else 0,
        disks=len(facts.volumes),
    )


def steps(wanted: CloudTransferRequest, facts: InstanceFacts, offer: PlaceReport, warm: bool) -> tuple[str, ...]:
    instance = f"instance {facts.instance.id}" if facts.instance else "the instance"
    disks = f"{len(facts.volumes)} disk{'s' if len(facts.volumes) != 1 else ''}"
    across = f"from {wanted.source} to {wanted.to}"
    if warm:
        first: tuple[str, ...] = (
            f"snapshot {disks} and bring them {across} while {instance} runs",
            f"bring what changed, in rounds, {wanted.rounds} at most",
            f"cut over {when(wanted)}: stop {instance}, bring the last changes",
        )
    else:
        first = (f"stop {instance}" if ran(facts) else f"{instance} is stopped already", f"bring {disks} {across}")
    proof = "read what was written back, and compare it" if reads_back(wanted, offer) else "compare what was taken"
    verify = f"ask {wanted.verify.kind} of it" if wanted.verify else "no check of your own is asked for"
    after = "terminate it, its disks with it" if wanted.then == "remove" else "leave it there, stopped"
    return (
        *first,
        f"after each round: {proof} with what {cloud_of(wanted.source)} gave",
        f"make an image, see that {instance} is stopped, run the image as {wanted.size}; {verify}",
        f"the owner record names {wanted.to}: from here on the VM runs there. Remove image, disks and snapshots",
        f"keep {instance}, stopped, for {wanted.keep_source_for:g} s to roll back to; then {after}",
    )


def findings(wanted: CloudTransferRequest, facts: InstanceFacts, offer: PlaceReport) -> tuple[Finding, ...]:
    there = estimate.of_the_place(wanted, machine(wanted, facts), offer)
    return (
        *arrival_plan.of_the_instance(wanted, wanted.source, wanted.instance, facts),
        *there,
        *_of_the_way(wanted, facts, offer),
    )


def _of_the_way(wanted: CloudTransferRequest, facts: InstanceFacts, offer: PlaceReport) -> list[Finding]:
    found = []
    to = cloud_of(wanted.to)
    if to in ONE_DISK and len(facts.volumes) > 1:
        what = f"{wanted.to} makes images of one disk, and the instance has {len(facts.volumes)}"
        found.append(_finding("disks", "blocker", what, "Detach the others, and move their content by hand."))
    if wanted.mode == "auto" and ran(facts) and facts.export and not goes_warm(wanted, facts, offer):
        why = (
            f"{wanted.source} does not tell what changed" if not facts.warm else f"{wanted.to} takes no changed blocks"
        )
        what = f"{why}: the instance is stopped for as long as all of its disks take"
        found.append(_finding("cold", "warning", what, "Plan for the downtime, or choose another cloud."))
    if to in ARCHIVES:
        what = f"{wanted.to} takes a disk as one archive: each disk is read twice, and paid for twice"
        found.append(_finding("twice", "warning", what, "Nothing to do; it is in the costs."))
    if wanted.read_back and not offer.export:
        what = f"{wanted.to} does not give disks out: what it was given is not read back, its own checksums have to do"
        found.append(_finding("not-read-back", "warning", what, "Nothing to do."))
    if to != cloud_of(wanted.source):
        what = f"the guest meets other devices in {to}: drivers, console, network and cloud-init are those of its cloud"
        remedy = "Prepare it in the guest first (docs/preparing.md). A test cut-over shows whether it boots."
        found.append(_finding("prepare", "warning", what, remedy))
    return found


def costs(
    wanted: CloudTransferRequest, capacity: int, offer: PlaceReport, at_source: tuple[Price, ...]
) -> tuple[Cost, ...]:
    """Traffic once, by the price of the internet, which is the most; then what the instance costs."""
    size = -(-capacity // GB)
    out = size * (2 if cloud_of(wanted.to) in ARCHIVES else 1)
    told = [*arrival_plan.of_leaving(wanted.source, size, out, at_source)]
    if reads_back(wanted, offer):
        told.append(
            Cost(
                what=f"{size} GiB out of {wanted.to} at most, to read back what was written (read_back)",
                usd=estimate.times(estimate.price(offer.prices, EGRESS, "gb"), size),
                per="once",
            )
        )
    return (*told, *estimate.costs(wanted, capacity, offer.prices))


def _finding(id: str, severity: str, what: str, remedy: str) -> Finding:
    return Finding.model_validate({"id": id, "severity": severity, "what": what, "remedy": remedy})
