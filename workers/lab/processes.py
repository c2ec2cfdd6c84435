"""Processes of a lab: started in a session of their own, remembered on disk, found again, ended safely.

A process is known by its pid *and* its start time, and signalled through a pidfd that was checked against
both, so a recycled pid is never hit. A zombie counts as gone: not every machine's init reaps.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from workers.lab.errors import LabError, wait_until

MARK = "NOVACRON_LAB_FOLDER"
"""Environment variable that every process of a lab carries: the lab's folder."""

_PF_EXITING = 0x4  # linux/sched.h


@dataclass(frozen=True)
class Process:
    """One process, for ever: no other will have the same three values."""

    pid: int
    started: int
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat)."""
    boot: str


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Process | None:
    """The living process of this pid, or None. Reaps it when it was our child and has ended.

    It lives as long as one of its threads does: a killed process may still hold its listening sockets when its first
    thread is a zombie already.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command name before it may hold anything
    if fields[0] in "ZX" and int(fields[17]) <= 1:
        if int(fields[1]) == os.getpid():
            os.waitpid(pid, os.WNOHANG)
        return None
    return Process(pid, int(fields[19]), boot_id())


def alive(process: Process) -> bool:
    return identify(process.pid) == process


def doomed(process: Process) -> bool:
    """It was sent SIGKILL or is on its way out, though it may still be seen for a moment."""
    try:
        flags = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[6])
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return bool(flags & _PF_EXITING) or any(mask & 1 << (signal.SIGKILL - 1) for mask in pending)


def wait_gone(process: Process, within: float = 10) -> None:
    wait_until(
        lambda: not alive(process),
        within,
        lambda: f"process {process.pid} does not end: see /proc/{process.pid}/stack for what holds it",
    )


def send(process: Process, number: int) -> bool:
    """Signal exactly this process; False when it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def end(processes: Iterable[Process], grace: float = 5) -> None:
    """Ask all to end, wait `grace` seconds in all, then kill; returns when none lives."""
    left = [process for process in processes if send(process, signal.SIGTERM)]
    deadline = time.monotonic() + grace
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process for process in left if alive(process)]
    for process in left:
        send(process, signal.SIGKILL)
    for process in left:
        wait_gone(process)


def every() -> Iterator[int]:
    """Pids of all processes but this one."""
    return (int(e.name) for e in Path("/proc").iterdir() if e.name.isdigit() and int(e.name) != os.getpid())


def marked(folder: Path) -> set[Process]:
    """All processes that carry the mark of the lab in this folder."""
    word = f"{MARK}={folder}".encode()
    found = set()
    for pid in every():
        try:
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if word in words and (process := identify(pid)):
            found.add(process)
    return found


def in_network(namespaces: Iterable[str]) -> set[Process]:
    """All processes inside one of these named network namespaces."""
    inodes = set()
    for name in namespaces:
        try:
            inodes.add(Path("/run/netns", name).stat().st_ino)
        except FileNotFoundError:
            continue
    return {process for pid in every() if _inode(f"/proc/{pid}/ns/net") in inodes and (process := identify(pid))}


def in_mounts_where(path: str, is_folder: Path) -> set[Process]:
    """All processes that see `is_folder` at `path`: those in the mount namespace that bound it there."""
    if not is_folder.exists():
        return set()
    wanted = is_folder.stat()
    seen: dict[int, bool] = {own: False} if (own := _inode("/proc/self/ns/mnt")) else {}
    found = set()
    for pid in every():
        namespace = _inode(f"/proc/{pid}/ns/mnt")
        if namespace is None:
            continue
        if namespace not in seen:
            try:
                there = Path(f"/proc/{pid}/root{path}").stat()
            except OSError:
                continue  # ended, or has no such path
            seen[namespace] = (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino)
        if seen[namespace] and (process := identify(pid)):
            found.add(process)
    return found


def _inode(path: str) -> int | None:
    try:
        return Path(path).stat().st_ino
    except OSError:
        return None


@dataclass(frozen=True)
class Part:
    """One long-lived process of a lab under a fixed name: `temporal`, `host-a.libvirtd`, ..."""

    name: str
    folder: Path
    """The lab's folder: the record is in `parts/`, the output in `log/`."""

    @property
    def record(self) -> Path:
        return self.folder / "parts" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return self.folder / "log" / f"{self.name}.log"

    def process(self) -> Process | None:
        """The recorded process if it still lives."""
        try:
            process = Process(**json.loads(self.record.read_text()))
        except (OSError, ValueError, TypeError):
            return None  # never started, or the record was cut short by a power cut: same thing
        return process if alive(process) else None

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        """Start it unless it lives; the output goes to the end of its log."""
        if running := self.process():
            if not doomed(running):
                return running
            wait_gone(running)
        for file in (self.record, self.log):
            file.parent.mkdir(parents=True, exist_ok=True)
        # the caller's Temporal settings lead to the caller's server, which is not the lab's
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open("/dev/null", os.O_RDONLY)
        try:
            pid = os.posix_spawnp(
                command[0],
                list(command),
                {**inherited, **(environment or {}), MARK: str(self.folder)},
                file_actions=[(os.POSIX_SPAWN_DUP2, source, to) for source, to in ((nothing, 0), (log, 1), (log, 2))],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP],
            )
        except FileNotFoundError as error:
            raise LabError(f"`{command[0]}`, needed for {self.name}, is not installed: run `make setup`") from error
        finally:
            os.close(log)
            os.close(nothing)
        process = identify(pid)
        if process is None:
            raise LabError(f"{self.name} ended at once: {self.last_words()}")
        fresh = self.record.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(process)))
        fresh.replace(self.record)
        return process

    def stop(self, grace: float = 5) -> None:
        if process := self.process():
            end([process], grace)
        self.record.unlink(missing_ok=True)

    def last_words(self, lines: int = 8) -> str:
        """The end of its log, for error messages."""
        try:
            text = self.log.read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            text = []
        return "\n  ".join([f"see {self.log}, which ends:", *text[-lines:]]) if text else f"see {self.log} (empty)"
