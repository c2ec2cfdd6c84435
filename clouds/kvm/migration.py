"""One peer-to-peer live migration, seen and steered from the source's libvirt. Knows libvirt, decides nothing.

libvirt 9 over UNIX sockets (https://libvirt.org/migration.html#migration-using-only-unix-sockets): the one path
`ram.sock` is where the source connects and where the destination's QEMU listens; `virt.sock` leads to the destination's
libvirtd. The job lives in the source's libvirtd: it goes on when the caller, or its whole process, is gone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from clouds.kvm import throttle
from clouds.kvm.connection import (
    INVALID_OPERATION,
    NO_DOMAIN,
    Connection,
    Domain,
    Session,
    code_of,
    text_of,
)
from clouds.kvm.decision import PAUSED_FOR_MIGRATION, Call, Job, in_post_copy
from clouds.kvm.errors import Final
from clouds.kvm.inventory import MIGRATION_OUT, STATES
from clouds.kvm.progress import JobSample
from models.host import VmState
from models.migration import MigrationPolicy, VmRef, may_switch

logger = logging.getLogger(__name__)

# libvirt's virDomainMigrateFlags.
LIVE, PEER2PEER, PERSIST_DEST, UNDEFINE_SOURCE, PAUSED, ABORT_ON_ERROR = 1, 2, 8, 16, 32, 4096
NON_SHARED_DISK, AUTO_CONVERGE, POSTCOPY, POSTCOPY_RESUME = 1 << 6, 1 << 13, 1 << 15, 1 << 19
EVENT_LIFECYCLE, EVENT_MIGRATION_ITERATION, EVENT_JOB_COMPLETED = 0, 20, 21
SUSPENDED, RESUMED = 3, 4
"""libvirt's lifecycle events of a guest that stands still, and runs again."""
UNBOUNDED_MIB = (2**63 - 1) >> 20
"""What libvirt itself tells QEMU when nothing bounds a migration (QEMU_DOMAIN_MIG_BANDWIDTH_MAX)."""


@dataclass(frozen=True)
class Departing:
    """What libvirt is to be told of one move."""

    vm: VmRef
    folder: Path
    policy: MigrationPolicy
    copies: tuple[str, ...] = ()
    """Disks whose images are copied too."""
    resume: bool = False
    """Go on with a post-copy that broke off. Its disks have all been copied before the VM switched."""
    downtime_ms: int | None = None
    """What the planned pause may be at first; None: as much as the policy allows."""


def flags(persistent: bool, wanted: Departing, throttle: bool = False) -> int:
    """ABORT_ON_ERROR: a guest that stops on a disk error must not arrive paused and be called moved.

    PAUSED: the VM does not run at the destination until somebody lets it (`clouds.kvm.switch`). Not with post-copy,
    which starts it there while its source is still needed.
    A persistent VM keeps exactly one definition, and it goes with the VM. No TUNNELLED (the data path protects and
    resumes better), and never PARALLEL: QEMU 7.2 loses the guest when it meets POSTCOPY.
    """
    chosen = LIVE | PEER2PEER | ABORT_ON_ERROR
    chosen |= (PERSIST_DEST | UNDEFINE_SOURCE) if persistent else 0
    if wanted.resume:
        return chosen | POSTCOPY | POSTCOPY_RESUME
    chosen |= POSTCOPY if may_switch(wanted.policy) else PAUSED
    chosen |= AUTO_CONVERGE if throttle else 0
    return chosen | (NON_SHARED_DISK if wanted.copies else 0)


def destination_uri(folder: Path) -> str:
    return f"qemu+unix:///system?socket={folder}/virt.sock"


def parameters(wanted: Departing) -> dict[str, Any]:
    given: dict[str, Any] = {"migrate_uri": f"unix://{wanted.folder}/ram.sock"}
    if wanted.policy.bandwidth_mib:
        given["bandwidth"] = wanted.policy.bandwidth_mib
        if may_switch(wanted.policy):
            given["bandwidth.postcopy"] = wanted.policy.bandwidth_mib
    if wanted.copies and not wanted.resume:
        given |= {"disks_uri": f"unix://{wanted.folder}/nbd.sock", "migrate_disks": list(wanted.copies)}
    return given


class MigrateCall:
    """libvirt's blocking migrate call, in a thread and on a connection of its own.

    The thread is a daemon on purpose: a worker that stops does not wait for it, as the job does not need it.
    """

    def __init__(self, session: Session, wanted: Departing) -> None:
        self._session = session
        self._wanted = wanted
        self.state: Call = "waiting"
        self.error = ""
        """libvirt's words when the state is `failed`."""
        self.on_end: Callable[[], None] = lambda: None

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"migrate {self._wanted.vm.vm}", daemon=True).start()

    def _run(self) -> None:
        try:
            with self._session as session:
                domain = session.get(self._wanted.vm)
                session.call(f"migrate VM {self._wanted.vm.vm}", lambda _: self._migrate(domain))
            self.state = "succeeded"
        except Exception as error:
            # Told to whoever watches: what it means depends on where the VM is, and only the watcher looks there.
            self.error = text_of(error.__cause__ or error)
            self.state = "failed"
        self.on_end()

    def _migrate(self, domain: Domain) -> None:
        wanted, armed = self._wanted, False
        if not wanted.resume:  # the pause has been
            domain.migrateSetMaxDowntime(wanted.downtime_ms or wanted.policy.max_downtime_ms)
            if wanted.policy.max_slowdown:
                objection = throttle.arm(domain)
                armed = not objection
                if objection:
                    logger.warning("%s: it will not be throttled: %s", wanted.vm.vm, objection)
        chosen = flags(bool(domain.isPersistent()), wanted, armed)
        domain.migrateToURI3(destination_uri(wanted.folder), parameters(wanted), chosen)


@dataclass(frozen=True)
class Sight:
    """The VM and its job at one moment; `state` None: libvirt answered that it is not here."""

    state: VmState | None
    reason: int = 0
    job: Job = "none"
    sample: JobSample | None = None

    @property
    def post_copy(self) -> bool:
        return in_post_copy(self.state, self.reason)


@dataclass(frozen=True)
class Completed:
    """libvirt's final figures of a completed migration."""

    downtime_ms: int
    memory_total: int
    iterations: int
    seconds: float
    disk_total: int = 0


class Departure:
    """The source's libvirt while one VM moves away: look at it, abort it, and hear how it completed."""

    def __init__(self, session_of: Callable[[Callable[[Connection], None]], Session], vm: VmRef) -> None:
        """`session_of` makes a session that calls its argument with every connection it opens."""
        self._session = session_of(self._listen)
        self._vm = vm
        self.completed: Completed | None = None
        self.on_completed: Callable[[], None] = lambda: None
        self.on_pass: Callable[[], None] = lambda: None
        """A new pass over the memory has begun."""
        self.on_suspended: Callable[[], None] = lambda: None
        """The guest stands still here."""
        self.on_resumed: Callable[[], None] = lambda: None
        """It runs again here."""

    def __enter__(self) -> Departure:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)

    def look(self, held: bool = False) -> Sight:
        """Raises HostUnavailable when libvirtd does not answer. `held`: nothing crosses the link; then QEMU may be
        stuck in the switch, and a guest seen paused is not asked for figures, which would wait for that."""
        domain = self._session.find(self._vm)
        if domain is None:
            return Sight(None)
        try:
            return self._session.call(f"look at VM {self._vm.vm}", lambda _: _sight(domain, held))
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

    def start_post_copy(self) -> str:
        """Let the VM switch to the destination before all of its memory is across; libvirt's objection, or nothing.
        It objects until it has begun to send memory: ask again."""
        return self._tell("start post-copy of", lambda domain: domain.migrateStartPostCopy(0))

    def set_downtime(self, milliseconds: int) -> str:
        """How long the final pause may be, from now on; libvirt's objection, or nothing."""
        return self._tell("set the downtime of", lambda domain: domain.migrateSetMaxDowntime(milliseconds))

    def set_bandwidth(self, mib: int) -> str:
        """MiB/s of guest memory that are read, from now on; 0 is no bound."""
        return self._tell("bound the migration of", lambda domain: domain.migrateSetMaxSpeed(mib or UNBOUNDED_MIB))

    def throttle(self, percent: int) -> str:
        """Up to so much of the guest's CPU time is taken while it moves."""
        return throttle.bound(self._session.get(self._vm), percent)

    def unthrottle(self) -> str:
        """For a VM that has stayed: see clouds.kvm.throttle."""
        domain = self._session.find(self._vm)
        return throttle.disarm(domain) if domain is not None else ""

    def pause(self) -> str:
        """Let the guest stand still until it has arrived. It runs again at the destination as any that has arrived;
        and libvirt lets it run here when the migration fails or is aborted, also one that was killed meanwhile."""
        return self._tell("pause", lambda domain: domain.suspend())

    def _tell(self, what: str, order: Callable[[Domain], object]) -> str:
        domain = self._session.get(self._vm)
        try:
            self._session.call(f"{what} VM {self._vm.vm}", lambda _: order(domain))
        except Final as error:
            if not code_of(error):
                raise
            return text_of(error.__cause__ or error)
        return ""

    def _listen(self, connection: Connection) -> None:
        connection.domainEventRegisterAny(None, EVENT_JOB_COMPLETED, self._on_job_completed, None)
        connection.domainEventRegisterAny(None, EVENT_MIGRATION_ITERATION, self._on_iteration, None)
        connection.domainEventRegisterAny(None, EVENT_LIFECYCLE, self._on_lifecycle, None)

    def _is_ours(self, domain: Domain) -> bool:
        return domain.UUIDString() == self._vm.uuid if self._vm.uuid else domain.name() == self._vm.vm

    def _on_iteration(self, _connection: Connection, domain: Domain, _iteration: int, _opaque: object) -> None:
        if self._is_ours(domain):
            self.on_pass()

    def _on_lifecycle(self, _connection: Connection, domain: Domain, event: int, _detail: int, _opaque: object) -> None:
        if event in (SUSPENDED, RESUMED) and self._is_ours(domain):
            (self.on_suspended if event == SUSPENDED else self.on_resumed)()

    def _on_job_completed(
        self, _connection: Connection, domain: Domain, stats: dict[str, Any], _opaque: object
    ) -> None:
        if self._is_ours(domain) and stats.get("operation") == MIGRATION_OUT:
            self.completed = Completed(
                downtime_ms=int(stats.get("downtime", 0)),
                memory_total=int(stats.get("memory_total", 0)),
                iterations=int(stats.get("memory_iteration", 0)),
                seconds=stats.get("time_elapsed", 0) / 1000,
                disk_total=int(stats.get("disk_total", 0)),
            )
            self.on_completed()


def _sight(domain: Domain, held: bool) -> Sight:
    number, reason = domain.state()[:2]
    state = STATES[number] if number < len(STATES) else "unknown"
    if state in ("shutoff", "crashed"):
        return Sight(state, reason)
    if held and state == "paused" and reason == PAUSED_FOR_MIGRATION:
        return Sight(state, reason, "migration")
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
