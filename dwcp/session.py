"""One end of a session: its flows, its lanes' traffic, its state. Knows no dialling and no listening (dwcp/source.py,
dwcp/destination.py) and no control socket (dwcp/control.py).

States: waiting -> connected (all lanes at once, the first time) <-> link-lost (a direction has no lane) ; closed (ended
on purpose, here or by the peer's BYE with no flow open) and failed are final. Whatever ends a session cuts the local
sockets, so that QEMU and libvirt see it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import Final

from dwcp import talk
from dwcp.buffers import BufferPool
from dwcp.encoding.bulk import Packer, Unpacker
from dwcp.encoding.pages import bound
from dwcp.errors import ProtocolError, Refused
from dwcp.flow import Reassembly
from dwcp.hde import Encoding
from dwcp.local import BULK_SERVICES, TALK_FLOW, Arrived, Flow
from dwcp.outbox import CONTROL_FLOW, Batch, Outbound, Outbox
from dwcp.transport import frames
from dwcp.transport.carrier import Carrier, LaneClosed
from dwcp.transport.frames import (
    Ack,
    Bye,
    ByeReason,
    Data,
    Fin,
    Leave,
    Message,
    Open,
    Ping,
    Pong,
    Reset,
    ResetReason,
)
from dwcp.transport.hello import (
    RETURN_LANE,
    Features,
    Hello,
    Refuse,
    RefuseReason,
    Welcome,
    judge,
)
from dwcp.transport.liveness import LANE_TIMEOUT, PATIENCE
from dwcp.transport.rdma import Rdma
from models.datapath import DataPathConfig, DataPathStatus, PathState

log = logging.getLogger(__name__)

RATE_SECONDS: Final = 1.0
GOODBYE_POLL: Final = 0.1
LANE_BYTES: Final = 128 << 30
"""A lane gets a new connection after this: an AES-GCM key must not seal more than 2**24.5 records (RFC 8446, 5.5)."""


class Session:
    def __init__(self, config: DataPathConfig) -> None:
        self.config = config
        self.instance = os.urandom(16)
        self.peer_instance: bytes | None = None
        self.pool = BufferPool(max(bound(config.batch_bytes), frames.DIGEST_BYTES + config.batch_bytes), keep=64)
        self.outbox = Outbox(config.window_seconds, self.pool, config.rate_limit)
        self.encoding = Encoding(config, self.outbox, self.pool)
        self.port = config.port
        self.trouble = ""
        """The newest thing that kept a peer or a lane out: shown in the status."""
        self.redials = 0
        self.wanted = config.lanes
        """Source: forward lanes that there should be now; dwcp/dialler.py decides."""
        self.rdma = Rdma(config)
        self.pressed = False
        """The link holds bulk back just now, not a program, a bound or our own processors."""
        self.changed = threading.Event()
        """Set at each change the keeper should look at."""
        self.started = time.monotonic()
        self._lock = threading.Lock()
        self._state: PathState = "waiting"
        self._error = ""
        self._since = self.started
        """When the state, or all-flows-closed, began."""
        self._flows: dict[int, Flow] = {}
        self._lanes = (config.lanes, config.lanes)
        """Forward lanes at the start, and at most; the source's own, or what its first HELLO said."""
        self._writers: dict[int, Carrier] = {}
        self._readers: dict[int, Carrier] = {}
        self._goodbyes: dict[int, Carrier] = {}
        """Lanes that said LEAVE, by the token that the peer gives back."""
        self._hearing_since: float | None = None
        self._heard = self.started
        self._idle_since: float | None = None
        self._control: Reassembly[Open | Reset] = Reassembly()
        self._control_ready = threading.Condition()
        self._wire_in = 0
        self._rates = Rates(self.started)

    # --- state ---

    @property
    def state(self) -> PathState:
        return self._state

    @property
    def ended(self) -> bool:
        return self._state in ("closed", "failed")

    @property
    def error(self) -> str:
        return self._error

    def fail(self, error: str) -> None:
        """Final. Tells the peer if it can be told."""
        self._end("failed", error, Bye(ByeReason.FAILED, error))

    def close(self, text: str = "") -> None:
        """Final, on purpose: tells the peer, cuts what is still open."""
        self._end("closed", text, Bye(ByeReason.STOPPED, text or "stopped by its host"))

    def _end(self, state: PathState, error: str, bye: Bye | None) -> None:
        with self._lock:
            if self.ended:
                return
            self._state, self._error, self._since = state, error, time.monotonic()
            flows = list(self._flows.values())
            readers = list(self._readers.values())
        log.log(logging.ERROR if state == "failed" else logging.INFO, "session %s %s", state, error)
        self.outbox.end(frames.encode(bye) if bye else None)
        self.encoding.end()
        for flow in flows:
            flow.cut(error or "the session was stopped")
        with self._control_ready:
            self._control_ready.notify_all()
        for lane in readers:
            lane.cut("the session is over")
        self.changed.set()

    def flow_changed(self) -> None:
        with self._lock:
            flows = [flow for flow in self._flows.values() if not flow.internal]
            idle = bool(flows) and not any(flow.open for flow in flows)
            self._idle_since = (self._idle_since or time.monotonic()) if idle else None
        self.changed.set()

    # --- flows ---

    def new_flow(self, service: str) -> Flow | None:
        """Source: number the next accepted connection and tell the peer. None: no more flows, or over."""
        with self._lock:
            number = 1 + sum(not flow.internal for flow in self._flows.values())
            if number >= TALK_FLOW or self.ended:
                return None
            flow = self._make_flow(number, service)
        self.outbox.announce(number, flow.ordinal, service)
        return flow

    def open_talk(self) -> None:
        """Source: let the two content stores talk, over a flow of their own."""
        with self._lock:
            if self.ended or TALK_FLOW in self._flows:
                return
            flow = self._make_flow(TALK_FLOW, talk.SERVICE)
        self.outbox.announce(TALK_FLOW, flow.ordinal, talk.SERVICE)
        self.start_talk(flow)

    def start_talk(self, flow: Flow) -> None:
        flow.start(self.encoding.start_talk().far, self.outbound(flow))

    def outbound(self, flow: Flow) -> Outbound:
        bulk = self.config.role == "source" and flow.service in BULK_SERVICES  # what comes back is small and urgent
        return self.outbox.open_flow(flow.number, bulk=bulk)

    def packer(self, flow: Flow) -> Packer | None:
        """Source: what a bulk flow's bytes go through before they wait for a lane."""
        return self.encoding.packer(flow.service)

    def unpacker(self, flow: Flow) -> Unpacker:
        """Destination: the way back."""
        return self.encoding.unpacker(flow.number, flow.service)

    def control_message(self) -> Open | Reset | None:
        """The next message of flow 0, in order; blocks. None: the session is over. Then call `control_done`."""
        with self._control_ready:
            while not (self._control.ready() or self.ended):
                self._control_ready.wait()
            return None if self.ended else self._control.take()

    def control_done(self) -> None:
        with self._control_ready:
            acked = self._control.settle()
        self.outbox.acknowledge(CONTROL_FLOW, acked)

    def apply_reset(self, message: Reset) -> None:
        flow = self._flows.get(message.flow)
        if flow is None:
            log.warning("RESET of flow %d, which never was: %s", message.flow, message.text)
        elif message.reason is ResetReason.STOP:
            flow.stop_sending(f"peer: {message.text}")
        else:
            flow.cut(f"peer: {message.text}")
        self.flow_changed()

    def flow(self, number: int) -> Flow:
        """Raises ProtocolError for a flow that cannot exist. At the destination frames may overtake their OPEN."""
        with self._lock:
            flow = self._flows.get(number)
            if flow is None:
                if self.config.role == "source":
                    raise ProtocolError(f"frame for flow {number}, which was never opened; close the lane")
                flow = self._make_flow(number, "")
                if self.ended:
                    flow.cut(self._error)
            return flow

    def _make_flow(self, number: int, service: str) -> Flow:
        flow = Flow(number, self, self.config.batch_bytes, self.config.window_seconds, service)
        self._flows[number] = flow
        if not flow.internal:
            self._idle_since = None
        return flow

    # --- lanes ---

    def admit(self, asked: Hello) -> Welcome | Refuse:
        """Destination: judge a HELLO. The first that passes decides who the peer is, and how many lanes there are."""
        with self._lock:
            if self.ended:
                return Refuse(RefuseReason.ENDED, f"the session is over: {self._error or self._state}")
            answer = judge(
                asked,
                migration_id=self.config.migration_id,
                owner_token=self.config.owner_token,
                instance=self.instance,
                bound=self.peer_instance,
                offers=self.encoding.offers,
            )
            if isinstance(answer, Welcome):
                lanes = asked.lanes, asked.most
                if self.peer_instance is None:
                    self._lanes = lanes
                    self._bind(asked.instance, answer.features)
                elif lanes != self._lanes:
                    text = "the session has {} to {} lanes, not {} to {}".format(*self._lanes, *lanes)
                    return Refuse(RefuseReason.LANE, text)
            return answer

    def bind(self, instance: bytes, features: Features) -> None:
        """Source: a WELCOME came. Raises Refused when it is not from the process that gave the first one."""
        with self._lock:
            if self.peer_instance is None:
                self._bind(instance, features)
            elif self.peer_instance != instance:
                raise Refused("the destination's data path was restarted; start the migration anew")

    def _bind(self, instance: bytes, features: Features) -> None:
        self.peer_instance = instance
        self.encoding.agree(features)

    def expect(self, lanes: int, most: int) -> None:
        """Source: how many forward lanes there are at the start, and at most."""
        self._lanes = lanes, most
        self.wanted = lanes

    def carry(self, lane: Carrier) -> None:
        """The owner thread of an opened lane stays in here until the lane is lost, has left, or the session is over."""
        try:
            lane = self.rdma.upgrade(lane)
        except (OSError, ProtocolError) as error:
            lane.close()
            self.trouble = f"lane {lane.number} lost: {error}"
            log.warning("%s", self.trouble)
            return
        writes = (lane.number == RETURN_LANE) == (self.config.role == "destination")
        lanes = self._writers if writes else self._readers
        with self._lock:
            old = lanes.get(lane.number)
            lanes[lane.number] = lane
            self._lanes_changed()
        if old and not old.leaving:
            old.cut("replaced by a newer connection")
        reason = "the session is over"
        try:
            if writes:
                self._write_lane(lane)
            else:
                self._read_lane(lane)
        except (OSError, ProtocolError) as error:
            reason = lane.doomed or str(error)
        except Exception as error:  # a bug must end the session, not silently one lane
            log.exception("lane %d", lane.number)
            self.fail(f"lane {lane.number}: {type(error).__name__}: {error}")
        finally:
            lane.close()
            with self._lock:
                if lanes.get(lane.number) is lane:
                    del lanes[lane.number]
                self._lanes_changed()
            if lane.left.is_set():
                self.outbox.lane_left(lane)
            elif writes:
                self.outbox.lane_lost(lane)
        if lane.left.is_set():
            log.info("lane %d has left", lane.number)
        elif not self.ended:
            reason = lane.doomed or reason
            log.warning("lane %d lost: %s", lane.number, reason)
            self.trouble = f"lane {lane.number} lost: {reason}"

    def _lanes_changed(self) -> None:
        """Inside the lock: the state follows the lanes."""
        now = time.monotonic()
        if not self._readers:
            self._hearing_since = None
            self.outbox.deaf()
        elif self._hearing_since is None:
            self._hearing_since = now
        if self.ended:
            return
        state: PathState = self._state
        if state == "waiting":
            if len(self._readers) + len(self._writers) > self._lanes[0]:
                state = "connected"
        else:
            state = "connected" if self._readers and self._writers else "link-lost"
        if state != self._state:
            log.info("session %s -> %s", self._state, state)
            self._state, self._since = state, now
            if state == "connected":
                self.trouble = ""
            self.changed.set()

    def _write_lane(self, lane: Carrier) -> None:
        carried = 0
        while (job := self.outbox.next(lane)) is not None:
            if isinstance(job, bytes):
                lane.send(job)
                self.outbox.count(len(job))
                carried += len(job)
                continue
            frame = self.outbox.encoded(job, *self.encoding.compress(job), lane) if isinstance(job, Batch) else job
            lane.send(frame.start, frame.body)
            self.outbox.sent(frame)
            carried += frame.size
            lane.leaving = lane.leaving or carried >= LANE_BYTES
        if lane.leaving and not (self.ended or lane.doomed):
            self._say_goodbye(lane)
        elif not lane.doomed:
            lane.finish()

    def _say_goodbye(self, lane: Carrier) -> None:
        """Returns once the peer has read all of this lane. Raises OSError, and then what it has not got goes again."""
        token = time.monotonic_ns()
        with self._lock:
            self._goodbyes[token] = lane
        try:
            lane.send(frames.encode(Leave(lane.number, token)))
            deadline = time.monotonic() + LANE_TIMEOUT * PATIENCE
            while not lane.left.wait(GOODBYE_POLL):
                if lane.doomed or self.ended or time.monotonic() > deadline:
                    raise LaneClosed(lane.doomed or "its goodbye was not answered")
        finally:
            with self._lock:
                del self._goodbyes[token]

    def retire(self, number: int) -> None:
        """The forward lane of this number is to leave; its owner thread then returns from `carry`."""
        with self._lock:
            lane = self._writers.get(number)
        if lane:
            lane.leaving = True
            self.outbox.wake()

    def _read_lane(self, lane: Carrier) -> None:
        while not self.ended:
            message, buffer, size = lane.read()
            self._heard = time.monotonic()
            with self._lock:
                self._wire_in += size
            if isinstance(message, Data):
                self._arrived(message, buffer)
            elif isinstance(message, Leave):
                lane.leaving = True
                lane.left.set()
                self.outbox.echo(message.lane, message.token)
                return
            else:
                self._handle(message)

    def _arrived(self, data: Data, buffer: bytearray | None) -> None:
        body = self.encoding.decompress(data)
        if body is not data.body and buffer is not None:
            self.pool.give(buffer)
            buffer = None
        if not self.flow(data.flow).arrive(data.seq, Arrived(data, body, buffer)) and buffer is not None:
            self.pool.give(buffer)

    def _handle(self, message: Message) -> None:
        match message:
            case Fin():
                self.flow(message.flow).arrive(message.seq, message)
            case Open() | Reset():
                if isinstance(message, Open) and self.config.role == "source":
                    raise ProtocolError("OPEN from the destination; close the lane")
                with self._control_ready:
                    if self._control.add(message.seq, message, 0):
                        self._control_ready.notify_all()
            case Ack():
                if self.outbox.acked(message.entries):
                    self.flow_changed()
            case Ping():
                self.outbox.echo(message.lane, message.token)
            case Pong():
                self._echoed(message)
            case Bye():
                self._peer_left(message)
            case _:
                raise ProtocolError(f"{message} is not allowed here; close the lane")

    def _echoed(self, pong: Pong) -> None:
        with self._lock:
            lane, leaving = self._writers.get(pong.lane), self._goodbyes.get(pong.token)
        if lane:
            lane.life.echoed = time.monotonic()
        if leaving:
            leaving.left.set()
        trip = (time.monotonic_ns() - pong.token) / 1e9
        if 0 < trip < 60 and (self.outbox.round_trip == 0 or trip < self.outbox.round_trip):
            self.outbox.round_trip = trip

    def _peer_left(self, bye: Bye) -> None:
        text = f"the peer's data path ended: {bye.text}"
        broken = bye.reason is ByeReason.FAILED or any(
            flow.open for flow in list(self._flows.values()) if not flow.internal
        )
        self._end("failed" if broken else "closed", text, None)

    # --- the keeper's part, called about ten times a second ---

    def tick(self, now: float) -> None:
        """Judge lanes, measure rates, see whether a deadline has passed."""
        if not self.ended:
            for lane in list(self._writers.values()):
                lane.observe(now)
                reason = lane.life.verdict(now, self._hearing_since, self._heard, lane.queued())
                if reason:
                    lane.cut(reason)
            self.outbox.spread(len(self._writers))
            self._check_deadlines(now)
            if self.config.role == "source" and self._state == "connected" and self.encoding.stores_talk:
                self.open_talk()
        if self._memory_rests():
            self.encoding.memory_is_over()
        self._measure(now)

    def _memory_rests(self) -> bool:
        """There was a memory stream, and it is over in both directions."""
        streams = [flow for flow in list(self._flows.values()) if flow.service == "ram"]
        return bool(streams) and all(flow.rests for flow in streams)

    def keep_pages(self) -> None:
        """The process is about to end."""
        self.encoding.close(whole=self._memory_rests())

    def lingered(self, now: float) -> bool:
        """The process has stayed long enough after the end."""
        return self.ended and now - self._since > self.config.linger

    def cut_lanes(self) -> None:
        for lane in [*self._writers.values(), *self._readers.values()]:
            lane.cut("the session is over")

    @property
    def forward(self) -> list[Carrier]:
        """Living lanes from source to destination."""
        lanes = self._writers if self.config.role == "source" else self._readers
        return list(lanes.values())

    @property
    def carrier(self) -> str:
        """What carries the lanes, and why not a better one."""
        lanes = [*self._writers.values(), *self._readers.values()]
        kinds = "+".join(sorted({lane.kind for lane in lanes}))
        return f"{kinds} ({self.rdma.why})" if kinds and self.rdma.why else kinds

    @property
    def lanes_alive(self) -> int:
        return len(self._writers) + len(self._readers)

    def _check_deadlines(self, now: float) -> None:
        config, waited = self.config, now - self._since
        why = f": {self.trouble}" if self.trouble else ""
        if self._state == "waiting" and waited > config.open_within:
            self.fail(f"no complete connection with {config.peer_name} within {config.open_within:g} s{why}")
        elif self._state == "link-lost" and waited > config.resume_within:
            self.fail(f"link to {config.peer_name} lost for over {config.resume_within:g} s{why}")
        elif self._idle_since is not None and now - self._idle_since > config.linger:
            self.close(f"all flows closed for {config.linger:g} s")

    def _measure(self, now: float) -> None:
        raw = sum(flow.raw_out + flow.raw_in for flow in list(self._flows.values()) if not flow.internal)
        delivered = self.outbox.delivered
        if self._rates.add(now, raw, self.outbox.wire_out + self._wire_in, delivered):
            _, out, full = self.outbox.figures()
            queued = sum(lane.queued() for lane in list(self._writers.values()))
            # Only what waits in our kernel waits for the link; the rest of the window waits for the far program.
            self.pressed = full and queued >= 0.3 * out
            self.encoding.link(delivered, self.pressed or self.outbox.paced)

    def status(self) -> DataPathStatus:
        window, unacked, _ = self.outbox.figures()
        with self._lock:
            flows = [self._flows[number] for number in sorted(self._flows) if number != TALK_FLOW]
        statuses = tuple(flow.status() for flow in flows)
        return DataPathStatus(
            role=self.config.role,
            migration_id=self.config.migration_id,
            pid=os.getpid(),
            state=self._state,
            port=self.port,
            error=(self._error or ("" if self._state == "connected" else self.trouble))[:4000],
            elapsed=time.monotonic() - self.started,
            flows=statuses,
            raw_out=sum(flow.raw_out for flow in statuses),
            raw_in=sum(flow.raw_in for flow in statuses),
            wire_out=self.outbox.wire_out,
            wire_in=self._wire_in,
            resent=self.outbox.resent,
            redials=self.redials,
            lanes_alive=self.lanes_alive,
            raw_rate=self._rates.raw,
            wire_rate=self._rates.wire,
            round_trip=self.outbox.round_trip,
            window_bytes=window,
            unacked_bytes=unacked,
            codec=self.encoding.codec,
            pages=self.encoding.counts(),
            stores=self.encoding.stores,
            lanes=self.wanted if self.config.role == "source" else len(self.forward),
            carrier=self.carrier,
            rate_limit=self.outbox.rate_limit,
            cpu_seconds=time.process_time(),
        )


class Rates:
    """Bytes a second over the last RATE_SECONDS, from counters read now and then."""

    def __init__(self, now: float) -> None:
        self.raw = self.wire = self.delivered = 0.0
        self._points: deque[tuple[float, int, int, int]] = deque([(now, 0, 0, 0)])

    def add(self, now: float, raw: int, wire: int, delivered: int) -> bool:
        """False if the newest point is too young for another."""
        if now - self._points[-1][0] < 0.05:
            return False
        self._points.append((now, raw, wire, delivered))
        while len(self._points) > 2 and now - self._points[0][0] > RATE_SECONDS:
            self._points.popleft()
        then, raw0, wire0, delivered0 = self._points[0]
        span = now - then
        self.raw = (raw - raw0) / span
        self.wire = (wire - wire0) / span
        self.delivered = (delivered - delivered0) / span
        return True
