"""The guest's heartbeat, read from its serial port while it changes hosts.

Both QEMUs connect their serial port to a socket of ours, so every byte is stamped as it arrives. The bytes
of the destination follow those of the source without a break (the UART's state moves with the guest), hence a
line that was cut by the move is whole again once the two are joined.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

BEAT = re.compile(rb"HB (\d+) ([0-9a-f-]{36}) pid (\d+) up [\d.]+\r?\n")


@dataclass(frozen=True)
class Beat:
    number: int
    boot_id: str
    pid: int


def beats(text: bytes) -> list[Beat]:
    """All whole heartbeat lines of a serial port's output."""
    return [Beat(int(number), boot.decode(), int(pid)) for number, boot, pid in BEAT.findall(text)]


def broken(source: bytes, destination: bytes) -> str:
    """Why the guest at the destination is not the one of the source, unharmed; empty when it is."""
    here, there = beats(source), beats(destination)
    if not here or not there:
        return f"no heartbeat was read at the {'source' if not here else 'destination'}"
    if {(beat.boot_id, beat.pid) for beat in there} != {(here[0].boot_id, here[0].pid)}:
        return f"the guest booted anew: {here[0].boot_id} before, {there[0].boot_id} after"
    numbers = [beat.number for beat in beats(source + destination)]
    for before, after in pairwise(numbers):
        if after != before + 1:
            return f"the guest's counter broke: {before} was followed by {after}"
    return ""


def longest_silence(arrivals: Sequence[float], start: float, end: float) -> float:
    """Longest time without an arrival that touches [start, end]; `end` ends the last silence.

    The last arrival before `start` opens the first silence. No arrival at all: the whole interval.
    """
    before = [at for at in arrivals if at <= start]
    inside = [at for at in arrivals if start < at <= end]
    marks = [before[-1] if before else start, *inside, end]
    return max(after - mark for mark, after in pairwise(marks))


class Console(asyncio.Protocol):
    """One QEMU's serial port: listens, takes one connection, keeps its bytes and the times of the beats."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.arrivals: list[float] = []
        self._server: asyncio.Server | None = None
        self._transport: asyncio.BaseTransport | None = None

    async def listen(self, path: Path) -> None:
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: self, str(path))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.text += data
        if b"\n" in data:
            self.arrivals.append(time.monotonic())

    async def wait(self, number: int, within: float, what: str) -> None:
        """Until that many heartbeats have come. Bounded polling: the guest gives a beat each 0.1 s.

        Raises TimeoutError.
        """
        deadline = time.monotonic() + within
        while len(beats(bytes(self.text))) < number:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{what}: {number} heartbeats did not come within {within:g} s; its console ends with "
                    f"{bytes(self.text[-200:])!r}"
                )
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._transport:
            self._transport.close()
        if self._server:
            self._server.close()
            await self._server.wait_closed()
