"""JSON from a public address: bounded, tried again after throttling, and never from another host than was asked."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import urlsplit

from clouds import errors
from clouds.attempts import attempt
from models.clouds import CallSettings

LARGEST_ANSWER = 64 << 20
"""Bytes. The largest page that was seen in any provider's documents is a tenth of it."""
_NETWORK = "It is tried again; check the network and the proxy."


class _Moved(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        same_host(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def get(what: str, url: str, calls: CallSettings) -> Any:
    """`what` completes "cannot ..."."""

    def ask() -> bytes:
        request = urllib.request.Request(url, headers={"User-Agent": "novacron", "Accept": "application/json"})
        with urllib.request.build_opener(_Moved()).open(request, timeout=calls.read_timeout) as answer:
            data: bytes = answer.read(LARGEST_ANSWER + 1)
            return data

    return parsed(what, attempt(what, ask, calls, translate, retry_after))


def parsed(what: str, data: bytes) -> Any:
    """Raises Damaged."""
    if len(data) > LARGEST_ANSWER:
        raise errors.Damaged(f"cannot {what}: the answer has more than {LARGEST_ANSWER} bytes", "Look who answers.")
    try:
        return json.loads(data)
    except ValueError as error:
        raise errors.Damaged(f"cannot {what}: the answer is no JSON: {error}", "Try again later.") from error


def same_host(url: str, first: str) -> str:
    """`url`, where a list goes on. Raises Damaged when it leads elsewhere."""
    there, here = urlsplit(url), urlsplit(first)
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        raise errors.Damaged(f"{first} leads on to {url}, on another host", "Look who answers.")
    return url


def translate(error: Exception, what: str) -> Exception:
    if isinstance(error, urllib.error.HTTPError):
        text = f"cannot {what}: {urlsplit(error.url or '').netloc} says {error.code} {error.reason}"
        if error.code == 429:
            return errors.Throttled(text, "Try again in some minutes.", "429")
        if error.code >= 500:
            return errors.Unavailable(text, "Try again later.", str(error.code))
        return errors.Invalid(text, "The interface may have changed: look for a newer NovaCron.", str(error.code))
    if isinstance(error, OSError | http.client.HTTPException):
        return errors.Unavailable(f"cannot {what}: {error}", _NETWORK)
    return error


def retry_after(error: Exception) -> float:
    told = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    return float(told) if told.isdecimal() else 0.0
