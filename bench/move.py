"""One measured move: restore the guest, get ready, start the clock, move it, prove that it is unharmed.

The clock runs from the migrate command until the source says completed *and* the guest runs at the
destination. Restoring, connecting the data path and two seconds of settling come before, the proof after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.carriers import Carrier, Delivered, End, Method, MoveFailed, Place
from bench.cpu import Watched
from bench.ground import Ground
from bench.guest import MEMORY_KIB, Guest, restore, running
from bench.heartbeat import broken, longest_silence
from bench.plan import RETURN, WORKLOADS, Cell
from bench.results import Row
from bench.stores import stores

GIVE_UP = 120
"""Seconds a move may take."""

DOWNTIME_MS = 300
SETTLE_BEATS = 20
"""Heartbeats, each 0.1 s, at the source before the clock starts."""

PROOF_BEATS = 10
"""Heartbeats at the destination that end a row."""

BEATS_WITHIN = 60

CUT_AFTER = 128 << 20
"""Bytes that QEMU has written when the link is cut."""

SAMPLE_EVERY = 0.1

Report = Callable[[str], None]

Sample = tuple[float, int]
"""A time, and the bytes that had left by then."""


@dataclass(frozen=True)
class Reading:
    """Counters at one moment."""

    at: float
    sent: int
    sent_back: int
    work: tuple[float, ...]
    """CPU seconds without vCPUs, per watched process."""
    guest: float


def bulk_rate(samples: Sequence[Sample]) -> float | None:
    """Bytes a second while the middle four fifths of the bytes left: without the start and the last rounds.

    `samples`: (time, bytes sent so far), in order. None when that took under a second: too short to tell.
    """
    if len(samples) < 2:
        return None
    first, last = samples[0][1], samples[-1][1]
    inside = [(at, sent) for at, sent in samples if 0.1 * (last - first) <= sent - first <= 0.9 * (last - first)]
    if len(inside) < 2 or inside[-1][0] - inside[0][0] < 1:
        return None
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def interface_bytes(table: str, interface: str) -> int:
    """Bytes sent by an interface, from the text of /proc/PID/net/dev. Raises KeyError when it is absent."""
    for line in table.splitlines():
        name, colon, counters = line.partition(":")
        if colon and name.strip() == interface:
            return int(counters.split()[8])
    raise KeyError(interface)


def room(folder: Path, name: str) -> Path:
    """A new folder for the sockets and logs of one end."""
    path = folder / name
    path.mkdir()
    return path


@dataclass(frozen=True)
class Meter:
    """Reads all counters of a move at once."""

    ends: tuple[End, End]
    watched: tuple[Watched, ...]
    """Source QEMU, destination QEMU, then the carrier's processes."""

    def read(self) -> Reading:
        cpu = [process.read() for process in self.watched]
        return Reading(
            at=time.monotonic(),
            sent=self.sent(0),
            sent_back=self.sent(1),
            work=tuple(work for work, _ in cpu),
            guest=sum(guest for _, guest in cpu),
        )

    def sent(self, end: int = 0) -> int:
        """Bytes the source's, or the destination's, interface has sent."""
        # /proc/PID/net/dev is that of the namespace the process is in
        return interface_bytes(Path(f"/proc/{self.watched[end].pid}/net/dev").read_text(), self.ends[end].interface)


async def _arrive(source: Guest, destination: Guest, since: tuple[int, int], report: Report) -> bool:
    """Until the guest has left the source and runs at the destination; False when it was given up."""
    showing = asyncio.create_task(_show(source, report))
    try:
        await source.until_migration("completed", within=GIVE_UP, since=since[0])
    except TimeoutError:
        return False
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing
    await destination.until("RESUME", within=30, since=since[1])
    return True


async def _show(source: Guest, report: Report) -> None:
    """Report once a second how much memory is left."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(1)
        ram = (await source.qmp.execute("query-migrate")).get("ram")
        if ram:
            left, round_ = ram["remaining"] >> 20, ram["dirty-sync-count"]
            report(f"{time.monotonic() - began:.0f} s, {left} MiB left in round {round_}")


async def _stay(source: Guest) -> None:
    """Give the move up: the guest goes on at the source."""
    since = len(source.qmp.events)
    await source.qmp.execute("migrate_cancel")
    await source.until_migration("cancelled", within=30, since=since)
    status = (await source.qmp.execute("query-status"))["status"]
    if status != "running":
        raise MoveFailed(f"given up after {GIVE_UP} s, but the guest at the source is {status}, not running")
    await source.console.wait(len(source.console.arrivals) + PROOF_BEATS, BEATS_WITHIN, "source after giving up")


async def _cut_once(site: Ground, carrier: Carrier, end: End, seconds: float, report: Report) -> int:
    """Cut the link in the middle of the move, heal it; the data path's window when it was cut."""
    while (status := await carrier.status()) is None or status.raw_out < CUT_AFTER:
        await asyncio.sleep(0.05)
    report(f"the link is cut for {seconds:g} s")
    try:
        site.cut(end)
        await asyncio.sleep(seconds)
    finally:
        site.heal(end)
    report("the link is healed")
    return status.window_bytes


async def _sample(meter: Meter, samples: list[Sample]) -> None:
    """Note now and then what has left the source, until cancelled."""
    while True:
        samples.append((time.monotonic(), meter.sent()))
        await asyncio.sleep(SAMPLE_EVERY)


@contextlib.asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Work that goes on beside the block, and is cancelled and over when it ends."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def measure(
    cell: Cell,
    method: Method,
    site: Ground,
    snapshot: Path,
    folder: Path,
    report: Report,
    like: Path | None = None,
    then: Callable[[Guest, Path], Awaitable[None]] | None = None,
) -> Row:
    """Do one move. `folder` exists and is empty; `report` takes short texts of progress.

    `like`: the folder of content stores that the hosts begin with copies of; None: empty ones. `then` is called after
    the measurement, once nothing carries any more, with the guest at the destination and the stores as they became.
    A returning guest goes the other way. Raises MoveFailed, QmpError, QmpClosed, TimeoutError, LabError.
    """
    load = os.getloadavg()[0]
    source_end, destination_end = ends = site.ends[::-1] if cell.workload == RETURN else site.ends
    async with contextlib.AsyncExitStack() as stack:
        filled = stack.enter_context(stores(folder / "stores", like))

        async def start(end: End) -> Guest:
            dirty = WORKLOADS[cell.workload]
            return await stack.enter_async_context(
                running(site.machine, end.prefix, room(folder, end.name), end.name, dirty, incoming="defer")
            )

        source, destination = [await start(end) for end in ends]
        report("restoring")
        await restore(source, snapshot)
        for guest in (source, destination):
            await guest.set(
                {"events": True, "return-path": True, **method.capabilities},
                {"max-bandwidth": 0, "downtime-limit": DOWNTIME_MS, **method.parameters},
            )
        site.shape(cell.link_mbit)
        report("connecting")
        quiet = Meter(ends, (source.watched, destination.watched))
        silent = quiet.sent(0) + quiet.sent(1)
        place = Place(source_end, destination_end, folder, filled, site.machine.content)
        async with method.carrier(place) as carrier:
            row = await _move(cell, method, site, (source, destination), ends, carrier, silent, report)
        if then:
            await then(destination, filled)
        return row.model_copy(update={"load": load})


async def _move(
    cell: Cell,
    method: Method,
    site: Ground,
    guests: tuple[Guest, Guest],
    ends: tuple[End, End],
    carrier: Carrier,
    silent: int,
    report: Report,
) -> Row:
    """The part with the clock: both QEMUs are ready, the carrier is connected. `silent`: what both interfaces had sent
    before it was."""
    source, destination = guests
    await destination.qmp.execute("migrate-incoming", {"uri": carrier.incoming})
    await source.qmp.execute("cont")
    await source.console.wait(SETTLE_BEATS, BEATS_WITHIN, "source")

    meter = Meter(ends, (source.watched, destination.watched, *carrier.processes))
    since = len(source.qmp.events), len(destination.qmp.events)
    samples: list[Sample] = []
    charged = site.charged(ends[0])
    window: int | None = None
    before = meter.read()
    await source.qmp.execute("migrate", {"uri": carrier.outgoing})
    async with _meanwhile(_sample(meter, samples)):
        if method.cut_seconds:
            async with _meanwhile(_cut_once(site, carrier, ends[0], method.cut_seconds, report)) as cutting:
                arrived = await _arrive(source, destination, since, report)
            if cutting.cancelled():
                raise MoveFailed(f"{cell}: the move ended before the link was cut, or while it was")
            window = cutting.result()
        else:
            arrived = await _arrive(source, destination, since, report)
    after = meter.read()
    charged = site.charged(ends[0]) - charged

    query = await source.qmp.execute("query-migrate")
    if arrived:
        await destination.console.wait(PROOF_BEATS, BEATS_WITHIN, "destination")
        if reason := broken(bytes(source.console.text), bytes(destination.console.text)):
            raise MoveFailed(f"{cell}: {reason}")
        delivered = await carrier.verify()
    else:
        report("giving up")
        await _stay(source)
        delivered = Delivered()
    heard = sorted([*source.console.arrivals, *destination.console.arrivals])
    work = [later - earlier for earlier, later in zip(before.work, after.work, strict=True)]
    guest_cpu = after.guest - before.guest
    sent = after.sent - before.sent
    rate = bulk_rate(samples)
    row = Row(
        **cell._asdict(),
        seconds=after.at - before.at,
        gap_seconds=longest_silence(heard, before.at, heard[-1]),
        wire_bytes=sent,
        setup_bytes=before.sent + before.sent_back - silent,
        wire_back_bytes=after.sent_back - before.sent_back,
        cpu_seconds=sum(work) + guest_cpu,
        guest_cpu_seconds=guest_cpu,
        path_cpu_seconds=sum(work[2:]),
        converged=arrived,
        downtime_ms=query.get("downtime") if arrived else None,
        rounds=query["ram"]["dirty-sync-count"],
        stream_bytes=query["ram"]["transferred"],
        setup_seconds=carrier.setup_seconds,
        guest_ram_bytes=MEMORY_KIB << 10,
        accel=site.machine.accel,
        link_share=rate * charged / sent * 8 / (cell.link_mbit * 1e6) if rate and not method.cut_seconds else None,
        digest=delivered.digest,
    )
    if not (status := delivered.source):
        return row
    return row.model_copy(
        update={
            "raw_bytes": status.raw_out,
            "frame_bytes": status.wire_out,
            "resent_bytes": status.resent,
            "window_bytes": status.window_bytes if window is None else window,
            "redials": status.redials,
            "pages": status.pages,
        }
    )
