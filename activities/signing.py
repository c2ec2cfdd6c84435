"""Signatures of webhooks, as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.body`, base64, version v1.

Pure but for reading the secret, which is read for each delivery, so that a new one holds at once. It is never kept,
logged or put into an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from pathlib import Path

from models.events import Webhook

PREFIX = "whsec_"
LEAST, MOST = 24, 64
"""Bytes of a secret, as the standard has them."""
_LARGEST_FILE = 4096


class BadSecret(Exception):
    """The message says where the secret should be and what is wrong with it, never what it is."""


def signature(keys: list[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """Value of the header webhook-signature: one signature for each key, separated by spaces."""
    content = f"{event_id}.{timestamp}.".encode() + body
    made = (base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys)
    return " ".join(f"v1,{one}" for one in made)


def secrets_of(webhook: Webhook) -> list[bytes]:
    """The keys of a webhook, newest first as in its file. Raises BadSecret."""
    if webhook.secret_env is not None:
        where, text = f"environment variable {webhook.secret_env}", os.environ.get(webhook.secret_env, "")
    else:
        where, text = f"file {webhook.secret_file}", _read(webhook)
    lines = text.split()
    if not lines:
        raise BadSecret(f"webhook {webhook.name}: {where} holds no secret. Put one there: {_HOW}")
    return [_key(line, f"webhook {webhook.name}: {where}, secret {place}") for place, line in enumerate(lines, 1)]


_HOW = f'echo "{PREFIX}$(openssl rand -base64 32)"'


def _read(webhook: Webhook) -> str:
    path = Path(webhook.secret_file or "/")
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE).decode("ascii")
    except OSError as error:
        raise BadSecret(
            f"webhook {webhook.name}: secret_file {path}: {error.strerror}. Make it, readable by the control worker's "
            f"user only: {_HOW}"
        ) from error
    except UnicodeDecodeError:
        raise BadSecret(f"webhook {webhook.name}: secret_file {path} is not text. Make it anew: {_HOW}") from None


def _key(line: str, where: str) -> bytes:
    if not line.startswith(PREFIX):
        raise BadSecret(f"{where} does not start with {PREFIX}. Make it anew: {_HOW}")
    try:
        key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise BadSecret(f"{where} is not base64 after {PREFIX}. Make it anew: {_HOW}") from None
    if not LEAST <= len(key) <= MOST:
        raise BadSecret(f"{where} has {len(key)} bytes; {LEAST} to {MOST} are asked for. Make it anew: {_HOW}")
    return key
