"""Everything that waits to be sent, and everything sent that is not acknowledged yet.

Local readers put raw batches in (and block when a flow has enough waiting: that is the back-pressure QEMU feels); lane
threads ask `next` what to do and carry it out. Order of preference: ping, echoes, acknowledgements, frames to send
again and messages of flow 0, small batches, bulk. Each flow has its own window, so a flow whose far program does not
read holds up nobody else.

Invariants: sequence numbers are given in reading order; a frame stays here, encoded, until it is acknowledged; the
frames of a lost lane are put back first, lowest number first; per flow never more than MAX_UNACKED_FRAMES frames and
MAX_UNACKED_RAW raw bytes are unacknowledged.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from dwcp.buffers import BufferPool
from dwcp.encoding.codec import Rung
from dwcp.encoding.packed import Packed
from dwcp.errors import ProtocolError
from dwcp.transport import frames
from dwcp.transport.frames import (
    HEADER_BYTES,
    MAX_UNACKED_FRAMES,
    MAX_UNACKED_RAW,
    Ack,
    Buffer,
    Codec,
    Ending,
    Fin,
    Open,
    Ping,
    Pong,
    Reset,
    ResetReason,
)
from dwcp.transport.lane import Lane
from dwcp.transport.liveness import PING_EVERY
from dwcp.transport.window import Window

ACK_EVERY: Final = 0.003
"""Acknowledgements are collected for this long."""
SMALL_BATCH: Final = 16 << 10
WAITING_BATCHES: Final = 1
"""Raw batches of one flow that wait for a lane; what waits here is hidden from QEMU just as the window is."""
CONTROL_FLOW: Final = 0
PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Kept:
    """Raw bytes of a batch that stay until it is acknowledged: the far store may fail to supply some of its pages."""

    raw: bytearray
    """A pooled buffer."""
    refs: tuple[int, ...]
    """Where in it the pages lie, in the order of the tokens that refer to them."""


@dataclass(slots=True, eq=False)
class Frame:
    """One encoded frame, from encoding until acknowledgement."""

    flow: Outbound
    seq: int
    start: bytes
    body: Buffer
    raw: int
    buffer: bytearray | None = None
    """The pooled buffer `body` lies in."""
    kept: Kept | None = None
    lane: Lane | None = None
    times: int = 0
    busy: bool = False
    done: bool = False

    @property
    def size(self) -> int:
        return len(self.start) + len(self.body)


@dataclass(slots=True, eq=False)
class Batch:
    """Bytes as read, or their page tokens, waiting for a lane to compress and send them."""

    flow: Outbound
    seq: int
    body: Buffer
    raw: int
    """Bytes as read that it stands for."""
    digest: bytes
    buffer: bytearray | None
    """The pooled buffer `body` lies in, None if it has memory of its own."""
    small: bool
    tokens: int = 0
    codec: Codec | None = None
    """None: the lane compresses it."""
    rung: Rung | None = None
    """The codec chosen for it when it was read; None: the lane asks."""
    kept: Kept | None = None
    guess: int = 0
    """Wire bytes the window was charged before the true size was known."""


@dataclass(slots=True, eq=False)
class Outbound:
    """The sending half of a flow."""

    flow: int
    bulk: bool
    window: Window
    next_seq: int = 0
    acked: int = 0
    share: float = 1.0
    """Wire bytes per raw byte lately."""
    unacked_raw: int = 0
    unacked: dict[int, Frame] = field(default_factory=dict)
    waiting: deque[Batch] = field(default_factory=deque)
    finished: bool = False
    """FIN is sent; nothing follows."""
    reset: bool = False
    """The peer cannot deliver, or the flow is gone: drop everything."""

    @property
    def over(self) -> bool:
        return self.reset or (self.finished and self.acked == self.next_seq)


Job = bytes | Frame | Batch


class Outbox:
    def __init__(self, window_seconds: float, pool: BufferPool) -> None:
        self._seconds = window_seconds
        self._pool = pool
        lock = threading.Lock()
        self._lock = lock
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._idle_lanes = 0
        self._flows: dict[int, Outbound] = {}
        self._ring: deque[Outbound] = deque()
        self._ready: deque[Frame] = deque()
        self._acks: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._ack_due = 0.0
        self._pongs: dict[int, int] = {}
        self._farewell: bytes | None = None
        self._ended = False
        self.round_trip = 0.0
        """Least one seen; part of every window."""
        self.wire_out = 0
        self.resent = 0
        self.delivered = 0
        """Wire bytes acknowledged: the link's rate is measured on it."""
        self.control = self.open_flow(CONTROL_FLOW, bulk=False)

    # --- what local readers and the session put in ---

    def open_flow(self, flow: int, *, bulk: bool) -> Outbound:
        with self._lock:
            out = Outbound(flow, bulk, Window(self._seconds))
            self._flows[flow] = out
            return out

    def put(self, out: Outbound, body: Buffer, raw: int, digest: bytes, buffer: bytearray | None) -> bool:
        """Hand over one batch as it was read."""
        return self.put_packed(out, Packed(raw, body, 0, None, None, buffer, ()), digest, None)

    def put_packed(self, out: Outbound, packed: Packed, digest: bytes, kept: Kept | None) -> bool:
        """Hand over one batch; blocks while the flow has enough waiting. False: the flow or session is over."""
        with self._lock:
            while len(out.waiting) >= WAITING_BATCHES and not (out.reset or self._ended):
                self._room.wait()
            if out.reset or self._ended:
                return False
            small = not out.bulk or len(packed.body) <= SMALL_BATCH
            out.waiting.append(
                Batch(
                    out,
                    out.next_seq,
                    packed.body,
                    packed.consumed,
                    digest,
                    packed.buffer,
                    small,
                    packed.tokens,
                    packed.codec,
                    packed.rung,
                    kept,
                )
            )
            out.next_seq += 1
            if len(out.waiting) == 1:
                self._ring.append(out)
            self._work.notify_all()
            return True

    def pages(self, flow: int, seq: int, ordinals: tuple[int, ...]) -> list[bytes] | None:
        """Pages of an unacknowledged batch that the far store could not supply; None: nobody waits for them."""
        with self._lock:
            out = self._flows.get(flow)
            frame = out.unacked.get(seq) if out else None
            if frame is None or frame.kept is None:
                return None
            raw, refs = memoryview(frame.kept.raw), frame.kept.refs
            if any(ordinal >= len(refs) for ordinal in ordinals):
                return None
            return [bytes(raw[refs[ordinal] : refs[ordinal] + PAGE]) for ordinal in ordinals]

    def starving(self, out: Outbound) -> bool:
        """A lane waits for work and none of this flow is waiting: send what there is, however little."""
        return self._idle_lanes > 0 and not out.waiting

    def finish(self, out: Outbound, digest: bytes, ending: Ending) -> None:
        with self._lock:
            if not (out.finished or out.reset):
                out.finished = True
                self._enqueue(out, frames.encode(Fin(out.flow, out.next_seq, digest, ending)))

    def announce(self, flow: int, ordinal: int, service: str) -> None:
        with self._lock:
            self._enqueue(self.control, frames.encode(Open(self.control.next_seq, flow, ordinal, service)))

    def reset(self, flow: int, reason: ResetReason, text: str) -> None:
        with self._lock:
            self._enqueue(self.control, frames.encode(Reset(self.control.next_seq, flow, reason, text)))

    def drop(self, out: Outbound) -> None:
        """The far end cannot take this direction any more: forget what waits and what is on its way."""
        with self._lock:
            out.reset = True
            for frame in out.unacked.values():
                frame.done = True
            out.window.forget(sum(frame.size for frame in out.unacked.values()))
            out.unacked.clear()
            out.waiting.clear()
            out.unacked_raw = 0
            if out in self._ring:
                self._ring.remove(out)
            self._room.notify_all()

    def acknowledge(self, flow: int, seq: int) -> None:
        """Our receiving half of `flow` has settled everything below `seq`."""
        with self._lock:
            self._acks[flow] = seq
            if not self._dirty:
                self._work.notify_all()
            self._dirty.add(flow)

    def echo(self, lane: int, token: int) -> None:
        with self._lock:
            self._pongs[lane] = token
            self._work.notify_all()

    def end(self, farewell: bytes | None) -> None:
        """Every lane says `farewell` once and gets no more work; blocked readers return."""
        with self._lock:
            self._ended = True
            self._farewell = farewell
            self._work.notify_all()
            self._room.notify_all()

    # --- what the peer says ---

    def acked(self, entries: tuple[tuple[int, int], ...]) -> list[Outbound]:
        """Take acknowledgements in; the flows that are over by them. Raises ProtocolError for impossible ones."""
        now = time.monotonic()
        over = []
        with self._lock:
            for flow, seq in entries:
                out = self._flows.get(flow)
                if out is None or seq > out.next_seq:
                    raise ProtocolError(f"ACK of flow {flow} up to {seq}, which was never sent; close the lane")
                if out.reset or seq <= out.acked:
                    continue
                size = 0
                for number in range(out.acked, seq):
                    frame = out.unacked.pop(number, None)
                    if frame is None:
                        raise ProtocolError(f"ACK of frame {number} of flow {flow}, not sent yet; close the lane")
                    size += self._settle(frame)
                out.acked = seq
                out.window.acked(size, now)
                self.delivered += size
                if out.over:
                    over.append(out)
            self._work.notify_all()
        return over

    # --- what lane threads ask ---

    def next(self, lane: Lane) -> Job | None:
        """The lane's next job; blocks. bytes: send them. Frame: send, then `sent`. Batch: encode, `encoded`, send,
        `sent`. None: the lane is to end."""
        with self._lock:
            while True:
                if lane.doomed:
                    return None
                if self._ended:
                    if self._farewell is None or lane.farewell_said:
                        return None
                    lane.farewell_said = True
                    return self._farewell
                now = time.monotonic()
                if now >= lane.next_ping:
                    lane.next_ping = now + PING_EVERY
                    self._dirty.update(self._acks)
                    return frames.encode(Ping(lane.number, time.monotonic_ns()))
                if self._pongs:
                    return frames.encode(Pong(*self._pongs.popitem()))
                wait_until = lane.next_ping
                if self._dirty:
                    if now >= self._ack_due:
                        self._ack_due = now + ACK_EVERY
                        return self._collect_acks()
                    wait_until = min(wait_until, self._ack_due)
                job = self._pick(lane, now)
                if job is not None:
                    return job
                self._idle_lanes += 1
                self._work.wait(max(0.0, wait_until - now))
                self._idle_lanes -= 1

    def encoded(self, batch: Batch, codec: Codec, body: Buffer, lane: Lane) -> Frame:
        """Register the encoded batch as on its way over `lane`."""
        start = frames.data_head(batch.flow.flow, batch.seq, codec, batch.raw, batch.digest, body, batch.tokens)
        frame = Frame(batch.flow, batch.seq, start, body, batch.raw, kept=batch.kept)
        if body is batch.body:
            frame.buffer = batch.buffer
        elif batch.buffer is not None:
            self._pool.give(batch.buffer)
        with self._lock:
            frame.lane, frame.busy, frame.times = lane, True, 1
            out = batch.flow
            out.share += (frame.size / len(batch.body) - out.share) / 4
            if out.reset:
                frame.done = True
                out.window.forget(batch.guess)
            else:
                out.unacked[batch.seq] = frame
                out.window.forget(batch.guess - frame.size)
        return frame

    def sent(self, frame: Frame) -> None:
        with self._lock:
            frame.busy = False
            self.wire_out += frame.size
            if frame.times > 1:
                self.resent += frame.size

    def count(self, size: int) -> None:
        """A frame that `next` gave as bytes went out."""
        with self._lock:
            self.wire_out += size

    def lane_lost(self, lane: Lane) -> None:
        """Everything that went over `lane` and is not acknowledged goes again, before anything new."""
        with self._lock:
            lost = [f for out in self._flows.values() for f in out.unacked.values() if f.lane is lane]
            lost.sort(key=lambda frame: (frame.flow.flow, frame.seq), reverse=True)
            for frame in lost:
                frame.lane, frame.busy = None, False
                self._ready.appendleft(frame)
            self._dirty.update(self._acks)
            self._work.notify_all()

    # --- figures ---

    def figures(self) -> tuple[int, int, bool]:
        """(window bytes, unacknowledged wire bytes, a window is nearly full) over the flows that have data out."""
        with self._lock:
            limit = out = 0
            full = False
            for flow in self._flows.values():
                if flow.bulk and flow.window.out:
                    room = flow.window.limit(self.round_trip)
                    limit += room
                    full = full or flow.window.out >= 0.7 * room
                out += flow.window.out
            return limit, out, full

    # --- inside the lock ---

    def _enqueue(self, out: Outbound, encoded: bytes) -> None:
        frame = Frame(out, out.next_seq, encoded, b"", 0)
        out.unacked[out.next_seq] = frame
        out.next_seq += 1
        out.window.sent(frame.size, time.monotonic())
        self._ready.append(frame)
        self._work.notify_all()

    def _settle(self, frame: Frame) -> int:
        frame.done = True
        frame.flow.unacked_raw -= frame.raw
        if not frame.busy:
            for buffer in (frame.buffer, frame.kept.raw if frame.kept else None):
                if buffer is not None:
                    self._pool.give(buffer)
        return frame.size

    def _collect_acks(self) -> bytes:
        entries = tuple((flow, self._acks[flow]) for flow in sorted(self._dirty))
        self._dirty.clear()
        return frames.encode(Ack(entries))

    def _pick(self, lane: Lane, now: float) -> Job | None:
        while self._ready:
            frame = self._ready.popleft()
            if not frame.done:
                frame.lane, frame.busy = lane, True
                frame.times += 1
                return frame
        for out in self._ring:
            if out.waiting[0].small and self._may_send(out):
                return self._take(out, now)
        for out in self._ring:
            if self._may_send(out):
                return self._take(out, now)
        return None

    def _may_send(self, out: Outbound) -> bool:
        batch = out.waiting[0]
        if batch.seq - out.acked >= MAX_UNACKED_FRAMES or out.unacked_raw + batch.raw > MAX_UNACKED_RAW:
            return False
        return out.window.has_room(self.round_trip)

    def _take(self, out: Outbound, now: float) -> Batch:
        batch = out.waiting.popleft()
        self._ring.remove(out)
        if out.waiting:
            self._ring.append(out)
        out.unacked_raw += batch.raw
        batch.guess = HEADER_BYTES + int(len(batch.body) * out.share)
        out.window.sent(batch.guess, now)
        self._room.notify_all()
        return batch
