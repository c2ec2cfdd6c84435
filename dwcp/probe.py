"""How fast is the link? Random bytes over a data path like that of a move, whose destination drops them.

The source's end is a service like any other: who connects to its socket and writes measures protection, lanes, windows
and limits as a move meets them. What was delivered is what the destination has acknowledged. Closing the socket and
reading to its end waits until all of it is; the bounds in time and bytes keep that short.
"""

from __future__ import annotations

import itertools
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp import control
from dwcp.errors import ControlFailed

CHUNK: Final = 1 << 20
LOOK_EVERY: Final = 0.1
ENDS_WITHIN: Final = 10.0
"""Seconds in which the rest must arrive once the last byte was written."""


@dataclass(frozen=True)
class Sample:
    """Bytes delivered `at` seconds after the first was written."""

    at: float
    delivered: int


@dataclass(frozen=True)
class Measured:
    samples: tuple[Sample, ...]
    round_trip: float
    lanes: int
    carrier: str

    @property
    def delivered(self) -> int:
        return self.samples[-1].delivered if self.samples else 0

    @property
    def seconds(self) -> float:
        return self.samples[-1].at if self.samples else 0.0


def discarding() -> socket.socket:
    """A socket whose other end reads and drops everything, until the end."""
    ours, theirs = socket.socketpair()

    def drop() -> None:
        with theirs:
            buffer = bytearray(CHUNK)
            try:
                while theirs.recv_into(buffer):
                    pass
            except OSError:
                return  # the flow was cut

    threading.Thread(target=drop, name="probe", daemon=True).start()
    return ours


def measure(folder: Path, path: str, seconds: float, most: int, pause: Callable[[], None] = lambda: None) -> Measured:
    """Write to the probe service at `path` for `seconds`, `most` bytes at most, beside the process that lives in
    `folder`. `pause` is called about ten times a second and may raise. Raises OSError, ControlFailed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(LOOK_EVERY)
        sock.connect(path)
        writer = _Writer(sock, seconds, most)
        samples: list[Sample] = []
        try:
            last = _watch(folder, writer, samples, seconds, pause)
        finally:
            writer.stop()
    return Measured(tuple(samples), last[0], last[1], last[2])


def _watch(
    folder: Path, writer: _Writer, samples: list[Sample], seconds: float, pause: Callable[[], None]
) -> tuple[float, int, str]:
    began = time.monotonic()
    trip, lanes, carrier = 0.0, 0, ""
    while True:
        over = writer.over.wait(LOOK_EVERY)
        pause()
        at = time.monotonic() - began
        try:
            status = control.status(folder)
        except ControlFailed:
            if over:
                raise
            continue  # too busy to answer: the next look
        raw = sum(flow.raw_out for flow in status.flows if flow.service == "probe")
        samples.append(Sample(at, max(0, raw - status.unacked_bytes)))
        trip, lanes, carrier = status.round_trip, status.lanes, status.carrier
        if over or at > seconds + ENDS_WITHIN:
            return trip, lanes, carrier


class _Writer:
    """Writes from a thread of its own, so that looking at the figures does not slow it down."""

    def __init__(self, sock: socket.socket, seconds: float, most: int) -> None:
        self.over = threading.Event()
        self._sock, self._most = sock, most
        self._until = time.monotonic() + seconds
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self._write()
            self._sock.shutdown(socket.SHUT_WR)
            end = time.monotonic() + ENDS_WITHIN
            while not self._stop and time.monotonic() < end:
                try:
                    if not self._sock.recv(1):
                        break  # the destination has read all
                except TimeoutError:
                    continue
        except OSError:
            pass  # the data path ended: its status says why
        finally:
            self.over.set()

    def _write(self) -> None:
        noise = memoryview(os.urandom(CHUNK))
        left, at = self._most, 0
        while left and not self._stop and time.monotonic() < self._until:
            try:
                sent = self._sock.send(noise[at : at + left])
            except TimeoutError:
                continue
            left, at = left - sent, (at + sent) % CHUNK


def rates(samples: Sequence[Sample]) -> tuple[float, float, float] | None:
    """(low, likely, high) bytes a second; None when too little was seen.

    Low is the average over all, with the slow start in it; likely the median of the second half, when lanes and windows
    have grown; high the best span.
    """
    points = [Sample(0.0, 0), *samples]
    spans = [
        (later.delivered - earlier.delivered) / (later.at - earlier.at)
        for earlier, later in itertools.pairwise(points)
        if later.at > earlier.at
    ]
    last = points[-1]
    if not last.delivered or not spans:
        return None
    average, best = last.delivered / last.at, max(spans)
    grown = [span for span in spans[len(spans) // 2 :] if span > 0]
    likely = min(best, max(average, statistics.median(grown) if grown else average))
    return average, likely, best
