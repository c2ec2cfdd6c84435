"""Archives on their way through Cloud Storage: one resumable upload each, which any process goes on with.

What is under way stands in the bucket itself, in a small record beside the archive: the content that is sent, and the
upload's session, whose address lets anyone who has it write this one object for a week. So that address is in no
heartbeat and in no history, and a worker that has lost its cursor finds the upload as well as one that has it. How far
the upload came is asked of Google, never remembered.

Every byte is made again on the way back (clouds.disks.archive), so the CRC32C that Google has of the whole object is
compared with one of what was read here.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from clouds.disks.content import BLOCK
from clouds.disks.survey import Piece
from clouds.errors import Busy, Conflict, Damaged, NotFound, Unavailable
from clouds.gcp.session import GcpSession

FOLDER = "novacron/"
ENDPOINT = "https://storage.googleapis.com"
_RESUME = 308


@dataclass(frozen=True)
class Record:
    """One upload, as it stands in the bucket."""

    disk: str
    name: str
    token: str
    content: str
    """Content hash of the disk that is sent."""
    size: int
    session: str
    failed: str = ""
    """Why Google gave the disk up; nothing is tried any more."""
    generation: int = 0
    """Of this record in the bucket: it is written only over the one that was read."""


class GcpUploads:
    def __init__(self, session: GcpSession) -> None:
        self._gcp = session
        self._chunk = session.settings.calls.parallel * BLOCK
        """A multiple of 256 KiB, as Google asks for; what is held in memory, and lost at most with a connection."""

    def url(self, disk: str) -> str:
        """As images.insert takes it."""
        return f"https://storage.googleapis.com/{self._gcp.settings.bucket}/{self._archive(disk)}"

    def find(self, disk: str) -> Record | None:
        blob = self._gcp.bucket().blob(self._note(disk))
        what = f"read the record of {disk}'s upload"
        try:
            text = self._gcp.attempt(what, lambda: blob.download_as_bytes(**self._gcp.storage_call))
        except NotFound:
            return None
        try:
            record = Record(**{**json.loads(text), "generation": int(blob.generation or 0)})
        except (TypeError, ValueError) as error:
            raise _foreign(disk, str(error)) from error
        endpoint = self._gcp.settings.endpoints.get("storage", ENDPOINT)
        if not record.session.startswith(f"{endpoint}/"):  # the disk and our credentials would go there
            raise _foreign(disk, f"its session is not at {endpoint}")
        return record

    def begin(self, record: Record) -> Record:
        """The record that holds: another process may have been first."""
        try:
            return self.keep(replace(record, session=self._session(record), generation=0))
        except Busy:
            found = self.find(record.disk)
            if found is None:
                raise
            return found

    def keep(self, record: Record) -> Record:
        """Raises Busy when somebody else wrote it meanwhile."""
        blob = self._gcp.bucket().blob(self._note(record.disk))
        told = {key: value for key, value in asdict(record).items() if key != "generation"}
        text = json.dumps(told, sort_keys=True)

        def write() -> None:
            call = self._gcp.storage_call
            blob.upload_from_string(
                text, content_type="application/json", if_generation_match=record.generation, **call
            )

        self._gcp.attempt(f"keep the record of {record.disk}'s upload", write)
        return replace(record, generation=int(blob.generation or 0))

    def send(self, record: Record, pieces: Iterator[Piece], reached: Callable[[Piece | None], None]) -> Record:
        """All of it, from where Google has it. `reached` is told the last piece that is whole there, and None when a
        look was all. Raises Damaged when what Google has is not what was read."""
        import google_crc32c

        checksum = google_crc32c.Checksum()
        try:
            there = self._look(record)
        except NotFound:  # the session ended; the archive may be whole for all that
            there = self._object(record)
            if there == 0:
                record = self.keep(replace(record, session=self._session(record)))
        reached(None)
        buffer, start, end = bytearray(), 0, 0
        waiting: deque[tuple[int, Piece]] = deque()
        for piece in pieces:
            checksum.update(piece.data)
            if isinstance(there, dict):
                continue
            buffer += piece.data
            end += len(piece.data)
            waiting.append((end, piece))
            drop = min(max(0, there - start), len(buffer))
            del buffer[:drop]
            start += drop
            while len(buffer) >= self._chunk:
                there = self._put(record, start, bytes(buffer[: self._chunk]), None)
                del buffer[: there - start]
                start = there
                reached(_passed(waiting, there))
        if not isinstance(there, dict):
            there = self._put(record, start, bytes(buffer), end)
        self._compare(record, there, base64.b64encode(checksum.digest()).decode())
        return record

    def remove(self, disk: str) -> None:
        """Archive, record and session. Also when they are gone already."""
        record = self.find(disk)
        if record is not None:
            self._cancel(record)
        for name in (self._archive(disk), self._note(disk)):
            blob = self._gcp.bucket().blob(name)
            try:
                self._gcp.attempt(f"delete {name}", lambda blob=blob: blob.delete(**self._gcp.storage_call))  # type: ignore[misc]
            except NotFound:
                continue

    # The protocol of resumable uploads: a session's address, PUTs with their range, 308 for "so far".

    def _session(self, record: Record) -> str:
        blob = self._gcp.bucket().blob(self._archive(record.disk))
        call = self._gcp.storage_call
        return str(
            self._gcp.attempt(
                f"begin an upload for {record.name}",
                lambda: blob.create_resumable_upload_session(content_type="application/gzip", checksum=None, **call),
            )
        )

    def _look(self, record: Record) -> int | dict[str, Any]:
        """Bytes that Google has; the object when it has all. Raises NotFound when the session is no more."""
        return self._gcp.attempt(f"see how far {record.disk} came", lambda: self._request(record, b"", "bytes */*"))

    def _put(self, record: Record, start: int, data: bytes, total: int | None) -> Any:
        """Bytes that Google has behind it, or the object when `total` was given, which makes this the last part."""
        end = start + len(data)
        first = True

        def put() -> int | dict[str, Any]:
            nonlocal first
            at: int | dict[str, Any] = start
            if not first:  # the answer was lost: what it would have said is asked for
                at = self._request(record, b"", "bytes */*")
                if isinstance(at, dict) or (total is None and at > start):
                    return at
            first = False
            rest = data[_inside(record, at, start, end) :]
            place = f"bytes {at}-{end - 1}" if rest else "bytes *"
            there = self._request(record, rest, f"{place}/{'*' if total is None else total}")
            if there == start and rest:
                raise Unavailable(f"Google took none of bytes {start} to {end} of {record.disk}", "It is sent again.")
            return there

        there = self._gcp.attempt(f"send bytes {start} to {end} of {record.disk}", put)
        if isinstance(there, dict) != (total is not None):
            raise Unavailable(f"Google has another end of {record.disk} than was sent", "It is looked at again.")
        if isinstance(there, int):
            _inside(record, there, start, end)
        return there

    def _request(self, record: Record, data: bytes, place: str) -> int | dict[str, Any]:
        from google.api_core.exceptions import from_http_response

        answer = self._gcp.http().put(
            record.session,
            data=data,
            headers={"Content-Range": place},
            timeout=self._gcp.storage_call["timeout"],
            allow_redirects=False,
        )
        if answer.status_code == _RESUME:
            return int(answer.headers["Range"].rpartition("-")[2]) + 1 if "Range" in answer.headers else 0
        if answer.status_code not in (200, 201):
            raise from_http_response(answer)
        told: dict[str, Any] = answer.json()
        return told

    def _cancel(self, record: Record) -> None:
        """Google answers 499; a session that is over, or not ours to end, ends by itself within a week."""
        what = f"cancel the upload of {record.disk}"
        self._gcp.attempt(
            what, lambda: self._gcp.http().delete(record.session, timeout=self._gcp.storage_call["timeout"])
        )

    def _object(self, record: Record) -> int | dict[str, Any]:
        """The archive that is whole there; 0 when there is none."""
        blob = self._gcp.bucket().blob(self._archive(record.disk))
        try:
            self._gcp.attempt(f"look for the archive of {record.disk}", lambda: blob.reload(**self._gcp.storage_call))
        except NotFound:
            return 0
        return {"crc32c": blob.crc32c}

    def _compare(self, record: Record, there: dict[str, Any], checksum: str) -> None:
        if there.get("crc32c") != checksum:
            self.remove(record.disk)
            raise Damaged(
                f"the archive of {record.disk} arrived with the checksum {there.get('crc32c')}, not {checksum}",
                "It was removed, and is sent again.",
            )

    def _archive(self, disk: str) -> str:
        return f"{FOLDER}{disk}.tar.gz"

    def _note(self, disk: str) -> str:
        return f"{FOLDER}{disk}.json"


def _foreign(disk: str, why: str) -> Conflict:
    return Conflict(
        f"the record of {disk}'s upload in the bucket is not ours: {why}", "See who writes there, and delete it."
    )


def _inside(record: Record, at: Any, start: int, end: int) -> int:
    """How much of a part lies before `at`. Google never forgets what it acknowledged."""
    if not isinstance(at, int) or not start <= at <= end:
        raise Unavailable(
            f"Google has {at} bytes of {record.disk}, which is not between {start} and {end}", "It is looked at again."
        )
    return at - start


def _passed(waiting: deque[tuple[int, Piece]], there: int) -> Piece | None:
    last = None
    while waiting and waiting[0][0] <= there:
        last = waiting.popleft()[1]
    return last
