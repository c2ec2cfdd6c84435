"""AMIs made of snapshots. RegisterImage has no token: the image's name is one, and its tag says whose it is."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

from clouds.aws.session import AwsSession, tag_dict, tag_list
from clouds.errors import Conflict, NotFound
from clouds.tokens import TAG
from models.clouds import CloudImage, ImageOrder

ROOT = "/dev/xvda"
DATA = tuple(f"/dev/sd{letter}" for letter in "fghijklmnopbcdeqrstu")
"""In the order that EC2's guide recommends them; the guest sees NVMe names anyway."""
BOOT_MODES = {"bios": "legacy-bios", "uefi": "uefi"}
_FIRMWARE = {mode: firmware for firmware, mode in BOOT_MODES.items()} | {"uefi-preferred": "uefi"}
_STATES: dict[str, Literal["pending", "ready"]] = {"pending": "pending", "transient": "pending", "available": "ready"}


class AwsImages:
    def __init__(self, session: AwsSession) -> None:
        self._aws = session

    def create_image(self, order: ImageOrder) -> CloudImage:
        """Raises Conflict when the name is taken by an image of another token."""
        found = self._named(order)
        if found is not None:
            return found
        try:
            made = self._aws.call(f"register image {order.name}", "ec2", "register_image", **self._request(order))
        except Conflict:
            found = self._named(order)  # made by an attempt whose answer was lost
            if found is None:
                raise
            return found
        return self.get_image(made["ImageId"])

    def get_image(self, image: str) -> CloudImage:
        answer = self._aws.call(f"find image {image}", "ec2", "describe_images", ImageIds=[image])
        if not answer["Images"]:
            raise NotFound(f"there is no image {image}", "Check the id and the region.")
        return _image(answer["Images"][0])

    def delete_image(self, image: str) -> None:
        with contextlib.suppress(NotFound):
            self._aws.call(f"deregister {image}", "ec2", "deregister_image", ImageId=image)

    def _named(self, order: ImageOrder) -> CloudImage | None:
        filters = [{"Name": "name", "Values": [order.name]}]
        answer = self._aws.call(
            f"look for image {order.name}", "ec2", "describe_images", Owners=["self"], Filters=filters
        )
        for image in map(_image, answer["Images"]):
            if image.tags.get(TAG) != order.token or image.disks != order.disks:
                raise Conflict(
                    f"{image.id} has the name {order.name} already, and is not of this step",
                    "Deregister it if nobody needs it, or choose another name.",
                )
            return image
        return None

    def _request(self, order: ImageOrder) -> dict[str, Any]:
        devices = zip((ROOT, *DATA), order.disks, strict=False)
        return {
            "Name": order.name,
            "Description": f"NovaCron {order.name}",
            "Architecture": order.architecture,
            "VirtualizationType": "hvm",
            "RootDeviceName": ROOT,
            "BootMode": BOOT_MODES[order.firmware],
            "EnaSupport": True,
            "BlockDeviceMappings": [
                {"DeviceName": device, "Ebs": {"SnapshotId": disk, "VolumeType": "gp3", "DeleteOnTermination": True}}
                for device, disk in devices
            ],
            "TagSpecifications": [
                {"ResourceType": "image", "Tags": tag_list({"Name": order.name, **order.tags, TAG: order.token})}
            ],
        }


def _image(told: dict[str, Any]) -> CloudImage:
    mappings = sorted(told.get("BlockDeviceMappings", ()), key=lambda m: m["DeviceName"] != told.get("RootDeviceName"))
    return CloudImage(
        id=told["ImageId"],
        name=told.get("Name", ""),
        state=_STATES.get(told.get("State", ""), "failed"),
        architecture=told.get("Architecture", ""),
        firmware=_FIRMWARE.get(told.get("BootMode", ""), ""),
        disks=tuple(m["Ebs"]["SnapshotId"] for m in mappings if "SnapshotId" in m.get("Ebs", {})),
        tags=tag_dict(told.get("Tags")),
    )
