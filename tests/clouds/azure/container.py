"""A blob container as far as an index needs it: block blobs that are kept whole, lists in pages. MD5 is checked.
Sources: storage REST reference (Put Blob, Get Blob, Delete Blob, List Blobs)."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from tests.clouds.azure.blobs import Answer, Asked
from tests.clouds.azure.wire import AzureFault, Drift

ACCOUNT, NAME = "devaccount", "novacron-index"
PATH = f"/{ACCOUNT}/{NAME}"
_XML = '<?xml version="1.0" encoding="utf-8"?>'


class Container:
    def __init__(self, page: int = 5000) -> None:
        self.page = page
        self.objects: dict[str, bytes] = {}
        self.aged: dict[str, timedelta] = {}
        """How much older than they are these objects say they are."""
        self._written: dict[str, datetime] = {}

    def name(self, asked: Asked) -> str:
        """Of the operation, as faults are planned by."""
        return f"{asked.method} objects" if "comp" in asked.query else f"{asked.method} object"

    def answer(self, asked: Asked) -> Answer:
        if "x-ms-version" not in asked.headers:
            raise Drift("a request to storage without x-ms-version")
        if asked.headers.get("authorization") != "Bearer good":
            raise AzureFault("NoAuthenticationInformation", "Server failed to authenticate the request.", 401)
        key = unquote(urlsplit(asked.url).path).removeprefix(f"{PATH}/")
        match self.name(asked):
            case "PUT object":
                return self._put(key, asked)
            case "GET object":
                return self._get(key, asked)
            case "DELETE object":
                self._must(key)
                del self.objects[key]
                return 202, {}, b""
            case "GET objects":
                return self._list(asked)
            case other:
                raise Drift(f"an index needs no {other}")

    def _put(self, key: str, asked: Asked) -> Answer:
        if asked.headers.get("x-ms-blob-type") != "BlockBlob":
            raise Drift(f"{key} is put as {asked.headers.get('x-ms-blob-type')}")
        told = asked.headers.get("content-md5")
        if told is None or base64.b64decode(told) != hashlib.md5(asked.body).digest():
            raise AzureFault("Md5Mismatch", "The MD5 value specified did not match what the server calculated.")
        self.objects[key], self._written[key] = asked.body, datetime.now(UTC)
        return 201, {**self._headers(key), "x-ms-request-server-encrypted": "true"}, b""

    def _get(self, key: str, asked: Asked) -> Answer:
        data = self._must(key)
        headers = {**self._headers(key), "x-ms-blob-type": "BlockBlob"}
        told = asked.headers.get("x-ms-range")
        if told is None:
            return 200, headers, data
        first, last = (int(each) for each in re.fullmatch(r"bytes=(\d+)-(\d+)", told).groups())  # type: ignore[union-attr]
        if first >= len(data):
            raise AzureFault("InvalidRange", "The range specified is invalid.", 416)
        part = data[first : last + 1]
        span = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        return 206, {**headers, "Content-Range": span}, part

    def _list(self, asked: Asked) -> Answer:
        if asked.query.get("restype") != "container" or asked.query["comp"] != "list":
            raise Drift(f"an index needs no {asked.url}")
        prefix, marker = asked.query.get("prefix", ""), asked.query.get("marker", "")
        names = [name for name in sorted(self.objects) if name.startswith(prefix) and name >= marker]
        rows = "".join(self._row(name) for name in names[: self.page])
        more = escape(names[self.page]) if len(names) > self.page else ""
        told = f"<Prefix>{escape(prefix)}</Prefix><Blobs>{rows}</Blobs><NextMarker>{more}</NextMarker>"
        body = f"{_XML}<EnumerationResults>{told}</EnumerationResults>"
        return 200, {"Content-Type": "application/xml"}, body.encode()

    def _row(self, name: str) -> str:
        properties = f"<Content-Length>{len(self.objects[name])}</Content-Length><BlobType>BlockBlob</BlobType>"
        properties += f"<Last-Modified>{self._when(name)}</Last-Modified><Etag>0x1</Etag>"
        return f"<Blob><Name>{escape(name)}</Name><Properties>{properties}</Properties></Blob>"

    def _when(self, name: str) -> str:
        return format_datetime(self._written[name] - self.aged.get(name, timedelta()), usegmt=True)

    def _must(self, key: str) -> bytes:
        if key not in self.objects:
            raise AzureFault("BlobNotFound", "The specified blob does not exist.", 404)
        return self.objects[key]

    def _headers(self, key: str) -> dict[str, str]:
        return {"ETag": '"0x1"', "Last-Modified": self._when(key), "x-ms-version": "2026-10-06"}
