"""The methods that are compared: how QEMU is set up for each, and what carries its memory stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.cpu import Watched
from bench.stores import index_images
from dwcp.control import status, stop
from dwcp.errors import NotRunning
from dwcp.process import spawn
from models.base import Address, Name
from models.datapath import DataPathConfig, DataPathStatus, FlowStatus, Role, Service, TlsFiles
from models.migration import MigrationPolicy
from models.store import StoreSettings, StoreUse

PORT = 49400
"""Where the destination QEMU listens when the source reaches it directly."""


PATH_WITHIN = 30
"""Seconds for the data path's ends to connect, and to end their streams after a move."""

LIFETIME = 900
"""Seconds after which a data path process ends by itself, if the bench was killed."""

VM = "6b1f5f0a-6f0e-4f57-9f0d-62656e636800"
"""UUID of the one VM there is: its visits are kept under it."""

STORE_MIB = 4096


class MoveFailed(RuntimeError):
    """The guest did not arrive, or not unharmed: there is no measurement."""


@dataclass(frozen=True)
class End:
    """One host, as far as a move needs it."""

    name: Name
    address: Address
    interface: str
    namespace: str
    """Its network namespace; empty: the bench's own."""
    tls: TlsFiles

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command to run it in the host's network namespace, with the same pid."""
        if not self.namespace:
            return ()
        return ("nsenter", f"--net=/run/netns/{self.namespace}", "--")


@dataclass(frozen=True)
class Place:
    """Where one move is carried."""

    source: End
    destination: End
    folder: Path
    """For sockets and logs: it has a folder of each end's name."""
    stores: Path
    """Holds the hosts' content stores, each in a folder of its host's name, as full as they are to be."""
    content: Path
    """The guest's disk image, which both hosts have."""


@dataclass(frozen=True)
class Delivered:
    """What the carrier knows after the move; nothing about QEMU's own connections."""

    digest: str = ""
    """Of the memory stream, equal at both ends."""
    source: DataPathStatus | None = None


async def _nothing_to_verify() -> Delivered:
    return Delivered()


async def _no_status() -> DataPathStatus | None:
    return None


@dataclass(frozen=True)
class Carrier:
    """What carries the memory stream from one QEMU to the other."""

    outgoing: str
    """URI that the source migrates to."""
    incoming: str
    """URI that the destination takes it from."""
    processes: tuple[Watched, ...] = ()
    setup_seconds: float = 0
    verify: Callable[[], Awaitable[Delivered]] = _nothing_to_verify
    """After the move. Raises MoveFailed when the stream is not the same at both ends."""
    status: Callable[[], Awaitable[DataPathStatus | None]] = _no_status
    """The data path at the source, now."""


@contextlib.asynccontextmanager
async def direct(place: Place) -> AsyncIterator[Carrier]:
    """QEMU's own TCP connections."""
    uri = f"tcp:{place.destination.address}:{PORT}"
    yield Carrier(outgoing=uri, incoming=uri)


@contextlib.asynccontextmanager
async def data_path(place: Place, *, images: bool = False) -> AsyncIterator[Carrier]:
    """NovaCron: a data path process at each end, started in the host's network namespace, with the default policy.

    `images`: the destination's store knows the blocks of the guest's disk image before the move begins.
    """
    source, destination, folder = place.source, place.destination, place.folder
    policy = MigrationPolicy()
    rooms = {end.name: folder / end.name / "path" for end in (source, destination)}
    known: dict[str, tuple[str, ...]] = {source.name: (), destination.name: (str(place.content),) if images else ()}
    if images:
        await asyncio.to_thread(index_images, _store(place, destination, known[destination.name]).settings)
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
            max_lanes=policy.max_lanes,
            codec=policy.codec,
            page_memory_mib=policy.page_memory_mib,
            store=_store(place, end, known[end.name]) if policy.store else None,
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
            status=lambda: asyncio.to_thread(status, rooms[source.name]),
        )
    finally:
        for room in rooms.values():
            with contextlib.suppress(NotRunning):
                await asyncio.to_thread(stop, room, timeout=60)  # it may have pages to put away


def _store(place: Place, end: End, images: tuple[str, ...]) -> StoreUse:
    settings = StoreSettings(folder=str(place.stores / end.name), limit_mib=STORE_MIB, images=images)
    return StoreUse(settings=settings, vm=VM)


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


async def _equal_digest(rooms: Mapping[str, Path]) -> Delivered:
    """The digest of the memory stream, which is the same at both ends. Raises MoveFailed."""

    def memory(status: DataPathStatus) -> list[FlowStatus]:
        return [flow for flow in status.flows if flow.service == "ram"]

    def over(status: DataPathStatus) -> bool:
        return len(memory(status)) == 1 and not memory(status)[0].open

    near, far = await _until(rooms, over, "the memory stream does not end")
    sent, got = memory(near)[0], memory(far)[0]
    if not sent.digest_out or (sent.digest_out, sent.raw_out) != (got.digest_in, got.raw_in):
        raise MoveFailed(
            f"the memory stream changed on the way: {sent.raw_out} bytes {sent.digest_out} left, "
            f"{got.raw_in} bytes {got.digest_in} arrived"
        )
    return Delivered(sent.digest_out, near)


@dataclass(frozen=True)
class Method:
    """How both QEMUs are set up, by the names QMP has for it, and who carries the stream."""

    capabilities: Mapping[str, bool] = field(default_factory=dict)
    parameters: Mapping[str, int | str] = field(default_factory=dict)
    carrier: Callable[[Place], AbstractAsyncContextManager[Carrier]] = direct
    cut_seconds: float = 0
    """How long the link is lost in the middle of the move."""


METHODS = {
    "plain": Method(),
    "xbzrle": Method({"xbzrle": True}, {"xbzrle-cache-size": 512 << 20}),
    "multifd-zstd": Method(
        {"multifd": True}, {"multifd-channels": 2, "multifd-compression": "zstd", "multifd-zstd-level": 1}
    ),
    "novacron": Method(carrier=data_path),
    "novacron-image": Method(carrier=partial(data_path, images=True)),
    "novacron-cut": Method(carrier=data_path, cut_seconds=10),
}
