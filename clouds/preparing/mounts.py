"""File systems and swap by UUID: /dev/vda2 is another disk, or none, where disks are attached in another way."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clouds.preparing.guest import Guest
from clouds.preparing.layout import Partition
from clouds.preparing.loader import MOVES
from clouds.preparing.steps import Answer, Refuse, Run, Write
from clouds.preparing.targets import Target

RESUME = "etc/initramfs-tools/conf.d/resume"
_FIRST = re.compile(r"^/dev/(?:(?:[svh]d|xvd)a|nvme0n1p?|mmcblk0p?)(\d*)$")
"""A partition of the disk that the guest boots from."""
_PATHS = re.compile(r"^/dev/disk/by-(path|id)/")


def mount_by_uuid(guest: Guest, target: Target) -> Iterator[Answer]:
    text = guest.text("etc/fstab")
    if text is None:
        return
    lines, said = [], []
    for line in text.splitlines(keepends=True):
        fields = line.split()
        if line.lstrip().startswith("#") or len(fields) < 3:
            lines.append(line)
            continue
        device, where, kind = fields[:3]
        options = set(fields[3].split(",")) if len(fields) > 3 else set()
        if not (MOVES.match(device) or _PATHS.match(device)) or "noauto" in options or kind in ("iso9660", "udf"):
            lines.append(line)
            continue
        name = _by_uuid(guest, device)
        if name is None and "nofail" not in options:
            yield Refuse(
                "fstab", f"{device} {where}: which disk that is cannot be seen here", "Name it by UUID, or add nofail."
            )
        lines.append(line if name is None else line.replace(device, name, 1))
        if name is not None:
            said.append((f"{device} {where}", f"{name} {where}"))
    if said:
        before, after = (", ".join(pair[side] for pair in said) for side in (0, 1))
        yield Write("fstab", "etc/fstab", "".join(lines), before, after)


def resume_by_uuid(guest: Guest, target: Target) -> Iterator[Answer]:
    """Else its boot waits half a minute for the swap that it was to wake up from."""
    text = guest.text(RESUME)
    found = re.search(r"^RESUME=(/dev/\S+)[ \t]*$", text or "", re.MULTILINE)
    if text is None or not found or not MOVES.match(found[1]):
        return
    name = _by_uuid(guest, found[1]) or "none"
    new = text[: found.start(1)] + name + text[found.end(1) :]
    yield Write("resume", RESUME, new, f"RESUME={found[1]}", f"RESUME={name}")
    if guest.has("usr/sbin/update-initramfs"):
        yield Run("resume", ("update-initramfs", "-u", "-k", "all"), f"with RESUME={found[1]}", f"with RESUME={name}")


def _by_uuid(guest: Guest, device: str) -> str | None:
    found = _FIRST.match(device)
    if not found:
        return None
    partition: Partition | None = guest.layout.number(int(found[1] or 0))
    if partition is None or not re.fullmatch(r"[0-9A-Fa-f-]{4,40}", partition.uuid):
        return None
    return f"UUID={partition.uuid}"
