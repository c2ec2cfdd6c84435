"""Oracle Cloud under test."""

from __future__ import annotations

from pathlib import Path

from clouds.adapters import connect
from models.clouds import CallSettings, OciSettings
from tests.clouds.faults import FaultPlan
from tests.clouds.oci.fake import BUCKET, COMPARTMENT, DOMAIN, NAMESPACE, REGION, SUBNET, TENANCY, unpack
from tests.clouds.oci.server import RANGE, OciServer
from tests.clouds.scene import Calls


class OciCloud:
    calls = Calls(
        start="CreateMultipartUpload",
        write="UploadPart",
        finish="CommitMultipartUpload",
        read=RANGE,
        create_image="CreateImage",
        create_instance="LaunchInstance",
        reboot="InstanceAction",
        get="GetInstance",
        list="ListInstances",
        disks_of_an_image=1,
        gives_disks_up=False,
        snapshots_of_stopped=True,
    )
    size = "VM.Standard.E5.Flex:2:32"

    def __init__(self, server: OciServer, spool: Path) -> None:
        self.server = server
        self.settings = OciSettings(
            region=REGION,
            compartment=COMPARTMENT,
            tenancy=TENANCY,
            availability_domain=DOMAIN,
            subnet=SUBNET,
            namespace=NAMESPACE,
            bucket=BUCKET,
            spool=str(spool),
            endpoints={"core": server.url, "storage": server.url, "limits": server.url},
            calls=CallSettings(attempts=3, parallel=1, poll=0.01, finish_within=30, read_timeout=20),
        )
        self.adapter = connect(self.settings)

    @property
    def faults(self) -> FaultPlan:
        return self.server.faults

    def sent(self) -> int:
        return self.server.cloud.put_bytes

    def content(self, disk: str) -> dict[int, bytes]:
        cloud = self.server.cloud
        if disk in cloud.images:  # a snapshot
            return {index: data for index, data in sorted(cloud.volumes[disk].items()) if data.strip(b"\0")}
        return unpack(cloud.objects[f"novacron/{disk}.qcow2"].data)

    def things(self) -> list[str]:
        cloud = self.server.cloud
        images = [image["id"] for image in cloud.images.values() if image["lifecycleState"] != "DELETED"]
        instances = [one["id"] for one in cloud.instances.values() if one["lifecycleState"] != "TERMINATED"]
        disks = [name.removeprefix("novacron/").removesuffix(".qcow2") for name in cloud.objects]
        return [*disks, *images, *instances, *cloud.uploads]

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        self.server.cloud.guest_writes(volume, index, data)

    def small_pages(self) -> None:
        raise NotImplementedError("no index is kept there")
