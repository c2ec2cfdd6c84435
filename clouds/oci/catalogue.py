"""Shapes of the availability domain, limits, and prices of a dated list: those of sizes are made of their parts'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clouds import prices
from clouds.oci.session import OciSession
from clouds.prices.parts import Made, with_sizes
from models.clouds import Architecture, Firmware, Price, Quota, Size, SizePage

LIMITS = (
    ("compute", "standard-e4-core-count", "OCPU"),
    ("compute", "standard-e5-core-count", "OCPU"),
    ("compute", "standard-a1-core-count", "OCPU"),
)
"""What a move needs: service, limit, unit. All are counted by availability domain."""
FLEXIBLE = (1, 2, 4, 8, 16, 32)
"""OCPUs of a flexible shape's sizes; any other can be ordered too."""
LARGEST_PAGE = 100


class OciCatalogue:
    def __init__(self, session: OciSession) -> None:
        self._oci = session

    def list_sizes(self, page: str = "", limit: int = 100) -> SizePage:
        """Of virtual machines. `limit` counts shapes; a flexible one has several sizes."""
        settings = self._oci.settings
        more = {"page": page} if page else {}
        answer = self._oci.call(
            "list shapes",
            "compute",
            "list_shapes",
            settings.compartment,
            availability_domain=settings.availability_domain,
            limit=min(max(limit, 1), LARGEST_PAGE),
            **more,
        )
        sizes = [size for told in answer.data if told.shape.startswith("VM.") for size in _sizes(told)]
        return SizePage(items=tuple(sizes), next=answer.next_page or "")

    def quotas(self) -> tuple[Quota, ...]:
        return tuple(self._quota(*limit) for limit in LIMITS)

    def prices(self) -> tuple[Price, ...]:
        known = prices.of("oci", self._oci.settings.region)
        return with_sizes(known, self._made()) if known else ()

    def _made(self) -> Iterator[Made]:
        """Of flexible shapes: `VM.Standard.E5.Flex:2:16`."""
        page = ""
        while True:
            found = self.list_sizes(page)
            for size in found.items:
                shape, _, counts = size.name.partition(":")
                if counts:
                    ocpus, memory = counts.split(":")
                    yield Made(size.name, shape, float(ocpus), float(memory))
            page = found.next
            if not page:
                return

    def _quota(self, service: str, limit: str, unit: str) -> Quota:
        settings = self._oci.settings
        told = self._oci.call(
            f"read limit {limit}",
            "limits",
            "get_resource_availability",
            service,
            limit,
            settings.tenancy,
            availability_domain=settings.availability_domain,
        ).data
        used, free = told.used or 0, told.available or 0
        return Quota(name=limit, limit=used + free, used=used, unit=unit)


def _sizes(told: Any) -> list[Size]:
    arm = "ampere" in (told.processor_description or "").lower()
    architecture: Architecture = "arm64" if arm else "x86_64"
    firmware: tuple[Firmware, ...] = ("uefi",) if arm else ("bios", "uefi")
    cpus = 1 if arm else 2
    """vCPUs of one OCPU."""

    def size(name: str, ocpus: float, memory: float) -> Size:
        return Size(
            name=name,
            vcpus=max(1, round(ocpus * cpus)),
            memory_mib=int(memory * 1024),
            architecture=architecture,
            firmware=firmware,
            drivers=("virtio_scsi", "virtio_net"),
        )

    if not told.is_flexible:
        return [size(told.shape, told.ocpus, told.memory_in_gbs)]
    per = told.memory_options.default_per_ocpu_in_g_bs
    fitting = [n for n in FLEXIBLE if told.ocpu_options.min <= n <= told.ocpu_options.max]
    return [size(f"{told.shape}:{n}:{n * per:g}", n, n * per) for n in fitting]
