"""AWS under test."""

from __future__ import annotations

from clouds.adapters import connect
from clouds.aws.session import AwsSession
from models.clouds import AwsCache, AwsSettings, CallSettings
from tests.clouds.aws.objects import BUCKET
from tests.clouds.aws.server import AwsServer
from tests.clouds.faults import FaultPlan
from tests.clouds.scene import Calls


class AwsCloud:
    calls = Calls(
        start="StartSnapshot",
        write="PutSnapshotBlock",
        finish="CompleteSnapshot",
        read="GetSnapshotBlock",
        create_image="RegisterImage",
        create_instance="RunInstances",
        reboot="RebootInstances",
        get="DescribeInstances",
        list="DescribeInstances",
        put_object="PutObject",
        list_objects="ListObjectsV2",
    )
    size = "t3.micro"

    def __init__(self, server: AwsServer) -> None:
        self.server = server
        self.settings = AwsSettings(
            region="us-east-1",
            endpoint_url=server.url,
            cache=AwsCache(bucket=BUCKET),
            calls=CallSettings(attempts=3, parallel=4, poll=0.01, finish_within=30, read_timeout=20),
        )
        self.adapter = connect(self.settings)
        self.session = AwsSession(self.settings)
        """For what the adapter never does."""

    @property
    def faults(self) -> FaultPlan:
        return self.server.faults

    def sent(self) -> int:
        return self.server.strict.put_bytes

    def content(self, disk: str) -> dict[int, bytes]:
        blocks = self.server.strict.snapshots[disk].blocks
        return {index: data for index, data in sorted(blocks.items()) if data.strip(b"\0")}

    def things(self) -> list[str]:
        return [*self.server.strict.snapshots, *self.server.strict.images, *self.server.instances()]

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        self.server.strict.guest_writes(volume, index, data)

    def small_pages(self) -> None:
        self.server.objects.page = 2
