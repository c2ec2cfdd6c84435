"""The page blobs behind signed addresses of disks: pages of 512 bytes that are kept, as strict as managed disks are.

A blob ends with a VHD footer. Writes of 4 MiB at most, whole pages, MD5 checked where it is told; no conditions; page
lists in pages of `listed` ranges, differences only between snapshots of one line.
Sources: storage REST reference (Put Page, Put Page From URL, Get Page Ranges, Get Blob).
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs, urlsplit

from tests.clouds.azure.wire import STORAGE_CODES, AzureFault, Drift

PAGE = 512
MOST = 4 << 20
DOCUMENTED = {"AuthorizationPermissionMismatch"}
"""Codes that storage's documentation has, and the SDK's list has not."""
_XML = '<?xml version="1.0" encoding="utf-8"?>'


@dataclass
class Blob:
    """A disk's bytes with its footer, and which pages were ever written."""

    held: bytearray
    written: set[int] = field(default_factory=set)
    family: str = ""
    """Blobs of one family are points in time of one disk."""

    @property
    def disk(self) -> memoryview:
        """Without the footer."""
        return memoryview(self.held)[:-PAGE]

    def put(self, offset: int, data: bytes) -> None:
        self.held[offset : offset + len(data)] = data
        self.written |= set(range(offset // PAGE, (offset + len(data)) // PAGE))

    def clear(self, offset: int, length: int) -> None:
        self.held[offset : offset + length] = bytes(length)
        self.written -= set(range(offset // PAGE, (offset + length) // PAGE))

    def page(self, number: int) -> bytes:
        return bytes(self.held[number * PAGE : (number + 1) * PAGE])

    def copy(self) -> Blob:
        return Blob(bytearray(self.held), set(self.written), self.family)


@dataclass
class Leave:
    blob: Blob
    access: str
    good: bool = True


@dataclass(frozen=True)
class Asked:
    method: str
    url: str
    headers: dict[str, str]
    """Names in small letters."""
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlsplit(self.url).query, keep_blank_values=True).items()}

    def name(self) -> str:
        """Of the operation, as faults are planned by."""
        comp = self.query.get("comp", "")
        if comp == "page":
            return "PUT page from URL" if "x-ms-copy-source" in self.headers else "PUT page"
        return f"{self.method} {comp or 'blob'}"


Answer = tuple[int, dict[str, str], bytes]


class Blobs:
    def __init__(self, base: str) -> None:
        self.base = base
        self.leaves: dict[str, Leave] = {}
        self.sent = 0
        """Bytes of content in all writes that were accepted; footers and copies are none."""
        self.listed = 10_000
        self._made = 0

    def name(self, asked: Asked) -> str:
        return asked.name()

    def grant(self, blob: Blob, access: str) -> str:
        self._made += 1
        path = f"/md-impexp-fake/{self._made:012x}/abcd"
        signature = hashlib.sha256(path.encode()).hexdigest()
        url = f"{self.base}{path}?sv=2018-03-28&sr=b&si={self._made}&sig={signature}"
        self.leaves[url] = Leave(blob, access)
        return url

    def expire(self) -> None:
        """As a day's passing does."""
        for leave in self.leaves.values():
            leave.good = False

    def answer(self, asked: Asked) -> Answer:
        if "x-ms-version" not in asked.headers:
            raise Drift("a request to storage without x-ms-version")
        for name in ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"):
            if name in asked.headers:
                raise Drift(f"{name} is sent, and managed disks take no conditions")
        leave = self._leave(asked.url, "Write" if asked.method == "PUT" else "Read")
        match asked.name():
            case "PUT page":
                return self._put(leave.blob, asked)
            case "PUT page from URL":
                return self._copy(leave.blob, asked)
            case "GET pagelist":
                return self._list(leave.blob, asked)
            case "GET blob":
                return self._get(leave.blob, asked)
            case "HEAD blob":
                return 200, {**_blob_headers(), "Content-Length": str(len(leave.blob.held))}, b""
            case other:
                raise Drift(f"managed disks have no {other}")

    def fault(self, asked: Asked, fault: AzureFault) -> Answer:
        if fault.code not in STORAGE_CODES | DOCUMENTED:
            raise Drift(f"storage has no code {fault.code}")
        body = f"{_XML}<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>"
        headers = {"x-ms-error-code": fault.code, "Content-Type": "application/xml"}
        return fault.status, headers, b"" if asked.method == "HEAD" else body.encode()

    def _leave(self, url: str, access: str) -> Leave:
        kept = next((leave for at, leave in self.leaves.items() if _same_address(at, url)), None)
        if kept is None or not kept.good:
            raise AzureFault("AuthenticationFailed", "Signature not valid in the specified time frame", 403)
        if kept.access == "Read" and access == "Write":
            raise AzureFault("AuthorizationPermissionMismatch", "This request is not authorized for writing", 403)
        return kept

    def _put(self, blob: Blob, asked: Asked) -> Answer:
        start, length = self._span(blob, asked.headers["x-ms-range"])
        if asked.headers.get("x-ms-page-write") != "update" or length != len(asked.body):
            raise AzureFault("InvalidHeaderValue", f"{length} bytes are told, {len(asked.body)} came")
        digest = base64.b64encode(hashlib.md5(asked.body).digest()).decode()
        if asked.headers.get("content-md5", digest) != digest:
            raise AzureFault("Md5Mismatch", "The MD5 value specified in the request did not match")
        blob.put(start, asked.body)
        self.sent += max(0, min(length, len(blob.held) - PAGE - start))
        return 201, {**_blob_headers(), "Content-MD5": digest, "x-ms-blob-sequence-number": "0"}, b""

    def _copy(self, blob: Blob, asked: Asked) -> Answer:
        try:
            source = self._leave(asked.headers["x-ms-copy-source"], "Read")
        except AzureFault as fault:
            raise AzureFault("CannotVerifyCopySource", fault.message, fault.status) from fault
        start, length = self._span(blob, asked.headers["x-ms-range"])
        at, many = self._span(source.blob, asked.headers["x-ms-source-range"])
        if asked.body or many != length:
            raise AzureFault("InvalidHeaderValue", "The ranges of source and target differ")
        blob.put(start, bytes(source.blob.held[at : at + many]))
        return 201, {**_blob_headers(), "x-ms-blob-sequence-number": "0"}, b""

    def _get(self, blob: Blob, asked: Asked) -> Answer:
        start, length = _range(asked.headers.get("x-ms-range") or asked.headers["range"])
        data = bytes(blob.held[start : start + length])
        headers = {
            **_blob_headers(),
            "Content-Range": f"bytes {start}-{start + len(data) - 1}/{len(blob.held)}",
            "Content-Type": "application/octet-stream",
        }
        if asked.headers.get("x-ms-range-get-content-md5") == "true":
            if length > MOST:
                raise AzureFault("OutOfRangeQueryParameterValue", "An MD5 is told of 4 MiB at most")
            headers["Content-MD5"] = base64.b64encode(hashlib.md5(data).digest()).decode()
        return 206, headers, data

    def _list(self, blob: Blob, asked: Asked) -> Answer:
        filled, emptied = blob.written, set[int]()
        if "x-ms-previous-snapshot-url" in asked.headers:
            earlier = self._leave(asked.headers["x-ms-previous-snapshot-url"], "Read").blob
            if not blob.family or earlier.family != blob.family:
                raise AzureFault("PreviousSnapshotNotFound", "The previous snapshot is not of this blob", 409)
            filled = {n for n in blob.written if n not in earlier.written or blob.page(n) != earlier.page(n)}
            emptied = earlier.written - blob.written
        told = asked.headers.get("x-ms-range") or asked.headers.get("range")
        start, length = _range(told) if told else (0, len(blob.held))
        inside = range(start // PAGE, -(-(start + length) // PAGE))
        rows = [("PageRange", *span) for span in _joined(filled, inside)]
        rows += [("ClearRange", *span) for span in _joined(emptied, inside)]
        rows.sort(key=lambda row: row[1])
        skip, most = int(asked.query.get("marker", "0")), int(asked.query.get("maxresults", str(self.listed)))
        cut = rows[skip : skip + min(most, self.listed)]
        body = "".join(f"<{kind}><Start>{first}</Start><End>{last}</End></{kind}>" for kind, first, last in cut)
        more = f"<NextMarker>{skip + len(cut)}</NextMarker>" if skip + len(cut) < len(rows) else "<NextMarker/>"
        headers = {
            **_blob_headers(),
            "x-ms-blob-content-length": str(len(blob.held)),
            "Content-Type": "application/xml",
        }
        return 200, headers, f"{_XML}<PageList>{body}{more}</PageList>".encode()

    def _span(self, blob: Blob, told: str) -> tuple[int, int]:
        start, length = _range(told)
        if start % PAGE or length % PAGE or length > MOST or start + length > len(blob.held):
            raise AzureFault("InvalidPageRange", f"{told} is not 4 MiB at most of whole pages inside", 416)
        return start, length


def _range(told: str) -> tuple[int, int]:
    first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", told).groups()  # type: ignore[union-attr]
    return int(first), int(last) - int(first) + 1


def _same_address(one: str, other: str) -> bool:
    """The SDK adds its own parameters."""
    ours, theirs = urlsplit(one), urlsplit(other)
    return ours.path == theirs.path and parse_qs(ours.query)["sig"] == parse_qs(theirs.query).get("sig")


def _joined(pages: set[int], inside: range) -> list[tuple[int, int]]:
    """(first byte, last byte) of runs."""
    spans: list[tuple[int, int]] = []
    for number in sorted(page for page in pages if page in inside):
        start, end = number * PAGE, number * PAGE + PAGE - 1
        if spans and spans[-1][1] + 1 == start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _blob_headers() -> dict[str, str]:
    when = formatdate(0, usegmt=True)
    return {"x-ms-blob-type": "PageBlob", "ETag": '"0x1"', "Last-Modified": when, "x-ms-version": "2026-10-06"}
