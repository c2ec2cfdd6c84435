"""The methods that are compared: how QEMU is set up for each, and what carries its memory stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench.cpu import Watched
from dwcp.control import status, stop
from dwcp.errors import NotRunning
from dwcp.process import spawn
from models.base import Address, Name
from models.datapath import DataPathConfig, DataPathStatus, Role, Service, TlsFiles
from models.migration import MigrationPolicy

PORT = 49400
"""Where the destination QEMU listens when the source reaches it directly."""


PATH_WITHIN = 30
"""Seconds for the data path's ends to connect, and to end their streams after a move."""

LIFETIME = 600
"""Seconds after which a data path process ends by itself, if the bench was killed."""


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


@contextlib.asynccontextmanager
async def data_path(source: End, destination: End, folder: Path) -> AsyncIterator[Carrier]:
    """NovaCron: a data path process at each end, started in the host's network namespace, with the default policy."""
    policy = MigrationPolicy()
    rooms = {end.name: folder / end.name / "path" for end in (source, destination)}
    began = time.monotonic()

    def config(role: Role, end: End, peer: End, port: int, socket: Path) -> DataPathConfig:
        return DataPathConfig(
            role=role,
            migration_id="bench",
            peer_name=peer.name,
            address=destination.address,
            port=port,
            services=(Service(name="ram", path=str(socket)),),
            tls=end.tls,
            lanes=policy.lanes,
            codec=policy.codec,
            resume_within=policy.resume_within,
            lifetime=LIFETIME,
        )

    def start(role: Role, end: End, peer: End, port: int, socket: Path) -> DataPathStatus:
        return spawn(config(role, end, peer, port, socket), rooms[end.name], launcher=end.prefix)

    incoming, outgoing = folder / destination.name / "ram.sock", folder / source.name / "ram.sock"
    try:
        far = await asyncio.to_thread(start, "destination", destination, source, 0, incoming)
        near = await asyncio.to_thread(start, "source", source, destination, far.port, outgoing)
        await _until(rooms, lambda status: status.state == "connected", "the two ends do not connect")
        yield Carrier(
            outgoing=f"unix:{outgoing}",
            incoming=f"unix:{incoming}",
            processes=(Watched(near.pid), Watched(far.pid)),
            setup_seconds=time.monotonic() - began,
            verify=lambda: _equal_digest(rooms),
        )
    finally:
        for room in rooms.values():
            with contextlib.suppress(NotRunning):
                await asyncio.to_thread(stop, room)


async def _until(
    rooms: Mapping[str, Path], ready: Callable[[DataPathStatus], bool], otherwise: str
) -> tuple[DataPathStatus, ...]:
    """Both ends' status, source first, as soon as both are ready. Bounded polling. Raises MoveFailed."""
    deadline = time.monotonic() + PATH_WITHIN
    while True:
        found = tuple([await asyncio.to_thread(status, room) for room in rooms.values()])
        if all(ready(each) for each in found):
            return found
        errors = [each.error for each in found if each.error]
        if errors or time.monotonic() > deadline:
            raise MoveFailed(f"{otherwise}: states {[each.state for each in found]}, errors {errors}")
        await asyncio.sleep(0.05)


async def _equal_digest(rooms: Mapping[str, Path]) -> str:
    """The digest of the memory stream, which is the same at both ends. Raises MoveFailed."""

    def over(status: DataPathStatus) -> bool:
        return len(status.flows) == 1 and not status.flows[0].open

    near, far = await _until(rooms, over, "the memory stream does not end")
    sent, got = near.flows[0], far.flows[0]
    if not sent.digest_out or (sent.digest_out, sent.raw_out) != (got.digest_in, got.raw_in):
        raise MoveFailed(
            f"the memory stream changed on the way: {sent.raw_out} bytes {sent.digest_out} left, "
            f"{got.raw_in} bytes {got.digest_in} arrived"
        )
    return sent.digest_out


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
    "novacron": Method(carrier=data_path),
}
