"""Would a peer let this host in today, and for how long? Asked of the host's own files, by a handshake in memory.

The very contexts of the data path shake hands with each other, so what is checked is all that counts later: the files
are there, key and certificate belong together, the authority signed it, it is valid now and names this host.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

from dwcp.errors import StartFailed
from dwcp.security import tls
from models.datapath import TlsFiles

_ROUNDS = 6
"""A handshake of TLS 1.3 needs three steps of each side."""


@dataclass(frozen=True)
class Validity:
    error: str = ""
    """Why a peer would refuse it; empty when none would."""
    expires: datetime | None = None


def validity(files: TlsFiles, name: str) -> Validity:
    try:
        client, server = tls.context("source", files), tls.context("destination", files)
    except StartFailed as error:
        return Validity(str(error))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialler = client.wrap_bio(to_client, to_server, server_hostname=name)
    listener = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_ROUNDS):
            done = [_step(end) for end in (dialler, listener)]
            if all(done):
                break
        found = dialler.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return Validity(error.verify_message or str(error))
    except (ssl.SSLError, ValueError) as error:
        return Validity(str(error))
    seconds = ssl.cert_time_to_seconds(str(found["notAfter"]))
    return Validity(expires=datetime.fromtimestamp(seconds, UTC))


def _step(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
