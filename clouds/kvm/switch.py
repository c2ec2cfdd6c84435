"""The switch of a move that ends paused (VIR_MIGRATE_PAUSED): let the VM run at its destination as soon as its source
can never run again, and not before.

libvirt's own order is the other way round: the destination starts the VM, and only its answer stops the source. When
that answer is lost the source's libvirt resumes the VM, and two copies run. Here the destination waits until the
QEMU at the source has ended: libvirt ends it when it has heard that the VM has arrived. libvirt itself tells of
that end more than a second later (measured: 1.2 to 1.4 s), so the process is watched; where it cannot be, libvirt's
word counts.

This is the quick way only. A worker that dies here, or a path that is lost, leaves the VM paused at its destination,
and whoever finds it so, the source being gone, lets it run (`clouds.kvm.arrival`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from clouds.kvm.arrival import PAUSED_BY_ORDER
from clouds.kvm.connection import Domain, Session
from clouds.kvm.errors import KvmError
from clouds.kvm.inventory import STATES
from models.migration import VmRef

logger = logging.getLogger(__name__)

IDLE, NEAR = 0.2, 0.002
"""Seconds between looks at the process while the guest runs, and once it stands still."""
LET_RUN_WITHIN, AGAIN = 30.0, 0.1
"""How long, and how often, the destination is asked after the source's end."""

State = Literal["waiting", "runs", "over"]


class Source:
    """The QEMU process that runs the VM here, held so that its number cannot come to mean another one."""

    def __init__(self, folder: int) -> None:
        self._folder = folder

    @classmethod
    def find(cls, libvirt_socket: str, vm: VmRef) -> Source | None:
        """By libvirt's own note of its process; None when that does not lead to this VM."""
        note = Path(libvirt_socket).parent / "qemu" / f"{vm.vm}.pid"
        try:
            folder = os.open(f"/proc/{int(note.read_text())}", os.O_RDONLY | os.O_DIRECTORY)
        except (OSError, ValueError):
            return None
        source = cls(folder)
        if vm.uuid and vm.uuid.encode() in (source._read("cmdline") or b"").split(b"\0"):
            return source
        source.close()
        return None

    def ended(self) -> bool:
        """It has no memory any more: all its threads are ending, and none gets back into the guest. Waiting for the
        process itself to go would add the time in which the kernel takes back the guest's memory, seconds if it is big.
        """
        pages = self._read("statm")
        return pages is None or pages.startswith(b"0 ")

    def close(self) -> None:
        os.close(self._folder)

    def _read(self, name: str) -> bytes | None:
        """None: the process is gone."""
        try:
            file = os.open(name, os.O_RDONLY, dir_fd=self._folder)
        except (FileNotFoundError, ProcessLookupError):
            return None
        try:
            return os.read(file, 1 << 20)
        except ProcessLookupError:
            return None
        finally:
            os.close(file)


class Switch:
    """One thread that waits for the source's end, with a connection to the destination's libvirt made before."""

    def __init__(self, vm: VmRef, there: Session, source: Source | None, allowed: Callable[[], bool]) -> None:
        """`allowed`: this move is still under way, and no later operation has taken the VM."""
        self._vm = vm
        self._there = there
        self._source = source
        self._allowed = allowed
        self._near = threading.Event()
        self._gone = threading.Event()
        self._stop = threading.Event()
        self._done = threading.Event()
        self._domain: Domain | None = None
        """The VM at its destination, once it is known to have arrived whole."""
        self.state: State = "waiting"

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"switch {self._vm.vm}", daemon=True).start()

    def near(self) -> None:
        """The guest stands still at its source: the switch may be about to come."""
        self._near.set()

    def gone(self) -> None:
        """libvirt says that the VM has left its source."""
        self._gone.set()
        self._near.set()

    def stop(self) -> None:
        """The move has ended otherwise, or the guest runs at its source again: when it ends there, it ends for good."""
        self._stop.set()
        self._near.set()

    def wait(self, seconds: float) -> State:
        """How it ended, if it has by then."""
        self._done.wait(seconds)
        return self.state

    def _run(self) -> None:
        try:
            with self._there:
                self.state = "runs" if self._source_ends() and self._let_run() else "over"
        finally:
            if self.state == "waiting":
                self.state = "over"
            if self._source:
                self._source.close()
            self._done.set()

    def _source_ends(self) -> bool:
        """Returns when it has; False: it is not waited for any more."""
        self._look()  # so that the way to the destination is open when every millisecond counts
        asked = time.monotonic()
        while not self._stop.is_set():
            if self._gone.is_set() or (self._source and self._source.ended()):
                return True
            if self._near.is_set():
                if self._domain is None:
                    self._look()
                time.sleep(NEAR)
            else:
                self._near.wait(IDLE)
            if time.monotonic() - asked > IDLE:
                if not self._allowed():
                    return False
                asked = time.monotonic()
        return False

    def _let_run(self) -> bool:
        deadline = time.monotonic() + LET_RUN_WITHIN
        while time.monotonic() < deadline and not self._stop.is_set() and self._allowed():
            if self._resumed() or self._look() == "runs":
                return True
            if self._domain is None:
                self._stop.wait(AGAIN)
        return False

    def _resumed(self) -> bool:
        whole = self._domain
        if whole is None:
            return False
        try:
            self._there.call(f"let VM {self._vm.vm} run", lambda _: whole.resume())
        except KvmError as error:  # another attempt may have been quicker: the next look tells
            logger.warning("%s: %s", self._vm.vm, error)
            self._domain = None
            return False
        logger.info("%s: its source has ended, it runs at its destination", self._vm.vm)
        return True

    def _look(self) -> Literal["runs", "whole", "coming", "unknown"]:
        """What the destination has of the VM. Whole: libvirt has ended its incoming job, and keeps it paused."""
        try:
            domain = self._there.find(self._vm)
            if domain is None:
                return "coming"
            number, reason = self._there.call(f"look at VM {self._vm.vm}", lambda _: domain.state()[:2])
        except KvmError as error:
            logger.warning("%s: the way to its destination: %s", self._vm.vm, error)
            return "unknown"
        if STATES[number] in ("running", "blocked"):
            return "runs"
        if (STATES[number], reason) != ("paused", PAUSED_BY_ORDER):
            return "coming"
        self._domain = domain
        return "whole"
