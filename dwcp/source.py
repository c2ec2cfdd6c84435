"""The source's rim: it listens on the services' UNIX sockets, numbers what it accepts, and has lanes dialled.

A socket gets the owner and group of its folder and mode 0660: whoever makes the folder decides who may connect. That
must not be everybody, as the other end of these sockets is the peer's libvirt and QEMU.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from pathlib import Path

from dwcp.dialler import Dialler
from dwcp.errors import DwcpError, StartFailed
from dwcp.session import Session
from dwcp.transport.frames import Reset

log = logging.getLogger(__name__)


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
        self._listeners: list[tuple[socket.socket, str, str]] = []
        self._waker, self._wake = socket.socketpair()
        self._stopping = threading.Event()
        self._dialler = Dialler(session, self._stopping, self._run)
        try:
            for service in self._config.services:
                self._listeners.append((listen_unix(service.path, 0o660), service.path, service.name))
        except StartFailed:
            self.close()
            raise

    def start(self) -> None:
        for name, work in (("accept", self._accept), ("control flow", self._control_flow)):
            threading.Thread(target=self._run, args=(work, ()), name=name, daemon=True).start()
        self._dialler.start()

    def tick(self, now: float) -> None:
        """The keeper's part."""
        if self._session.ended:
            self.close()
        else:
            self._dialler.tick(now)

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
