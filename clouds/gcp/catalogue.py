"""Machine types of the settings' zone, quotas of its region and project, and prices of a
dated list: those of types that it does not name are made of their parts'.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clouds import prices
from clouds.gcp.session import GcpSession
from clouds.prices.parts import Made, with_sizes
from models.clouds import Architecture, Firmware, Price, Quota, Size, SizePage

REGION_QUOTAS = {"CPUS": "vCPU", "INSTANCES": "", "DISKS_TOTAL_GB": "GB", "SSD_TOTAL_GB": "GB", "IN_USE_ADDRESSES": ""}
PROJECT_QUOTAS = {"IMAGES": ""}
"""What a move needs, with the unit of each."""
LARGEST_PAGE = 500
VIRTIO_FAMILIES = {"e2", "n1", "n2", "n2d", "t2d", "c2", "c2d", "m1", "m2", "a2", "g2", "f1", "g1"}
"""First and second generation: disks by virtio-scsi and networks by virtio. Whatever came later has NVMe and gVNIC,
so a family that is not here is taken for one of those."""
SHARED = {"e2-micro": 0.25, "e2-small": 0.5, "e2-medium": 1.0}
"""CPUs that these are billed as; they show two."""
MORE_PARTS = ("-lssd", "-metal")
"""Ends of names of types whose price has more parts than CPUs and memory."""


class GcpCatalogue:
    def __init__(self, session: GcpSession) -> None:
        self._gcp = session

    def list_sizes(self, page: str = "", limit: int = 100) -> SizePage:
        """Google takes up to 500 as `limit`."""
        told = self._gcp.compute(
            "list sizes",
            "MachineTypes",
            "list",
            zone=self._gcp.settings.zone,
            max_results=min(max(limit, 1), LARGEST_PAGE),
            page_token=page,
        )
        return SizePage(items=tuple(_size(item) for item in told.items), next=told.next_page_token)

    def quotas(self) -> tuple[Quota, ...]:
        region = self._gcp.compute("read the region's quotas", "Regions", "get", region=self._gcp.settings.region)
        project = self._gcp.compute("read the project's quotas", "Projects", "get")
        return (*_quotas(region, REGION_QUOTAS), *_quotas(project, PROJECT_QUOTAS))

    def prices(self) -> tuple[Price, ...]:
        known = prices.of("gcp", self._gcp.settings.region)
        return with_sizes(known, self._made()) if known else ()

    def _made(self) -> Iterator[Made]:
        page = ""
        while True:
            found = self.list_sizes(page, LARGEST_PAGE)
            for size in found.items:
                if not size.name.endswith(MORE_PARTS):
                    cpus = SHARED.get(size.name, float(size.vcpus))
                    yield Made(size.name, size.name.partition("-")[0], cpus, size.memory_mib / 1024)
            page = found.next
            if not page:
                return


def _quotas(told: Any, wanted: dict[str, str]) -> list[Quota]:
    return [
        Quota(name=quota.metric, limit=quota.limit, used=quota.usage, unit=wanted[quota.metric])
        for quota in told.quotas
        if quota.metric in wanted
    ]


def _size(told: Any) -> Size:
    architecture: Architecture = "arm64" if told.architecture == "ARM64" else "x86_64"
    firmware: tuple[Firmware, ...] = ("uefi",) if architecture == "arm64" else ("bios", "uefi")
    virtio = told.name.partition("-")[0] in VIRTIO_FAMILIES
    return Size(
        name=told.name,
        vcpus=told.guest_cpus,
        memory_mib=told.memory_mb,
        architecture=architecture,
        firmware=firmware,
        drivers=("virtio_scsi", "virtio_net") if virtio else ("nvme", "gve"),
    )
