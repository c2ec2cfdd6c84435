"""Disks as QCOW2 objects, and images made of them.

In: a disk goes into Object Storage (`uploads`) and stays there as an object, which is what Oracle makes an image of. An
image has one disk, the one that boots: Oracle has no way to fill another volume but from within an instance.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, Literal

from clouds.capabilities import Note
from clouds.disks import qcow2
from clouds.disks.content import ContentHash, Reader
from clouds.disks.survey import BEAT_EVERY, Piece, Survey, survey
from clouds.errors import BadDisk, Conflict, NotFound, NotOffered, OperationFailed, SourceChanged
from clouds.oci.session import OciSession
from clouds.oci.snapshots import PREFIX, OciSnapshots, is_snapshot
from clouds.oci.uploads import OciUploads, Record
from clouds.tokens import TAG, name
from models.clouds import CloudImage, Cursor, DiskOrder, ImageOrder, Snapshot, Transferred

DISK_TAG = "novacron-disk"
SECTOR = 512
LARGEST = 400 << 30
"""Bytes of an image that Oracle imports."""
_STATES: dict[str, Literal["pending", "ready"]] = {
    "PROVISIONING": "pending",
    "IMPORTING": "pending",
    "AVAILABLE": "ready",
    "EXPORTING": "ready",
}


class OciImages:
    """ImageImport."""

    def __init__(self, session: OciSession) -> None:
        self._oci = session
        self._uploads = OciUploads(session)
        self._snapshots = OciSnapshots(session, self._uploads)

    def import_disk(self, order: DiskOrder, source: Reader, note: Note, resume: Cursor | None = None) -> Transferred:
        """The tags of the order go onto images, not onto disks: an object has none."""
        disk = name(PREFIX, order.token)
        if resume is not None and resume.disk != disk:
            raise Conflict(f"the cursor is of {resume.disk}, not of {disk}", "Give the cursor of this step's token.")
        if source.size > LARGEST:
            raise BadDisk(f"the disk has {source.size} bytes; Oracle imports {LARGEST}", "Move it by other means.")
        cursor = resume or Cursor(disk=disk)
        note(cursor)
        found = survey(source, SECTOR, lambda: note(cursor))
        record = self._uploads.whole(disk)
        if record is None:
            fresh = Record(order.name, order.token, found.content, found.size)
            record = self._uploads.begin(disk, fresh, qcow2.length(found))
            self._same(disk, record, found)
            self._send(disk, record, source, found, note)
        self._same(disk, record, found)
        self._uploads.forget(disk)
        return Transferred(disk=disk, size=found.size, content=found.content, blocks=found.count)

    def get_snapshot(self, disk: str) -> Snapshot:
        if is_snapshot(disk):
            return self._snapshots.get(disk)
        whole = self._uploads.whole(disk)
        record = whole or self._uploads.find(disk)
        if record is None:
            raise NotFound(f"there is no disk {disk}", "Check the id and the bucket.")
        return Snapshot(id=disk, state="ready" if whole else "pending", size=record.size, tags={TAG: record.token})

    def delete_disk(self, disk: str) -> None:
        """Raises Conflict while an image of it is there: an image's disk goes after it, as on other clouds."""
        if is_snapshot(disk):
            self._snapshots.delete(disk)
            return
        for image in self._all(f"look who needs {disk}"):
            if (image.freeform_tags or {}).get(DISK_TAG) == disk:
                raise Conflict(f"image {image.id} is made of {disk}", "Delete the image first.")
        self._uploads.remove(disk)

    def delete_disk_of(self, token: str) -> None:
        self.delete_disk(name(PREFIX, token))

    def create_image(self, order: ImageOrder) -> CloudImage:
        """Raises Conflict when the name is taken by an image of another token."""
        if len(order.disks) > 1:
            raise NotOffered("an image of Oracle's has one disk", "Move the other disks by a helper VM.")
        if order.architecture != "x86_64":
            raise NotOffered("only x86_64 images are made", "Choose another cloud for Arm guests.")
        if self.get_snapshot(order.disks[0]).state != "ready":
            raise Conflict(f"disk {order.disks[0]} is not whole", "An image is made of disks that are.")
        image = ""
        for told in self._all(f"look for image {order.name}", display_name=order.name):
            tags = told.freeform_tags or {}
            if (tags.get(TAG), tags.get(DISK_TAG)) != (order.token, order.disks[0]):
                raise Conflict(
                    f"{told.id} has the name {order.name} already, and is not of this step",
                    "Delete it if nobody needs it, or choose another name.",
                )
            image = told.id
        what = f"make image {order.name}"
        if not image:
            request = self._request(order)
            image = self._oci.call(what, "compute", "create_image", request, opc_retry_token=order.token).data.id
        self._oci.wait(what, lambda: self.get_image(image).state != "pending")
        found = self.get_image(image)
        if found.state != "ready":
            raise OperationFailed(
                f"Oracle could not {what}", "Delete it, see its work request, and repeat it under another step's token."
            )
        return found

    def get_image(self, image: str) -> CloudImage:
        told = self._oci.call(f"find image {image}", "compute", "get_image", image).data
        if told.lifecycle_state == "DELETED":
            raise NotFound(f"image {image} is deleted", "Check the id.")
        tags = dict(told.freeform_tags or {})
        options = told.launch_options
        disk = tags.pop(DISK_TAG, "")
        return CloudImage(
            id=told.id,
            name=told.display_name or "",
            state=_STATES.get(told.lifecycle_state, "failed"),
            architecture="x86_64" if disk else "",
            firmware="uefi" if options is not None and options.firmware == "UEFI_64" else "bios",
            disks=(disk,) if disk else (),
            tags=tags,
        )

    def delete_image(self, image: str) -> None:
        with contextlib.suppress(NotFound):
            self.get_image(image)
            self._oci.call(f"delete image {image}", "compute", "delete_image", image)

    def _same(self, disk: str, record: Record, found: Survey) -> None:
        if record.content != found.content:
            raise SourceChanged(
                f"the source is not what an earlier attempt sent to {disk}",
                "Send it again under another step's token, from a source that does not change.",
            )

    def _send(self, disk: str, record: Record, source: Reader, found: Survey, note: Note) -> None:
        digest, count = ContentHash(), 0
        after: dict[int, Cursor] = {}
        cursor = Cursor(disk=disk)

        def reached(piece: Piece | None) -> None:
            nonlocal cursor
            if piece is not None and piece.block is not None:
                cursor = after[piece.block.index]
                for index in [index for index in after if index < piece.block.index]:
                    del after[index]
            note(cursor)

        def pieces() -> Iterator[Piece]:
            nonlocal count
            for piece in qcow2.stream(source, found):
                if piece.block is not None:
                    digest.add(piece.block.index, hashlib.sha256(piece.block.data).digest())
                    count += 1
                    if count % BEAT_EVERY == 0:  # much may be read here before anything is sent
                        note(cursor)
                    after[piece.block.index] = Cursor(
                        disk=disk, next_block=piece.block.index + 1, sent=count, prefix=digest.hexdigest()
                    )
                yield piece
            if digest.hexdigest() != found.content:  # it changed while it was read: nothing is finished
                self._same(disk, Record("", "", digest.hexdigest(), 0), found)

        self._uploads.send(disk, record, pieces(), reached)

    def _request(self, order: ImageOrder) -> Any:
        settings = self._oci.settings
        source = self._oci.model(
            "compute",
            "ImageSourceViaObjectStorageTupleDetails",
            source_image_type="QCOW2",
            namespace_name=settings.namespace,
            bucket_name=settings.bucket,
            object_name=self._uploads.object(order.disks[0]),
            operating_system="Custom",
            operating_system_version="1",
        )
        request = self._oci.model(
            "compute",
            "CreateImageDetails",
            compartment_id=settings.compartment,
            display_name=order.name,
            freeform_tags={**order.tags, TAG: order.token, DISK_TAG: order.disks[0]},
            image_source_details=source,
            launch_mode="PARAVIRTUALIZED",
        )
        return self._by_uefi(request) if order.firmware == "uefi" else request

    def _by_uefi(self, request: Any) -> Any:
        """Oracle's API takes launchOptions here, and has them in Image; the SDK's model of the request leaves them out,
        so they are added to this one."""
        request.launch_mode = "CUSTOM"
        request.swagger_types = {**request.swagger_types, "launch_options": "LaunchOptions"}
        request.attribute_map = {**request.attribute_map, "launch_options": "launchOptions"}
        request.launch_options = self._oci.model(
            "compute",
            "LaunchOptions",
            firmware="UEFI_64",
            boot_volume_type="PARAVIRTUALIZED",
            network_type="PARAVIRTUALIZED",
            remote_data_volume_type="PARAVIRTUALIZED",
        )
        return request

    def _all(self, what: str, **more: Any) -> Iterator[Any]:
        page: dict[str, str] = {}
        while True:
            answer = self._oci.call(what, "compute", "list_images", self._oci.settings.compartment, **more, **page)
            yield from (image for image in answer.data if image.lifecycle_state != "DELETED")
            if not answer.next_page:
                return
            page = {"page": answer.next_page}
