"""The destination's rim: it listens on one TCP port for lanes, and dials the services' UNIX sockets in accept order.

A connection gets as far as its certificate allows: TLS handshake, then the name in the certificate, then HELLO, each
within a deadline. Connections that are not through yet are few; when there are too many the oldest gives way, so that
nobody without a certificate can keep the peer out. With protection none HELLO is all there is.

One port number serves all addresses of the host, so that the source needs to be told only one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import threading
import time
from collections import OrderedDict
from typing import Final

from dwcp.errors import DwcpError, ProtocolError, Refused, StartFailed, WrongProtection
from dwcp.local import PROBE
from dwcp.probe import discarding
from dwcp.security import tls
from dwcp.session import Session
from dwcp.transport import hello
from dwcp.transport.channel import TlsChannel
from dwcp.transport.frames import Open, ResetReason, Type
from dwcp.transport.hello import Refuse, RefuseReason, Welcome
from dwcp.transport.lane import HANDSHAKE_SECONDS, Lane, tune
from dwcp.transport.liveness import LANE_TIMEOUT

log = logging.getLogger(__name__)

MAX_PENDING: Final = 32
COMPLAIN_EVERY: Final = 1.0
DIAL_SECONDS: Final = 5.0
_HELLO: Final = frozenset({Type.HELLO})
_CLEAR: Final = b"DW"
"""What a lane without TLS begins with; a TLS handshake never does."""


def listen_tcp(addresses: tuple[str, ...], port: int, port_range: tuple[int, int]) -> list[socket.socket]:
    """Listeners on `port` at every address, or on the first port of the range that is free at all of them.

    Raises StartFailed.
    """
    for candidate in (port,) if port else range(port_range[0], port_range[1] + 1):
        with contextlib.ExitStack() as undo:
            listeners = []
            for address in addresses:
                listener = _listen(address, candidate, must=bool(port))
                if listener is None:
                    break
                listeners.append(undo.enter_context(listener))
            else:
                undo.pop_all()
                return listeners
    where = " and ".join(addresses)
    raise StartFailed(f"no free port at {where} in {port_range[0]}..{port_range[1]}; widen the port range")


def _listen(address: str, port: int, *, must: bool) -> socket.socket | None:
    """None: the port is taken there, and it need not be this one."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise StartFailed(f"cannot listen at {address}: {error}; give an address of this host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # over a dead session's last connections
        listener.bind(where)
        listener.listen(64)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE and not must:
            return None
        raise StartFailed(
            f"cannot listen at {address} port {port}: {error}; give an address of this host, a free port"
        ) from error
    return listener


class Destination:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._config = session.config
        self._tls = tls.context("destination", self._config.tls) if self._config.protection == "tls" else None
        self._paths = {service.name: service.path for service in self._config.services}
        self._stopping = threading.Event()
        self._complained = float("-inf")
        self._lock = threading.Lock()
        self._pending: OrderedDict[socket.socket, float] = OrderedDict()
        addresses = tuple(dict.fromkeys((self._config.address, *self._config.more_addresses)))
        self._listeners = listen_tcp(addresses, self._config.port, self._config.port_range)
        session.port = self._listeners[0].getsockname()[1]

    def start(self) -> None:
        for listener in self._listeners:
            threading.Thread(target=self._run, args=(self._accept, listener), name="accept", daemon=True).start()
        threading.Thread(target=self._run, args=(self._control_flow,), name="control flow", daemon=True).start()

    def close(self) -> None:
        """Take no more lanes. Idempotent."""
        self._stopping.set()
        for listener in self._listeners:
            with contextlib.suppress(OSError):  # closed before
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            listener.close()

    def _run(self, work: object, *args: object) -> None:
        assert callable(work)
        try:
            work(*args)
        except Exception as error:  # a bug must end the session, not silently one thread
            log.exception("destination")
            self._session.fail(f"destination: {type(error).__name__}: {error}")

    # --- lanes ---

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                sock, where = listener.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED):
                    log.error("cannot accept a lane: %s", error)
                    self._stopping.wait(0.1)
                    continue
                raise DwcpError(f"cannot accept lanes: {error}") from error
            with self._lock:
                self._pending[sock] = time.monotonic()
                oldest = next(iter(self._pending)) if len(self._pending) > MAX_PENDING else None
                if oldest:
                    self._hang_up(oldest)
            threading.Thread(
                target=self._receive, args=(sock, where[0]), name=f"lane from {where[0]}", daemon=True
            ).start()

    def tick(self, now: float) -> None:
        """The keeper's part: whoever is not through in time goes, however busily it sends."""
        with self._lock:
            for sock, since in self._pending.items():
                if now - since > HANDSHAKE_SECONDS:
                    self._hang_up(sock)

    def _hang_up(self, sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it went by itself

    def _receive(self, sock: socket.socket, where: str) -> None:
        """Owner thread of one connection, from handshake to the lane's end."""
        lane, trouble = None, ""
        try:
            lane = self._open(sock)
        except (OSError, ProtocolError, WrongProtection, Refused) as error:
            trouble = f"connection from {where} turned away: {error}"
        except Exception as error:  # whatever a stranger managed to break is his connection only
            trouble = f"connection from {where}: {type(error).__name__}: {error}"
        finally:
            with self._lock:
                del self._pending[sock]
        if lane:
            self._session.carry(lane)
        else:
            self._session.trouble = trouble
            if time.monotonic() - self._complained > COMPLAIN_EVERY:  # strangers must not fill the disk
                self._complained = time.monotonic()
                log.warning("%s", trouble)

    def _open(self, sock: socket.socket) -> Lane:
        """Raises OSError (ssl errors are), ProtocolError, WrongProtection, and Refused once the peer was told why."""
        session = self._session
        with contextlib.ExitStack() as undo:
            undo.enter_context(sock)
            sock.settimeout(HANDSHAKE_SECONDS)
            tune(sock)
            channel = wrong_name = None
            if self._tls:
                self._check_it_shakes_hands(sock)
                channel = TlsChannel(sock, self._tls, server_side=True)
                wrong_name = tls.wrong_name(channel, self._config.peer_name)
            lane = Lane(sock, session.pool, channel=channel)
            try:
                header, payload = lane.read_hello(_HELLO)
            except WrongProtection as error:
                self._refuse_in_clear(sock, str(error))
                raise
            if wrong_name:
                answer: Welcome | Refuse = Refuse(RefuseReason.NAME, wrong_name)
            else:
                asked = hello.decode_hello(header, payload)
                lane.number = asked.lane
                answer = session.admit(asked)
            lane.send(hello.encode_answer(answer))
            if isinstance(answer, Refuse):
                lane.finish()
                raise Refused(f"{answer.reason.name.lower()}: {answer.text}")
            lane.settimeout(LANE_TIMEOUT)
            undo.pop_all()
            return lane

    def _check_it_shakes_hands(self, sock: socket.socket) -> None:
        """Raises WrongProtection, having told a peer that speaks in the clear."""
        if sock.recv(len(_CLEAR), socket.MSG_PEEK)[:1] == _CLEAR[:1]:
            text = "the peer speaks in the clear, this end has protection tls; give both ends the same"
            self._refuse_in_clear(sock, text)
            raise WrongProtection(text)

    def _refuse_in_clear(self, sock: socket.socket, text: str) -> None:
        """So that neither kind of peer waits: one reads why, the other meets what is no TLS."""
        lane = Lane(sock, self._session.pool)
        lane.send(hello.encode_answer(Refuse(RefuseReason.PROTECTION, text)))
        lane.finish()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # who stays is cut off

    # --- local connections ---

    def _control_flow(self) -> None:
        """Dials one after another, in the order of flow 0: QEMU tells its channels apart by it."""
        while (message := self._session.control_message()) is not None:
            if isinstance(message, Open):
                self._dial(message)
            else:
                self._session.apply_reset(message)
            self._session.control_done()

    def _dial(self, message: Open) -> None:
        session = self._session
        flow = session.flow(message.flow)
        flow.service, flow.ordinal = message.service, message.ordinal
        if flow.internal and session.encoding.stores_talk:
            session.start_talk(flow)
            return
        try:
            sock = self._connect(message.service)
        except OSError as error:
            text = f"service {message.service} cannot be reached: {error}"
            log.error("flow %d: %s", message.flow, text)
            flow.cut(text)
            session.outbox.reset(message.flow, ResetReason.UNREACHABLE, text)
            session.flow_changed()
            return
        log.info("flow %d: service %s connected", message.flow, message.service)
        flow.start(sock, session.outbound(flow))

    def _connect(self, service: str) -> socket.socket:
        """Raises OSError. A full backlog is worth waiting for; a missing socket is not: nothing else will come."""
        path = self._paths.get(service)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, "this end has no such service", service)
        if service == PROBE:
            return discarding()
        deadline = time.monotonic() + DIAL_SECONDS
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.connect(path)
            except BlockingIOError:
                sock.close()
                if time.monotonic() > deadline:
                    raise
                self._stopping.wait(0.02)
            except OSError as error:
                sock.close()
                raise OSError(error.errno, f"{error.strerror}: {path}") from error
            else:
                return sock
