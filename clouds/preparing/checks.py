"""What cannot be prepared, found before anything is: each with the reason and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator

from clouds.preparing.guest import Guest
from clouds.preparing.steps import Answer, Noted, Refuse
from clouds.preparing.targets import Target

_SUPPORTED = ("ext4", "xfs")
HINDRANCES: dict[str, tuple[str, str]] = {
    "luks": ("is encrypted with LUKS", "Remove the encryption, or prepare the guest by hand while it runs."),
    "lvm": ("is a volume of LVM", "Prepare the guest by hand while it runs: LVM is not opened here."),
    "raid": ("is part of a RAID", "Prepare the guest by hand while it runs: RAIDs are not opened here."),
    "btrfs": ("has btrfs", "Prepare the guest by hand while it runs: btrfs is not opened here."),
    "bitlocker": ("is encrypted with BitLocker", "Windows guests are not prepared here: use the cloud's own import."),
    "ntfs": ("has NTFS", "Windows guests are not prepared here: use the cloud's own import."),
}
"""Kinds of file systems that may hold the guest, and are not opened."""


def check_machine(guest: Guest, target: Target) -> Iterator[Answer]:
    """Does it hold one Linux that we can read, all of it?"""
    roots = guest.root.split()
    if len(roots) > 1:
        listed = ", ".join(root.partition(":")[0] for root in roots)
        yield Refuse(
            "machine", f"{len(roots)} roots of Linux: {listed}", "Which is meant is not guessed: move one away."
        )
    hindering = [each for each in guest.layout.partitions if each.kind in HINDRANCES]
    for each in hindering:
        why, remedy = HINDRANCES[each.kind]
        if not roots or each.kind not in ("ntfs", "bitlocker"):  # beside a Linux it is a disk like another
            yield Refuse("machine", f"{each.device} {why}", remedy)
    for device in guest.damaged:
        yield Refuse("machine", f"the file system of {device} cannot be mounted", "Check it with fsck, in the guest.")
    if not roots and not hindering and not guest.damaged:
        kinds = ", ".join(f"{each.device} {each.kind}" for each in guest.layout.partitions) or "no partitions"
        yield Refuse("machine", f"no root of a Linux on it: {kinds}", "Give the disk that the guest boots from.")
    if len(roots) == 1:
        device, _, kind = roots[0].partition(":")
        yield Noted(f"root file system {device}, {kind}")
    for line in guest.unmounted:
        yield Refuse("machine", f"fstab's {line} is not on this disk", "Guests with their system on one disk only.")


def check_kernels(guest: Guest, target: Target) -> Iterator[Answer]:
    """Is there a kernel, and can every one of them drive the target's devices?"""
    kernels = guest.kernels()
    if not kernels:
        yield Refuse("kernel", "no kernel in /boot", "Install one in the guest.")
    for kernel in kernels:
        modules = guest.modules(kernel)
        missing = [name for name in target.drivers if name not in modules]
        if not modules:
            yield Refuse("kernel", f"kernel {kernel} has no modules", "Remove it, or install its modules.")
        elif missing:
            yield Refuse(
                "kernel", f"kernel {kernel} lacks {', '.join(missing)}", "Install a newer one; remove this one."
            )
        else:
            yield Noted(f"kernel {kernel}")
