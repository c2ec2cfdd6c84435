"""Disks: what both hosts see, what is copied, and what must not be done with either."""

from __future__ import annotations

from clouds.kvm.disks import Place, obstacle
from clouds.kvm.facts import HostFacts
from models.disks import DiskImage
from models.host import DiskReport, VmSheet

IMMOVABLE_FORMATS = ("parallels", "qcow", "vdi", "vhdx", "vmdk", "vpc", "vvfat")
"""QEMU's drivers of these add a migration blocker (block/*.c: "does not support live migration")."""


def seen_alike(disk: DiskReport, facts: HostFacts) -> bool:
    return bool(disk.identity) and facts.disks.get(disk.path, "") == disk.identity


def copies(sheet: VmSheet, facts: HostFacts) -> tuple[DiskImage, ...]:
    """Images to copy, where the policy wants that. A base below an image goes with it: a copy has no base."""
    if sheet.policy.disks != "copy":
        return ()
    return tuple(disk.image for disk in sheet.disks if disk.image and not disk.readonly and not seen_alike(disk, facts))


def same_storage(sheet: VmSheet, facts: HostFacts) -> str:
    copied = {image.target for image in copies(sheet, facts)}
    strange = []
    for disk in sheet.disks:
        if disk.target.split(".")[0] in copied:
            continue
        here = facts.disks.get(disk.path, "")
        if not disk.identity:
            strange.append(f"{disk.target} {disk.path} could not be identified on {sheet.host}")
        elif not here:
            strange.append(f"{disk.target} {disk.path} does not exist on {facts.report.host}")
        elif here != disk.identity:
            strange.append(f"{disk.target} {disk.path} is a different file on {facts.report.host}")
    return "; ".join(strange)


def copy_possible(sheet: VmSheet, facts: HostFacts) -> str:
    images = {image.target for image in copies(sheet, facts)}
    wanted = [disk for disk in sheet.disks if disk.target in images]
    return "; ".join(why for disk in wanted if (why := obstacle(disk, facts.places.get(disk.path, Place()))))


def copy_may_grow(sheet: VmSheet, facts: HostFacts) -> str:
    tight = [
        f"{image.target} {image.path} may grow to {image.capacity >> 20} MiB, and {place.free >> 20} MiB are free there"
        for image in copies(sheet, facts)
        if image.allocated <= (place := facts.places.get(image.path, Place())).free < image.capacity
    ]
    return "; ".join(tight)


def format_moves(sheet: VmSheet, facts: HostFacts) -> str:
    stuck = [disk for disk in sheet.disks if not disk.readonly and disk.format in IMMOVABLE_FORMATS]
    return "; ".join(f"{disk.target} {disk.path} has format {disk.format}" for disk in stuck)


def cache_is_flushed(sheet: VmSheet, facts: HostFacts) -> str:
    """Of disks that both hosts have open at the switch; a copy is not read by its old host again."""
    copied = {image.target for image in copies(sheet, facts)}
    risky = [disk for disk in sheet.disks if disk.cache == "unsafe" and not disk.readonly and disk.target not in copied]
    return "; ".join(f"{disk.target} {disk.path} has cache mode unsafe" for disk in risky)


def no_snapshots(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.snapshots:
        return f"libvirt on {sheet.host} keeps {sheet.snapshots} snapshots of {sheet.vm.name}"
    return ""
