"""A VM's disk at one moment, copied into the folder: of a running VM by a round of libvirt's backup job
(clouds.kvm.backup), of one that is off from its image file.

Any VM of the host may be looked at; nothing of it is changed but QEMU's bitmap. When the snapshot before was of the
same volume, that bitmap tells what changed since, and only this is read; when it does not, the whole disk is.
"""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clouds import tokens
from clouds.disks.content import blocks
from clouds.disks.images import open_image
from clouds.errors import Busy, Invalid, NotFound
from clouds.kvm import backup, leaving
from clouds.kvm.connection import Session
from clouds.kvm.place.disks import KvmDisks
from clouds.kvm.place.session import Libvirt
from clouds.kvm.place.store import DiskRecord, Store
from models.clouds import Cursor, DiskFormat, DiskOrder, Snapshot
from models.disks import DiskImage
from models.migration import VmRef

FORMATS: dict[str, DiskFormat] = {"raw": "raw", "qcow2": "qcow2"}


@dataclass(frozen=True)
class _Volume:
    id: str
    vm: VmRef
    image: DiskImage


class KvmSnapshots:
    """The rest of ImageExport."""

    def __init__(self, libvirt: Libvirt, store: Store, disks: KvmDisks) -> None:
        self._libvirt = libvirt
        self._store = store
        self._disks = disks

    def create_snapshot(self, volume: str, token: str) -> Snapshot:
        """Returns when the disk is copied: in the time that takes, and with room for what it holds. The copy of an
        attempt that died is made anew, of a later moment."""
        self._libvirt.call(f"snapshot {volume}", lambda session: self._copy(session, volume, token))
        return self._store.disk(tokens.name("disk", token)).snapshot

    def volume_size(self, volume: str) -> int:
        return self._libvirt.call(f"look at {volume}", lambda session: _look(session, volume).image.capacity)

    def _copy(self, session: Session, volume: str, token: str) -> None:
        """Also again, after an attempt that died anywhere."""
        id = tokens.name("disk", token)
        try:
            earlier = self._store.disk(id)
        except NotFound:
            earlier = None
        if earlier is not None and earlier.snapshot.state == "ready":
            self._close(session, earlier)
            return
        found = _look(session, volume)
        if earlier is not None:
            self._disks.delete_disk(id)
        order = DiskOrder(name=found.vm.vm, token=token)
        if leaving.is_off(session, found.vm):
            self._copy_image(session, found, order)
        else:
            self._copy_round(session, found, order)

    def _close(self, session: Session, done: DiskRecord) -> None:
        """The round of a snapshot that is whole, should it still be open: an attempt died between the two."""
        if self._before(done.line)[1] != done.round + 1:
            return  # a later one has closed it
        with suppress(NotFound):  # the VM is gone, and its round with it
            volume = _look(session, done.line)
            backup.end(session, volume.vm, self._round(volume, done.round, None))

    def _copy_image(self, session: Session, volume: _Volume, order: DiskOrder) -> None:
        path = Path(volume.image.path)
        before = path.stat().st_mtime_ns
        with open_image(path, FORMATS[volume.image.format]) as image:
            self._disks.send(order, None, image, blocks(image), _nobody, None, line=volume.id)
        if path.stat().st_mtime_ns != before or not leaving.is_off(session, volume.vm):
            self._disks.delete_disk(tokens.name("disk", order.token))
            raise Busy(f"VM {volume.vm.vm} was started while its disk was copied", "It is copied again.")

    def _copy_round(self, session: Session, volume: _Volume, order: DiskOrder) -> None:
        if not session.get(volume.vm).isPersistent():
            raise Invalid(
                f"VM {volume.vm.vm} is transient: libvirt keeps no checkpoints of it",
                "Define it (virsh dumpxml, virsh define), or shut it down.",
            )
        base, number = self._before(volume.id)
        round = self._round(volume, number, base.round if base else None)
        Path(round.socket).parent.mkdir(parents=True, exist_ok=True)
        telling = backup.begin(session, volume.vm, round)
        try:
            with backup.snapshot(round, volume.image.target) as shown:
                if base is not None and volume.image.target in telling and shown.size <= base.snapshot.size:
                    moved = blocks(shown, shown.changed())
                else:
                    base, moved = None, blocks(shown)
                self._disks.send(order, base, shown, moved, _nobody, None, line=volume.id, round=number)
        finally:
            backup.end(session, volume.vm, round)

    def _round(self, volume: _Volume, number: int, base: int | None) -> backup.Round:
        move = volume.id.partition("/")[0].replace("-", "")[:16]
        return backup.Round(move, number, (volume.image,), self._store.folder / "rounds", base)

    def _before(self, volume: str) -> tuple[DiskRecord | None, int]:
        """The newest whole snapshot of this volume by a round, and the next round's number. Rounds count by VM: libvirt
        keeps the newest one's bitmap only."""
        vm = volume.partition("/")[0]
        of_vm = [each for each in self._store.disks() if each.line.partition("/")[0] == vm and each.round]
        newest = max(of_vm, key=lambda each: each.round, default=None)
        usable = newest is not None and newest.line == volume and newest.snapshot.state == "ready"
        return newest if usable else None, newest.round + 1 if newest else 1


def _look(session: Session, volume: str) -> _Volume:
    id, _, target = volume.partition("/")
    domain = None
    try:
        vm = VmRef(vm="vm", uuid=str(uuid.UUID(id)))
        domain = session.find(vm)
    except ValueError:
        pass  # no VM has such an id
    if domain is None:
        raise NotFound(f"there is no volume {volume}", "Check the id and the region.")
    xml = ET.fromstring(session.call("read the VM's disks", lambda _: domain.XMLDesc(0)))
    disk = xml.find(f"devices/disk/target[@dev='{target}']/..") if target.isalnum() else None
    if disk is None:
        raise NotFound(f"VM {domain.name()} has no disk {target}", "Check the id and the region.")
    source, driver = disk.find("source"), disk.find("driver")
    path = source.get("file", "") if source is not None else ""
    format = driver.get("type", "") if driver is not None else ""
    if not path or format not in FORMATS:
        raise Invalid(
            f"disk {target} of VM {domain.name()} is no raw or qcow2 file, but {format or 'of no told format'}",
            "Only such files are copied.",
        )
    image = DiskImage(target=target, path=path, format=format, capacity=domain.blockInfo(target)[0], allocated=0)
    return _Volume(volume, VmRef(vm=domain.name(), uuid=id), image)


def _nobody(_: Cursor) -> None:
    """Snapshots are not gone on with."""
