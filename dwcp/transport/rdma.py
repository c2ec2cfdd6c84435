"""Lanes over RDMA: frames are written straight into a ring in the peer's memory, beside the TCP connection of the lane.

`Rdma` is what a session knows of it. On every plain lane the ends exchange cards after hello (cards.py); if both can,
the lane becomes an `RdmaLane`, else it stays what it is, and the reason is shown. On an RDMA lane the connection
carries a beat each way, a few bytes a second. Its end is the lane's end, as ever, and it tells two failures apart:

* RDMA silent or broken while the connection is heard: RDMA does not work here. The session gives it up for good, ends
  all its RDMA lanes, and the source dials them again as TCP lanes.
* both silent: the link is lost. The lane is lost like any other, and RDMA is tried again when it is dialled again.

Either way the frames that were on their way are sent again by the layers above. Nothing in the ring is trusted: a
frame is copied out of it first, and only then checked.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from dwcp.errors import NoRdma, ProtocolError
from dwcp.transport import cards, verbs
from dwcp.transport.cards import Card, No, Ready
from dwcp.transport.carrier import Carrier, LaneClosed
from dwcp.transport.frames import Buffer, Header, Type
from dwcp.transport.hello import RETURN_LANE
from dwcp.transport.lane import Lane
from dwcp.transport.liveness import HEARING, LANE_TIMEOUT, PING_EVERY
from dwcp.transport.ring import Chunk, Incoming, Outgoing, Shape
from dwcp.transport.verbs import Endpoint, What
from models.datapath import DataPathConfig

log = logging.getLogger(__name__)

SHAPE: Final = Shape(size=4 << 20, depth=256, chunk=128 << 10)
"""Of every lane's ring: all that RDMA holds in memory at one end of a lane, and enough for 100 Gbit/s over 300 us."""
EXCHANGE_SECONDS: Final = 10.0
"""For one answer of the peer while cards are exchanged: making queue pairs takes a while."""
FINISH_SECONDS: Final = 1.0
BEAT_EVERY: Final = PING_EVERY / 2
DEAF: Final = 2 * PING_EVERY
"""Beats come oftener, also from a thread that waits for work: without one for so long the link was away."""
_BEAT: Final = b"\0"
_ANSWERS: Final = frozenset({Type.RDMA})


class RdmaFailed(OSError):
    """RDMA failed on a link that works."""


class Rdma:
    """Whether this session's lanes go over RDMA, and why not."""

    def __init__(self, config: DataPathConfig) -> None:
        self.why = ""
        """The reason why a lane that could go by RDMA does not; empty also where nobody wants it to."""
        self._config = config
        self._refusal = ""
        """What the peer is told when it asks; empty: it can be tried."""
        self._lock = threading.Lock()
        self._lanes: weakref.WeakSet[RdmaLane] = weakref.WeakSet()
        if config.rdma == "never":
            self._refusal = "RDMA is turned off"
        elif config.protection != "none":
            self._note("RDMA needs protection none")
        else:
            self._refusal = verbs.probe()
            if self._refusal:
                self._note(self._refusal)

    def upgrade(self, lane: Carrier) -> Carrier:
        """After hello, on every lane at both ends, before anything else: the lane to go on with. Raises OSError,
        ProtocolError: then the lane is lost."""
        if self._config.protection != "none" or not isinstance(lane, Lane):
            return lane
        lane.settimeout(EXCHANGE_SECONDS)
        try:
            end = self._propose(lane) if self._config.role == "source" else self._answer(lane)
        except TimeoutError:
            self.give_up(f"{self._config.peer_name} did not answer when it was asked for RDMA")
            raise
        lane.settimeout(LANE_TIMEOUT)
        if end is None:
            return lane
        better = RdmaLane(lane, end, writes=self._writes(lane), broken=self.give_up)
        with self._lock:
            self._lanes.add(better)
            if self._refusal:  # given up meanwhile
                better.cut(f"RDMA was given up: {self._refusal}")
            else:
                self.why = ""
        log.info("lane %d: RDMA over %s, %d queue pairs", lane.number, end.name, len(end.card.pairs))
        return better

    def give_up(self, reason: str) -> None:
        """From now on only TCP; what goes over RDMA is dialled again."""
        with self._lock:
            if self._refusal:
                return
            self._refusal = f"RDMA failed: {reason}"
            lanes = list(self._lanes)
        self._note(self._refusal)
        for lane in lanes:
            lane.cut(f"RDMA was given up: {reason}")

    def _writes(self, lane: Lane) -> bool:
        return (lane.number == RETURN_LANE) == (self._config.role == "destination")

    def _propose(self, lane: Lane) -> Endpoint | None:
        """The source's part."""
        config = self._config
        # The way back is narrow; the others share the pairs.
        pairs = 1 if lane.number == RETURN_LANE else -(-config.queue_pairs // config.lanes)
        end = self._make(lane, pairs)
        if isinstance(end, str):
            lane.send(cards.encode(No(end)))
            return None
        with contextlib.ExitStack() as undo:
            undo.callback(end.close)
            lane.send(cards.encode(end.card))
            answer = cards.decode(*lane.read_hello(_ANSWERS))
            if isinstance(answer, No):
                self._note(f"{config.peer_name}: {answer.reason}")
                return None
            if not self._connect(lane, end, answer):
                return None
            lane.send(cards.encode(Ready()))
            undo.pop_all()
        return end

    def _answer(self, lane: Lane) -> Endpoint | None:
        """The destination's part."""
        config = self._config
        asked = cards.decode(*lane.read_hello(_ANSWERS))
        if isinstance(asked, No):
            self._note(f"{config.peer_name}: {asked.reason}")
            return None
        if not isinstance(asked, Card):
            raise ProtocolError("the source says it is ready for RDMA and was not asked; close the lane")
        end = self._make(lane, min(len(asked.pairs), config.queue_pairs))
        if isinstance(end, str):
            lane.send(cards.encode(No(end)))
            return None
        with contextlib.ExitStack() as undo:
            undo.callback(end.close)
            if not self._connect(lane, end, asked):
                return None
            lane.send(cards.encode(end.card))
            answer = cards.decode(*lane.read_hello(_ANSWERS))
            if isinstance(answer, No):
                self._note(f"{config.peer_name}: {answer.reason}")
                return None
            if not isinstance(answer, Ready):
                raise ProtocolError("a second card instead of the answer to ours; close the lane")
            undo.pop_all()
        return end

    def _make(self, lane: Lane, pairs: int) -> Endpoint | str:
        """Our end, or why there is none."""
        if self._refusal:
            return self._refusal
        try:
            return Endpoint(RdmaLane.local_address(lane), SHAPE, pairs, writes=self._writes(lane))
        except NoRdma as error:
            self._note(str(error))
            return str(error)

    def _connect(self, lane: Lane, end: Endpoint, answer: Card | Ready) -> bool:
        """To the peer's queue pairs; if it cannot be, the peer is told."""
        if not isinstance(answer, Card):
            raise ProtocolError("the destination says it is ready for RDMA and sent no card; close the lane")
        try:
            end.connect(answer)
        except NoRdma as error:
            self._note(str(error))
            lane.send(cards.encode(No(str(error))))
            return False
        return True

    def _note(self, reason: str) -> None:
        if reason != self.why:
            self.why = reason
            level = logging.WARNING if self._config.protection == "none" else logging.DEBUG
            log.log(level, "no RDMA: %s", reason)


class RdmaLane(Lane):
    """A lane whose frames go over RDMA. The TCP connection under it belongs to it."""

    def __init__(self, lane: Lane, end: Endpoint, *, writes: bool, broken: Callable[[str], None]) -> None:
        super().__init__(lane._sock, lane._pool, lane.number)
        self.kind = "rdma"
        self._sock.settimeout(0)
        self._timeout = LANE_TIMEOUT
        self._end = end
        self._writes = writes
        self._broken = broken
        """To be told when RDMA does not work though the link does."""
        self._out = Outgoing(SHAPE)
        self._in = Incoming(SHAPE)
        self._heard = self.opened
        """When the newest beat came."""
        self._deaf_until = float("-inf")
        self._next_beat = 0.0
        self._hung_up = False
        self._closed = False
        self._trouble = ""
        """What a completion said that failed."""
        self._damage: ProtocolError | None = None
        self._reaping = threading.Lock()
        """The keeper reaps as well, or completions would go unseen while the writer waits for work."""
        self._poll = select.poll()
        self._poll.register(end.fd, select.POLLIN)
        self._poll.register(self._sock, select.POLLIN)

    # --- what the session calls ---

    def send(self, start: bytes, body: Buffer = b"") -> None:
        parts = [memoryview(start), memoryview(body)]
        left = len(start) + len(body)
        self._look()
        deadline = time.monotonic() + self._timeout
        while left:
            chunk = self._out.reserve(left)
            if chunk is None:
                self._await(deadline, "the peer gives no room in its ring")
                continue
            self._copy(parts, chunk)
            try:
                self._end.write(chunk)
            except OSError as error:
                raise self._failure(str(error)) from error
            left -= chunk.length
            deadline = time.monotonic() + self._timeout

    def read_raw(self) -> tuple[Header, bytearray, memoryview]:
        try:
            return super().read_raw()
        except ProtocolError as error:
            self._broken(f"a frame was damaged: {error}")
            raise

    def settimeout(self, seconds: float) -> None:
        self._timeout = seconds

    def queued(self) -> int:
        return self._out.travelling

    def observe(self, now: float) -> None:
        self._reap()  # what is wrong the owner learns when it sends next
        self.life.observe(now, self._out.settled)

    def finish(self) -> None:
        deadline = time.monotonic() + FINISH_SECONDS
        try:
            while self._out.travelling and not (self._hung_up or self._trouble) and self._wait(deadline):
                self._reap()
            self._sock.shutdown(socket.SHUT_WR)  # the peer reads what the ring holds, then hangs up
            while not self._hung_up and self._wait(deadline):
                self._reap()
        except OSError:
            return  # the peer was faster, or is gone

    def close(self) -> None:
        """The connection first: the peer must see a lane that ended, not one whose memory went away."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        super().close()
        with self._reaping:
            self._closed = True
            self._end.close()

    @staticmethod
    def local_address(lane: Lane) -> str:
        """The address of this host that `lane` uses."""
        return str(lane._sock.getsockname()[0])

    # --- inside ---

    def _fill(self, view: memoryview) -> None:
        done = 0
        if time.monotonic() >= self._next_beat:
            self._listen()
        deadline = time.monotonic() + self._timeout
        while done < len(view):
            position, ready = self._in.readable()
            if not ready:
                last = self._hung_up  # what came before the end is still to be read
                self._reap()
                if self._in.readable()[1]:
                    continue
                self._complain()
                if last:
                    raise LaneClosed("the peer closed the connection")
                if not self._wait(deadline):
                    raise self._failure("nothing comes")
                continue
            size = min(ready, len(view) - done)
            view[done : done + size] = self._end.memory[position : position + size]
            self._in.consume(size)
            credit = self._in.credit()
            if credit is not None:
                self._tell(credit)
            done += size
            deadline = time.monotonic() + self._timeout

    def _copy(self, parts: list[memoryview], chunk: Chunk) -> None:
        """The next bytes of `parts`, which are used up, to our copy of the ring."""
        at, end = chunk.position, chunk.position + chunk.length
        while at < end:
            size = min(len(parts[0]), end - at)
            self._end.memory[at : at + size] = parts[0][:size]
            parts[0] = parts[0][size:]
            if not parts[0]:
                del parts[0]
            at += size

    def _look(self) -> None:
        """Writer: what has become of what was sent?"""
        if time.monotonic() >= self._next_beat:
            self._listen()
        self._reap()
        self._complain()
        if self._hung_up:
            raise LaneClosed("the peer closed the connection")

    def _await(self, deadline: float, trouble: str) -> None:
        """Writer: wait until something has changed."""
        if not self._wait(deadline):
            raise self._failure(trouble)
        self._look()

    def _wait(self, deadline: float) -> bool:
        """For a completion or a word on the connection; False once `deadline` has passed. Then look what there is."""
        now = time.monotonic()
        if now > deadline:
            return False
        for descriptor, _ in self._poll.poll(max(0.0, min(deadline, self._next_beat) - now) * 1000 + 1):
            if descriptor == self._end.fd:
                self._end.rearm()
            else:
                self._listen()
        if time.monotonic() >= self._next_beat:
            self._listen()
        return True

    def _listen(self) -> None:
        """Owner: beat, and note the peer's beats, or its hanging up."""
        try:
            if time.monotonic() >= self._next_beat:
                self._next_beat = time.monotonic() + BEAT_EVERY
                with contextlib.suppress(BlockingIOError):  # a peer that reads not even these is found out by silence
                    self._sock.send(_BEAT)
            while self._sock.recv(4096):
                now = time.monotonic()
                if now - self._heard > DEAF:
                    self._deaf_until = now
                self._heard = now
            self._hung_up = True
        except BlockingIOError:
            return
        except OSError:
            self._hung_up = True

    def _tell(self, credit: int) -> None:
        try:
            self._end.tell(credit)
        except OSError as error:
            raise self._failure(str(error)) from error

    def _reap(self) -> None:
        """Take the completions into account; what is wrong with them is kept for `_complain`."""
        with self._reaping:
            if self._closed:
                return
            try:
                for done in self._end.completions():
                    if done.what is What.WRITTEN:
                        self._out.completed(done.number)
                    elif done.what is What.CREDIT:
                        self._out.credited(done.number)
                    elif done.what is What.ARRIVED:
                        self._in.arrived(done.number, done.length)
                    elif done.what is What.FAILED:
                        self._trouble = self._trouble or done.text
            except ProtocolError as error:
                self._damage = self._damage or error

    def _complain(self) -> None:
        """Owner: raise what `_reap` found."""
        if self._damage:
            self._broken(str(self._damage))
            raise self._damage
        if self._trouble:
            raise self._failure(self._trouble)

    def _failure(self, trouble: str) -> OSError:
        """What to raise for it: is it RDMA, or the link, or did the peer just go? Waits until that is clear: a peer
        that was heard all the time on the connection, and is heard after the failure, tells that the link works."""
        self._listen()
        begun = time.monotonic()
        while not self._hung_up and time.monotonic() - begun < HEARING:
            if self._heard - begun > BEAT_EVERY:  # said after the failure, not on its way before it
                if begun - self._deaf_until < LANE_TIMEOUT:
                    return TimeoutError(f"{trouble}, as the link was lost for a moment")
                self._broken(trouble)
                return RdmaFailed(f"RDMA failed: {trouble}")
            self._wait(begun + HEARING)
        if self.doomed:
            return LaneClosed(self.doomed)
        if self._hung_up:
            return LaneClosed("the peer closed the connection")
        return TimeoutError(f"{trouble}, and the connection beside RDMA is silent: the link is lost")
