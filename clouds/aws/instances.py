"""EC2's instances in our words."""

from __future__ import annotations

import contextlib
from typing import Any

from clouds.aws.session import AwsSession, tag_dict, tag_list
from clouds.errors import NotFound
from clouds.tokens import TAG
from models.clouds import Instance, InstanceDisk, InstanceOrder, InstancePage, InstanceState

STATES: dict[str, InstanceState] = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "shutting-down": "terminating",
    "terminated": "terminated",
}
REBOOT_TAG = "novacron-reboot"
"""Token of the last reboot."""
SMALLEST_PAGE, LARGEST_PAGE = 5, 1000


class AwsInstances:
    """Instances. Start, stop and terminate have no token because twice is once; RunInstances has one; a reboot is
    remembered in a tag, set after it: a worker that dies between the two reboots twice."""

    def __init__(self, session: AwsSession) -> None:
        self._aws = session

    def list_instances(self, page: str = "", limit: int = 100) -> InstancePage:
        """AWS takes 5 to 1000 as `limit`; a page may hold fewer."""
        more = {"NextToken": page} if page else {}
        size = min(max(limit, SMALLEST_PAGE), LARGEST_PAGE)
        answer = self._aws.call("list instances", "ec2", "describe_instances", MaxResults=size, **more)
        return InstancePage(items=tuple(self._all(answer)), next=answer.get("NextToken") or "")

    def get_instance(self, instance: str) -> Instance:
        answer = self._aws.call(f"find instance {instance}", "ec2", "describe_instances", InstanceIds=[instance])
        for found in self._all(answer):
            return found
        raise NotFound(f"there is no instance {instance}", "Check the id and the region.")

    def create_instance(self, order: InstanceOrder, token: str) -> Instance:
        tags = tag_list({"Name": order.name, **order.tags, TAG: token})
        optional: dict[str, Any] = {
            "Placement": {"AvailabilityZone": order.zone} if order.zone else None,
            "SubnetId": order.subnet or None,
            "SecurityGroupIds": list(order.security_groups) or None,
            "UserData": order.user_data or None,
        }
        answer = self._aws.call(
            f"run instance {order.name}",
            "ec2",
            "run_instances",
            ClientToken=token,
            ImageId=order.image,
            InstanceType=order.size,
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
            **{key: value for key, value in optional.items() if value is not None},
        )
        return self._instance(answer["Instances"][0])

    def start_instance(self, instance: str) -> Instance:
        self._aws.call(f"start {instance}", "ec2", "start_instances", InstanceIds=[instance])
        return self.get_instance(instance)

    def stop_instance(self, instance: str) -> Instance:
        self._aws.call(f"stop {instance}", "ec2", "stop_instances", InstanceIds=[instance])
        return self.get_instance(instance)

    def reboot_instance(self, instance: str, token: str) -> Instance:
        if self.get_instance(instance).tags.get(REBOOT_TAG) != token:
            self._aws.call(f"reboot {instance}", "ec2", "reboot_instances", InstanceIds=[instance])
            tags = tag_list({REBOOT_TAG: token})
            self._aws.call(f"tag {instance}", "ec2", "create_tags", Resources=[instance], Tags=tags)
        return self.get_instance(instance)

    def terminate_instance(self, instance: str) -> None:
        with contextlib.suppress(NotFound):
            self._aws.call(f"terminate {instance}", "ec2", "terminate_instances", InstanceIds=[instance])

    def _all(self, answer: dict[str, Any]) -> list[Instance]:
        return [self._instance(told) for group in answer["Reservations"] for told in group["Instances"]]

    def _instance(self, told: dict[str, Any]) -> Instance:
        tags = tag_dict(told.get("Tags"))
        networks = told.get("NetworkInterfaces", ())
        private = [told.get("PrivateIpAddress"), *(network.get("PrivateIpAddress") for network in networks)]
        public = [told.get("PublicIpAddress"), *(n.get("Association", {}).get("PublicIp") for n in networks)]
        root = told.get("RootDeviceName")
        return Instance(
            cloud="aws",
            id=told["InstanceId"],
            name=tags.get("Name", ""),
            state=STATES.get(told.get("State", {}).get("Name", ""), "unknown"),
            size=told.get("InstanceType", ""),
            region=self._aws.settings.region,
            zone=told.get("Placement", {}).get("AvailabilityZone", ""),
            image=told.get("ImageId", ""),
            private_addresses=tuple(dict.fromkeys(address for address in private if address)),
            public_addresses=tuple(dict.fromkeys(address for address in public if address)),
            launched=told.get("LaunchTime"),
            disks=tuple(
                InstanceDisk(device=d["DeviceName"], disk=d["Ebs"]["VolumeId"], boot=d["DeviceName"] == root)
                for d in told.get("BlockDeviceMappings", ())
                if "Ebs" in d
            ),
            tags=tags,
        )
