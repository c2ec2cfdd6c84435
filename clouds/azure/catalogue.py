"""Sizes from the resource SKUs, quotas from the usages, prices from the repository's file."""

from __future__ import annotations

import re
from typing import Any

from clouds import prices
from clouds.azure.session import AzureSession
from models.clouds import Architecture, Firmware, Price, Quota, Size, SizePage

_ARCHITECTURES: dict[str, Architecture] = {"x64": "x86_64", "arm64": "arm64"}
_FIRMWARE: dict[str, Firmware] = {"V1": "bios", "V2": "uefi"}
_VCPUS = re.compile(r"cores|Family$", re.IGNORECASE)


class AzureCatalogue:
    def __init__(self, session: AzureSession) -> None:
        self._azure = session

    def list_sizes(self, page: str = "", limit: int = 100) -> SizePage:
        """Those that this subscription may use in the region. A page may hold none: Azure mixes other things in."""
        where = f"location eq '{self._azure.settings.region}'"
        items, after = self._azure.cut("list sizes", "resource_skus", "list", page=page, limit=limit, filter=where)
        return SizePage(items=tuple(size for told in items if (size := _size(told))), next=after)

    def quotas(self) -> tuple[Quota, ...]:
        """Of compute in the region. A family of sizes that is not listed has a limit of none."""
        told = self._azure.pages("read quotas", "usage", "list", self._azure.settings.region)
        return tuple(
            Quota(
                name=each.name.localized_value or each.name.value or "",
                limit=each.limit,
                used=each.current_value,
                unit="vCPU" if _VCPUS.search(each.name.value or "") else "",
            )
            for each in told
            if each.limit > 0
        )

    def prices(self) -> tuple[Price, ...]:
        return prices.of("azure", self._azure.settings.region)


def _size(told: Any) -> Size | None:
    if told.resource_type != "virtualMachines":
        return None
    if any(each.type == "Location" for each in told.restrictions or ()):
        return None
    can = {each.name: each.value for each in told.capabilities or ()}
    architecture = _ARCHITECTURES.get(str(can.get("CpuArchitectureType", "x64")).lower())
    if architecture is None or "vCPUs" not in can or "MemoryGB" not in can:
        return None
    controllers = str(can.get("DiskControllerTypes") or "SCSI")
    generations = str(can.get("HyperVGenerations") or "V1").split(",")
    return Size(
        name=told.name,
        vcpus=int(can["vCPUs"]),
        memory_mib=int(float(can["MemoryGB"]) * 1024),
        architecture=architecture,
        firmware=tuple(_FIRMWARE[each] for each in generations if each in _FIRMWARE),
        drivers=("hv_vmbus", "hv_storvsc" if "SCSI" in controllers else "nvme", "hv_netvsc"),
    )
