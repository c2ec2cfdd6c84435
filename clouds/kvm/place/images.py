"""Images of the folder: a record that names disks. The record's name is unique, and its token says whose it is."""

from __future__ import annotations

from clouds import tokens
from clouds.errors import Conflict, Invalid
from clouds.kvm.place.store import ImageRecord, Store
from clouds.tokens import TAG
from models.clouds import CloudImage, ImageOrder


class KvmImages:
    def __init__(self, store: Store) -> None:
        self._store = store

    def create_image(self, order: ImageOrder) -> CloudImage:
        """Raises Conflict when the name is taken by an image of another token."""
        if order.architecture != "x86_64":
            raise Invalid(f"architecture {order.architecture} is not built for KVM hosts", "Use an x86_64 image.")
        for found in self._store.images():
            same = found.token == order.token and found.image.disks == order.disks
            if found.image.name == order.name and same:
                return found.image
            if found.image.name == order.name or found.token == order.token:
                raise Conflict(
                    f"{found.image.id} has the name {found.image.name} already, and is not of this step",
                    "Delete it if nobody needs it, or choose another name.",
                )
        for disk in order.disks:
            state = self._store.disk(disk).snapshot.state
            if state != "ready":
                raise Conflict(f"disk {disk} is {state}", "An image needs disks that are complete.")
        image = CloudImage(
            id=tokens.name("image", order.token),
            name=order.name,
            state="ready",
            architecture=order.architecture,
            firmware=order.firmware,
            disks=order.disks,
            tags={"Name": order.name, **order.tags, TAG: order.token},
        )
        self._store.save_image(ImageRecord(image=image, token=order.token))
        return image

    def get_image(self, image: str) -> CloudImage:
        return self._store.image(image).image

    def delete_image(self, image: str) -> None:
        self._store.forget_image(image)
