"""One HTTP POST with an end: a deadline over the whole exchange, an answer of bounded size, no redirects, no proxies.

Written out because the standard library's clients bound each read, not the whole: a receiver that drips one byte a
second would hold them for hours.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

LONGEST_LINE = 8192
BODY_READ = 512
"""Of the answer's body, for the error message."""


class PostFailed(Exception):
    """No answer that could be read came back; the message says what was met."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: str
    """Its beginning."""


async def post(
    url: str, headers: Mapping[str, str], body: bytes, within: float, authority: str | None = None
) -> Answer:
    """Raises PostFailed. `within`: seconds for everything; `authority`: PEM file, None for the machine's own."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    try:
        secure = ssl.create_default_context(cafile=authority) if parts.scheme == "https" else None
        port = parts.port or (443 if secure else 80)
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure, limit=LONGEST_LINE)
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                writer.write(_head(target, parts.netloc, {**headers, "content-length": str(len(body))}) + body)
                await writer.drain()
                return await _answer(reader)
            finally:
                writer.transport.abort()  # said and heard is all; an orderly goodbye could take for ever
    except TimeoutError:
        raise PostFailed(f"no answer within {within:g} s") from None
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        raise PostFailed(f"{type(error).__name__}: {error}") from error


def _head(target: str, host: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {target} HTTP/1.1", f"host: {host}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _answer(reader: asyncio.StreamReader) -> Answer:
    status = _status(await _line(reader))
    for _ in range(200):
        if not (await _line(reader)).strip():
            break
    body = await reader.read(BODY_READ) if status not in (204, 304) else b""
    return Answer(status, " ".join(body.decode("utf-8", "replace").split()))


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ValueError("the connection was closed before the answer was complete")
    return line


def _status(line: bytes) -> int:
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit() or len(words[1]) != 3:
        raise ValueError(f"this is no answer of HTTP: {line[:80]!r}")
    return int(words[1])
