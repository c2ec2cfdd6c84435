"""One peer-to-peer live migration, seen and steered from the source's libvirt. Knows libvirt, decides nothing.

libvirt 9 over UNIX sockets (https://libvirt.org/migration.html#migration-using-only-unix-sockets): the one path
`ram.sock` is where the source connects and where the destination's QEMU listens; `virt.sock` leads to the destination's
libvirtd. The job lives in the source's libvirtd: it goes on when the caller, or its whole process, is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from clouds.kvm.connection import (
    INVALID_OPERATION,
    NO_DOMAIN,
    Connection,
    Domain,
    Session,
    code_of,
    text_of,
)
from clouds.kvm.decision import Call, Job
from clouds.kvm.inventory import MIGRATION_OUT, STATES
from clouds.kvm.progress import JobSample
from models.host import VmState
from models.migration import MigrationPolicy, VmRef

# libvirt's virDomainMigrateFlags.
LIVE, PEER2PEER, PERSIST_DEST, UNDEFINE_SOURCE, ABORT_ON_ERROR = 1, 2, 8, 16, 4096
EVENT_JOB_COMPLETED = 21


def flags(persistent: bool) -> int:
    """ABORT_ON_ERROR: a guest that stops on a disk error must not arrive paused and be called moved.

    A persistent VM keeps exactly one definition, and it goes with the VM. No TUNNELLED (the data path protects and
    resumes better), no PARALLEL and no POSTCOPY (QEMU 7.2 loses the guest when both are on; neither is needed).
    """
    return LIVE | PEER2PEER | ABORT_ON_ERROR | ((PERSIST_DEST | UNDEFINE_SOURCE) if persistent else 0)


def destination_uri(folder: Path) -> str:
    return f"qemu+unix:///system?socket={folder}/virt.sock"


def parameters(folder: Path, policy: MigrationPolicy) -> dict[str, Any]:
    given: dict[str, Any] = {"migrate_uri": f"unix://{folder}/ram.sock"}
    if policy.bandwidth_mib:
        given["bandwidth"] = policy.bandwidth_mib
    return given


class MigrateCall:
    """libvirt's blocking migrate call, in a thread and on a connection of its own.

    The thread is a daemon on purpose: a worker that stops does not wait for it, as the job does not need it.
    """

    def __init__(self, session: Session, vm: VmRef, folder: Path, policy: MigrationPolicy) -> None:
        self._session = session
        self._vm = vm
        self._folder = folder
        self._policy = policy
        self.state: Call = "waiting"
        self.error = ""
        """libvirt's words when the state is `failed`."""
        self.on_end: Callable[[], None] = lambda: None

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"migrate {self._vm.vm}", daemon=True).start()

    def _run(self) -> None:
        try:
            with self._session as session:
                domain = session.get(self._vm)
                session.call(f"migrate VM {self._vm.vm}", lambda _: self._migrate(domain))
            self.state = "succeeded"
        except Exception as error:
            # Told to whoever watches: what it means depends on where the VM is, and only the watcher looks there.
            self.error = text_of(error.__cause__ or error)
            self.state = "failed"
        self.on_end()

    def _migrate(self, domain: Domain) -> None:
        domain.migrateSetMaxDowntime(self._policy.max_downtime_ms)
        domain.migrateToURI3(
            destination_uri(self._folder),
            parameters(self._folder, self._policy),
            flags(bool(domain.isPersistent())),
        )


@dataclass(frozen=True)
class Sight:
    """The VM and its job at one moment; `state` None: libvirt answered that it is not here."""

    state: VmState | None
    reason: int = 0
    job: Job = "none"
    sample: JobSample | None = None


@dataclass(frozen=True)
class Completed:
    """libvirt's final figures of a completed migration."""

    downtime_ms: int
    memory_total: int
    iterations: int
    seconds: float


class Departure:
    """The source's libvirt while one VM moves away: look at it, abort it, and hear how it completed."""

    def __init__(self, session_of: Callable[[Callable[[Connection], None]], Session], vm: VmRef) -> None:
        """`session_of` makes a session that calls its argument with every connection it opens."""
        self._session = session_of(self._listen)
        self._vm = vm
        self.completed: Completed | None = None
        self.on_completed: Callable[[], None] = lambda: None

    def __enter__(self) -> Departure:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)

    def look(self) -> Sight:
        """Raises HostUnavailable when libvirtd does not answer."""
        domain = self._session.find(self._vm)
        if domain is None:
            return Sight(None)
        try:
            return self._session.call(f"look at VM {self._vm.vm}", lambda _: _sight(domain))
        except Exception as error:
            if code_of(error) == NO_DOMAIN:
                return Sight(None)
            raise

    def abort(self) -> str:
        """Ask libvirt to abort the job; what it said against it, or nothing. Look again to see what came of it."""
        domain = self._session.find(self._vm)
        if domain is None:
            return "the VM is no longer here"
        try:
            self._session.call(f"abort the migration of VM {self._vm.vm}", lambda _: domain.abortJob())
        except Exception as error:
            if code_of(error) in (NO_DOMAIN, INVALID_OPERATION):
                return text_of(error.__cause__ or error)
            raise
        return ""

    def _listen(self, connection: Connection) -> None:
        connection.domainEventRegisterAny(None, EVENT_JOB_COMPLETED, self._on_job_completed, None)

    def _on_job_completed(
        self, _connection: Connection, domain: Domain, stats: dict[str, Any], _opaque: object
    ) -> None:
        ours = domain.UUIDString() == self._vm.uuid if self._vm.uuid else domain.name() == self._vm.vm
        if ours and stats.get("operation") == MIGRATION_OUT:
            self.completed = Completed(
                downtime_ms=int(stats.get("downtime", 0)),
                memory_total=int(stats.get("memory_total", 0)),
                iterations=int(stats.get("memory_iteration", 0)),
                seconds=stats.get("time_elapsed", 0) / 1000,
            )
            self.on_completed()


def _sight(domain: Domain) -> Sight:
    number, reason = domain.state()[:2]
    state = STATES[number] if number < len(STATES) else "unknown"
    if state in ("shutoff", "crashed"):
        return Sight(state, reason)
    try:
        stats = domain.jobStats()
    except Exception as error:
        if code_of(error) == INVALID_OPERATION:  # it stopped between the two questions: the next look tells
            return Sight(state, reason)
        raise
    if not stats.get("type"):
        return Sight(state, reason)
    job: Job = "migration" if stats.get("operation") == MIGRATION_OUT else "other"
    return Sight(state, reason, job, JobSample.of(stats))
