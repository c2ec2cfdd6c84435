"""Bootable images: versions in a compute gallery, of specialised guests.

A guest that was moved here has its users and its identity already, so it must not be provisioned as a new one: Azure
calls that specialised, and only galleries have it (a managed image is always a generalised one). A definition of the
image's name says what it is, and whose, in tags; its one version, 1.0.0, holds copies of the disks: these may go. Linux
guests only.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from clouds.azure.blocks import DISKS
from clouds.azure.ids import ResourceId
from clouds.azure.session import AzureSession
from clouds.errors import Conflict, NotFound
from clouds.tokens import TAG
from models.clouds import CloudImage, ImageOrder

KIND = "galleries/images/versions"
VERSION = "1.0.0"
GENERATIONS = {"bios": "V1", "uefi": "V2"}
ARCHITECTURES = {"x86_64": "x64", "arm64": "Arm64"}
_FIRMWARE = {generation: firmware for firmware, generation in GENERATIONS.items()}
_OURS = {theirs: ours for ours, theirs in ARCHITECTURES.items()}
_STATES: dict[str, Literal["pending", "ready"]] = {
    "Creating": "pending",
    "Updating": "pending",
    "Migrating": "pending",
    "Succeeded": "ready",
}


class AzureImages:
    def __init__(self, session: AzureSession) -> None:
        self._azure = session

    def create_image(self, order: ImageOrder) -> CloudImage:
        """Raises Conflict when the name is taken by an image of another token. Pending at first: Azure copies."""
        disks = [str(self._azure.find(disk, *DISKS)) for disk in order.disks]
        thing = self._azure.id(KIND, self._azure.settings.gallery, order.name, VERSION)
        self._define(order, thing)
        found = self._azure.seek(f"look for image {order.name}", "gallery_image_versions", *thing.path)
        if found is None:
            body = self._version(order, disks)
            self._azure.call(
                f"make image {order.name}", "gallery_image_versions", "begin_create_or_update", *thing.path, body
            )
        image = self.get_image(str(thing))
        if image.disks != tuple(disks):
            raise self._taken(order)
        return image

    def get_image(self, image: str) -> CloudImage:
        thing = self._azure.find(image, KIND)
        told = self._azure.call(f"find image {image}", "gallery_image_versions", "get", *thing.path)
        definition = self._azure.call(f"find image {image}", "gallery_images", "get", *thing.path[:-1])
        sources = [told.storage_profile.os_disk_image, *data_disk_images(told)]
        return CloudImage(
            id=str(thing),
            name=thing.names[1],
            state=_STATES.get(told.provisioning_state or "", "failed"),
            architecture=_OURS.get(definition.architecture or "", ""),
            firmware=_FIRMWARE.get(definition.hyper_v_generation or "", ""),
            disks=tuple(str(self._azure.find(each.source.id, *DISKS)) for each in sources if each and each.source),
            tags=dict(definition.tags or {}),
        )

    def delete_image(self, image: str) -> None:
        """With its definition, unless that has other versions. The gallery stays: it costs nothing."""
        with suppress(NotFound):
            thing = self._azure.find(image, KIND)
            with suppress(NotFound):
                self._azure.run(f"delete image {image}", "gallery_image_versions", "begin_delete", *thing.path)
            with suppress(Conflict):
                self._azure.run(f"delete image {image}", "gallery_images", "begin_delete", *thing.path[:-1])

    def _define(self, order: ImageOrder, thing: ResourceId) -> None:
        group, gallery, name, _ = thing.path
        found = self._azure.seek(f"look for image {name}", "gallery_images", group, gallery, name)
        if found is None:
            place = {"location": self._azure.settings.region}
            if self._azure.seek(f"look for gallery {gallery}", "galleries", group, gallery) is None:
                self._azure.run(f"make gallery {gallery}", "galleries", "begin_create_or_update", group, gallery, place)
            body = {
                **place,
                "tags": {"Name": order.name, **order.tags, TAG: order.token},
                "properties": {
                    "osType": "Linux",
                    "osState": "Specialized",
                    "hyperVGeneration": GENERATIONS[order.firmware],
                    "architecture": ARCHITECTURES[order.architecture],
                    "identifier": {"publisher": "novacron", "offer": "moved", "sku": order.token},
                },
            }
            self._azure.run(
                f"define image {name}", "gallery_images", "begin_create_or_update", group, gallery, name, body
            )
        elif (found.tags or {}).get(TAG) != order.token:
            raise self._taken(order)

    def _version(self, order: ImageOrder, disks: list[str]) -> dict[str, Any]:
        region = self._azure.settings.region
        boot, *data = ({"source": {"id": disk}} for disk in disks)
        return {
            "location": region,
            "tags": {TAG: order.token},
            "properties": {
                "publishingProfile": {"targetRegions": [{"name": region, "regionalReplicaCount": 1}]},
                "storageProfile": {
                    "osDiskImage": boot,
                    "dataDiskImages": [{"lun": lun, **image} for lun, image in enumerate(data)],
                },
            },
        }

    def _taken(self, order: ImageOrder) -> Conflict:
        return Conflict(
            f"an image has the name {order.name} already, and is not of this step",
            "Delete it if nobody needs it, or choose another name.",
        )


def data_disk_images(version: Any) -> list[Any]:
    return sorted(version.storage_profile.data_disk_images or (), key=lambda image: int(image.lun))


def data_disks(version: Any) -> list[int]:
    """LUNs of the disks beside the first."""
    return [int(image.lun) for image in data_disk_images(version)]
