"""Google Cloud under test."""

from __future__ import annotations

from clouds.adapters import connect
from models.clouds import CallSettings, GcpSettings
from tests.clouds.faults import FaultPlan
from tests.clouds.gcp.compute import PROJECT, REGION, ZONES
from tests.clouds.gcp.server import BUCKET, PART, GcpServer
from tests.clouds.scene import Calls


class GcpCloud:
    calls = Calls(
        start="objects.insert.resumable",
        write=PART,
        finish="images.insert",
        read="",  # there is no export
        create_image="images.insert",
        create_instance="instances.insert",
        reboot="instances.reset",
        get="instances.get",
        list="instances.aggregatedList",
    )
    size = "e2-medium"

    def __init__(self, server: GcpServer) -> None:
        self.server = server
        self.settings = GcpSettings(
            project=PROJECT,
            region=REGION,
            zone=ZONES[0],
            bucket=BUCKET,
            endpoints={"compute": server.url, "storage": server.url},
            calls=CallSettings(attempts=3, parallel=1, poll=0.01, finish_within=30, read_timeout=20),
        )
        self.adapter = connect(self.settings)

    @property
    def faults(self) -> FaultPlan:
        return self.server.faults

    def sent(self) -> int:
        return self.server.storage.put_bytes

    def content(self, disk: str) -> dict[int, bytes]:
        return dict(sorted(self.server.compute.content[disk].items()))

    def things(self) -> list[str]:
        compute = self.server.compute
        return [*compute.images, *compute.instances, *self.server.storage.objects]

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        self.server.compute.disks[volume][index] = data.ljust(512 << 10, b"\0")

    def small_pages(self) -> None:
        raise NotImplementedError("no index is kept there")
