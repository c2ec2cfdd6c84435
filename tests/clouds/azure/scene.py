"""Azure under test."""

from __future__ import annotations

from clouds.adapters import connect
from clouds.azure.session import AzureSession
from models.clouds import AzureCache, AzureSettings, CallSettings
from tests.clouds.azure.arm import GROUP, REGION, SUBNET, SUBSCRIPTION
from tests.clouds.azure.container import PATH
from tests.clouds.azure.server import AzureServer
from tests.clouds.faults import FaultPlan
from tests.clouds.scene import Calls

COUNTED = ("disks", "snapshots", "galleries/images/versions", "virtualMachines", "networkInterfaces")


class AzureCloud:
    calls = Calls(
        start="PUT disks",
        write="PUT page",
        finish="POST disks/endGetAccess",
        read="GET blob",
        create_image="PUT galleries/images/versions",
        create_instance="PUT virtualMachines",
        reboot="POST virtualMachines/restart",
        get="GET virtualMachines",
        list="GET virtualMachines",
        put_object="PUT object",
        list_objects="GET objects",
        limited=("PUT disks", 0),
        images_hold_disks=False,
        deltas_are_of_one_line=False,
    )
    size = "Standard_D2s_v5"

    def __init__(self, server: AzureServer) -> None:
        self.server = server
        self.settings = AzureSettings(
            region=REGION,
            subscription=SUBSCRIPTION,
            resource_group=GROUP,
            subnet=SUBNET,
            endpoint_url=server.url,
            cache=AzureCache(container=f"{server.url}{PATH}"),
            calls=CallSettings(attempts=3, parallel=4, poll=0.01, finish_within=30, read_timeout=20),
        )
        self.adapter = connect(self.settings)
        self.session = AzureSession(self.settings)
        """For what the adapter never does."""

    @property
    def faults(self) -> FaultPlan:
        return self.server.faults

    def sent(self) -> int:
        return self.server.arm.blobs.sent

    def content(self, disk: str) -> dict[int, bytes]:
        return self.server.arm.content(disk)

    def things(self) -> list[str]:
        """Without what belongs to a VM and goes with it."""
        return [
            thing.id
            for thing in self.server.arm.things.values()
            if thing.told["type"].partition("/")[2] in COUNTED
            and "managedBy" not in thing.told
            and "virtualMachine" not in thing.properties
        ]

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        self.server.arm.guest_writes(volume, index, data)

    def small_pages(self) -> None:
        self.server.container.page = 2
