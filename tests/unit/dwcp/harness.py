"""Parts for tests of two data path ends: certificates, short folders, a TCP wire that can be cut, local programs."""

from __future__ import annotations

import datetime
import os
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dwcp import control, process
from dwcp.__main__ import Keeper
from models.datapath import DataPathConfig, DataPathStatus, Service, TlsFiles

DEADLINE = 20.0


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.path = folder / "ca.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(days=1),
            not_valid_after=now + datetime.timedelta(days=2),
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, host: str) -> TlsFiles:
        """Certificate and key of one host."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]),
            key,
            x509.SubjectAlternativeName([x509.DNSName(host)]),
        )
        own, secret = self.folder / f"{host}.pem", self.folder / f"{host}.key"
        own.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return TlsFiles(certificate=str(own), key=str(secret), authority=str(self.path))


class Wire:
    """A TCP relay between the ends. `cut` breaks connections, `stall` holds bytes back, `refuse` takes no new ones."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._stalled: set[socket.socket] = set()
        self.refusing = False
        self.carried = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._pairs.append((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    def _relay(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while part := one.recv(65536):
                self._flowing.wait()
                while one in self._stalled or other in self._stalled:
                    time.sleep(0.01)
                self.carried += len(part)
                other.sendall(part)
        except OSError:
            pass
        for sock in (one, other):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def connections(self) -> int:
        with self._lock:
            return len(self._pairs)

    def cut(self, *which: int) -> None:
        """Break the connections of these places in order of arrival; all without an argument."""
        with self._lock:
            for place in which or range(len(self._pairs)):
                for sock in self._pairs[place]:
                    try:
                        sock.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        continue

    def lose(self) -> None:
        """The link is gone: nothing passes, nobody is told, new connections go nowhere."""
        self.refusing = True
        self._flowing.clear()

    def heal(self) -> None:
        self.refusing = False
        self._flowing.set()

    def stall(self, place: int) -> None:
        """One connection turns into a black hole."""
        with self._lock:
            self._stalled.add(self._pairs[place][0])

    def close(self) -> None:
        self._listener.close()
        self._flowing.set()
        self._stalled.clear()
        self.cut()


class Server:
    """A local program at the destination: accepts connections, and runs `behaviour` on each in a thread."""

    def __init__(self, path: Path, behaviour: Callable[[int, socket.socket], None]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._behaviour = behaviour
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted.append(sock)
            threading.Thread(target=self._behaviour, args=(len(self.accepted) - 1, sock), daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for sock in self.accepted:
            sock.close()


def read_all(sock: socket.socket) -> bytes:
    """To the end of file."""
    sock.settimeout(DEADLINE * 3)
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def send_all(sock: socket.socket, data: bytes) -> None:
    """`data`, then the end of file."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def until(what: str, condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """The condition's first true value; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen within {seconds} s: {what}"
        time.sleep(0.02)
    return value


def hung_up(sock: socket.socket, seconds: float = DEADLINE) -> bool:
    """Whether the other end of `sock` has gone altogether within `seconds`."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(int(seconds * 1000)))


class Pair:
    """Two ends under /tmp, with or without a wire between them: threads of this process, or real processes."""

    def __init__(
        self, authority: Authority, services: tuple[str, ...] = ("ram", "virt", "nbd"), *, processes: bool = False
    ) -> None:
        self.processes = processes
        self.root = Path(tempfile.mkdtemp(prefix="dw"))
        self.source, self.destination = self.root / "s", self.root / "d"
        self.authority = authority
        self.services = services
        self.tls = {"source": authority.issue("host-a"), "destination": authority.issue("host-b")}
        self.wire: Wire | None = None
        for folder in (self.source, self.destination):
            folder.mkdir()

    def path(self, service: str) -> Path:
        """Where the destination's program listens."""
        return self.destination / f"{service}.sock"

    def config(self, role: str, **changes: Any) -> DataPathConfig:
        folder = self.source if role == "source" else self.destination
        values: dict[str, Any] = {
            "role": role,
            "migration_id": "m-1",
            "peer_name": "host-b" if role == "source" else "host-a",
            "address": "127.0.0.1",
            "services": tuple(Service(name=n, path=str(folder / f"{n}.sock")) for n in self.services),
            "tls": self.tls[role],
            # below the kernel's range for outgoing connections: one of those could hold a port that is reused
            "port_range": (20000, 29999),
            "resume_within": 30,
            "open_within": 20,
            "linger": 20,
            "lifetime": 120,
            "page_memory_mib": 32,
        }
        return DataPathConfig(**{**values, **changes})

    def start_destination(self, **changes: Any) -> DataPathStatus:
        return self._launch(self.config("destination", **changes), self.destination)

    def start_source(self, port: int, **changes: Any) -> DataPathStatus:
        return self._launch(self.config("source", port=port, **changes), self.source)

    def _launch(self, config: DataPathConfig, folder: Path) -> DataPathStatus:
        if self.processes:
            return process.spawn(config, folder)
        path = folder / control.CONFIG
        path.write_text(config.model_dump_json())
        lock = control.lock_config(path)
        keeper = Keeper(config, folder)

        def run() -> None:
            try:
                keeper.run()
            finally:
                os.close(lock)

        threading.Thread(target=run, name=f"keeper {config.role}", daemon=True).start()
        return control.status(folder)

    def start(self, *, wire: bool = False, both: dict[str, Any] | None = None, **source: Any) -> None:
        """Both ends, connected."""
        both = both or {}
        port = self.start_destination(**both).port
        if wire:
            self.wire = Wire(port)
            port = self.wire.port
        self.start_source(port, **{**both, **source})
        for folder in (self.source, self.destination):
            self.wait_state(folder, "connected")

    def wait_state(self, folder: Path, state: str, seconds: float = DEADLINE) -> DataPathStatus:
        def reached() -> DataPathStatus | None:
            status = control.status(folder)
            return status if status.state == state else None

        found = until(f"{folder.name} is {state}", reached, seconds)
        assert isinstance(found, DataPathStatus)
        return found

    def wait_end(self, folder: Path) -> None:
        until(f"{folder} ends", lambda: not control.is_running(folder))

    def connect(self, service: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE * 3)
        sock.connect(str(self.source / f"{service}.sock"))
        return sock

    def status(self) -> tuple[DataPathStatus, DataPathStatus]:
        return control.status(self.source), control.status(self.destination)

    def close(self) -> None:
        if self.wire:
            self.wire.close()
        for folder in (self.source, self.destination):
            if control.is_running(folder):
                control.stop(folder)
        shutil.rmtree(self.root)


@contextmanager
def pair(authority: Authority, **options: Any) -> Iterator[Pair]:
    ends = Pair(authority, **options)
    try:
        yield ends
    finally:
        ends.close()
