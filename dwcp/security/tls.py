"""The one place that builds TLS contexts and decides whether a peer is who it must be.

Mutual TLS 1.3 only. Both ends present a certificate of the common authority. The source checks the destination's name
while it shakes hands (`server_hostname`); TLS has no such check for clients, so the destination does it right after the
handshake, before it looks at a single byte (`wrong_name`): the certificate must carry the expected host as a DNS
subject alternative name, in full, no wildcard. A certificate that restricts its use must allow both client and server.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

from dwcp.errors import StartFailed, WrongProtection
from dwcp.transport.channel import TlsChannel
from models.datapath import Role, TlsFiles

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""What OpenSSL's versions call the first bytes of something that speaks no TLS."""


def context(role: Role, files: TlsFiles) -> ssl.SSLContext:
    """Raises StartFailed naming the file that cannot be used."""
    built = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "source" else ssl.PROTOCOL_TLS_SERVER)
    built.minimum_version = built.maximum_version = ssl.TLSVersion.TLSv1_3
    built.verify_mode = ssl.CERT_REQUIRED
    built.check_hostname = role == "source"
    built.hostname_checks_common_name = False
    if role == "destination":
        built.num_tickets = 0  # a lane is written by one side; tickets nobody reads would turn close() into a reset
    try:
        built.load_verify_locations(files.authority)
    except (OSError, ssl.SSLError) as error:
        raise StartFailed(f"authority {files.authority}: {error}; give a PEM file of CA certificates") from error
    try:
        built.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise StartFailed(
            f"certificate {files.certificate}, key {files.key}: {error}; give a PEM pair that belongs together"
        ) from error
    return built


def shake_hands(sock: socket.socket, using: ssl.SSLContext, peer_name: str) -> TlsChannel:
    """Source. Raises OSError (ssl errors are); WrongProtection when what answers is no TLS at all."""
    try:
        return TlsChannel(sock, using, server_name=peer_name)
    except ssl.SSLError as error:
        if error.reason in _NO_TLS:
            raise WrongProtection(
                "the peer answers in the clear, this end has protection tls; give both ends the same"
            ) from error
        raise


def wrong_name(channel: TlsChannel, expected: str) -> str | None:
    """What is wrong with the verified certificate's name, or None if it names `expected`."""
    names = channel.peer_names()
    if expected.lower() in (name.lower() for name in names):
        return None
    return f"the certificate is for {', '.join(names) or 'no host'}, this end expects {expected}"
