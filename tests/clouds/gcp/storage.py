"""Cloud Storage as strict as Google documents it: preconditions, resumable uploads, checksums. It keeps every byte.

Source: JSON API reference, "Perform resumable uploads": parts are multiples of 256 KiB but for the last, 308 with Range
says what is there, 499 answers a cancellation, 404 or 410 one that is over.
"""

from __future__ import annotations

import base64
import email
import json
import re
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

from tests.clouds.gcp.wire import Call, Drift, Fault, judge, write

UNIT = 256 << 10
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Stored:
    data: bytes
    generation: int
    type: str


@dataclass
class Session:
    name: str
    data: bytearray = field(default_factory=bytearray)
    done: dict[str, Any] | None = None


class StrictStorage:
    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.url = ""
        """Of the server, for the addresses of sessions."""
        self.objects: dict[str, Stored] = {}
        self.sessions: dict[str, Session] = {}
        self.put_bytes = 0
        """All bytes of parts that were taken."""
        self.take_at_most = 1 << 40
        """Of one part that is not the last: Google may keep less than it was sent."""
        self._made = 0

    def answer(self, call: Call) -> Answer:
        if call.params["bucket"] != self.bucket:
            raise Fault(404, "notFound", "The specified bucket does not exist.")
        if call.name == "objects.insert" and call.upload:
            return self._insert(call)
        if call.name == "buckets.get":  # the SDK looks by itself, in the background
            return 200, {}, write(call, {"kind": "storage#bucket", "id": self.bucket, "name": self.bucket})
        name = call.params["object"]
        if name not in self.objects:
            raise Fault(404, "notFound", f"No such object: {self.bucket}/{name}")
        if call.name == "objects.delete":
            del self.objects[name]
            return 204, {}, b""
        if call.name == "objects.get" and call.params.get("alt") == "media":
            kept = self.objects[name]
            hashes = {"X-Goog-Hash": f"crc32c={_crc(kept.data)}", "X-Goog-Generation": str(kept.generation)}
            return 200, {"Content-Type": kept.type, **hashes}, kept.data
        if call.name == "objects.get":
            return 200, {}, write(call, self._told(name))
        raise Drift(f"{call.name} is not part of this fake")

    def part(self, verb: str, id: str, headers: dict[str, str], body: bytes) -> Answer:
        """A request to a session's own address."""
        session = self.sessions.get(id)
        if session is None:
            raise Fault(404, "notFound", "No such upload.")
        if verb == "DELETE":
            del self.sessions[id]
            return 499, {}, b""
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", headers.get("content-range", ""))
        if verb != "PUT" or not found:
            raise Fault(400, "badRequest", f"{verb} with the range {headers.get('content-range')!r}")
        first, last, total = found.groups()
        if session.done is None and first is not None:
            self._take(session, int(first), int(last), total, body)
        if session.done is None and total != "*" and len(session.data) == int(total):
            self._finish(session)
        if session.done is not None:
            return 200, {"Content-Type": "application/json"}, json.dumps(session.done).encode()
        there = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
        return 308, there, b""

    def _take(self, session: Session, first: int, last: int, total: str, body: bytes) -> None:
        if len(body) != last + 1 - first:
            raise Fault(400, "badRequest", f"{len(body)} bytes came for the range {first}-{last}.")
        if first != len(session.data):
            raise Fault(400, "invalid", f"{len(session.data)} bytes are there, not {first}.")
        final = total != "*"
        if not final and len(body) % UNIT:
            raise Fault(400, "invalid", f"{len(body)} bytes are no multiple of {UNIT}.")
        if final and int(total) != last + 1:
            raise Fault(400, "invalid", "The last part does not end where the whole does.")
        taken = body if final else body[: self.take_at_most]
        session.data += taken
        self.put_bytes += len(taken)

    def _finish(self, session: Session) -> None:
        self._store(session.name, bytes(session.data), "application/gzip")
        session.done = self._told(session.name)

    def _insert(self, call: Call) -> Answer:
        if call.params["uploadType"] == "resumable":
            told = call.json()
            self._made += 1
            id = f"session-{self._made}"
            self.sessions[id] = Session(told.get("name") or call.params["name"])
            return 200, {"Location": f"{self.url}/session/{id}"}, b""
        if call.params["uploadType"] != "multipart":
            raise Fault(400, "badRequest", "An upload is resumable or multipart here.")
        head = f"Content-Type: {call.headers['content-type']}\r\n\r\n".encode()
        about, content = email.message_from_bytes(head + call.body).get_payload()  # type: ignore[str-unpack]
        told = json.loads(about.get_payload())  # type: ignore[union-attr, arg-type]
        judge("storage", told, call.method["request"], "request of objects.insert", request=True)
        data = content.get_payload(decode=True)  # type: ignore[union-attr]
        assert isinstance(data, bytes)
        if told.get("crc32c", _crc(data)) != _crc(data):
            raise Fault(400, "invalid", "The checksum does not fit.")
        name = told["name"]
        there = self.objects[name].generation if name in self.objects else 0
        if int(call.params.get("ifGenerationMatch", there)) != there:
            raise Fault(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
        self._store(name, data, content.get_content_type())  # type: ignore[union-attr]
        return 200, {}, write(call, self._told(name))

    def _store(self, name: str, data: bytes, type: str) -> None:
        self._made += 1
        self.objects[name] = Stored(data, 1000 + self._made, type)

    def _told(self, name: str) -> dict[str, Any]:
        kept = self.objects[name]
        return {
            "kind": "storage#object", "id": f"{self.bucket}/{name}/{kept.generation}", "name": name,
            "bucket": self.bucket, "generation": str(kept.generation), "metageneration": "1",
            "contentType": kept.type, "size": str(len(kept.data)), "crc32c": _crc(kept.data),
        }  # fmt: skip


def _crc(data: bytes) -> str:
    checksum = google_crc32c.Checksum(data)
    return base64.b64encode(checksum.digest()).decode()
