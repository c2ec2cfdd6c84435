"""One measured move: restore the guest, get ready, start the clock, move it, prove that it is unharmed.

The clock runs from the migrate command until the source says completed *and* the guest runs at the
destination. Restoring, connecting the data path and two seconds of settling come before, the proof after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.carriers import End, Method, MoveFailed
from bench.cpu import Watched
from bench.guest import MEMORY_KIB, Guest, Machine, restore, running
from bench.heartbeat import broken, longest_silence
from bench.plan import WORKLOADS, Cell
from bench.results import Row

GIVE_UP = 120
"""Seconds a move may take."""

DOWNTIME_MS = 300
SETTLE_BEATS = 20
"""Heartbeats, each 0.1 s, at the source before the clock starts."""

PROOF_BEATS = 10
"""Heartbeats at the destination that end a row."""

BEATS_WITHIN = 60

Report = Callable[[str], None]


@dataclass(frozen=True)
class Reading:
    """Counters at one moment."""

    at: float
    sent: int
    sent_back: int
    work: tuple[float, ...]
    """CPU seconds without vCPUs, per watched process."""
    guest: float


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
        # /proc/PID/net/dev is that of the namespace the process is in
        sent = [
            interface_bytes(Path(f"/proc/{process.pid}/net/dev").read_text(), end.interface)
            for end, process in zip(self.ends, self.watched, strict=False)
        ]
        return Reading(
            at=time.monotonic(),
            sent=sent[0],
            sent_back=sent[1],
            work=tuple(work for work, _ in cpu),
            guest=sum(guest for _, guest in cpu),
        )


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


async def measure(
    cell: Cell,
    method: Method,
    machine: Machine,
    ends: tuple[End, End],
    snapshot: Path,
    folder: Path,
    shape: Callable[[int], None],
    report: Report,
) -> Row:
    """Do one move. `folder` exists and is empty.

    `shape` sets the link's rate in Mbit/s; `report` takes short texts of progress.
    Raises MoveFailed, QmpError, QmpClosed, TimeoutError.
    """
    load = os.getloadavg()[0]
    async with contextlib.AsyncExitStack() as stack:

        async def start(end: End) -> Guest:
            dirty = WORKLOADS[cell.workload]
            return await stack.enter_async_context(
                running(machine, end.prefix, room(folder, end.name), end.name, dirty, incoming="defer")
            )

        source, destination = [await start(end) for end in ends]
        report("restoring")
        await restore(source, snapshot)
        for guest in (source, destination):
            await guest.set(
                {"events": True, "return-path": True, **method.capabilities},
                {"max-bandwidth": 0, "downtime-limit": DOWNTIME_MS, **method.parameters},
            )
        shape(cell.link_mbit)
        report("connecting")
        carrier = await stack.enter_async_context(method.carrier(*ends, folder))
        await destination.qmp.execute("migrate-incoming", {"uri": carrier.incoming})
        await source.qmp.execute("cont")
        await source.console.wait(SETTLE_BEATS, BEATS_WITHIN, "source")

        meter = Meter(ends, (source.watched, destination.watched, *carrier.processes))
        since = len(source.qmp.events), len(destination.qmp.events)
        before = meter.read()
        await source.qmp.execute("migrate", {"uri": carrier.outgoing})
        arrived = await _arrive(source, destination, since, report)
        after = meter.read()

        query = await source.qmp.execute("query-migrate")
        if arrived:
            await destination.console.wait(PROOF_BEATS, BEATS_WITHIN, "destination")
            if reason := broken(bytes(source.console.text), bytes(destination.console.text)):
                raise MoveFailed(f"{cell}: {reason}")
            digest = await carrier.verify()
        else:
            report("giving up")
            await _stay(source)
            digest = ""
        heard = sorted([*source.console.arrivals, *destination.console.arrivals])
        work = [later - earlier for earlier, later in zip(before.work, after.work, strict=True)]
        guest_cpu = after.guest - before.guest
        return Row(
            **cell._asdict(),
            seconds=after.at - before.at,
            gap_seconds=longest_silence(heard, before.at, heard[-1]),
            wire_bytes=after.sent - before.sent,
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
            accel=machine.accel,
            load=load,
            digest=digest,
        )
