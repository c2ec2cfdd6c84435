"""Drivers of the target in the initramfs of every kernel, whichever of the two programs makes it."""

from __future__ import annotations

from collections.abc import Iterator

from clouds.preparing.guest import Guest
from clouds.preparing.steps import Answer, Refuse, Run, Write
from clouds.preparing.targets import Target

MODULES = "etc/initramfs-tools/modules"
DRACUT = "etc/dracut.conf.d/90-novacron.conf"


def pack_drivers(guest: Guest, target: Target) -> Iterator[Answer]:
    lacking: dict[str, list[str]] = {}
    for kernel in guest.kernels():
        modules, packed = guest.modules(kernel), guest.packed.get(kernel, frozenset())
        wanted = [name for name in (*target.drivers, *target.if_there) if name in modules]
        if missing := [name for name in wanted if not modules[name] and name not in packed]:
            lacking[kernel] = missing
    if not lacking:
        return
    names = [name for name in (*target.drivers, *target.if_there) if any(name in each for each in lacking.values())]
    before = f"without {' '.join(names)}"
    if guest.has("usr/sbin/update-initramfs"):
        text = guest.text(MODULES) or ""
        listed = {line.split()[0].replace("-", "_") for line in text.splitlines() if line.split()}
        if added := [name for name in names if name not in listed]:
            yield Write("drivers", MODULES, _with_lines(text, added), "-", f"lists {' '.join(added)}")
        yield Run("drivers", ("update-initramfs", "-u", "-k", "all"), before, f"with {' '.join(names)}")
    elif guest.has("usr/bin/dracut") or guest.has("usr/sbin/dracut"):
        # Made for this machine alone (hostonly) it would have the drivers of where it is made.
        text = f'hostonly="no"\nadd_drivers+=" {" ".join(_all(guest, target))} "\n'
        if guest.text(DRACUT) != text:
            yield Write("drivers", DRACUT, text, "-", f"adds {' '.join(_all(guest, target))}")
        yield Run("drivers", ("dracut", "--force", "--regenerate-all"), before, f"with {' '.join(names)}")
    else:
        yield Refuse(
            "drivers",
            f"the initramfs lacks {' '.join(names)}, and neither initramfs-tools nor dracut is there to make it anew",
            "Install one of them in the guest, or make the initramfs there.",
        )


def _all(guest: Guest, target: Target) -> list[str]:
    """What any of its kernels has as a module."""
    have = [guest.modules(kernel) for kernel in guest.kernels()]
    return [name for name in (*target.drivers, *target.if_there) if any(each.get(name) is False for each in have)]


def _with_lines(text: str, lines: list[str]) -> str:
    joint = "" if not text or text.endswith("\n") else "\n"
    return text + joint + "".join(f"{line}\n" for line in lines)
