"""Everything that waits to be sent, and everything sent that is not acknowledged yet.

Local readers put raw batches in (and block when a flow has enough waiting: that is the back-pressure QEMU feels); lane
threads ask `next` what to do and carry it out. Order of preference: ping, echoes, acknowledgements, messages of flow 0,
frames to send again, small batches and urgent flows, bulk. Each flow has its own window, so a flow whose far program
does not read holds up nobody else. What is bulk waits for the rate limit, if there is one; the rest is only charged.

Invariants: sequence numbers are given in reading order; a frame stays here, encoded, until it is acknowledged; the
frames of a lost lane go again before anything new, lowest number first, once the peer had time to acknowledge what it
has got of them; per flow never more than MAX_UNACKED_FRAMES frames and MAX_UNACKED_RAW raw bytes are unacknowledged.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from dwcp.buffers import BufferPool
from dwcp.encoding.codec import Rung
from dwcp.encoding.packed import Kept, Packed
from dwcp.errors import ProtocolError
from dwcp.transport import frames
from dwcp.transport.carrier import UNSENT_BYTES, Carrier
from dwcp.transport.frames import (
    HEADER_BYTES,
    MAX_BATCH,
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
from dwcp.transport.liveness import PING_EVERY
from dwcp.transport.rate import BURST_SECONDS, Pacer
from dwcp.transport.window import Window

ACK_EVERY: Final = 0.005
"""Acknowledgements are collected for this long; windows allow for it (SLACK in transport/window.py)."""
SMALL_BATCH: Final = 16 << 10
WAITING_BATCHES: Final = 1
"""Raw batches of one flow that wait for a lane; what waits here is hidden from QEMU just as the window is."""
URGENT_SECONDS: Final = 0.02
"""Window of a flow that is urgent: what is asked for must not wait behind what is not."""
URGENT_UNSENT: Final = 32 << 10
"""Kernel's unsent backlog of each lane from then on."""
MAX_PONGS: Final = 64
LEAST_BATCH: Final = 32 << 10
"""Batches get no smaller than this for the sake of a rate limit; above SMALL_BATCH."""
FEW_LANES: Final = 2
"""With more, batches and each lane's backlog shrink, if the window would else not reach for all."""
SETTLE_SECONDS: Final = 0.02
"""After a lane was lost: what the peer has got of its frames is acknowledged within this and a round trip."""
DEAF_SECONDS: Final = 1.0
"""The same while no acknowledgement can come, as the way back is being dialled."""
CONTROL_FLOW: Final = 0


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
    lane: Carrier | None = None
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
    urgent: bool = False
    """Goes before other bulk, with a short window: see `hasten`."""
    finished: bool = False
    """FIN is sent; nothing follows."""
    reset: bool = False
    """The peer cannot deliver, or the flow is gone: drop everything."""

    @property
    def over(self) -> bool:
        return self.reset or (self.finished and self.acked == self.next_seq)


Job = bytes | Frame | Batch


class Outbox:
    def __init__(self, window_seconds: float, pool: BufferPool, rate_limit: int = 0) -> None:
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
        """Messages of flow 0, and FINs."""
        self._again: deque[Frame] = deque()
        """Batches of lost lanes, lowest number first, from `_again_from` on."""
        self._again_from = 0.0
        self._deaf = True
        self._pacer = Pacer(rate_limit)
        self._unsent = 0
        self._lanes = 0
        self._acks: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._ack_due = 0.0
        self._pongs: dict[int, int] = {}
        """Token to lane."""
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
        return self.put_packed(out, Packed(raw, body, buffer=buffer), digest, None)

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
            self._work.notify()
            return True

    def pages(self, flow: int, seq: int, ordinals: tuple[int, ...]) -> list[bytes] | None:
        """Pages of an unacknowledged batch that the far store could not supply; None: nobody waits for them."""
        with self._lock:
            out = self._flows.get(flow)
            frame = out.unacked.get(seq) if out else None
            if frame is None or frame.kept is None:
                return None
            found = [frame.kept.wanted.page(frame.kept.raw, ordinal) for ordinal in ordinals]
        return None if None in found else [page for page in found if page is not None]

    def starving(self, out: Outbound) -> bool:
        """A lane waits for work and none of this flow is waiting: send what there is, however little."""
        if self._idle_lanes == 0 or out.waiting:
            return False
        return not out.bulk or self._pacer.wait(time.monotonic()) == 0

    def batch_bound(self, out: Outbound) -> int:
        """Raw bytes that a batch of `out` should not exceed now: what follows must not wait long for it."""
        limit = self._pacer.limit
        wire = limit * BURST_SECONDS if limit and out.bulk else float(MAX_BATCH)
        if out.urgent:
            wire = min(wire, out.window.rate * URGENT_SECONDS / 4)
        if out.bulk and self._lanes > FEW_LANES:
            wire = min(wire, out.window.rate * out.window.seconds / (2 * self._lanes))
        return max(LEAST_BATCH, int(min(MAX_BATCH, wire / max(out.share, 0.01))))

    def hasten(self, out: Outbound) -> None:
        """What `out` sends is waited for from now on (post-copy): it goes before other bulk, and little queues up."""
        with self._lock:
            out.urgent = True
            out.window.seconds = min(out.window.seconds, URGENT_SECONDS)
            self._unsent = URGENT_UNSENT
            self._work.notify_all()

    def spread(self, lanes: int) -> None:
        """So many lanes share the window now: no lane may hold so much of it that another has nothing to send."""
        with self._lock:
            self._lanes = lanes
            if any(out.urgent for out in self._flows.values()):
                return
            share = sum(out.window.limit(self.round_trip) for out in self._flows.values() if out.bulk) // (
                2 * lanes or 1
            )
            steps = (size for size in (UNSENT_BYTES, UNSENT_BYTES // 2, UNSENT_BYTES // 4) if size <= share)
            unsent = next(steps, URGENT_UNSENT) if lanes > FEW_LANES and share else UNSENT_BYTES
            if unsent != (self._unsent or UNSENT_BYTES):
                self._unsent = unsent

    def limit(self, bytes_per_second: int) -> None:
        """Bound what all lanes together send; 0 is no bound."""
        with self._lock:
            self._pacer.change(bytes_per_second, time.monotonic())
            self._work.notify_all()

    @property
    def rate_limit(self) -> int:
        return self._pacer.limit

    @property
    def paced(self) -> bool:
        """The rate limit holds bulk back now."""
        return self._pacer.wait(time.monotonic()) > 0

    def wake(self) -> None:
        """Lanes look again: one of them is to leave."""
        with self._lock:
            self._work.notify_all()

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
                self._work.notify()
            self._dirty.add(flow)

    def echo(self, lane: int, token: int) -> None:
        with self._lock:
            self._pongs[token] = lane
            if len(self._pongs) > MAX_PONGS:
                del self._pongs[next(iter(self._pongs))]
            self._work.notify()

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
            if self._deaf:  # it tells all that the peer has got: what is left to be sent again can go
                self._deaf, self._again_from = False, now
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
            if self._ready or self._again or self._ring:
                self._work.notify()
        return over

    # --- what lane threads ask ---

    def deaf(self) -> None:
        """The last lane of the other direction is gone: no acknowledgement can come for a while."""
        with self._lock:
            self._deaf = True

    def next(self, lane: Carrier) -> Job | None:
        """The lane's next job; blocks. bytes: send them. Frame: send, then `sent`. Batch: encode, `encoded`, send,
        `sent`. None: the lane is to end."""
        with self._lock:
            while True:
                if lane.doomed:
                    self._work.notify()  # what this one was woken for is another's
                    return None
                if self._ended:
                    if self._farewell is None or lane.farewell_said:
                        return None
                    lane.farewell_said = True
                    return self._farewell
                if lane.leaving:
                    self._work.notify()
                    return None
                if lane.unsent != self._unsent:
                    lane.keep_unsent(self._unsent)
                now = time.monotonic()
                if lane.next_ping == 0.0:  # a new lane: the first thing on it is what we have got
                    self._ack_due = now
                    if self._deaf:
                        self._again_from = max(self._again_from, now + DEAF_SECONDS)
                if now >= lane.next_ping:
                    lane.next_ping = now + PING_EVERY
                    self._dirty.update(self._acks)
                    return frames.encode(Ping(lane.number, time.monotonic_ns()))
                if self._pongs:
                    token, number = self._pongs.popitem()
                    return frames.encode(Pong(number, token))
                wait_until = lane.next_ping
                if self._dirty:
                    if now >= self._ack_due:
                        self._ack_due = now + ACK_EVERY
                        return self._collect_acks()
                    wait_until = min(wait_until, self._ack_due)
                job = self._pick(lane, now)
                if job is not None:
                    if self._idle_lanes and (self._dirty or self._ready or any(map(self._may_send, self._ring))):
                        self._work.notify()  # one lane is woken for each piece of work, and wakes the next
                    return job
                if self._again:
                    wait_until = min(wait_until, max(self._again_from, now + self._pacer.wait(now)))
                elif self._ring:
                    wait_until = min(wait_until, now + (self._pacer.wait(now) or PING_EVERY))
                self._idle_lanes += 1
                self._work.wait(max(0.0, wait_until - now))
                self._idle_lanes -= 1

    def encoded(self, batch: Batch, codec: Codec, body: Buffer, lane: Carrier) -> Frame:
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
            self._pacer.charge(frame.size - batch.guess, time.monotonic())
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
            if frame.done:  # acknowledged before this thread came to say so
                self._give_back(frame)

    def count(self, size: int) -> None:
        """A frame that `next` gave as bytes went out."""
        with self._lock:
            self.wire_out += size
            self._pacer.charge(size, time.monotonic())

    def lane_lost(self, lane: Carrier) -> None:
        """Everything that went over `lane` and stays unacknowledged goes again, before anything new."""
        with self._lock:
            lost = self._release(lane)
            small, large = [f for f in lost if not f.body], [f for f in lost if f.body]
            self._ready.extendleft(reversed(small))
            if large:
                self._again = deque(sorted([*self._again, *large], key=lambda frame: (frame.flow.flow, frame.seq)))
                wait = DEAF_SECONDS if self._deaf else self.round_trip + SETTLE_SECONDS
                self._again_from = max(self._again_from, time.monotonic() + wait)
            self._dirty.update(self._acks)
            self._work.notify_all()

    def lane_left(self, lane: Carrier) -> None:
        """The peer has read everything that went over `lane`: its frames wait for nothing but acknowledgements."""
        with self._lock:
            self._release(lane)
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

    def _release(self, lane: Carrier) -> list[Frame]:
        """Unacknowledged frames of `lane`, which is gone; lowest number first."""
        frames_of = [f for out in self._flows.values() for f in out.unacked.values() if f.lane is lane]
        for frame in frames_of:
            frame.lane, frame.busy = None, False
        return sorted(frames_of, key=lambda frame: (frame.flow.flow, frame.seq))

    def _enqueue(self, out: Outbound, encoded: bytes) -> None:
        frame = Frame(out, out.next_seq, encoded, b"", 0)
        out.unacked[out.next_seq] = frame
        out.next_seq += 1
        out.window.sent(frame.size, time.monotonic())
        self._ready.append(frame)
        self._work.notify()

    def _settle(self, frame: Frame) -> int:
        frame.done = True
        frame.flow.unacked_raw -= frame.raw
        if not frame.busy:
            self._give_back(frame)
        return frame.size

    def _give_back(self, frame: Frame) -> None:
        for buffer in (frame.buffer, frame.kept.raw if frame.kept else None):
            if buffer is not None:
                self._pool.give(buffer)

    def _collect_acks(self) -> bytes:
        entries = tuple((flow, self._acks[flow]) for flow in sorted(self._dirty))
        self._dirty.clear()
        return frames.encode(Ack(entries))

    def _pick(self, lane: Carrier, now: float) -> Job | None:
        frame = self._first(self._ready)
        paced = self._pacer.wait(now) > 0
        if frame is None and not paced and now >= self._again_from:
            frame = self._first(self._again)
        if frame is not None:
            frame.lane, frame.busy = lane, True
            frame.times += 1
            self._pacer.charge(frame.size, now)
            return frame
        for first in (True, False):
            for out in self._ring:
                if (out.urgent or out.waiting[0].small) != first or (paced and out.bulk):
                    continue
                if self._may_send(out):
                    return self._take(out, now)
        return None

    def _first(self, queue: deque[Frame]) -> Frame | None:
        """The first that is not acknowledged meanwhile."""
        while queue:
            frame = queue.popleft()
            if not frame.done:
                return frame
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
        self._pacer.charge(batch.guess, now)
        self._room.notify_all()
        return batch
