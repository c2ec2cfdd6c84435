"""The methods that are compared: how QEMU is set up for each, and what carries its memory stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench.cpu import Watched
from models.base import Address, Name
from models.datapath import TlsFiles

PORT = 49400
"""Where the destination QEMU listens when the source reaches it directly."""


class MoveFailed(RuntimeError):
    """The guest did not arrive, or not unharmed: there is no measurement."""


@dataclass(frozen=True)
class End:
    """One host, as far as a move needs it."""

    name: Name
    address: Address
    interface: str
    namespace: str
    """Its network namespace."""
    tls: TlsFiles

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command to run it in the host's network namespace, with the same pid."""
        return ("nsenter", f"--net=/run/netns/{self.namespace}", "--")


async def _nothing_to_verify() -> str:
    return ""


@dataclass(frozen=True)
class Carrier:
    """What carries the memory stream from one QEMU to the other."""

    outgoing: str
    """URI that the source migrates to."""
    incoming: str
    """URI that the destination takes it from."""
    processes: tuple[Watched, ...] = ()
    setup_seconds: float = 0
    verify: Callable[[], Awaitable[str]] = _nothing_to_verify
    """After the move: the digest of the stream, equal at both ends. Raises MoveFailed."""


@contextlib.asynccontextmanager
async def direct(source: End, destination: End, folder: Path) -> AsyncIterator[Carrier]:
    """QEMU's own TCP connections."""
    uri = f"tcp:{destination.address}:{PORT}"
    yield Carrier(outgoing=uri, incoming=uri)


@dataclass(frozen=True)
class Method:
    """How both QEMUs are set up, by the names QMP has for it, and who carries the stream."""

    capabilities: Mapping[str, bool] = field(default_factory=dict)
    parameters: Mapping[str, int | str] = field(default_factory=dict)
    carrier: Callable[[End, End, Path], AbstractAsyncContextManager[Carrier]] = direct


METHODS = {
    "plain": Method(),
    "xbzrle": Method({"xbzrle": True}, {"xbzrle-cache-size": 512 << 20}),
    "multifd-zstd": Method(
        {"multifd": True}, {"multifd-channels": 2, "multifd-compression": "zstd", "multifd-zstd-level": 1}
    ),
}
