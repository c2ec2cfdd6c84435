"""What breaks. Each fault has up to five moments: `arm` before the move starts, `strike` in the phase that was met,
`heal` once that phase is let go, `restore` when the move has ended (also after a failure: it must always be safe).
`clear` comes last of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import WorkflowAlreadyStartedError

from models import ids
from models.migration import MigrationOutcome
from tests.chaos import clock
from tests.chaos.ground import HOSTS, LEASES, LINK, Ground
from tests.chaos.phases import Meeting, Phase, by_sdk
from tests.integration.scene import GUEST, SITE, Handle, break_one_stream
from workers.lab.certificates import Authority
from workers.lab.errors import run
from workers.lab.link import LinkSpec
from workers.lab.processes import identify, send, wait_gone
from workers.lab.settings import SCRATCH_FOLDER, STATE_DIR

OPEN: tuple[Phase, ...] = ("checking", "preparing", "early", "middle")
"""Phases in which a cancel is obeyed."""


class Fault:
    ends_the_guest: tuple[Phase, ...] = ()
    """Phases in which this takes the guest's own life: the documented stop."""
    recoveries = 1
    """How many recoveries are started at once where one is needed."""
    scratch = 0
    """MiB of a disk of its own that the guest needs for this."""

    async def arm(self, meeting: Meeting) -> None:
        """Before the move starts."""

    async def begin(self, meeting: Meeting) -> Handle:
        """Start the move."""
        return await by_sdk(meeting)

    async def strike(self, meeting: Meeting) -> None:
        """In the phase."""

    async def heal(self, meeting: Meeting) -> None:
        """The fault ends, after the phase was let go."""

    async def restore(self, ground: Ground) -> None:
        """Whatever happened, end the fault: the recovery and the judgement come after it."""

    async def clear(self, ground: Ground) -> None:
        """After the judgement: take away what the fault itself was made of."""


class PartKilled(Fault):
    """kill -9 of one part of the lab, which is started again a moment later."""

    def __init__(self, part: str) -> None:
        self._part = part

    def _name(self, meeting: Meeting) -> str:
        end, _, kind = self._part.partition(" ")
        return f"{meeting.side(end)}.{kind}" if kind else self._part

    async def strike(self, meeting: Meeting) -> None:
        await meeting.ground.kill(self._name(meeting))

    async def heal(self, meeting: Meeting) -> None:
        await asyncio.sleep(meeting.chance.uniform(0, 2))  # the case itself: how long it is away
        await meeting.ground.start(self._name(meeting))


class DataPathKilled(Fault):
    def __init__(self, end: str) -> None:
        self._end = end

    async def strike(self, meeting: Meeting) -> None:
        if meeting.phase == "post-copy":
            await meeting.ground.scene.beats()
        meeting.ground.scene.kill_data_path(meeting.side(self._end))


class QemuKilled(Fault):
    """At the source this is the guest's own death until the destination has all of it; at the destination, from the
    moment it runs there."""

    def __init__(self, end: str) -> None:
        self._end = end
        own: tuple[Phase, ...] = (*OPEN, "switching", "post-copy", "idle")
        self.ends_the_guest = own if end == "source" else ("post-copy", "confirming", "cleaning")

    async def strike(self, meeting: Meeting) -> None:
        await meeting.ground.kill(f"{meeting.side(self._end)}.qemu.{GUEST}")


class LinkCut(Fault):
    """Every frame is dropped for a while, once or again and again; carrier and addresses stay."""

    def __init__(self, times: int, seconds: float) -> None:
        self._times, self._seconds = times, seconds

    async def heal(self, meeting: Meeting) -> None:
        lab = meeting.ground.lab
        for _ in range(self._times):
            await asyncio.to_thread(lab.cut)
            await asyncio.sleep(self._seconds * meeting.chance.uniform(0.7, 1.3))  # the case itself
            await asyncio.to_thread(lab.heal)
            await asyncio.sleep(meeting.chance.uniform(0.2, 1.0))

    async def restore(self, ground: Ground) -> None:
        await asyncio.to_thread(ground.lab.heal)


class LinkWorse(Fault):
    """The link gets slow, far or lossy, and better again after a while."""

    def __init__(self, spec: LinkSpec, seconds: float = 6) -> None:
        self._spec, self._seconds = spec, seconds

    async def strike(self, meeting: Meeting) -> None:
        await asyncio.to_thread(meeting.ground.lab.link, self._spec)

    async def heal(self, meeting: Meeting) -> None:
        await asyncio.sleep(self._seconds * meeting.chance.uniform(0.7, 1.3))  # the case itself
        await asyncio.to_thread(meeting.ground.lab.link, LINK)

    async def restore(self, ground: Ground) -> None:
        await asyncio.to_thread(ground.lab.link, LINK)


class DiskFull(Fault):
    """A small file system of the host's own at one folder, filled to its last block."""

    def __init__(self, end: str, folder: Callable[[Ground, str], str], at_start: bool, scratch: int = 0) -> None:
        self._end, self._folder, self._at_start, self.scratch = end, folder, at_start, scratch
        self._mounted: tuple[str, str] | None = None

    async def arm(self, meeting: Meeting) -> None:
        host = meeting.side(self._end)
        folder = self._folder(meeting.ground, host)
        inside = meeting.ground.inside(host, folder)
        inside.mkdir(parents=True, exist_ok=True)
        # Emptied again, it has to pass the check for room before a move
        mount = ("mount", "-t", "tmpfs", "-o", "size=24m", "chaos", folder)
        await asyncio.to_thread(_in_mounts, meeting.ground, host, *mount)
        self._mounted = host, folder
        if self._at_start:
            self._fill(meeting.ground)

    async def strike(self, meeting: Meeting) -> None:
        self._fill(meeting.ground)

    def _fill(self, ground: Ground) -> None:
        assert self._mounted is not None
        ballast = ground.inside(*self._mounted) / "ballast"
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass

    async def restore(self, ground: Ground) -> None:
        if self._mounted is None:
            return
        (ground.inside(*self._mounted) / "ballast").unlink(missing_ok=True)

    async def clear(self, ground: Ground) -> None:
        if self._mounted is not None:
            host, folder = self._mounted
            self._mounted = None
            await asyncio.to_thread(_in_mounts, ground, host, "umount", "-l", folder)


def state_folder(ground: Ground, host: str) -> str:
    return STATE_DIR


def store_folder(ground: Ground, host: str) -> str:
    return str(ground.lab.settings.host(host) / "store")


def image_folder(ground: Ground, host: str) -> str:
    return SCRATCH_FOLDER


class ClockJump(Fault):
    """A worker's wall clock, and that of all it starts, jumps in mid move (a shim in the process: clock.c)."""

    def __init__(self, part: str, seconds: int) -> None:
        self._part, self._seconds = part, seconds
        self._worker = ""

    async def arm(self, meeting: Meeting) -> None:
        end, _, kind = self._part.partition(" ")
        self._worker = f"{meeting.side(end)}.{kind}" if kind else self._part
        clock.set_offset(meeting.ground.lab.settings.folder, 0)
        await asyncio.to_thread(meeting.ground.lab.stop, self._worker)
        with clock.preloaded(meeting.ground.lab.settings.folder):
            await meeting.ground.start(self._worker)

    async def strike(self, meeting: Meeting) -> None:
        clock.set_offset(meeting.ground.lab.settings.folder, self._seconds)

    async def restore(self, ground: Ground) -> None:
        if self._worker:
            await asyncio.to_thread(ground.lab.stop, self._worker)
            await ground.start(self._worker)


class CertificateExpired(Fault):
    """The host's certificate is replaced by one that ended yesterday: before the move, or in it, and then a stream
    breaks, so that it has to be shown again."""

    def __init__(self, end: str) -> None:
        self._end = end
        self._kept: dict[Path, bytes] = {}

    def _replace(self, meeting: Meeting) -> None:
        host = meeting.side(self._end)
        authority = Authority(meeting.ground.lab.settings.tls_folder)
        own = authority.issue(host)
        self._kept = {Path(path): Path(path).read_bytes() for path in (own.certificate, own.key)}
        authority.reissue(host, days=-1)

    async def arm(self, meeting: Meeting) -> None:
        if meeting.phase == "checking":
            self._replace(meeting)

    async def strike(self, meeting: Meeting) -> None:
        if meeting.phase != "checking":
            self._replace(meeting)
            break_one_stream(meeting.ground.scene.data_path(meeting.source))

    async def restore(self, ground: Ground) -> None:
        for path, content in self._kept.items():
            path.write_bytes(content)
        self._kept = {}


class ClientGone(Fault):
    """The command line that started the move is killed while it watches."""

    def __init__(self) -> None:
        self._client: asyncio.subprocess.Process | None = None

    async def begin(self, meeting: Meeting) -> Handle:
        ground, policy = meeting.ground, meeting.policy
        before = await _newest_run(ground)
        words = ["migrate", GUEST, "--to", meeting.destination, "--watch", "--codec", policy.codec, "--no-store"]
        self._client = await ground.client(*words, "--mode", policy.mode, "--bandwidth", str(policy.bandwidth_mib))
        async with asyncio.timeout(30):
            while (run_id := await _newest_run(ground)) == before:
                await asyncio.sleep(0.1)
        workflow_id = ids.migrate_vm(SITE, GUEST)
        return ground.nc.client.get_workflow_handle(workflow_id, run_id=run_id, result_type=MigrationOutcome)

    async def strike(self, meeting: Meeting) -> None:
        assert self._client is not None
        self._client.kill()
        await self._client.wait()

    async def restore(self, ground: Ground) -> None:
        if self._client is not None and self._client.returncode is None:
            self._client.kill()
            await self._client.wait()


class Cancelled(Fault):
    """The update `cancel`, or Temporal's own. From the switch on the one is refused and the other changes nothing."""

    def __init__(self, by_temporal: bool = False) -> None:
        self._by_temporal = by_temporal

    async def strike(self, meeting: Meeting) -> None:
        if self._by_temporal:
            await meeting.move.cancel()
            return
        late = meeting.phase not in (*OPEN, "switching")  # while it switches either answer is right
        try:
            async with asyncio.timeout(20):
                await meeting.move.execute_update("cancel", "chaos")
        except WorkflowUpdateFailedError as refused:
            if meeting.phase in OPEN:
                meeting.remarks.append(f"a cancel was refused while {meeting.phase}: {refused.cause}")
        else:
            if late:
                meeting.remarks.append(f"a cancel was accepted while {meeting.phase}")


class Terminated(Fault):
    """The workflow is ended from outside, with no word to anything it had started."""

    def __init__(self, recoveries: int = 1) -> None:
        self.recoveries = recoveries

    async def strike(self, meeting: Meeting) -> None:
        await meeting.move.terminate("chaos")


class SecondStart(Fault):
    async def strike(self, meeting: Meeting) -> None:
        try:
            await by_sdk(meeting)
        except WorkflowAlreadyStartedError as told:
            if told.run_id != meeting.move.first_execution_run_id:
                meeting.remarks.append(f"a second start was told of run {told.run_id}")
        else:
            meeting.remarks.append("a second start was let in")


class LeaseStoreGone(Fault):
    """The owner records' file is out of reach for a while, as a database that is down."""

    def __init__(self, seconds: float = 8) -> None:
        self._seconds = seconds

    async def strike(self, meeting: Meeting) -> None:
        file = meeting.ground.lab.settings.folder / LEASES
        for each in _with_journals(file):
            each.rename(each.with_name(f"{each.name}.away"))
        file.mkdir()  # nothing can be made anew in its place

    async def heal(self, meeting: Meeting) -> None:
        await asyncio.sleep(self._seconds * meeting.chance.uniform(0.7, 1.3))  # the case itself
        await self.restore(meeting.ground)

    async def restore(self, ground: Ground) -> None:
        file = ground.lab.settings.folder / LEASES
        if file.is_dir():
            file.rmdir()
        for each in file.parent.glob(f"{LEASES}*.away"):
            each.rename(each.with_suffix(""))


def _with_journals(file: Path) -> list[Path]:
    return [each for each in file.parent.glob(f"{file.name}*") if each.suffix != ".away"]


class WorkerStalled(Fault):
    """A worker stands still for longer than its heartbeat's deadline, and goes on as if nothing had been."""

    def __init__(self, end: str, seconds: float) -> None:
        self._end, self._seconds = end, seconds

    async def heal(self, meeting: Meeting) -> None:
        with meeting.ground.held(meeting.ground.lab.pid_of(f"{meeting.side(self._end)}.worker")):
            await asyncio.sleep(self._seconds)  # the case itself


class AllWorkersKilled(Fault):
    """Both host workers and the control worker at once, as when a release is rolled out badly."""

    async def strike(self, meeting: Meeting) -> None:
        processes = [identify(meeting.ground.lab.pid_of(f"{each}.worker")) for each in (*HOSTS, "control")]
        for process in processes:
            if process is not None:
                send(process, signal.SIGKILL)
        for process in processes:
            if process is not None:
                await asyncio.to_thread(wait_gone, process)

    async def heal(self, meeting: Meeting) -> None:
        await asyncio.to_thread(meeting.ground.lab.up, 2)


def _in_mounts(ground: Ground, host: str, *command: str) -> None:
    keeper = ground.lab.pid_of(f"{host}.keeper")
    run("nsenter", f"--mount=/proc/{keeper}/ns/mnt", *command)


async def _newest_run(ground: Ground) -> str:
    query = f'WorkflowId="{ids.migrate_vm(SITE, GUEST)}"'
    async for found in ground.nc.client.list_workflows(query, limit=1):
        return found.run_id
    return ""
