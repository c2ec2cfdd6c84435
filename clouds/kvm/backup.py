"""A running VM's disks as they were at one moment, and what changed since the moment before: rounds of a warm move.

A round is libvirt's backup job in pull mode. QEMU shows each disk over NBD on a UNIX socket as it was when the round
began, whatever the guest writes meanwhile (a scratch file beside the image keeps what it overwrites). With it begins
a checkpoint, a dirty bitmap that QEMU keeps in the qcow2 image: the next round tells by it what changed. libvirt keeps
no bitmaps for raw images; their rounds show the whole disk, and who copies compares.

The job lives in libvirt and QEMU, not in a worker: a round that is begun again is found, and goes on showing the same
moment. It ends with QEMU. Only what carries our name is ever ended or deleted.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clouds.disks.extents import ALLOCATION, Extents, dirty
from clouds.disks.images import drop_bitmaps
from clouds.disks.nbd import Nbd
from clouds.kvm.connection import Checkpoint, Domain, Session, code_of
from clouds.kvm.errors import Final, HostUnavailable, KvmError, Refused
from clouds.kvm.inventory import STATES
from models.disks import DiskImage
from models.migration import VmRef

BACKUP = 9
"""libvirt's VIR_DOMAIN_JOB_OPERATION_BACKUP."""
METADATA_ONLY = 2
"""VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY."""
SCRATCH = ".novacron-scratch"
WITH_BITMAPS = ("qcow2",)
ENDED_WITHIN = 30.0
_PREFIX = "novacron-"


@dataclass(frozen=True)
class Round:
    """One round of one move. `base` is the earlier round since which changes are wanted; None: everything."""

    move: str
    number: int
    disks: Sequence[DiskImage]
    folder: Path
    base: int | None = None

    @property
    def socket(self) -> str:
        """The round's own: by it libvirt's answer tells which round is open."""
        return str(self.folder / self.move / f"{self.number}.sock")

    @property
    def checkpoint(self) -> str:
        return _checkpoint(self.move, self.number)

    def scratch(self, disk: DiskImage) -> Path:
        return Path(f"{disk.path}{SCRATCH}")


class Snapshot:
    """One disk of an open round. A Reader; use it from one thread."""

    def __init__(self, round: Round, target: str) -> None:
        self._round = round
        self._target = target
        self._session = Nbd(round.socket, export=target)
        self.size = self._session.size

    def read(self, offset: int, length: int) -> bytes:
        return self._session.read(offset, length)

    def data(self) -> Iterator[tuple[int, int]]:
        with Extents(self._round.socket, ALLOCATION, export=self._target) as extents:
            yield from extents

    def changed(self) -> tuple[tuple[int, int], ...]:
        """What the guest wrote since the round's base, in pieces of the bitmap's granularity (64 KiB)."""
        with Extents(self._round.socket, dirty(f"backup-{self._target}"), export=self._target) as extents:
            return tuple(extents)

    def close(self) -> None:
        self._session.__exit__(None, None, None)


@contextmanager
def snapshot(round: Round, target: str) -> Iterator[Snapshot]:
    """Raises HostUnavailable when the round is not open."""
    try:
        shown = Snapshot(round, target)
    except OSError as error:
        raise HostUnavailable(
            f"round {round.number} does not show {target}: {error}", "The round is begun again."
        ) from error
    try:
        yield shown
    finally:
        shown.close()


def begin(session: Session, vm: VmRef, round: Round) -> tuple[str, ...]:
    """Open the round, or find it open. The disks (targets) that tell what changed since `base`. Raises Refused when
    the VM does not run, HostUnavailable while another job works on it."""
    domain = session.get(vm)
    state = STATES[session.call(f"look at VM {vm.vm}", lambda _: domain.state())[0]]
    if state not in ("running", "blocked", "paused"):
        raise Refused(f"VM {vm.vm} is {state}: it has no disks in use to look at", "Copy its images as they are.")
    running = _open_round(session, domain)
    if running is not None and _is(running, round):
        return _telling(running)
    if running is not None:
        if not _ours(running, round):
            raise HostUnavailable(
                f"another backup of VM {vm.vm} is running", "It is tried again; end that backup if nobody needs it."
            )
        _end(session, domain)
    _forget(session, domain, round.move, only=round.checkpoint)
    for name in _names(session, domain):
        if not name.startswith(f"{_PREFIX}{round.move}-"):
            _forget(session, domain, name.removeprefix(_PREFIX).rpartition("-")[0])  # of a move that died
    for disk in round.disks:
        round.scratch(disk).unlink(missing_ok=True)
    Path(round.socket).unlink(missing_ok=True)
    known = [checkpoint.getName() for checkpoint in _checkpoints(session, domain, round.move)]
    based = round.base is not None and _checkpoint(round.move, round.base) in known
    targets = _targets(session, domain)
    if based:
        try:
            _begin(session, domain, round, targets, based=True)
            return _telling(_open_round(session, domain))
        except Final as error:
            if not code_of(error):
                raise
            _forget(session, domain, round.move)  # a bitmap that cannot be used: of no use later either
    _begin(session, domain, round, targets, based=False)
    return ()


def is_open(session: Session, vm: VmRef, round: Round) -> bool:
    domain = session.find(vm)
    running = _open_round(session, domain) if domain is not None else None
    return running is not None and _is(running, round)


def end(session: Session, vm: VmRef, round: Round) -> None:
    """Close the round, open or not; its checkpoint stays, those before it go."""
    domain = session.find(vm)
    if domain is None:
        return
    running = _open_round(session, domain)
    if running is not None and _ours(running, round):
        _end(session, domain)
    for name in [checkpoint.getName() for checkpoint in _checkpoints(session, domain, round.move)]:
        if name != round.checkpoint:
            _forget(session, domain, round.move, only=name)


def forget(session: Session, vm: VmRef, round: Round) -> None:
    """Everything of the move that libvirt or QEMU keeps: the open round, and all checkpoints."""
    domain = session.find(vm)
    if domain is None:
        return
    running = _open_round(session, domain)
    if running is not None and _ours(running, round):
        _end(session, domain)
    _forget(session, domain, round.move)
    if STATES[session.call(f"look at VM {vm.vm}", lambda _: domain.state())[0]] in ("shutoff", "crashed"):
        for disk in round.disks:
            round.scratch(disk).unlink(missing_ok=True)
            if disk.format in WITH_BITMAPS:
                drop_bitmaps(disk.path, _PREFIX)


def backup_xml(round: Round, targets: Sequence[str], *, based: bool) -> str:
    root = ET.Element("domainbackup", mode="pull")
    ET.SubElement(root, "server", transport="unix", socket=round.socket)
    disks, wanted = ET.SubElement(root, "disks"), {disk.target: disk for disk in round.disks}
    for target in targets:
        if target not in wanted:
            ET.SubElement(disks, "disk", name=target, backup="no")
            continue
        more: dict[str, str] = {"exportname": target}
        if based and wanted[target].format in WITH_BITMAPS:
            assert round.base is not None
            since = _checkpoint(round.move, round.base)
            more |= {"backupmode": "incremental", "incremental": since, "exportbitmap": f"backup-{target}"}
        disk = ET.SubElement(disks, "disk", {"name": target, "backup": "yes", "type": "file", **more})
        ET.SubElement(disk, "scratch", file=str(round.scratch(wanted[target])))
    return ET.tostring(root, encoding="unicode")


def checkpoint_xml(round: Round, targets: Sequence[str]) -> str | None:
    """None when none of the disks can have a bitmap."""
    kept = {disk.target for disk in round.disks if disk.format in WITH_BITMAPS}
    if not kept:
        return None
    root = ET.Element("domaincheckpoint")
    ET.SubElement(root, "name").text = round.checkpoint
    disks = ET.SubElement(root, "disks")
    for target in targets:
        ET.SubElement(disks, "disk", name=target, checkpoint="bitmap" if target in kept else "no")
    return ET.tostring(root, encoding="unicode")


def _begin(session: Session, domain: Domain, round: Round, targets: Sequence[str], *, based: bool) -> None:
    what = f"begin round {round.number} of {domain.name()}"
    backup, checkpoint = backup_xml(round, targets, based=based), checkpoint_xml(round, targets)
    session.call(what, lambda _: domain.backupBegin(backup, checkpoint, 0))


def _open_round(session: Session, domain: Domain) -> ET.Element | None:
    """libvirt's own words about the backup job that runs, if one does."""
    try:
        text = session.call("look for a backup job", lambda _: domain.backupGetXMLDesc(0))
    except KvmError as error:
        if isinstance(error, HostUnavailable):
            raise
        return None  # "no domain backup job present", or no QEMU
    return ET.fromstring(text)


def _is(running: ET.Element, round: Round) -> bool:
    server = running.find("server")
    return server is not None and server.get("socket") == round.socket


def _ours(running: ET.Element, round: Round) -> bool:
    """Of this move, or of one that died: one operation at a time has the VM, so nobody else needs it."""
    server = running.find("server")
    return server is not None and server.get("socket", "").startswith(f"{round.folder}/")


def _telling(running: ET.Element | None) -> tuple[str, ...]:
    if running is None:
        return ()
    return tuple(
        disk.get("name", "") for disk in running.iterfind("disks/disk") if disk.get("backupmode") == "incremental"
    )


def _end(session: Session, domain: Domain) -> None:
    session.call("end the round", lambda _: domain.abortJob())
    until = time.monotonic() + ENDED_WITHIN
    while _open_round(session, domain) is not None:
        if time.monotonic() > until:
            raise HostUnavailable("libvirt does not end its backup job", "It is asked again.")
        time.sleep(0.05)


def _forget(session: Session, domain: Domain, move: str, only: str | None = None) -> None:
    """Delete this move's checkpoints, newest first. Of a VM that is off libvirt only forgets them: the bitmaps stay in
    the images."""
    for checkpoint in _checkpoints(session, domain, move):
        if only is not None and checkpoint.getName() != only:
            continue
        delete = checkpoint.delete
        try:
            session.call("delete a checkpoint", lambda _: delete(0))  # noqa: B023  # called at once
        except Final:
            session.call("forget a checkpoint", lambda _: delete(METADATA_ONLY))  # noqa: B023


def _checkpoints(session: Session, domain: Domain, move: str) -> list[Checkpoint]:
    found = session.call("list checkpoints", lambda _: domain.listAllCheckpoints(0))
    mine = [each for each in found if each.getName().startswith(f"{_PREFIX}{move}-")]
    return sorted(mine, key=lambda each: int(each.getName().rpartition("-")[2]), reverse=True)


def _names(session: Session, domain: Domain) -> list[str]:
    found = session.call("list checkpoints", lambda _: domain.listAllCheckpoints(0))
    return [name for each in found if (name := each.getName()).startswith(_PREFIX)]


def _targets(session: Session, domain: Domain) -> list[str]:
    """Of all disks; libvirt wants to hear of each, CD drives apart."""
    root = ET.fromstring(session.call("read the VM's disks", lambda _: domain.XMLDesc(0)))
    disks = [disk for disk in root.iterfind("devices/disk") if disk.get("device", "disk") == "disk"]
    return [target.get("dev", "") for disk in disks if (target := disk.find("target")) is not None]


def _checkpoint(move: str, number: int) -> str:
    return f"{_PREFIX}{move}-{number}"
