"""What tests on real parts share: start a move, wait for its middle, break something, and prove how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from dwcp import control
from models import ids, queues
from models.datapath import DataPathStatus
from models.migration import MigrateRequest, MigrationOutcome, MigrationPolicy, Progress
from novacron import NovaCron, watch
from workers.lab.errors import LabError
from workers.lab.heartbeats import Heartbeats
from workers.lab.hosts import Host
from workers.lab.lab import Lab
from workers.lab.link import LinkSpec
from workers.lab.processes import identify, send
from workers.lab.proof import Proof, copies, left_behind, prove

GUEST = "counter"
SITE = "lab"

SLOW = MigrationPolicy(codec="none", bandwidth_mib=9)
"""Keeps this guest's move under way for some ten seconds, so that its middle can be met."""

MENDED_WITHIN = 60.0
_PIDFD_GETFD = 438

Handle = WorkflowHandle[Any, MigrationOutcome]


@dataclass
class Scene:
    lab: Lab
    nc: NovaCron
    heard: Heartbeats

    @property
    def hosts(self) -> tuple[Host, ...]:
        return tuple(Host(self.lab.settings, host.name) for host in self.lab.status().hosts)

    def here(self) -> str:
        """The one host that runs the guest."""
        found = copies(self.hosts, GUEST)
        assert len(found) == 1, f"{GUEST} has a QEMU process on {list(found)}"
        return found[0]

    def there(self) -> str:
        """The other host."""
        here = self.here()
        return next(host.name for host in self.hosts if host.name != here)

    async def start(self, to: str, policy: MigrationPolicy = SLOW, **more: Any) -> Handle:
        """Start the workflow with the SDK alone, as any Temporal client could."""
        return await self.nc.client.start_workflow(
            "novacron.MigrateVm",
            MigrateRequest(vm=GUEST, to=to, policy=policy, **more),
            id=ids.migrate_vm(SITE, GUEST),
            task_queue=queues.control(SITE),
            result_type=MigrationOutcome,
        )

    async def middle(self, handle: Handle, percent: float = 15, within: float = 60) -> Progress:
        """Wait until the move is well under way."""
        progress = Progress()
        async with asyncio.timeout(within):
            async for progress in watch.follow(self.nc.client, handle, every=0.2):
                if progress.phase == "moving" and progress.percent >= percent:
                    return progress
        raise AssertionError(f"the move ended before {percent} %: {progress}")

    async def end(self, handle: Handle, within: float = 150) -> MigrationOutcome:
        """The outcome; raises the workflow's failure, or TimeoutError when it does not end."""
        async with asyncio.timeout(within):
            return await handle.result()

    async def proved(self, on: str) -> Proof:
        """Exactly one running copy, on this host, its counter unbroken, its memory right, and nothing left behind."""
        proof = await asyncio.to_thread(prove, self.hosts, GUEST, on, self.heard)
        assert not proof.problems, "\n".join(proof.problems)
        return proof

    async def beats(self) -> None:
        """The guest lives: heard five times from now on. In post-copy, until then QEMU itself may wait for a page and
        hear nobody; no new data path helps that (docs/workflows/migrate-vm.md, Post-copy)."""
        enough = self.heard.story().beats + 5
        await asyncio.to_thread(self.heard.wait_for, lambda story: story.beats >= enough, 60, "five beats more")

    def kill_data_path(self, host: str) -> None:
        """SIGKILL to the host's end of the data path."""
        process = identify(self.data_path(host))
        assert process is not None, f"the data path of {host} is gone already"
        send(process, signal.SIGKILL)

    def data_path(self, host: str) -> int:
        """Pid of the data path process on this host."""
        found = [
            process.pid for process in Host(self.lab.settings, host).processes() if b"\0dwcp\0" in _command(process.pid)
        ]
        assert len(found) == 1, f"data path processes on {host}: {found}"
        return found[0]

    def data_path_status(self, host: str) -> DataPathStatus:
        """What this host's end of the one data path says of itself."""
        (folder,) = (Host(self.lab.settings, host).folder / "novacron" / "migrations").iterdir()
        return control.status(folder)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, lab: Lab) -> AsyncIterator[Scene]:
        """With the guest just booted, and heard from its first line on."""
        async with NovaCron.connect() as nc:
            scene = cls(lab, nc, await asyncio.to_thread(_boot, lab))
            scene.heard.__enter__()
            try:
                yield scene
            finally:
                scene.heard.__exit__(None, None, None)

    async def mend(self, link: LinkSpec) -> None:
        """Leave all as the next test wants it: mended, or else made anew."""
        try:
            async with asyncio.timeout(MENDED_WITHIN):
                await self._mend(link)
        except Exception as error:
            await asyncio.to_thread(self._make_anew, link)
            raise LabError(f"what a test left could not be mended, and the lab was made anew: {error!r}") from error

    def _make_anew(self, link: LinkSpec) -> None:
        self.heard.__exit__(None, None, None)
        self.lab.down(purge=True)
        self.lab.up(hosts=2, link=link)
        self.heard = _boot(self.lab)
        self.heard.__enter__()

    async def _mend(self, link: LinkSpec) -> None:
        """Heal what a test cut, start what it killed, end a move it left when it failed."""
        self.lab.heal()
        await asyncio.to_thread(self.lab.up, hosts=2, link=link)
        handle = self.nc.client.get_workflow_handle(ids.migrate_vm(SITE, GUEST))
        with contextlib.suppress(RPCError, WorkflowFailureError):  # none ever ran; or it ends, as it should, cancelled
            if (await handle.describe()).status == WorkflowExecutionStatus.RUNNING:
                await handle.cancel()
                await handle.result()
        if left := left_behind(self.hosts):
            raise LabError(f"a test left something behind: {left}")


def _boot(lab: Lab) -> Heartbeats:
    lab.boot_guest(GUEST, "host-a", memory_mib=256, fill=32, dirty=2, check=1)
    return lab.heartbeats(GUEST, from_start=True)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has just ended


def break_one_stream(pid: int) -> None:
    """Shut down one of the process's TCP connections, as a middlebox would: from outside, unknown to the process."""
    for entry in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        if not os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:"):
            continue
        with _borrowed(pid, int(entry)) as stream:
            if stream.family in (socket.AF_INET, socket.AF_INET6) and _has_peer(stream):
                stream.shutdown(socket.SHUT_RDWR)
                return
    raise AssertionError(f"process {pid} has no TCP connection")


def _borrowed(pid: int, fd: int) -> socket.socket:
    """The very socket of another process (pidfd_getfd(2), which Python does not wrap)."""
    libc = ctypes.CDLL(None, use_errno=True)
    holder = os.pidfd_open(pid)
    try:
        own = libc.syscall(_PIDFD_GETFD, holder, fd, 0)
    finally:
        os.close(holder)
    if own < 0:
        raise OSError(ctypes.get_errno(), f"pidfd_getfd of {fd} in process {pid}")
    return socket.socket(fileno=own)


def _has_peer(stream: socket.socket) -> bool:
    try:
        stream.getpeername()
    except OSError:
        return False  # it listens
    return True
