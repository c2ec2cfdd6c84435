"""One QEMU that holds the bench's guest: boots it, saves it as a snapshot, or waits for it.

A guest is booted once per workload and saved as QEMU's own migration stream; every measured move starts from
that file, so all methods move the same memory. A QEMU dies with the bench, however that ends (pdeathsig).
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cpu import Watched
from bench.heartbeat import Console
from bench.qmp import Event, Qmp

MEMORY_KIB = (1024 << 10) + 128
"""Not a multiple of 256 KiB on purpose. For such multiples, QEMU before 9.0 takes a fast path through the dirty bitmap
that leaves TCG's TLB stale: writes of the guest are lost, and with 20 MiB/s it died in 10 of 10 moves by QEMU alone.
See docs/bench.md."""

FILL_MIB = 400
"""Of real program files, in the guest's work area."""

BOOT_WITHIN = 90
RESTORE_WITHIN = 60

RECORD_RATE = 62_500_000
"""Bytes a second at which a running guest is recorded: half a Gbit/s, so that it has time to change pages."""


@dataclass(frozen=True)
class Machine:
    """What the guest is made of, the same for every QEMU of a run."""

    kernel: Path
    initrd: Path
    content: Path
    accel: str
    """kvm or tcg."""

    def command(self, dirty_mib: int, folder: Path, incoming: str | None) -> list[str]:
        """QEMU's command line. `incoming` is what its -incoming takes; None boots the guest."""
        accel, cpu = ("kvm", "host") if self.accel == "kvm" else ("tcg,thread=multi", "max")
        drive = f"file={self.content},if=none,id=content,format=raw,readonly=on,cache=none,file.locking=off"
        append = f"console=ttyS0 quiet panic=-1 fill={FILL_MIB} dirty={dirty_mib} check=0"
        command = ["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none"]
        command += ["-machine", "q35", "-accel", accel, "-cpu", cpu, "-m", f"{MEMORY_KIB}k"]
        command += ["-chardev", f"socket,id=console,path={folder / 'console.sock'}"]
        command += ["-serial", "chardev:console", "-qmp", f"unix:{folder / 'qmp.sock'},server=on,wait=off"]
        command += ["-drive", drive, "-device", "virtio-blk-pci,drive=content"]
        command += ["-kernel", str(self.kernel), "-initrd", str(self.initrd), "-append", append]
        return command if incoming is None else [*command, "-incoming", incoming]


@dataclass(frozen=True)
class Guest:
    """A running QEMU with its monitor and its console."""

    qmp: Qmp
    console: Console
    watched: Watched
    log: Path

    async def until_migration(self, *states: str, within: float, since: int = 0) -> Event:
        """Until the migration into or out of this QEMU reaches one of the states.

        Raises RuntimeError when it fails instead, TimeoutError, QmpClosed.
        """

        def ends(event: Event) -> bool:
            return event.name == "MIGRATION" and event.data["status"] in (*states, "failed")

        event = await self.qmp.event(ends, within, f"migration state {' or '.join(states)}", since)
        if event.data["status"] not in states:
            reason = (await self.qmp.execute("query-migrate")).get("error-desc", "QEMU gives no reason")
            raise RuntimeError(f"{self.qmp.name}: migration failed: {reason}. {self.last_words()}")
        return event

    async def until(self, name: str, within: float, since: int = 0) -> Event:
        """Until an event of that name. Raises TimeoutError, QmpClosed."""
        return await self.qmp.event(lambda event: event.name == name, within, f"event {name}", since)

    async def set(self, capabilities: dict[str, bool], parameters: dict[str, int | str]) -> None:
        """Set migration capabilities and parameters, by their QMP names."""
        wanted = [{"capability": key, "state": value} for key, value in capabilities.items()]
        await self.qmp.execute("migrate-set-capabilities", {"capabilities": wanted})
        await self.qmp.execute("migrate-set-parameters", parameters)

    def last_words(self) -> str:
        """The end of QEMU's log, for error messages."""
        _command, _, text = self.log.read_text(errors="replace").strip().partition("\n")
        return f"QEMU's last words: {text[-400:]!r}" if text else "QEMU said nothing"


@contextlib.asynccontextmanager
async def running(
    machine: Machine,
    prefix: Sequence[str],
    folder: Path,
    name: str,
    dirty_mib: int,
    incoming: str | None = None,
) -> AsyncIterator[Guest]:
    """A QEMU, started with `prefix` before its command (to enter a host's namespaces); killed at the end.

    `folder` exists and is empty; it takes the sockets and the log, which begins with the command.
    """
    log = folder / "qemu.log"
    console = Console()
    await console.listen(folder / "console.sock")
    command = [*prefix, "setpriv", "--pdeathsig", "KILL", *machine.command(dirty_mib, folder, incoming)]
    with log.open("w") as output:
        output.write(shlex.join(command) + "\n")
        output.flush()
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        qmp = await Qmp.connect(folder / "qmp.sock", name)
        try:
            vcpus = await qmp.execute("query-cpus-fast")
            watched = Watched(process.pid, tuple(vcpu["thread-id"] for vcpu in vcpus))
            yield Guest(qmp, console, watched, log)
        finally:
            await qmp.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await console.close()


async def restore(guest: Guest, snapshot: Path) -> None:
    """Load a snapshot into a QEMU that was started with `-incoming defer`. The guest stays paused."""
    await guest.set({"events": True}, {})
    await guest.qmp.execute("migrate-incoming", {"uri": f"exec:cat {shlex.quote(str(snapshot))}"})
    await guest.until_migration("completed", within=RESTORE_WITHIN)


async def save(machine: Machine, prefix: Sequence[str], folder: Path, dirty_mib: int, path: Path) -> None:
    """Boot a guest with that workload, let it beat for 2 seconds, and save it."""
    async with running(machine, prefix, folder, "boot", dirty_mib) as guest:
        await guest.console.wait(20, BOOT_WITHIN, "boot")
        await put_away(guest, path)


async def put_away(guest: Guest, path: Path) -> None:
    """Stop a guest and save it as it stands."""
    await guest.qmp.execute("stop")
    await _write(guest, path, 0)


async def record(machine: Machine, prefix: Sequence[str], folder: Path, dirty_mib: int, path: Path) -> None:
    """Boot a guest with that workload and write the stream of a move of it while it runs, with what it sends again."""
    async with running(machine, prefix, folder, "record", dirty_mib) as guest:
        await guest.console.wait(20, BOOT_WITHIN, "record")
        await _write(guest, path, RECORD_RATE)


async def _write(guest: Guest, path: Path, rate: int) -> None:
    since = len(guest.qmp.events)
    await guest.set({"events": True, "return-path": False}, {"max-bandwidth": rate})
    await guest.qmp.execute("migrate", {"uri": f"exec:cat > {shlex.quote(str(path))}"})
    await guest.until_migration("completed", within=RESTORE_WITHIN, since=since)
