"""The source's lanes: dial each, carry it, dial it again; as many as dwcp/transport/lanes.py wants, on the paths that
dwcp/transport/paths.py names, until the session is over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dwcp.errors import ProtocolError, Refused, WrongProtection
from dwcp.security import tls
from dwcp.session import Session
from dwcp.transport import hello
from dwcp.transport.carrier import Carrier
from dwcp.transport.frames import Type
from dwcp.transport.hello import RETURN_LANE, UNKNOWN_INSTANCE, Hello, Refuse
from dwcp.transport.lane import HANDSHAKE_SECONDS, Lane, tune
from dwcp.transport.lanes import SAMPLE_SECONDS, LaneCount, Sample
from dwcp.transport.liveness import LANE_TIMEOUT
from dwcp.transport.paths import Paths

log = logging.getLogger(__name__)

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 2.0
REFUSED_FOR: Final = 15.0
"""A link that is lost does not answer. A host that answers for so long that nobody listens has lost our peer, which
listens as long as it lives; only a firewall that reloads refuses like that, and briefly."""
_ANSWERS: Final = frozenset({Type.WELCOME, Type.REFUSE})


class Dialler:
    def __init__(self, session: Session, stopping: threading.Event, run: Callable[..., None]) -> None:
        self._session = session
        self._config = config = session.config
        self._stopping = stopping
        self._run = run
        """How a thread of the source runs: a bug in it ends the session."""
        self._tls = tls.context("source", config.tls) if config.protection == "tls" else None
        self._addresses = tuple(dict.fromkeys((config.address, *config.more_addresses)))
        self.most = max(config.lanes, config.max_lanes)
        self.start_lanes = min(self.most, max(config.lanes, len(self._addresses)))
        self._lock = threading.Lock()
        self._paths = Paths(len(self._addresses))
        self._prepared: dict[int, tuple[int, socket.socket]] = {}
        """Lanes that leave their path: the next one and a connection that waits there."""
        self._refused: dict[int, float] = {}
        """Since when each path has answered that nobody listens."""
        self._running: set[int] = set()
        self._count = LaneCount(self.start_lanes, self.most)
        self._meter = Meter(session)
        session.expect(self.start_lanes, self.most)

    def start(self) -> None:
        for number in [*range(self.start_lanes), RETURN_LANE]:
            self._keep(number)

    # --- the keeper's part, called about ten times a second ---

    def tick(self, now: float) -> None:
        """As many lanes as pay, on every path that works."""
        session = self._session
        if session.ended or session.state == "waiting":
            return
        sample = self._meter.look(now)
        if sample and session.state == "connected":
            before = self._count.wanted
            wanted = self._count.add(sample)
            if wanted is not before:
                log.info("lanes %d -> %d: %s", before.lanes, wanted.lanes, wanted.reason)
                session.wanted = wanted.lanes
        for lane in session.forward:
            if lane.number >= session.wanted:
                session.retire(lane.number)
        for number in range(session.wanted):
            self._keep(number)
        with self._lock:
            path = self._paths.due(now)
        if path is not None:
            threading.Thread(target=self._run, args=(self._probe, (path,)), name=f"path {path}", daemon=True).start()

    def _keep(self, number: int) -> None:
        """Give lane `number` its thread, unless it has one."""
        with self._lock:
            if number in self._running:
                return
            self._running.add(number)
        args = (self._keep_lane, (number,))
        threading.Thread(target=self._run, args=args, name=f"lane {number}", daemon=True).start()

    def _probe(self, path: int) -> None:
        """Try a path that failed; if it answers, a lane of the fullest one moves to it."""
        try:
            sock = self._connect(path)
        except OSError as error:
            log.info("path %s still fails: %s", self._addresses[path], error)
            with self._lock:
                self._paths.lost(-1, path, time.monotonic())
            return
        with self._lock:
            lane = self._paths.mover(path)
            if lane is None or lane in self._prepared:
                sock.close()
                return
            self._paths.move(lane, path, time.monotonic())
            self._prepared[lane] = path, sock
        log.info("path %s answers again: lane %d moves there", self._addresses[path], lane)
        self._session.retire(lane)

    # --- lanes ---

    def _keep_lane(self, number: int) -> None:
        session = self._session
        wait, opened_before = FIRST_WAIT, False
        while True:
            with self._lock:
                if session.ended or not (number == RETURN_LANE or number < session.wanted):
                    self._running.discard(number)
                    _, unused = self._prepared.pop(number, (0, None))
                    break
                path, prepared = self._prepared.pop(number, (-1, None))
                if prepared is None:
                    path = self._paths.choose(number, time.monotonic())
            try:
                lane = self._dial(number, path, prepared)
            except (ssl.SSLCertVerificationError, WrongProtection, Refused) as error:
                self._failed(number, path)
                self._turned_away(number, path, error)
            except (OSError, ProtocolError) as error:
                self._failed(number, path)
                session.trouble = f"lane {number} to {self._where(path)}: {error}"
                log.info("%s", session.trouble)
                self._nobody_there(path, isinstance(error, ConnectionRefusedError))
            else:
                self._refused.clear()
                if opened_before:
                    session.redials += 1
                opened_before, wait = True, FIRST_WAIT
                with self._lock:
                    self._paths.opened(number, path)
                session.carry(lane)
                if lane.left.is_set():
                    with self._lock:
                        self._paths.left(number, path)
                    continue
                if not session.ended:
                    self._failed(number, path)
            with self._lock:
                elsewhere = self._paths.living()
            self._stopping.wait(FIRST_WAIT if elsewhere else wait)
            wait = min(LONGEST_WAIT, wait * 2)
        if unused:
            unused.close()

    def _failed(self, number: int, path: int) -> None:
        with self._lock:
            self._paths.lost(number, path, time.monotonic())

    def _where(self, path: int) -> str:
        return f"{self._addresses[path]} port {self._config.port}"

    def _turned_away(self, number: int, path: int, error: Exception) -> None:
        """Trying again cannot help before the first welcome. Later a wrong certificate may be a wrong route."""
        text = f"{self._config.peer_name} at {self._where(path)}: {error}"
        if isinstance(error, Refused) or self._session.peer_instance is None:
            self._session.fail(text)
        else:
            self._session.trouble = f"lane {number}: {text}"
            log.error("%s", self._session.trouble)

    def _nobody_there(self, path: int, refused: bool) -> None:
        """Give up when every dial has been refused for REFUSED_FOR, instead of waiting for a link that is not lost."""
        now = time.monotonic()
        if not refused or self._session.lanes_alive or self._session.peer_instance is None:
            self._refused.pop(path, None)
            return
        self._refused.setdefault(path, now)
        since = list(self._refused.values())
        if len(since) == len(self._addresses) and now - max(since) > REFUSED_FOR:
            where = ", ".join(self._where(path) for path in range(len(self._addresses)))
            self._session.fail(
                f"the data path of {self._config.peer_name} has ended: nobody listens at {where} any more"
            )

    def _connect(self, path: int) -> socket.socket:
        return socket.create_connection((self._addresses[path], self._config.port), timeout=HANDSHAKE_SECONDS)

    def _dial(self, number: int, path: int, prepared: socket.socket | None) -> Carrier:
        """Raises OSError (ssl errors are), ProtocolError, WrongProtection, Refused."""
        config, session = self._config, self._session
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(prepared or self._connect(path))
            tune(sock)
            channel = tls.shake_hands(sock, self._tls, config.peer_name) if self._tls else None
            sock.settimeout(HANDSHAKE_SECONDS)
            lane = Lane(sock, session.pool, number, channel)
            lane.send(
                hello.encode_hello(
                    Hello(
                        config.migration_id,
                        config.owner_token,
                        session.instance,
                        session.peer_instance or UNKNOWN_INSTANCE,
                        number,
                        self.start_lanes,
                        self.most,
                        session.encoding.offers,
                    )
                )
            )
            answer = hello.decode_answer(*lane.read_hello(_ANSWERS))
            if isinstance(answer, Refuse):
                raise Refused(f"refused ({answer.reason.name.lower()}): {answer.text}")
            session.bind(answer.instance, answer.features)
            lane.settimeout(LANE_TIMEOUT)
            undo.pop_all()
            return lane


class Meter:
    """Samples for `LaneCount`, from the session's counters and what the lanes' carriers tell."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._since = time.monotonic()
        self._delivered = 0
        self._looks = self._pressed = self._paced = 0
        self._segments: dict[int, tuple[int, int]] = {}
        """Sent and sent again, by lane object."""
        self._ticks, self._own = _processor_ticks(), time.process_time()

    def look(self, now: float) -> Sample | None:
        """Called often; a sample when it is time for one."""
        session = self._session
        self._looks += 1
        self._pressed += session.pressed
        self._paced += session.outbox.paced
        span = now - self._since
        if span < SAMPLE_SECONDS:
            return None
        lanes = [lane for lane in session.forward if not lane.leaving]
        found = [(id(lane), lane.progress) for lane in lanes if lane.progress]
        sent = again = 0
        for key, progress in found:
            sent0, again0 = self._segments.get(key, (0, 0))
            sent += progress.segments - sent0
            again += progress.sent_again - again0
        self._segments = {key: (progress.segments, progress.sent_again) for key, progress in found}
        delivered, ticks, own = session.outbox.delivered, _processor_ticks(), time.process_time()
        idle, total = ticks[0] - self._ticks[0], ticks[1] - self._ticks[1]
        sample = Sample(
            now=now,
            lanes=len(lanes),
            rate=(delivered - self._delivered) / span,
            pressed=self._pressed / self._looks,
            free_cpu=idle / total if total else 1.0,
            round_trip=min((progress.least_round_trip for _, progress in found), default=0.0),
            loss=again / sent if sent else 0.0,
            own_cpu=(own - self._own) / span / len(os.sched_getaffinity(0)),
            paced=self._paced > self._looks / 4,
        )
        self._since, self._delivered, self._ticks, self._own = now, delivered, ticks, own
        self._looks = self._pressed = self._paced = 0
        return sample


def _processor_ticks() -> tuple[int, int]:
    """(idle, all) since boot, of the processors that this process may use."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    idle = total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in mine:
            ticks = [int(field) for field in fields[:8]]
            idle += ticks[3] + ticks[4]
            total += sum(ticks)
    return idle, total
