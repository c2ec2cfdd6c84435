"""How the VM's last QEMU on this host ended, by libvirt's own log of it: the proof that a VM which is no longer here
has moved away, rather than run on after a move that failed and then ended.

A VM that `clouds.kvm.handover` removed had moved away too; libvirt calls that `destroyed`. So the start that QEMU had
is noted before it is removed, and counts as long as the log knows of no later one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

LOGS = Path("/var/log/libvirt/qemu")
TAIL = 256 << 10
"""Bytes of the log that are read, from its end."""
_EVENT = re.compile(r"^(\S+ \S+): (starting up|shutting down, reason=(\w+))", re.MULTILINE)


def why_not_left(vm: str, note: Path, logs: Path = LOGS) -> str:
    """Why it is not certain that the VM moved away; empty when it is."""
    _, reason = _last(logs / f"{vm}.log")
    if reason is None:
        return f"libvirt's log {logs / f'{vm}.log'} does not tell how it ended here"
    if reason == "migrated" or (reason == "destroyed" and remembered(vm, note, logs)):
        return ""
    return f"libvirt's log says that it ended here: {reason}"


def remember(vm: str, note: Path, logs: Path = LOGS) -> None:
    """Note, on disk, which start of the VM's QEMU this is about."""
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = note.with_suffix(".new")
    with fresh.open("w") as out:
        out.write(_last(logs / f"{vm}.log")[0])
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(note)


def remembered(vm: str, note: Path, logs: Path = LOGS) -> bool:
    """The note is about the QEMU that was started last."""
    began, _ = _last(logs / f"{vm}.log")
    return bool(began) and note.is_file() and note.read_text() == began


def _last(log: Path) -> tuple[str, str | None]:
    """(when its QEMU was started last, why it ended since; None: nothing is said of that)."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "", None
    began, reason = "", None
    for event in _EVENT.finditer(text):
        began, reason = (began, event[3]) if event[3] else (event[1], None)
    return began, reason
