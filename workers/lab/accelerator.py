"""Whether KVM works here: asked by really starting a guest on it, once per boot of the machine.

/dev/kvm may exist and open, and QEMU still abort on it (nested virtualization half on), so only a guest
that speaks counts.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Literal

from workers.lab.errors import LabError
from workers.lab.processes import boot_id

Accelerator = Literal["kvm", "tcg"]
_PROBE_WITHIN = 6.0


def accelerator(guest_folder: Path, cache: Path) -> Accelerator:
    """kvm if a guest starts under it, else tcg."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    try:
        known = json.loads(cache.read_text())
        if known["boot"] == boot_id():
            return "kvm" if known["kvm"] else "tcg"
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not probed yet, or cut short: probe
    works = _starts(guest_folder)
    cache.write_text(json.dumps({"boot": boot_id(), "kvm": works}))
    return "kvm" if works else "tcg"


def _starts(guest_folder: Path) -> bool:
    """A guest under KVM gets as far as its own first process."""
    if not (guest_folder / "stamp").exists():
        raise LabError(f"the guest is not built in {guest_folder}: run `make setup`")
    command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "128"]
    command += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
    command += ["-kernel", str(guest_folder / "vmlinuz"), "-initrd", str(guest_folder / "initrd.gz")]
    command += ["-append", "console=ttyS0 quiet panic=-1"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    heard, deadline = b"", time.monotonic() + _PROBE_WITHIN
    try:
        while b"HB 0 " not in heard and (left := deadline - time.monotonic()) > 0:
            if select.select([process.stdout], [], [], left)[0]:
                data = os.read(process.stdout.fileno(), 4096)
                if not data:
                    break  # QEMU gave up
                heard += data
    finally:
        process.kill()
        process.communicate()
    return b"HB 0 " in heard
