"""Sizes from EC2, quotas from Service Quotas, prices from the repository's file."""

from __future__ import annotations

from typing import Any

from clouds import prices
from clouds.aws.session import AwsSession
from clouds.errors import NotFound
from models.clouds import Architecture, Firmware, Price, Quota, Size, SizePage

QUOTAS = {"ec2": ("L-1216C47A",), "ebs": ("L-309BACF6", "L-7A658B76")}
"""What a move needs: vCPUs of running standard on-demand instances; snapshots, and TiB of gp3."""
VCPUS = "L-1216C47A"
SMALLEST_PAGE, LARGEST_PAGE = 5, 100
_ARCHITECTURES: dict[str, Architecture] = {"x86_64": "x86_64", "arm64": "arm64"}
_FIRMWARE: dict[str, Firmware] = {"legacy-bios": "bios", "uefi": "uefi"}


class AwsCatalogue:
    def __init__(self, session: AwsSession) -> None:
        self._aws = session

    def list_sizes(self, page: str = "", limit: int = 100) -> SizePage:
        """Those that boot an image of ours: not Macs. AWS takes 5 to 100 as `limit`; a page may hold fewer."""
        more = {"NextToken": page} if page else {}
        most = min(max(limit, SMALLEST_PAGE), LARGEST_PAGE)
        answer = self._aws.call("list sizes", "ec2", "describe_instance_types", MaxResults=most, **more)
        sizes = [size for told in answer["InstanceTypes"] if (size := _size(told))]
        return SizePage(items=tuple(sizes), next=answer.get("NextToken") or "")

    def quotas(self) -> tuple[Quota, ...]:
        return tuple(self._quota(service, code) for service, codes in QUOTAS.items() for code in codes)

    def prices(self) -> tuple[Price, ...]:
        return prices.of("aws", self._aws.settings.region)

    def _quota(self, service: str, code: str) -> Quota:
        which = {"ServiceCode": service, "QuotaCode": code}
        try:
            told = self._aws.call(f"read quota {code}", "service-quotas", "get_service_quota", **which)["Quota"]
        except NotFound:  # never changed for this account
            told = self._aws.call(f"read quota {code}", "service-quotas", "get_aws_default_service_quota", **which)[
                "Quota"
            ]
        used = self._vcpus_in_use() if code == VCPUS else None
        return Quota(name=told["QuotaName"], limit=told["Value"], used=used, unit="vCPU" if code == VCPUS else "")

    def _vcpus_in_use(self) -> float:
        """Of running instances, standard or not: never too few."""
        used, page = 0, dict[str, str]()
        states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        while True:
            answer = self._aws.call("count vCPUs", "ec2", "describe_instances", Filters=states, MaxResults=1000, **page)
            for told in (instance for group in answer["Reservations"] for instance in group["Instances"]):
                cpu = told.get("CpuOptions", {})
                used += cpu.get("CoreCount", 1) * cpu.get("ThreadsPerCore", 1)
            if not answer.get("NextToken"):
                return float(used)
            page = {"NextToken": answer["NextToken"]}


def _size(told: dict[str, Any]) -> Size | None:
    architectures = told.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    architecture = next((_ARCHITECTURES[name] for name in architectures if name in _ARCHITECTURES), None)
    if architecture is None:
        return None
    nvme = told.get("EbsInfo", {}).get("NvmeSupport") == "required"
    ena = told.get("NetworkInfo", {}).get("EnaSupport") == "required"
    return Size(
        name=told["InstanceType"],
        vcpus=told["VCpuInfo"]["DefaultVCpus"],
        memory_mib=told["MemoryInfo"]["SizeInMiB"],
        architecture=architecture,
        firmware=tuple(_FIRMWARE[mode] for mode in told.get("SupportedBootModes", ()) if mode in _FIRMWARE),
        drivers=("nvme" if nvme else "xen-blkfront", "ena" if ena else "xen-netfront"),
    )
