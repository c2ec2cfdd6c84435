"""Sizes from the settings, limits of the host and of the folder. Your own host has no price list."""

from __future__ import annotations

import os
from pathlib import Path

from clouds.errors import Invalid
from clouds.kvm.connection import Connection
from clouds.kvm.place.session import Libvirt
from models.clouds import Price, Quota, Size, SizePage

ACTIVE = 1
"""VIR_CONNECT_LIST_DOMAINS_ACTIVE."""
DRIVERS = ("virtio_blk", "virtio_net")


class KvmCatalogue:
    def __init__(self, libvirt: Libvirt) -> None:
        self._libvirt = libvirt

    def list_sizes(self, page: str = "", limit: int = 100) -> SizePage:
        """A size is listed whether it fits beside what runs or not: `quotas` tells."""
        if page and not page.isdecimal():
            raise Invalid(f"page {page!r} is of no list of sizes", "List anew.")
        start, most = int(page or 0), min(max(limit, 1), 1000)
        sizes = self._libvirt.settings.sizes
        items = tuple(
            Size(
                name=size.name,
                vcpus=size.vcpus,
                memory_mib=size.memory_mib,
                architecture="x86_64",
                firmware=("bios", "uefi"),
                drivers=DRIVERS,
            )
            for size in sizes[start : start + most]
        )
        return SizePage(items=items, next=str(start + most) if start + most < len(sizes) else "")

    def quotas(self) -> tuple[Quota, ...]:
        """What all VMs of the host use counts. libvirt lets more CPUs be given than there are."""
        settings = self._libvirt.settings
        memory, cpus, used_memory, used_cpus = self._libvirt.call(
            "ask for the host's limits", lambda session: session.call("ask for the host's limits", _host)
        )
        folder = next(each for each in (Path(settings.folder), *Path(settings.folder).parents) if each.is_dir())
        room = os.statvfs(folder)
        total, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
        return (
            Quota(
                name="memory of running VMs",
                limit=max(1.0, memory - settings.memory_reserve_mib),
                used=used_memory,
                unit="MiB",
            ),
            Quota(name="CPUs of running VMs", limit=cpus, used=used_cpus, unit="vCPU"),
            Quota(name=f"storage of {settings.folder}", limit=total >> 20, used=(total - free) >> 20, unit="MiB"),
        )

    def prices(self) -> tuple[Price, ...]:
        return ()


def _host(connection: Connection) -> tuple[float, float, float, float]:
    """(memory in MiB, CPUs) there are, and given to running VMs."""
    told = connection.getInfo()
    infos = [domain.info() for domain in connection.listAllDomains(ACTIVE)]
    memory, cpus = sum(info[1] for info in infos) / 1024, sum(info[3] for info in infos)
    return float(told[1]), float(told[2]), memory, float(cpus)
