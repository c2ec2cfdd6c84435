"""The source's rim: it listens on the services' UNIX sockets, numbers what it accepts, and dials every lane.

A socket gets the owner and group of its folder and mode 0660: whoever makes the folder decides who may connect. That
must not be everybody, as the other end of these sockets is the peer's libvirt and QEMU.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Final

from dwcp.errors import DwcpError, ProtocolError, Refused, StartFailed
from dwcp.security import tls
from dwcp.session import Session
from dwcp.transport import hello
from dwcp.transport.frames import Reset, Type
from dwcp.transport.hello import RETURN_LANE, UNKNOWN_INSTANCE, Hello, Refuse
from dwcp.transport.lane import HANDSHAKE_SECONDS, Lane, tune
from dwcp.transport.liveness import LANE_TIMEOUT

log = logging.getLogger(__name__)

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 2.0
REFUSED_FOR: Final = 15.0
"""A link that is lost does not answer. A host that answers for so long that nobody listens has lost our peer, which
listens as long as it lives; only a firewall that reloads refuses like that, and briefly."""
_ANSWERS: Final = frozenset({Type.WELCOME, Type.REFUSE})


def listen_unix(path: str, mode: int) -> socket.socket:
    """A listening UNIX socket at `path`, replacing a stale file. Raises StartFailed."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        Path(path).unlink(missing_ok=True)
        listener.bind(path)
        folder = Path(path).parent.stat()
        if os.geteuid() == 0:
            os.chown(path, folder.st_uid, folder.st_gid)
        Path(path).chmod(mode)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise StartFailed(
            f"cannot listen on {path} ({len(path.encode())} bytes): {error}; the folder must exist, "
            "be writable, and the path have at most 107 bytes"
        ) from error
    return listener


class Source:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._config = session.config
        self._tls = tls.context("source", self._config.tls)
        self._listeners: list[tuple[socket.socket, str, str]] = []
        self._waker, self._wake = socket.socketpair()
        self._stopping = threading.Event()
        self._refused_since: float | None = None
        try:
            for service in self._config.services:
                self._listeners.append((listen_unix(service.path, 0o660), service.path, service.name))
        except StartFailed:
            self.close()
            raise

    def start(self) -> None:
        numbers = [*range(self._config.lanes), RETURN_LANE]
        for name, work, args in (
            ("accept", self._accept, ()),
            ("control flow", self._control_flow, ()),
            *((f"lane {number}", self._keep_lane, (number,)) for number in numbers),
        ):
            threading.Thread(target=self._run, args=(work, args), name=name, daemon=True).start()

    def close(self) -> None:
        """Take no more connections and dial no more; leave no file. Idempotent."""
        self._stopping.set()
        self._wake.close()
        listeners, self._listeners = self._listeners, []
        for listener, path, _ in listeners:
            Path(path).unlink(missing_ok=True)
            listener.close()

    def _run(self, work: object, args: tuple[object, ...]) -> None:
        assert callable(work)
        try:
            work(*args)
        except Exception as error:  # a bug must end the session, not silently one thread
            log.exception("source")
            self._session.fail(f"source: {type(error).__name__}: {error}")

    # --- local connections ---

    def _accept(self) -> None:
        """Accept order is the order of OPEN frames, which is the order of dialling at the other end."""
        services = {listener.fileno(): (listener, name) for listener, _, name in self._listeners}
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        for number in services:
            poll.register(number, select.POLLIN)
        while not self._stopping.is_set():
            for number, _ in poll.poll():
                if self._stopping.is_set() or number not in services:
                    break
                listener, name = services[number]
                try:
                    sock, _ = listener.accept()
                except OSError as error:
                    if self._stopping.is_set():
                        break
                    raise DwcpError(f"cannot accept on service {name}: {error}") from error
                self._take(sock, name)
        self._waker.close()

    def _take(self, sock: socket.socket, service: str) -> None:
        flow = self._session.new_flow(service)
        if flow is None:
            log.error("a connection to service %s was closed: the session has no flow left for it", service)
            sock.close()
            return
        log.info("flow %d: service %s accepted", flow.number, service)
        flow.start(sock, self._session.outbound(flow))

    def _control_flow(self) -> None:
        while (message := self._session.control_message()) is not None:
            if isinstance(message, Reset):
                self._session.apply_reset(message)
            self._session.control_done()

    # --- lanes ---

    def _keep_lane(self, number: int) -> None:
        """Dial, carry, dial again, until the session is over."""
        session = self._session
        wait = FIRST_WAIT
        opened_before = False
        while not session.ended:
            try:
                lane = self._dial(number)
            except (ssl.SSLCertVerificationError, Refused) as error:
                self._turned_away(number, error)
            except (OSError, ProtocolError) as error:
                session.trouble = f"lane {number} to {self._config.address} port {self._config.port}: {error}"
                log.info("%s", session.trouble)
                self._nobody_there(isinstance(error, ConnectionRefusedError))
            else:
                self._refused_since = None
                if opened_before:
                    session.redials += 1
                opened_before, wait = True, FIRST_WAIT
                session.carry(lane)
            self._stopping.wait(wait)
            wait = min(LONGEST_WAIT, wait * 2)

    def _turned_away(self, number: int, error: Exception) -> None:
        """Trying again cannot help before the first welcome. Later a wrong certificate may be a wrong route."""
        text = f"{self._config.peer_name} at {self._config.address} port {self._config.port}: {error}"
        if isinstance(error, Refused) or self._session.peer_instance is None:
            self._session.fail(text)
        else:
            self._session.trouble = f"lane {number}: {text}"
            log.error("%s", self._session.trouble)

    def _nobody_there(self, refused: bool) -> None:
        """Give up when every dial has been refused for REFUSED_FOR, instead of waiting for a link that is not lost."""
        now = time.monotonic()
        if not refused or self._session.lanes_alive or self._session.peer_instance is None:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since > REFUSED_FOR:
            where = f"{self._config.address} port {self._config.port}"
            self._session.fail(
                f"the data path of {self._config.peer_name} has ended: nobody listens at {where} any more"
            )

    def _dial(self, number: int) -> Lane:
        """Raises OSError (ssl errors are), ProtocolError, Refused."""
        config, session = self._config, self._session
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(
                socket.create_connection((config.address, config.port), timeout=HANDSHAKE_SECONDS)
            )
            tune(sock)
            secured = undo.enter_context(self._tls.wrap_socket(sock, server_hostname=config.peer_name))
            secured.settimeout(HANDSHAKE_SECONDS)
            lane = Lane(secured, session.pool, number)
            lane.send(
                hello.encode_hello(
                    Hello(
                        config.migration_id,
                        config.owner_token,
                        session.instance,
                        session.peer_instance or UNKNOWN_INSTANCE,
                        number,
                        config.lanes,
                        session.offers,
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
