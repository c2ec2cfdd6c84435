"""What is measured on, and how it is made ready: the same for every bench."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

WARM_BYTES = 3 << 30
"""Memory that is touched before the first row: where the machine is itself a guest, its host hands out pages at
first touch, and that would be charged to the method that comes first."""

MADV_POPULATE_WRITE = 23
"""From linux/mman.h; the mmap module does not name it."""


def in_words(seconds: float) -> str:
    """A duration for people: 45 s, 3 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def now_text() -> str:
    """The start of a run, UTC: names the run."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def processors_text() -> str:
    """Processors and kernel."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return f"{os.cpu_count()} x {models[0] if models else platform.machine()}, Linux {platform.release()}"


def machine_text() -> str:
    """Processors, kernel and QEMU."""
    command = ["qemu-system-x86_64", "--version"]  # QEMU emulator version 7.2.22 (Debian ...)
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[3]
    return f"{processors_text()}, QEMU {version}"


def warm() -> None:
    """Touch memory once, and give it back."""
    with mmap.mmap(-1, WARM_BYTES) as memory:
        memory.madvise(MADV_POPULATE_WRITE)
