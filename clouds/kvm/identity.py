"""Whether two hosts see the same file: a name for a file that is equal on two hosts exactly when they do.

A file on a network file system is named by that file system's source (`server:/export`), which every client shares,
and its inode. Any other file is named by the running kernel's boot id and device number, so that it equals only what
the same kernel sees, through whatever mounts. A block device with a world-wide id (a LUN, a multipath map) is named
by that. The size is left out on purpose: a qcow2 image grows while its VM runs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

NETWORK_FILE_SYSTEMS = {
    "nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.ceph-fuse", "glusterfs", "fuse.glusterfs", "lustre", "9p", "gpfs",
}  # fmt: skip

Reader = Callable[[str], str]


def read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def identity(path: str, read: Reader = read_text) -> str:
    """Name of the file or device at `path`; empty when it is not there (or may not be looked at)."""
    try:
        found = Path(path).stat()
    except OSError:
        return ""
    boot = read("/proc/sys/kernel/random/boot_id").strip()
    if stat.S_ISBLK(found.st_mode):
        number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        return f"device:{world_wide_id(number, read) or f'{boot}:{number}'}"
    number = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
    shared = network_source(read("/proc/self/mountinfo"), number)
    return f"{shared or f'{boot}:{number}'}:{found.st_ino}"


def network_source(mountinfo: str, device: str) -> str:
    """`type:source` of the network file system with this device number (major:minor), or empty.

    A line of mountinfo (proc_pid_mountinfo(5)): `36 35 98:0 /root /point rw,... shared:1 - type source options`.
    """
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2:3] == [device]:
            kind, source = rest.split()[:2]
            return f"{kind}:{source}" if kind in NETWORK_FILE_SYSTEMS else ""
    return ""


def world_wide_id(device: str, read: Reader) -> str:
    """The id a SAN gives a block device (major:minor), or empty for a device without one."""
    for leaf in ("dm/uuid", "wwid", "device/wwid"):
        try:
            found = read(f"/sys/dev/block/{device}/{leaf}").strip()
        except OSError:
            continue
        # A device mapper id names shared storage only when multipath made it; LVM and crypt maps are one host's own.
        if found and (leaf != "dm/uuid" or found.startswith("mpath-")):
            return found
    return ""
