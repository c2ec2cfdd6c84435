"""Disks on their way into Object Storage: one multipart upload each, which any process goes on with.

What is under way stands in the bucket itself, in a small record beside the object: the content that is sent, the upload
and the size of its parts. Which parts are there, and what is in them, is asked of Oracle: every part that is sent
carries its MD5, which Oracle checks, and the list tells it for those that are there. Every byte is made again on the
way back (clouds.disks.qcow2), so a part of other content is seen and replaced.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from clouds.disks.content import BLOCK
from clouds.disks.survey import Piece
from clouds.errors import Busy, Conflict, Damaged, NotFound
from clouds.oci.session import OciSession

FOLDER = "novacron/"
META = "opc-meta-"
MOST_PARTS = 10_000


@dataclass(frozen=True)
class Record:
    """One upload, as it stands in the bucket, and as metadata of the object that it becomes."""

    name: str
    token: str
    content: str
    """Content hash of the disk that is sent."""
    size: int
    upload: str = ""
    part: int = 0
    """Bytes of each part but the last."""


class OciUploads:
    def __init__(self, session: OciSession) -> None:
        self._oci = session
        self._place = (session.settings.namespace, session.settings.bucket)
        self._part = session.settings.calls.parallel * BLOCK

    def object(self, disk: str) -> str:
        return f"{FOLDER}{disk}.qcow2"

    def whole(self, disk: str) -> Record | None:
        """Of a disk that is there."""
        with suppress(NotFound):
            told = self.head(disk)
            fields = {key: told[f"{META}{key}"] for key in ("name", "token", "content", "size")}
            return Record(**{**fields, "size": int(fields["size"])})
        return None

    def head(self, disk: str) -> Any:
        """Headers of a disk's object. Raises NotFound."""
        return self._call(f"look for disk {disk}", "head_object", self.object(disk)).headers

    def size(self, disk: str) -> int | None:
        """Bytes of a disk's object; None while it is not there."""
        with suppress(NotFound):
            return int(self.head(disk)["content-length"])
        return None

    @staticmethod
    def content_of(told: Any) -> str:
        """The content hash in an object's headers; empty for one that was not imported by us."""
        return str(told.get(f"{META}content", ""))

    def range(self, disk: str, offset: int, length: int) -> bytes:
        """Raises Damaged when it is not all of it."""
        what = f"read {disk} at byte {offset}"

        def read() -> bytes:
            answer = self._oci.client("storage").get_object(
                *self._place, self.object(disk), range=f"bytes={offset}-{offset + length - 1}"
            )
            return bytes(answer.data.content)

        data = self._oci.attempt(what, read)
        if len(data) != length:
            raise Damaged(f"cannot {what}: {len(data)} bytes came, and not {length}", "It is read again.")
        return data

    def find(self, disk: str) -> Record | None:
        """Of an upload that is not finished."""
        with suppress(NotFound):
            answer = self._call(f"read the record of {disk}'s upload", "get_object", self._note(disk))
            try:
                return Record(**json.loads(answer.data.content))
            except (TypeError, ValueError) as error:
                raise Conflict(
                    f"the record of {disk}'s upload in the bucket is not ours: {error}",
                    "See who writes there, and delete it.",
                ) from error
        return None

    def begin(self, disk: str, fresh: Record, length: int) -> Record:
        """The record that holds: this one, or an earlier one that may be of other content. `length`: of the whole
        object, in bytes."""
        found = self.find(disk)
        if found is not None and found.content == fresh.content:
            try:
                self._parts(disk, found)
            except NotFound:  # given up by a rule of the bucket, or by hand
                self.forget(disk)
                found = None
        return found or self._start(disk, fresh, length)

    def send(self, disk: str, record: Record, pieces: Iterator[Piece], reached: Callable[[Piece | None], None]) -> None:
        """All of it but what is there. `reached` is told the last piece that is whole there; None when none is new."""
        try:
            there = self._parts(disk, record)
        except NotFound as error:
            raise Busy(f"the upload of {disk} was given up meanwhile", "It is begun anew.", error.code) from error
        reached(None)
        etags: dict[int, str] = {}
        buffer = bytearray()
        last: Piece | None = None

        def part(data: bytes) -> None:
            number = len(etags) + 1
            digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
            known = there.get(number)
            if known and known.md5 == digest and known.size == len(data):
                etags[number] = known.etag
            else:
                sent = self._call(
                    f"send part {number} of {disk}", "upload_part", self.object(disk), record.upload, number, data,
                    content_md5=digest,
                )  # fmt: skip
                etags[number] = sent.headers["etag"]

        for piece in pieces:
            buffer += piece.data
            while len(buffer) >= record.part:
                part(bytes(buffer[: record.part]))
                del buffer[: record.part]
                reached(last if buffer else piece)
            last = piece
        if buffer:
            part(bytes(buffer))
            reached(last)
        self._commit(disk, record, etags)

    def forget(self, disk: str) -> None:
        """The record; the object stays."""
        with suppress(NotFound):
            self._call(f"delete the record of {disk}'s upload", "delete_object", self._note(disk))

    def remove(self, disk: str) -> None:
        """Object, upload and record. Also when they are gone already."""
        self._abort_all(disk)
        with suppress(NotFound):
            self._call(f"delete disk {disk}", "delete_object", self.object(disk))
        self.forget(disk)

    def _start(self, disk: str, record: Record, length: int) -> Record:
        about = {"name": record.name, "token": record.token, "content": record.content, "size": str(record.size)}
        details = self._oci.model(
            "storage",
            "CreateMultipartUploadDetails",
            object=self.object(disk),
            content_type="application/octet-stream",
            metadata={f"{META}{key}": value for key, value in about.items()},
        )

        begun = self._call(f"begin an upload for {record.name}", "create_multipart_upload", details).data.upload_id
        self._abort_all(disk, begun)  # there is no token: a call whose answer was lost has left one
        part = max(self._part, -(-length // (MOST_PARTS * BLOCK)) * BLOCK)
        record = replace(record, upload=begun, part=part)
        what = f"keep the record of {disk}'s upload"
        try:
            self._call(what, "put_object", self._note(disk), json.dumps(asdict(record)).encode(), if_none_match="*")
        except Busy:
            found = self.find(disk)
            if found is None:
                raise
            if found.upload != record.upload:  # else it is ours, and its answer was lost
                self._abort(disk, record.upload)
            return found
        return record

    def _commit(self, disk: str, record: Record, etags: dict[int, str]) -> None:
        parts = [
            self._oci.model("storage", "CommitMultipartUploadPartDetails", part_num=number, etag=etag)
            for number, etag in sorted(etags.items())
        ]
        details = self._oci.model("storage", "CommitMultipartUploadDetails", parts_to_commit=parts)
        try:
            self._call(f"finish {disk}", "commit_multipart_upload", self.object(disk), record.upload, details)
        except NotFound:
            if self.whole(disk) is None:  # else it was finished, and the answer was lost
                raise

    def _parts(self, disk: str, record: Record) -> dict[int, Any]:
        what = f"see how far {disk} came"
        listed = self._pages(what, "list_multipart_upload_parts", self.object(disk), record.upload)
        return {part.part_number: part for part in listed}

    def _pages(self, what: str, method: str, *arguments: Any) -> Iterator[Any]:
        page: dict[str, str] = {}
        while True:
            answer = self._call(what, method, *arguments, **page)
            yield from answer.data
            if not answer.next_page:
                return
            page = {"page": answer.next_page}

    def _abort_all(self, disk: str, but: str = "") -> None:
        for upload in self._pages(f"look for uploads of {disk}", "list_multipart_uploads"):
            if upload.object == self.object(disk) and upload.upload_id != but:
                self._abort(disk, upload.upload_id)

    def _abort(self, disk: str, upload: str) -> None:
        with suppress(NotFound):
            self._call(f"cancel the upload of {disk}", "abort_multipart_upload", self.object(disk), upload)

    def _call(self, what: str, method: str, *arguments: Any, **more: Any) -> Any:
        return self._oci.call(what, "storage", method, *self._place, *arguments, **more)

    def _note(self, disk: str) -> str:
        return f"{FOLDER}{disk}.json"
