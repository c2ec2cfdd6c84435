"""CPU time of processes, from /proc: user + system, of living and ended threads, in steps of 10 ms.

Not counted: the kernel's own threads, and the bench itself. Interrupt work of the network stack mostly falls
on whichever process has the CPU at that moment.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def parse_stat(text: str) -> float:
    """utime + stime, in seconds, of a /proc/PID/stat or /proc/PID/task/TID/stat line (proc(5)).

    The name in parentheses may hold spaces and parentheses, so fields are counted from the last one.
    """
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) * TICK


@dataclass(frozen=True)
class Watched:
    """A process, and those of its threads that run the guest (vCPUs) rather than the migration."""

    pid: int
    guest_threads: tuple[int, ...] = ()

    def read(self) -> tuple[float, float]:
        """CPU seconds since its start: of the process without its vCPUs, and of the vCPUs."""
        process = Path("/proc") / str(self.pid)
        guest = sum(parse_stat((process / "task" / str(tid) / "stat").read_text()) for tid in self.guest_threads)
        return parse_stat((process / "stat").read_text()) - guest, guest


def process_seconds(pid: int) -> float:
    """CPU seconds of a process, all its threads, to the nanosecond: its CPU-time clock (clock_getcpuclockid(3)).

    Raises ProcessLookupError when it is gone.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise ProcessLookupError(f"process {pid} is gone, and its CPU time with it") from error
