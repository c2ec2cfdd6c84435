"""What a disk holds, read from its first sectors: partition table and file systems. Nothing is mounted for it.

The disk is a guest's, so every number in it may be a lie: all are checked against the disk's size, tables are bounded,
and an answer is at worst `unknown`.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import Protocol

from models.clouds import Firmware

SECTOR = 512
_PARTITIONS = 128
_EXTENDED = (0x05, 0x0F, 0x85)
_ESP_TYPE, _GPT_TYPE = 0xEF, 0xEE
_ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")


class Source(Protocol):
    @property
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class Partition:
    number: int
    """0: the whole disk is one file system."""
    kind: str
    """ext4 (its elders too), xfs, btrfs, vfat, swap, luks, lvm, raid, ntfs, bitlocker, empty, unknown."""
    uuid: str = ""
    label: str = ""
    partuuid: str = ""
    esp: bool = False

    @property
    def device(self) -> str:
        """Its name where the disk is the first of virtio-blk."""
        return f"vda{self.number or ''}"


@dataclass(frozen=True)
class Layout:
    partitions: tuple[Partition, ...] = ()
    firmware: tuple[Firmware, ...] = ()

    def number(self, number: int) -> Partition | None:
        return next((each for each in self.partitions if each.number == number), None)


def read_layout(disk: Source) -> Layout:
    first = _at(disk, 0, SECTOR)
    whole = _kind(disk, 0, disk.size)
    if first[510:512] != b"\x55\xaa" or whole[0] in ("ntfs", "vfat", "bitlocker", "ext4", "xfs", "btrfs"):
        return Layout((Partition(0, *whole),))
    entries = [struct.unpack_from("<B3xB3xII", first, 446 + 16 * index) for index in range(4)]
    boots = any(first[:440])
    if any(kind == _GPT_TYPE for _, kind, _, _ in entries):
        return _gpt(disk, boots)
    return _mbr(disk, first, entries, boots)


def _gpt(disk: Source, boots: bool) -> Layout:
    header = _at(disk, SECTOR, SECTOR)
    if header[:8] != b"EFI PART":
        return Layout()
    table, count, size = struct.unpack_from("<QII", header, 72)
    found: list[Partition] = []
    bios = False
    if not 128 <= size <= 4096:
        return Layout()
    for index in range(min(count, _PARTITIONS)):
        entry = _at(disk, table * SECTOR + index * size, 128)
        kind, own = uuid.UUID(bytes_le=entry[:16]), uuid.UUID(bytes_le=entry[16:32])
        start, end = struct.unpack_from("<QQ", entry, 32)
        if not kind.int or end < start:
            continue
        bios |= kind == _BIOS_BOOT
        if kind == _BIOS_BOOT:
            continue
        what = _kind(disk, start * SECTOR, (end - start + 1) * SECTOR)
        found.append(Partition(index + 1, *what, partuuid=str(own), esp=kind == _ESP))
    return Layout(tuple(found), _firmware(bios and boots, found))


def _mbr(disk: Source, first: bytes, entries: list[tuple[int, ...]], boots: bool) -> Layout:
    signature = struct.unpack_from("<I", first, 440)[0]
    spans = [(index, kind, start, count) for index, (_, kind, start, count) in enumerate(entries, start=1) if kind]
    for _, kind, base, _ in list(spans):
        if kind in _EXTENDED:
            spans += _logical(disk, base)
    found = [
        Partition(
            number, *_kind(disk, start * SECTOR, count * SECTOR), f"{signature:08x}-{number:02x}", kind == _ESP_TYPE
        )
        for number, kind, start, count in spans
        if kind not in _EXTENDED
    ]
    return Layout(tuple(found), _firmware(boots, found))


def _logical(disk: Source, base: int) -> list[tuple[int, int, int, int]]:
    found: list[tuple[int, int, int, int]] = []
    here, seen = base, set[int]()
    while here not in seen and len(found) < _PARTITIONS:
        seen.add(here)
        sector = _at(disk, here * SECTOR, SECTOR)
        if sector[510:512] != b"\x55\xaa":
            break
        (_, kind, start, count), (_, following, step, _) = (
            struct.unpack_from("<B3xB3xII", sector, 446 + 16 * index) for index in range(2)
        )
        if kind:
            found.append((5 + len(found), kind, here + start, count))
        if following not in _EXTENDED:
            break
        here = base + step
    return found


def _firmware(bios: bool, found: list[Partition]) -> tuple[Firmware, ...]:
    ways: tuple[tuple[Firmware, bool], ...] = (("bios", bios), ("uefi", any(each.esp for each in found)))
    return tuple(name for name, there in ways if there)


def _kind(disk: Source, start: int, size: int) -> tuple[str, str, str]:
    """(kind, uuid, label) of what stands there."""

    def at(offset: int, length: int) -> bytes:
        return _at(disk, start + offset, length) if offset + length <= size else bytes(length)

    head, ext = at(0, 8192), at(1024, 256)
    if head[:6] == b"LUKS\xba\xbe":
        return "luks", "", ""
    if any(head[sector * SECTOR :][:8] == b"LABELONE" for sector in range(4)):
        return "lvm", "", ""
    raid = b"\xfc\x4e\x2b\xa9"
    if raid in (head[:4], head[4096:4100], at(max(0, (size & ~0xFFFF) - 0x10000), 4), at(max(0, size - 8192), 4)):
        return "raid", "", ""
    if head[3:11] == b"NTFS    ":
        return "ntfs", "", ""
    if head[3:11] == b"-FVE-FS-":
        return "bitlocker", "", ""
    if head[:4] == b"XFSB":
        return "xfs", _uuid(head[32:48]), _text(head[108:120])
    if ext[0x38:0x3A] == b"\x53\xef":
        return "ext4", _uuid(ext[0x68:0x78]), _text(ext[0x78:0x88])
    if head[4086:4096] == b"SWAPSPACE2":
        return "swap", _uuid(head[1036:1052]), _text(head[1052:1068])
    btrfs = at(0x10000, 512)
    if btrfs[0x40:0x48] == b"_BHRfS_M":
        return "btrfs", _uuid(btrfs[0x20:0x30]), ""
    for name, serial in ((head[54:57], head[39:43]), (head[82:85], head[67:71])):
        if name == b"FAT" and head[510:512] == b"\x55\xaa":
            digits = serial[::-1].hex().upper()
            return "vfat", f"{digits[:4]}-{digits[4:]}", ""
    return ("unknown" if any(head) else "empty"), "", ""


def _at(disk: Source, offset: int, length: int) -> bytes:
    """Zeros where the disk has nothing."""
    if offset + length > disk.size:
        return bytes(length)
    return disk.read(offset, length)


def _uuid(data: bytes) -> str:
    return str(uuid.UUID(bytes=data)) if any(data) else ""


def _text(data: bytes) -> str:
    said = data.split(b"\0")[0].decode("ascii", errors="replace")
    return said if said.isprintable() else ""
