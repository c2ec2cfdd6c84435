"""What all combinations share: one lab, one guest that is listened to, and the ways to look at and to mend both.

Everything said here of the VM is asked of the machine: QEMU's processes, libvirt's own word, the guest's serial line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from temporalio.client import WorkflowExecutionStatus

from models import ids
from novacron import NovaCron
from tests.integration.scene import GUEST, SITE, Scene
from workers.lab.errors import LabError, wait_until
from workers.lab.heartbeats import Heartbeats
from workers.lab.hosts import Host
from workers.lab.lab import Lab
from workers.lab.link import LinkSpec
from workers.lab.processes import Process, identify, send
from workers.lab.proof import left_behind
from workers.lab.settings import STATE_DIR, LabSettings

HOSTS = ("host-a", "host-b")
LINK = LinkSpec.parse(rate="200mbit")
MEMORY_MIB, FILL_MIB, DIRTY_MIB = 128, 12, 1
LEASES = "leases.db"
"""The owner records, in the lab's folder."""
LIBVIRT_PORT = 16509
GONE_WITHIN = 8.0
"""Seconds that what is ending anyway may take to be gone."""
_POST_COPY_FAILED = 11  # VIR_DOMAIN_RUNNING_POSTCOPY_FAILED


class Ground:
    """The lab, its guest and a client. Make it with `opened`."""

    def __init__(self, lab: Lab, nc: NovaCron) -> None:
        self.lab = lab
        self.nc = nc
        self._listening = contextlib.ExitStack()
        self._heard: Heartbeats | None = None
        self.scratch = False
        self.defined = False
        """The guest's host has a definition of it."""
        self._uuid = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, settings: LabSettings) -> AsyncIterator[Ground]:
        """A fresh lab, taken down again however this ends."""
        lab = Lab(settings)
        await asyncio.to_thread(lab.down, purge=True)  # what an aborted run left
        try:
            await asyncio.to_thread(lab.up, 2, LINK)
            with patch.dict(os.environ, lab.environment):  # for the faces, as a user would set it
                async with NovaCron.connect() as nc:
                    ground = cls(lab, nc)
                    try:
                        await ground.boot()
                        yield ground
                    finally:
                        ground._listening.close()
        finally:
            await asyncio.to_thread(lab.down)

    @property
    def scene(self) -> Scene:
        assert self._heard is not None
        return Scene(self.lab, self.nc, self._heard)

    @property
    def hosts(self) -> tuple[Host, ...]:
        return tuple(Host(self.lab.settings, name) for name in HOSTS)

    # the guest

    async def boot(self, on: str = HOSTS[0], scratch: int = 0) -> None:
        """Start the guest anew, and listen to it from its first line on."""
        self._listening.close()
        await asyncio.to_thread(self._remove_guest)
        guest = await asyncio.to_thread(
            self.lab.boot_guest, GUEST, on, memory_mib=MEMORY_MIB, fill=0 if scratch else FILL_MIB,
            dirty=0 if scratch else DIRTY_MIB, check=1, scratch=scratch,
        )  # fmt: skip
        self.scratch, self.defined, self._uuid = bool(scratch), False, guest.uuid
        self._heard = self._listening.enter_context(self.lab.heartbeats(GUEST, from_start=True))

    def _remove_guest(self) -> None:
        self.lab.destroy_guest(GUEST)
        wait_until(lambda: not self.held_on(), 20, lambda: f"{GUEST} still has a QEMU on {self.held_on()}")
        for host in self.hosts:
            image = self.lab.settings.scratch_image(host.name, GUEST)
            image.unlink(missing_ok=True)
            image.with_name(f"{image.name}.novacron").unlink(missing_ok=True)

    async def define(self, defined: bool) -> None:
        """Let its host have a definition of the guest, or none: most VMs of a fleet have one."""
        (host,) = self.held_on()
        await asyncio.to_thread(self._define, host, defined)
        self.defined = defined

    def _define(self, host: str, defined: bool) -> None:
        with contextlib.closing(_libvirt().open(self.lab.settings.libvirt_uri(host))) as connection:
            domain = connection.lookupByName(GUEST)
            if defined and not domain.isPersistent():
                connection.defineXML(domain.XMLDesc())
            elif domain.isPersistent() and not defined:
                domain.undefine()

    def held_on(self) -> tuple[str, ...]:
        """Hosts on which the guest has a QEMU process."""
        return tuple(host.name for host in self.hosts if GUEST in host.qemu())

    def running_on(self) -> tuple[str, ...]:
        """Hosts whose libvirt says that the guest runs, and not as half of a VM whose other half is gone. LabError when
        a libvirtd does not answer."""
        found = {name: self.domains(name).get(GUEST, ("", 0, False)) for name in HOSTS}
        return tuple(name for name, (state, why, _) in found.items() if state == "running" and why != _POST_COPY_FAILED)

    def domains(self, host: str) -> dict[str, tuple[str, int, bool]]:
        """Every domain the host's libvirt knows: its state, libvirt's reason, and whether it is defined."""
        libvirt = _libvirt()
        found: dict[str, tuple[str, int, bool]] = {}
        try:
            with contextlib.closing(libvirt.openReadOnly(self.lab.settings.libvirt_uri(host))) as connection:
                for domain in connection.listAllDomains():
                    try:
                        found[domain.name()] = _state(domain)
                    except libvirt.libvirtError as error:
                        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it has just gone
                            raise
        except libvirt.libvirtError as error:
            raise LabError(f"libvirt of {host} does not answer: {error}") from error
        return found

    # parts

    async def kill(self, part: str) -> None:
        await asyncio.to_thread(self.lab.kill, part)

    async def start(self, part: str) -> None:
        await asyncio.to_thread(self.lab.start, part)

    @contextlib.contextmanager
    def held(self, pid: int) -> Iterator[None]:
        """The process stands still (SIGSTOP) until the end of this; it may be killed meanwhile."""
        process = identify(pid)
        if process is None:
            raise LabError(f"process {pid} is gone")
        send(process, signal.SIGSTOP)
        try:
            yield
        finally:
            send(process, signal.SIGCONT)

    def inside(self, host: str, path: str) -> Path:
        """A path as the host sees it."""
        return Path(f"/proc/{self.lab.pid_of(f'{host}.keeper')}/root{path}")

    async def command(self, *words: str, within: float = 120) -> tuple[int, str]:
        """Run `novacron ...` as a user would: its exit code and what it said."""
        process = await self.client(*words)
        try:
            async with asyncio.timeout(within):
                out, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return -1, f"`novacron {' '.join(words)}` did not end within {within:g} s"
        return process.returncode or 0, out.decode(errors="replace").strip()

    async def client(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "novacron.cli", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    # what is left

    def left(self) -> tuple[str, ...]:
        """Everything there that should not be when no move runs."""
        found = list(left_behind(self.hosts))
        expected = {self.lab.settings.namespace(name) for name in HOSTS} | {self.lab.settings.switch}
        found += [f"network namespace {name}" for name in set(self.lab.network.namespaces()) - expected]
        held = self.held_on()
        for host in self.hosts:
            found += [f"{host.name}: {what}" for what in self._left_on(host, host.name in held)]
        found += self._leases_held()
        return tuple(dict.fromkeys(found))

    def _leases_held(self) -> list[str]:
        """Operations that still hold the guest's owner record."""
        file = self.lab.settings.folder / LEASES
        if not file.is_file():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as records:
            question = "SELECT lock, operation FROM novacron_leases WHERE uuid = ? AND operation <> ''"
            return [f"lease held by {lock} {by}" for lock, by in records.execute(question, (self._uuid,))]

    def _left_on(self, host: Host, has_guest: bool) -> Iterator[str]:
        for name, (state, reason, defined) in self.domains(host.name).items():
            if name != GUEST or not has_guest:
                yield f"domain {name}, {state} (reason {reason})"
            elif defined != self.defined:
                yield f"{GUEST} is {'' if defined else 'not '}defined, and was {'' if self.defined else 'not '}before"
        migrations = self.inside(host.name, f"{STATE_DIR}/migrations")
        if migrations.is_dir():
            yield from (f"folder of migration {entry.name}" for entry in migrations.iterdir())
        yield from (f"socket that listens on TCP port {port}" for port in self._listeners(host) - {LIBVIRT_PORT})
        if not has_guest and (image := self.lab.settings.scratch_image(host.name, GUEST)).exists() and self.scratch:
            mark = image.with_name(f"{image.name}.novacron")
            if mark.exists():
                yield f"mark of an unfinished copy {mark.name}"

    def _listeners(self, host: Host) -> set[int]:
        table = Path(f"/proc/{self.lab.pid_of(f'{host.name}.keeper')}/net/tcp").read_text().splitlines()[1:]
        rows = (line.split() for line in table)
        # the keeper's own /proc/net is that of its network namespace
        return {int(words[1].rpartition(":")[2], 16) for words in rows if words[3] == "0A"}

    async def orphans(self) -> tuple[str, ...]:
        """What is left for good: looked at again for a moment, since what ends takes a moment to be gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GONE_WITHIN
        while (found := await asyncio.to_thread(self.left)) and loop.time() < deadline:
            await asyncio.sleep(0.2)
        if await self.run_status() == WorkflowExecutionStatus.RUNNING:
            found = (*found, "the workflow is still running")
        return found

    async def run_status(self) -> WorkflowExecutionStatus | None:
        """Of the newest run that moves the guest."""
        async for run in self.nc.client.list_workflows(f'WorkflowId="{ids.migrate_vm(SITE, GUEST)}"', limit=1):
            return (await self.nc.client.get_workflow_handle(run.id).describe()).status
        return None

    # mending

    async def ready(self) -> None:
        """For the next combination: all parts live, the plain link, the guest running once."""
        self.lab.heal()
        await asyncio.to_thread(self.lab.up, 2, LINK)
        if self.scratch or len(self.held_on()) != 1 or self.running_on() != self.held_on():
            await self.boot()
        elif not self.scene.heard.story().unbroken:
            await self.boot(self.held_on()[0])

    async def sweep(self) -> None:
        """Remove what a failed combination left, so that it is not counted again."""
        handle = self.nc.client.get_workflow_handle(ids.migrate_vm(SITE, GUEST))
        if await self.run_status() == WorkflowExecutionStatus.RUNNING:
            await handle.terminate("left by a combination that failed")
        for host in self.hosts:
            for process in [process for process in host.processes() if _is_data_path(process)]:
                send(process, signal.SIGKILL)
            for folder in (host.folder / "novacron" / "migrations").glob("*"):
                shutil.rmtree(folder, ignore_errors=True)
        if len(self.held_on()) != 1 or self.running_on() != self.held_on():
            await self.boot()

    async def rebuild(self) -> None:
        """Tear the lab down and build it again: nothing of it can be trusted any more."""
        self._listening.close()
        await asyncio.to_thread(self.lab.down)
        await asyncio.to_thread(self.lab.up, 2, LINK)
        await self.boot()


def _is_data_path(process: Process) -> bool:
    with contextlib.suppress(OSError):
        return b"\0dwcp\0" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    return False


def _libvirt() -> Any:
    import libvirt

    libvirt.registerErrorHandler(lambda _, error: None, None)  # errors are raised; do not print them as well
    return libvirt


_STATES = {1: "running", 2: "blocked", 3: "paused", 4: "shutdown", 5: "shutoff", 6: "crashed", 7: "suspended"}


def _state(domain: Any) -> tuple[str, int, bool]:
    state, reason = domain.state()
    return _STATES.get(state, "unknown"), reason, bool(domain.isPersistent())
