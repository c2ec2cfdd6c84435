"""What a move from a cloud would meet, take and cost. Pure: what the cloud and the host said in, a plan out.

Bytes are those of whole disks: how much of a disk was ever written, a cloud tells with its first snapshot, and a plan
makes none. So they, times and traffic are the most that the first copy can come to.
"""

from __future__ import annotations

from models.cloud_bring import ArrivalFacts, BringPlan, CloudBringRequest, Hardware, InstanceFacts
from models.cloud_move import MOST_DISKS, Cost, CutOverRequest, cloud_of
from models.clouds import Price
from models.host import Finding
from workflows.cloud import estimate
from workflows.cloud.estimate import FAST, GB, SLOW
from workflows.cloud.rounds import when

EGRESS = "internet-egress"
"""Traffic out of a cloud, by its name in clouds/prices."""


def plan(
    wanted: CloudBringRequest, facts: InstanceFacts, host: ArrivalFacts, prices: tuple[Price, ...] = ()
) -> BringPlan:
    """`prices`: of the cloud; a plan that nobody reads needs none."""
    warm, capacity = goes_warm(wanted, facts), sum(facts.sizes)
    return BringPlan(
        vm=wanted.vm,
        place=wanted.source,
        instance=facts.instance.id if facts.instance else "",
        host=wanted.to,
        warm=warm,
        volumes=facts.volumes,
        steps=steps(wanted, facts, host, warm),
        findings=(*of_the_instance(wanted, wanted.source, wanted.instance, facts), *_of_the_host(wanted, facts, host)),
        disk_bytes=capacity,
        seconds=(round(capacity / FAST, 1), round(capacity / SLOW, 1)),
        costs=_costs(wanted, capacity, prices) if prices else (),
        prices_as_of=prices[0].as_of if prices else None,
        prices_source=prices[0].source if prices else "",
    )


def _costs(wanted: CloudBringRequest, capacity: int, prices: tuple[Price, ...]) -> tuple[Cost, ...]:
    size = -(-capacity // GB)
    disk = estimate.price(prices, estimate.STORAGE.get(cloud_of(wanted.source), ""), "gb-month")
    kept = Cost(
        what=f"{size} GiB of disks of the instance, for as long as it is kept, stopped",
        usd=estimate.times(disk, size),
        per="month",
    )
    return (*of_leaving(wanted.source, size, size, prices), kept)


def of_leaving(place: str, size: int, out: int, prices: tuple[Price, ...]) -> tuple[Cost, ...]:
    """GiB of disks, and GiB that are read of them. By the price of the internet, which is the most."""
    return (
        Cost(
            what=f"{out} GiB out of {place} at most, for the first copy",
            usd=estimate.times(estimate.price(prices, EGRESS, "gb"), out),
            per="once",
        ),
        Cost(
            what=f"{size} GiB of snapshots in {place}, if kept; the move removes them",
            usd=estimate.times(estimate.price(prices, estimate.SNAPSHOT, "gb-month"), size),
            per="month",
        ),
    )


def goes_warm(wanted: CloudBringRequest, facts: InstanceFacts) -> bool:
    return wanted.mode != "cold" and facts.warm and ran(facts)


def ran(facts: InstanceFacts) -> bool:
    return facts.instance is not None and facts.instance.state in ("running", "pending")


def hardware(wanted: CloudBringRequest, facts: InstanceFacts) -> Hardware:
    """As the request says, else as the instance's size has it."""
    given, size = wanted.hardware, facts.size
    return given.model_copy(
        update={
            "memory_mib": given.memory_mib or (size.memory_mib if size else None),
            "vcpus": given.vcpus or (size.vcpus if size else None),
        }
    )


def steps(wanted: CloudBringRequest, facts: InstanceFacts, host: ArrivalFacts, warm: bool) -> tuple[str, ...]:
    instance = f"instance {facts.instance.id}" if facts.instance else "the instance"
    count = len(facts.volumes)
    disks = f"{count} disk{'s' if count != 1 else ''}"
    if warm:
        first: tuple[str, ...] = (
            f"snapshot {disks} and bring them to {wanted.folder} on {wanted.to} while {instance} runs",
            f"bring what changed, in rounds, {wanted.rounds} at most",
            f"cut over {when(wanted)}: stop {instance}, bring the last changes",
        )
    else:
        stop = f"stop {instance}" if ran(facts) else f"{instance} is stopped already"
        first = (stop, f"bring {disks} to {wanted.folder} on {wanted.to}")
    define = "put the images into the VM's definition there" if host.defined else "define the VM there"
    verify = f"ask {wanted.verify.kind} of {wanted.verify.address}" if wanted.verify else "no check of your own"
    after = "terminate it, its disks with it" if wanted.then == "remove" else "leave it there, stopped"
    return (
        *first,
        "compare the hash of every image with what the cloud gave",
        f"{define}, see that the instance is stopped, start it; {verify}",
        "the owner record names the host: from here on the VM runs there. Remove the snapshots",
        f"keep the instance, stopped, for {wanted.keep_source_for:g} s to roll back to; then {after}",
    )


def of_the_instance(wanted: CutOverRequest, source: str, named: str, facts: InstanceFacts) -> tuple[Finding, ...]:
    """What speaks against the instance; `named`: the id that was asked for, if one was."""
    if facts.instance is None:
        if facts.candidates:
            what = f"{source} has several that could be {wanted.vm}: {', '.join(facts.candidates)}"
            return (_blocker("instance", what, "Name one by its id: instance (--instance)."),)
        what = f"{source} has no instance {named or f'of the name {wanted.vm}'}"
        return (_blocker("instance", what, "Name it by its id: instance (--instance)."),)
    found = []
    if facts.instance.state not in ("running", "pending", "stopped", "stopping"):
        what = f"instance {facts.instance.id} is {facts.instance.state}"
        found.append(_blocker("state", what, "It has to run, or to be stopped."))
    if not facts.export:
        found.append(_blocker("export", f"{source} does not give its disks out, {facts.why_not}", "Use a tool."))
    if not facts.volumes:
        what = f"instance {facts.instance.id} has no disk that can be read"
        found.append(_blocker("no-disk", what, "Disks of the machine itself (instance store) cannot be."))
    if len(facts.volumes) > MOST_DISKS:
        what = f"instance {facts.instance.id} has {len(facts.volumes)} disks, and {MOST_DISKS} are the most"
        found.append(_blocker("disks", what, "Detach those that are not needed."))
    if wanted.mode == "warm" and not facts.warm:
        found.append(_blocker("warm", f"{source} does not tell what changed", "Use mode auto or cold."))
    if wanted.mode == "warm" and facts.warm and not ran(facts):
        what = f"instance {facts.instance.id} does not run: it is copied cold"
        found.append(_warning("off", what, "Nothing to do."))
    return tuple(found)


def _of_the_host(wanted: CloudBringRequest, facts: InstanceFacts, host: ArrivalFacts) -> tuple[Finding, ...]:
    found = [*host.findings]
    made = hardware(wanted, facts)
    if host.alive:
        what = f"{wanted.to} has a live copy of {wanted.vm} already"
        found.append(_blocker("two-copies", what, "Find out which is the VM, and end the other."))
    if wanted.source not in host.accounts:
        what = f"the worker of {wanted.to} has no cloud account for {wanted.source} in its settings"
        found.append(_blocker("account", what, "Add it to `clouds` there: the host fetches its own disks."))
    if not host.folder:
        what = f"{wanted.to} has no folder {wanted.folder}, or cannot write in it"
        found.append(_blocker("folder", what, "Make it, or name another (folder)."))
    if facts.size and facts.size.architecture != host.architecture:
        what = f"{facts.size.name} is {facts.size.architecture}, and {wanted.to} is {host.architecture}"
        found.append(_blocker("architecture", what, "Choose a host of the VM's architecture."))
    if host.defined and facts.instance and len(host.disks) != len(facts.volumes):
        what = f"the definition on {wanted.to} has {len(host.disks)} disks, the instance {len(facts.volumes)}"
        found.append(_blocker("definition", what, "Change it, or undefine it there: then one is made."))
    if not host.defined:
        found += _of_new_hardware(wanted, made)
    if (made.memory_mib or 0) > host.memory_free_mib:
        what = f"{wanted.to} has {host.memory_free_mib} MiB free, and {wanted.vm} needs {made.memory_mib}"
        found.append(_warning("memory", what, "Make room, or it may fail to start and be undone."))
    if not host.accelerated:
        what = f"{wanted.to} has no KVM: the VM would be emulated"
        found.append(_warning("slow", what, "Choose another host."))
    return tuple(found)


def _of_new_hardware(wanted: CloudBringRequest, made: Hardware) -> list[Finding]:
    if made.memory_mib is None or made.vcpus is None:
        what = f"{wanted.to} has no definition of {wanted.vm}, and the catalogue does not have the instance's size"
        return [_blocker("hardware", what, "Give hardware.memory_mib and hardware.vcpus.")]
    net = made.network or made.bridge
    what = (
        f"{wanted.to} has no definition of {wanted.vm}: one is made with {made.vcpus} vCPUs, {made.memory_mib} MiB, "
        f"{made.firmware}, {f'network {net}' if net else 'no network interface'}"
    )
    return [_warning("hardware", what, "Say what it is to have (hardware), or define it there first, off.")]


def _blocker(id: str, what: str, remedy: str) -> Finding:
    return Finding(id=id, severity="blocker", what=what, remedy=remedy)


def _warning(id: str, what: str, remedy: str) -> Finding:
    return Finding(id=id, severity="warning", what=what, remedy=remedy)
