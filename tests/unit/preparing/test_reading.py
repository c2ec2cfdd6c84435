"""What is read out of a disk: tables, file systems, links, tars. All of it may be damaged, or lies."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds.errors import BadDisk, MissingPackage
from clouds.preparing import appliance
from clouds.preparing.appliance import find_kernel, load_order, read_answer
from clouds.preparing.cpio import archive
from clouds.preparing.guest import Guest
from clouds.preparing.layout import Layout, read_layout
from clouds.preparing.rules import make_plan
from clouds.preparing.targets import TARGETS
from tests.unit.preparing.trees import DHCP, guest

MIB = 1 << 20
ROOT = "35831d4a-4197-497c-a8ab-5f3693f6a059"


@dataclass
class Disk:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert offset + length <= self.size
        return self.data[offset : offset + length]


def mbr(*entries: tuple[int, int, int], boots: bool = True) -> bytearray:
    made = bytearray(8 * MIB)
    made[0:2] = b"\xeb\x63" if boots else b"\0\0"
    made[440:444] = bytes.fromhex("78563412")
    for index, (kind, start, count) in enumerate(entries):
        struct.pack_into("<B3xB3xII", made, 446 + 16 * index, 0, kind, start, count)
    made[510:512] = b"\x55\xaa"
    return made


def put(disk: bytearray, at: int, data: bytes) -> bytearray:
    disk[at : at + len(data)] = data
    return disk


def ext4(disk: bytearray, at: int) -> bytearray:
    put(disk, at + 1024 + 0x38, b"\x53\xef")
    return put(disk, at + 1024 + 0x68, bytes.fromhex(ROOT.replace("-", "")))


def test_a_dos_table_with_logical_partitions() -> None:
    disk = ext4(mbr((0x83, 2048, 2048), (0xEF, 4096, 1024), (0x05, 8192, 8192)), MIB)
    put(disk, 4096 * 512 + 82, b"FAT32   ")
    put(disk, 4096 * 512 + 67, bytes.fromhex("61766f4e"))
    put(disk, 4096 * 512 + 510, b"\x55\xaa")
    struct.pack_into("<B3xB3xII", disk, 8192 * 512 + 446, 0, 0x82, 64, 1024)
    put(disk, 8192 * 512 + 510, b"\x55\xaa")
    put(disk, (8192 + 64) * 512 + 4086, b"SWAPSPACE2")
    found = read_layout(Disk(bytes(disk)))
    assert [(each.device, each.kind) for each in found.partitions] == [
        ("vda1", "ext4"),
        ("vda2", "vfat"),
        ("vda5", "swap"),
    ]
    assert found.partitions[0].uuid == ROOT
    assert found.partitions[0].partuuid == "12345678-01"
    assert found.partitions[1].uuid == "4E6F-7661"
    assert found.firmware == ("bios", "uefi")


def test_a_logical_chain_in_a_circle_ends() -> None:
    disk = mbr((0x05, 8192, 8192))
    for index, kind in enumerate((0x83, 0x05)):
        struct.pack_into("<B3xB3xII", disk, 8192 * 512 + 446 + 16 * index, 0, kind, 0, 10)
    put(disk, 8192 * 512 + 510, b"\x55\xaa")
    assert len(read_layout(Disk(bytes(disk))).partitions) == 1


def test_a_gpt_made_by_sfdisk(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(8 * MIB))
    script = f"label: gpt\nstart=2048, size=2048, type=U\nstart=4096, size=2048, type=L, uuid={ROOT}\n"
    try:
        subprocess.run(["sfdisk", "-q", str(path)], input=script, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("sfdisk is not installed here: it comes with `make setup-boot`")
    found = read_layout(Disk(bytes(ext4(bytearray(path.read_bytes()), 2 * MIB))))
    assert [(each.number, each.kind, each.esp) for each in found.partitions] == [(1, "empty", True), (2, "ext4", False)]
    assert found.partitions[1].partuuid == ROOT
    assert found.firmware == ("uefi",)


@pytest.mark.parametrize(
    ("at", "magic", "kind"),
    [
        (0, b"LUKS\xba\xbe", "luks"),
        (512, b"LABELONE", "lvm"),
        (4096, b"\xfc\x4e\x2b\xa9", "raid"),
        (3, b"NTFS    ", "ntfs"),
        (3, b"-FVE-FS-", "bitlocker"),
        (0, b"XFSB", "xfs"),
        (0x10040, b"_BHRfS_M", "btrfs"),
        (700, b"what is this", "unknown"),
        (700, b"\0", "empty"),
    ],
)
def test_file_systems_are_known_by_their_marks(at: int, magic: bytes, kind: str) -> None:
    inside = put(mbr((0x83, 2048, 8192)), MIB + at, magic)
    assert [each.kind for each in read_layout(Disk(bytes(inside))).partitions] == [kind]
    whole = put(bytearray(MIB), at, magic)
    assert [(each.number, each.kind) for each in read_layout(Disk(bytes(whole))).partitions] == [(0, kind)]


@given(st.binary(max_size=3000), st.sampled_from([0, 440, 446, 512, 1024]))
def test_a_damaged_table_is_at_worst_unknown(junk: bytes, at: int) -> None:
    disk = put(mbr((0xEE, 1, 100), (0x05, 3, 4)), at, junk)
    put(disk, 510, b"\x55\xaa")
    put(disk, 512, b"EFI PART" + junk[:500]) if at == 1024 else None
    assert len(read_layout(Disk(bytes(disk))).partitions) <= 256
    read_layout(Disk(junk))


def test_links_stay_inside() -> None:
    links = {
        "lib": "usr/lib",
        "etc/a": "/../../../etc/fstab",
        "etc/b": "../../../outside",
        "loop": "loop",
        "x": "/etc/a",
    }
    linked = Guest({"usr/lib/f": "1", "etc/fstab": "2"}, Layout(), links=links)
    assert linked.text("lib/f") == "1"
    assert linked.text("etc/a") == linked.text("x") == "2"
    assert linked.resolve("etc/b") == "outside"
    assert linked.text("loop/f") is None


def test_cpio_is_what_the_cpio_program_reads(tmp_path: Path) -> None:
    made = archive({"init": b"#!x", "a/b/c": b"12345", "a/d": b""}, frozenset({"init"}))
    told = subprocess.run(["cpio", "-itv"], input=made, capture_output=True, check=True, cwd=tmp_path)
    lines = [line.split() for line in told.stdout.decode().splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        ("drwxr-xr-x", "a"),
        ("drwxr-xr-x", "a/b"),
        ("-rw-r--r--", "a/b/c"),
        ("-rw-r--r--", "a/d"),
        ("-rwxr-xr-x", "init"),
    ]


def test_modules_come_after_what_they_need_and_once() -> None:
    dep = "a/virtio_blk.ko.xz: a/virtio.ko.xz a/virtio-ring.ko.xz\na/virtio.ko.xz: a/virtio-ring.ko.xz\n"
    dep += "a/virtio-ring.ko.xz:\n"
    assert load_order(dep, ("virtio_blk", "virtio_ring", "ext4")) == [
        "a/virtio-ring.ko.xz", "a/virtio.ko.xz", "a/virtio_blk.ko.xz",
    ]  # fmt: skip


def test_the_newest_kernel_with_modules_is_taken(tmp_path: Path) -> None:
    with pytest.raises(MissingPackage, match="linux-image"):
        find_kernel((tmp_path,))
    (tmp_path / "boot").mkdir()
    for version in ("6.1.0-9", "6.1.0-10", "6.9.0"):
        (tmp_path / f"boot/vmlinuz-{version}").touch()
        if version != "6.9.0":
            (tmp_path / f"lib/modules/{version}").mkdir(parents=True)
            (tmp_path / f"lib/modules/{version}/modules.dep").touch()
    assert find_kernel((tmp_path,)).modules.name == "6.1.0-10"


def tar(folder: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    path = folder / "answer"
    with tarfile.open(path, "w") as made:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            made.addfile(info)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + MIB)
    return path


def test_an_answer_is_taken_apart_in_memory(tmp_path: Path) -> None:
    files = {
        "facts/roots": b"vda2:ext4\n",
        "facts/boot": b"boot/vmlinuz-6\n",
        "facts/packed/initrd.img-6": b"nvme-core\nnvme\n",
        "root/etc/fstab": b"\xff x",
        "root/../../outside": b"x",
    }
    found = read_answer(tar(tmp_path, files, {"root/lib": "/etc"}), Layout())
    assert found.root == "vda2:ext4"
    assert found.kernels() == ["6"]
    assert found.packed == {"6": {"nvme_core", "nvme"}}
    assert found.links == {"lib": "/etc"}
    assert (found.text("etc/fstab") or "").encode(errors="surrogateescape") == b"\xff x"
    assert [path.name for path in tmp_path.parent.iterdir() if path.name == "outside"] == []


def test_an_answer_that_is_too_much_or_no_tar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appliance, "_ALL", 10)
    with pytest.raises(BadDisk, match="more settings"):
        read_answer(tar(tmp_path, {"root/etc/fstab": bytes(11)}), Layout())
    monkeypatch.undo()
    with pytest.raises(BadDisk, match="etc/fstab has 300000 bytes"):
        read_answer(tar(tmp_path, {"root/etc/fstab": bytes(300_000)}), Layout())
    (tmp_path / "answer").write_bytes(b"no tar" * 1000)
    with pytest.raises(BadDisk, match="no sense"):
        read_answer(tmp_path / "answer", Layout())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "junk", [" " * (1 << 18), "\n" * (1 << 18), "-" * (1 << 18), "linux a" + " " * (1 << 18) + "x", "a " * (1 << 17)]
)
def test_files_made_to_take_long_take_no_time(junk: str) -> None:
    names = (
        "etc/fstab",
        "etc/default/grub",
        "boot/grub/grub.cfg",
        "boot/loader/entries/a.conf",
        "etc/initramfs-tools/modules",
    )
    more = ("etc/initramfs-tools/conf.d/resume", "etc/cloud/cloud.cfg.d/99_zz.cfg", "etc/systemd/network/a.link")
    make_plan(guest({name: junk for name in (*names, *more, *(path for path, _ in DHCP.values()))}), TARGETS["azure"])
