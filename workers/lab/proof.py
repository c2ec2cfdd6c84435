"""Exactly one copy, unharmed, nothing left behind: asked of the machine itself, not of NovaCron's own answers.

The demo shows it after its move, and every test on real parts ends with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from models.base import Model
from workers.lab.heartbeats import GuestStory, Heartbeats
from workers.lab.hosts import Host

WHOLE_WALK = 2
"""Checks finished from any moment on that surely hold one that also began after it."""


class Proof(Model):
    """What was found; `problems` is empty when all is as it must be."""

    guest: str
    on: tuple[str, ...]
    """Hosts with a QEMU process of the guest."""
    left: tuple[str, ...]
    """What moves left behind on the hosts."""
    story: GuestStory
    problems: tuple[str, ...]


def copies(hosts: Iterable[Host], guest: str) -> tuple[str, ...]:
    """Hosts that have a QEMU process of the guest."""
    return tuple(host.name for host in hosts if guest in host.qemu())


def left_behind(hosts: Iterable[Host]) -> tuple[str, ...]:
    """Folders and processes of data paths, and QEMU processes that libvirt does not know of."""
    found: list[str] = []
    for host in hosts:
        migrations = host.folder / "novacron" / "migrations"
        if migrations.is_dir():
            found += [f"{host.name}: folder of migration {entry.name}" for entry in sorted(migrations.iterdir())]
        known = set(host.qemu().values())
        for process in host.processes():
            words = _command(process.pid)
            if "dwcp" in words:
                found.append(f"{host.name}: data path process {process.pid}")
            elif words and "qemu-system" in words[0] and "-name" in words and process.pid not in known:
                found.append(f"{host.name}: QEMU process {process.pid} that libvirt does not know of")
    return tuple(found)


def prove(hosts: Iterable[Host], guest: str, expected_on: str, heard: Heartbeats, within: float = 90) -> Proof:
    """Wait until the guest has beaten and checked its whole memory where it is, then look at everything."""
    hosts = tuple(hosts)
    enough = heard.story().checks_by_host.get(expected_on, 0) + WHOLE_WALK
    story = heard.wait_for(
        lambda story: bool(story.bad) or story.checks_by_host.get(expected_on, 0) >= enough,
        within,
        f"whole walk of {guest} through its memory on {expected_on}",
    )
    on, left = copies(hosts, guest), left_behind(hosts)
    problems = [f"found: {thing}" for thing in left]
    if on != (expected_on,):
        problems.append(f"{guest} has a QEMU process on {list(on)}, expected exactly {expected_on}")
    if not story.unbroken:
        problems.append(f"the guest's life is broken: {story.model_dump_json()}")
    if story.silent_for > 10:
        problems.append(f"the guest has been silent for {story.silent_for:.0f} s")
    return Proof(guest=guest, on=on, left=left, story=story, problems=tuple(problems))


def _command(pid: int) -> list[str]:
    with contextlib.suppress(OSError):  # it has just ended
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []
