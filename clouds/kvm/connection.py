"""One libvirt connection per piece of work, with libvirt's errors told in our words.

A `Session` belongs to one thread. That is not style: libvirt 9.0 delivers replies late (seconds, until the next
keepalive ping) when one thread waits in a long call and others use the same connection, so a move's long call and the
questions about it have a connection each. Opening one over the UNIX socket costs milliseconds.

libvirt is imported here and only on first use; the process-wide event loop, which keepalive and events need, is
started once, before the first connection.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar

from clouds.kvm.errors import Final, HostUnavailable, KvmError, NotFound
from models.migration import VmRef

T = TypeVar("T")

KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 5, 3
"""A libvirtd that answers no ping for 5 x (3 + 1) s is taken for dead, and calls that wait for it end."""


class Domain(Protocol):
    """The calls of libvirt's virDomain that this package uses: what a fake has to offer."""

    def name(self) -> str: ...
    def UUIDString(self) -> str: ...
    def state(self) -> list[int]: ...
    def info(self) -> list[int]: ...
    def isPersistent(self) -> int: ...
    def XMLDesc(self, flags: int = 0) -> str: ...
    def jobStats(self, flags: int = 0) -> dict[str, Any]: ...
    def abortJob(self) -> int: ...
    def destroy(self) -> int: ...
    def undefineFlags(self, flags: int = 0) -> int: ...
    def shutdown(self) -> int: ...
    def blockInfo(self, path: str, flags: int = 0) -> list[int]: ...
    def migrateStartPostCopy(self, flags: int = 0) -> int: ...
    def metadata(self, type: int, uri: str | None, flags: int = 0) -> str: ...
    def setMetadata(self, type: int, metadata: str | None, key: str | None, uri: str, flags: int = 0) -> int: ...
    def snapshotNum(self, flags: int = 0) -> int: ...
    def startDirtyRateCalc(self, seconds: int, flags: int = 0) -> int: ...
    def migrateSetMaxDowntime(self, downtime: int, flags: int = 0) -> int: ...
    def migrateSetMaxSpeed(self, bandwidth: int, flags: int = 0) -> int: ...
    def suspend(self) -> int: ...
    def resume(self) -> int: ...
    def migrateToURI3(self, dconnuri: str, params: dict[str, Any], flags: int = 0) -> int: ...
    def backupBegin(self, backupXML: str, checkpointXML: str | None, flags: int = 0) -> int: ...
    def backupGetXMLDesc(self, flags: int = 0) -> str: ...
    def listAllCheckpoints(self, flags: int = 0) -> list[Checkpoint]: ...
    def autostart(self) -> int: ...
    def setAutostart(self, autostart: int) -> int: ...
    def create(self) -> int: ...
    def destroyFlags(self, flags: int = 0) -> int: ...


class Checkpoint(Protocol):
    """The calls of libvirt's virDomainCheckpoint that this package uses."""

    def getName(self) -> str: ...
    def delete(self, flags: int = 0) -> int: ...


class Network(Protocol):
    """The calls of libvirt's virNetwork that this package uses."""

    def name(self) -> str: ...
    def isActive(self) -> int: ...


class Connection(Protocol):
    """The calls of libvirt's virConnect that this package uses."""

    def isAlive(self) -> int: ...
    def close(self) -> int: ...
    def setKeepAlive(self, interval: int, count: int) -> int: ...
    def getCapabilities(self) -> str: ...
    def getLibVersion(self) -> int: ...
    def getVersion(self) -> int: ...
    def getInfo(self) -> list[Any]: ...
    def getDomainCapabilities(
        self, emulator: str | None, arch: str, machine: str, virttype: str, flags: int
    ) -> str: ...
    def compareHypervisorCPU(
        self, emulator: str | None, arch: str, machine: str, virttype: str, xml: str, flags: int
    ) -> int: ...
    def listAllDomains(self, flags: int = 0) -> list[Domain]: ...
    def listAllNetworks(self, flags: int = 0) -> list[Network]: ...
    def domainListGetStats(
        self, doms: list[Domain], stats: int = 0, flags: int = 0
    ) -> list[tuple[Domain, dict[str, Any]]]: ...
    def lookupByName(self, name: str) -> Domain: ...
    def defineXML(self, xml: str) -> Domain: ...
    def lookupByUUIDString(self, uuid: str) -> Domain: ...
    def domainEventRegisterAny(
        self, dom: Domain | None, event: int, callback: Callable[..., None], opaque: object
    ) -> int: ...


def libvirt() -> Any:
    """The libvirt module, with its event loop running."""
    try:
        import libvirt as module
    except ImportError as error:
        raise Final(
            f"this host's Python has no libvirt binding ({error})",
            "Install novacron[kvm] (needs libvirt-dev, pkg-config and a compiler).",
        ) from error
    _start_event_loop(module)
    return module


def ask_qemu(domain: Domain, command: str) -> str:
    """QEMU's answer to one QMP command, as JSON text."""
    libvirt()
    return str(importlib.import_module("libvirt_qemu").qemuMonitorCommand(domain, command, 0))


_event_loop_lock = threading.Lock()
_event_loop: threading.Thread | None = None


def _start_event_loop(module: Any) -> None:
    global _event_loop
    with _event_loop_lock:
        if _event_loop is not None:
            return
        module.virEventRegisterDefaultImpl()
        module.registerErrorHandler(lambda _context, _error: None, None)  # it would print every error to stderr

        def run() -> None:
            while True:
                module.virEventRunDefaultImpl()

        _event_loop = threading.Thread(target=run, name="libvirt-events", daemon=True)
        _event_loop.start()


class Session:
    """A connection to one libvirtd, opened on first use and again after it died. Use it from one thread.

    `on_open` is called with every new connection: the place to register for events.
    """

    def __init__(
        self,
        socket: str,
        on_open: Callable[[Connection], None] | None = None,
        opener: Callable[[str], Connection] | None = None,
    ) -> None:
        self.socket = socket
        self._on_open = on_open
        self._opener = opener or _open
        self._connection: Connection | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _close(connection)

    def call(self, what: str, question: Callable[[Connection], T]) -> T:
        """`question(connection)`, with libvirt's error raised as ours. `what` names the act for the message."""
        try:
            return question(self._alive())
        except Exception as error:
            raise translate(error, what) from error

    def find(self, vm: VmRef) -> Domain | None:
        """The VM, by its uuid when that is known, else by name; None only when libvirtd says it has none."""
        try:
            return self.call(f"look up VM {vm.vm}", lambda connection: _lookup(connection, vm))
        except NotFound:
            return None

    def get(self, vm: VmRef) -> Domain:
        """The VM; raises NotFound."""
        domain = self.find(vm)
        if domain is None:
            raise NotFound(
                f"VM {vm.vm}{f' ({vm.uuid})' if vm.uuid else ''} is not on this host",
                "Check the name, and which host runs it (novacron vm list).",
            )
        return domain

    def _alive(self) -> Connection:
        if self._connection is not None and not self._connection.isAlive():
            dead, self._connection = self._connection, None
            _close(dead)
        if self._connection is None:
            connection = self._opener(self.socket)
            if self._on_open:
                self._on_open(connection)
            self._connection = connection
        return self._connection


def _open(socket: str) -> Connection:
    connection: Connection = libvirt().open(f"qemu+unix:///system?socket={socket}")
    connection.setKeepAlive(KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
    return connection


def _close(connection: Connection) -> None:
    """Closing a connection that is already dead reports an error that tells nobody anything new."""
    try:
        connection.close()
    except Exception as error:
        if not _is_libvirt_error(error):
            raise


def _lookup(connection: Connection, vm: VmRef) -> Domain:
    return connection.lookupByUUIDString(vm.uuid) if vm.uuid else connection.lookupByName(vm.vm)


def _is_libvirt_error(error: BaseException) -> bool:
    return type(error).__name__ == "libvirtError"


# Numbers of libvirt's virterror.h that change what a caller should do; every other error is final as it stands.
NO_DOMAIN, INVALID_OPERATION, UNSUPPORTED, LOCK_TIMEOUT = 42, 55, 84, 68
_CLIENT_SIDE = {7, 13}
"""Error domains RPC and REMOTE: libvirt's own client could not reach its daemon."""


def code_of(error: BaseException) -> int:
    """libvirt's error number of a libvirtError or of one of our errors made from it; 0 when there is none."""
    cause = error.__cause__ if isinstance(error, KvmError) else error
    return int(cause.get_error_code() or 0) if cause and _is_libvirt_error(cause) else 0  # type: ignore[attr-defined]  # libvirt has no types


def text_of(error: BaseException) -> str:
    """libvirt's own message, or the exception's."""
    return str(error.get_error_message()) if _is_libvirt_error(error) else str(error)  # type: ignore[attr-defined]  # libvirt has no types


def translate(error: Exception, what: str) -> Exception:
    """Our error for libvirt's; any other exception is a bug and passes unchanged."""
    if not _is_libvirt_error(error):
        return error
    code, said = code_of(error), f"cannot {what}: {text_of(error)}"
    if code == NO_DOMAIN:
        return NotFound(said, "Check the name, and which host runs it (novacron vm list).")
    if error.get_error_domain() in _CLIENT_SIDE:  # type: ignore[attr-defined]  # libvirt has no types
        return HostUnavailable(said, "Check that libvirtd runs on this host and its socket can be opened.")
    if code == LOCK_TIMEOUT:
        return HostUnavailable(said, "Another libvirt job holds the VM; it is asked again.")
    return Final(said, "libvirtd's log on this host has the details.")
