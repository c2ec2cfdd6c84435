"""Images, which are what Google keeps disks as until an instance is made of them.

In: the archive of a disk goes through Cloud Storage (`uploads`) and becomes an image by images.insert; then it is
removed from there. The image that boots is made of the first disk's, inside Google, with the firmware that it needs; it
names its disks by labels, and those after the first are made beside it when an instance is. A delta has no way in.

Who comes second finds the first one's image under its name, in whatever state: the token gives that of a disk.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from clouds.capabilities import Note
from clouds.disks.archive import stream
from clouds.disks.content import ContentHash, Reader
from clouds.disks.images import ALIGNED
from clouds.disks.survey import BEAT_EVERY, Piece, Survey, survey
from clouds.errors import Conflict, NotFound, OperationFailed, SourceChanged
from clouds.gcp import names
from clouds.gcp.session import GcpSession
from clouds.gcp.uploads import GcpUploads, Record
from clouds.tokens import TAG, name
from models.clouds import CloudImage, Cursor, DiskOrder, ImageOrder, Snapshot, Transferred

PREFIX = "novacron"
CONTENT = "content "
"""In a description, before the content hash: one character too long for a label."""
GIB = 1 << 30
ARCHITECTURES = {"x86_64": "X86_64", "arm64": "ARM64"}
UEFI = "UEFI_COMPATIBLE"
_STATES: dict[str, Literal["pending", "ready"]] = {"PENDING": "pending", "READY": "ready"}
_GIVEN_UP = "Delete it, and send the disk again under another step's token."


class GcpImages:
    """ImageImport."""

    def __init__(self, session: GcpSession) -> None:
        self._gcp = session
        self._uploads = GcpUploads(session)

    def import_disk(self, order: DiskOrder, source: Reader, note: Note, resume: Cursor | None = None) -> Transferred:
        disk = name(PREFIX, order.token)
        if resume is not None and resume.disk != disk:
            raise Conflict(f"the cursor is of {resume.disk}, not of {disk}", "Give the cursor of this step's token.")
        labels = names.labels({**order.tags, TAG: order.token})
        cursor = resume or Cursor(disk=disk)
        note(cursor)
        found = survey(source, ALIGNED["gcp"], lambda: note(cursor))
        if self._image(disk) is None:
            record = self._upload(order, disk, source, found, note)
            self._insert(record, labels, lambda: note(cursor))
        self._settle(disk, lambda: note(cursor))
        if _content(self._must(disk)) != found.content:
            raise _changed(disk)
        self._uploads.remove(disk)
        return Transferred(disk=disk, size=found.size, content=found.content, blocks=found.count)

    def get_snapshot(self, disk: str) -> Snapshot:
        image = self._image(disk)
        if image is not None:
            state = _STATES.get(image.status, "failed")
            return Snapshot(id=disk, state=state, size=image.disk_size_gb * GIB or GIB, tags=dict(image.labels))
        record = self._uploads.find(disk)
        if record is None:
            raise NotFound(f"there is no disk {disk}", "Check the id and the project.")
        tags = {TAG: record.token}
        return Snapshot(id=disk, state="failed" if record.failed else "pending", size=record.size, tags=tags)

    def delete_disk(self, disk: str) -> None:
        """Raises Conflict while an image names it: an instance of that image needs its disks."""
        users = self._gcp.compute(f"look who needs {disk}", "Images", "list", filter=f"labels.{disk}:*", max_results=1)
        for user in users.items:
            raise Conflict(f"image {user.name} is made of {disk}", "Delete the image first.")
        self.delete_image(disk)
        self._uploads.remove(disk)

    def delete_disk_of(self, token: str) -> None:
        self.delete_disk(name(PREFIX, token))

    def create_image(self, order: ImageOrder) -> CloudImage:
        """Raises Conflict when the name is taken by an image of another token."""
        made = names.resource(order.name, order.token)
        labels = {TAG: order.token, **{disk: str(place) for place, disk in enumerate(order.disks)}}
        request = {
            "name": made,
            "description": f"NovaCron {order.name}",
            "source_image": names.image_path(self._gcp.settings.project, order.disks[0]),
            "architecture": ARCHITECTURES[order.architecture],
            "guest_os_features": [{"type_": UEFI}] if order.firmware == "uefi" else [],
            "labels": names.labels({**order.tags, **labels}),
        }
        for disk in order.disks:
            if self.get_snapshot(disk).state != "ready":
                raise Conflict(f"disk {disk} is not whole", "An image is made of disks that are.")
        if self._image(made) is None:
            self._create(f"make image {made}", request, order.token, lambda: None)
        found = self.get_image(made)
        if found.tags.get(TAG) != order.token or found.disks != order.disks:
            raise Conflict(
                f"{made}: another image has the name {order.name} already, and is not of this step",
                "Delete it if nobody needs it, or choose another name.",
            )
        return found

    def get_image(self, image: str) -> CloudImage:
        told = self._must(image)
        features = {feature.type_ for feature in told.guest_os_features}
        parts = sorted((int(place), key) for key, place in told.labels.items() if _names_disk(key))
        return CloudImage(
            id=image,
            name=told.description.removeprefix("NovaCron ") or told.name,
            state=_STATES.get(told.status, "failed"),
            architecture={theirs: ours for ours, theirs in ARCHITECTURES.items()}.get(told.architecture, ""),
            firmware="uefi" if UEFI in features else "bios",
            disks=tuple(disk for _, disk in parts),
            tags={key: value for key, value in told.labels.items() if not _names_disk(key)},
        )

    def delete_image(self, image: str) -> None:
        what = f"delete image {image}"
        with contextlib.suppress(NotFound):
            self._gcp.finish(what, self._gcp.compute(what, "Images", "delete_unary", image=image))

    # The way in.

    def _upload(self, order: DiskOrder, disk: str, source: Reader, found: Survey, note: Note) -> Record:
        record = self._uploads.find(disk)
        if record is None:
            fresh = Record(disk, order.name, order.token, found.content, found.size, session="")
            record = self._uploads.begin(fresh)
        if record.content != found.content:
            raise _changed(disk)
        if record.failed:
            raise OperationFailed(record.failed, _GIVEN_UP)
        digest, count = ContentHash(), 0
        after: dict[int, Cursor] = {}
        cursor = Cursor(disk=disk)

        def reached(piece: Piece | None) -> None:
            nonlocal cursor
            if piece is not None and piece.block is not None:
                cursor = after[piece.block.index]
                for index in [index for index in after if index <= piece.block.index]:
                    del after[index]
            note(cursor)

        def pieces() -> Any:
            nonlocal count
            for piece in stream(source, found):
                if piece.block is not None:
                    digest.add(piece.block.index, hashlib.sha256(piece.block.data).digest())
                    count += 1
                    if count % BEAT_EVERY == 0:  # much may be read here before anything is sent
                        note(cursor)
                    after[piece.block.index] = Cursor(
                        disk=disk, next_block=piece.block.index + 1, sent=count, prefix=digest.hexdigest()
                    )
                elif count == found.count and count and digest.hexdigest() != found.content:
                    raise _changed(disk)  # before the last part: what is there stays unfinished
                yield piece

        return self._uploads.send(record, pieces(), reached)

    def _insert(self, record: Record, labels: dict[str, str], beat: Callable[[], None]) -> None:
        request = {
            "name": record.disk,
            "description": f"NovaCron {record.name}, {CONTENT}{record.content}",
            "raw_disk": {"source": self._uploads.url(record.disk)},
            "labels": labels,
        }
        try:
            self._create(f"import {record.disk}", request, record.token, beat)
        except OperationFailed as error:
            self._uploads.keep(replace(record, failed=error.what))
            raise OperationFailed(error.what, _GIVEN_UP, error.code) from error

    def _create(self, what: str, request: dict[str, Any], step: str, beat: Callable[[], None]) -> None:
        """images.insert, to its end. One that is there already is the first attempt's, or judged by the caller."""
        with contextlib.suppress(Conflict):
            begun = self._gcp.begin(what, step, "Images", "insert_unary", image_resource=request)
            self._gcp.finish(what, begun, beat)
        self._settle(request["name"], beat)

    def _settle(self, image: str, beat: Callable[[], None]) -> None:
        self._gcp.wait(f"make image {image}", lambda: self._must(image).status != "PENDING", beat)
        status = self._must(image).status
        if status != "READY":
            raise OperationFailed(f"image {image} is {status}", _GIVEN_UP)

    def _image(self, image: str) -> Any | None:
        with contextlib.suppress(NotFound):
            return self._must(image)
        return None

    def _must(self, image: str) -> Any:
        return self._gcp.compute(f"find image {image}", "Images", "get", image=image)


def _names_disk(key: str) -> bool:
    return key.startswith(f"{PREFIX}-") and key != TAG


def _content(image: Any) -> str:
    return str(image.description.rpartition(CONTENT)[2])


def _changed(disk: str) -> SourceChanged:
    return SourceChanged(
        f"the source is not what an earlier attempt sent to {disk}",
        "Send it again under another step's token, from a source that does not change.",
    )
