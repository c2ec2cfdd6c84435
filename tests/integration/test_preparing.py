"""The machine that opens disks, on a small guest of busybox whose programs are a few lines of shell: what it reads is
what is there, what it changes is what was planned, nothing is left of it, and links lead nowhere but into the guest."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from clouds.disks.images import convert, open_image
from clouds.errors import BadDisk
from clouds.preparing import layer
from clouds.preparing.appliance import find_kernel, work
from clouds.preparing.layout import read_layout
from clouds.preparing.prepare import prepare
from clouds.preparing.steps import Run, Write
from models.clouds import DiskFormat
from models.preparing import PrepareReport, PrepareRequest

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

KERNEL = "6.0.0-small"
UUID = "11111111-2222-4333-8444-555555555555"
PACK = """#!/bin/sh
[ -d /proc/self ] && ! ip link show eth0 2>/dev/null || exit 9
cat /etc/initramfs-tools/modules >/boot/initrd.img-6.0.0-small
"""
LIST = """#!/bin/sh
while read -r name; do echo "usr/lib/modules/x/kernel/$name.ko.xz"; done <"$1"
"""
MENU = """#!/bin/sh
. /etc/default/grub
[ -e /dev/disk/by-uuid/11111111-2222-4333-8444-555555555555 ] || exit 8
echo "linux /boot/vmlinuz-6.0.0-small root=UUID=11111111-2222-4333-8444-555555555555 ro $GRUB_CMDLINE_LINUX" \
  >/boot/grub/grub.cfg
"""


def tree(folder: Path) -> Path:
    """A guest's root."""
    drivers = "".join(f"kernel/{name}.ko.xz:\n" for name in ("nvme", "ena"))
    files = {
        "etc/fstab": "/dev/vda1 / ext4 rw 0 1\n",
        "etc/default/grub": 'GRUB_CMDLINE_LINUX="quiet"\n',
        "boot/grub/grub.cfg": f"linux /boot/vmlinuz-{KERNEL} root=/dev/vda1 ro quiet\n",
        f"boot/vmlinuz-{KERNEL}": "",
        f"boot/initrd.img-{KERNEL}": "virtio_blk\n",
        "etc/initramfs-tools/modules": "virtio_blk\n",
        "etc/network/interfaces": "iface ens3 inet dhcp\n",
        f"usr/lib/modules/{KERNEL}/modules.dep": drivers,
        "usr/sbin/update-initramfs": PACK,
        "usr/sbin/update-grub": MENU,
        "usr/bin/lsinitramfs": LIST,
        "usr/bin/cloud-init": "",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if "bin" in name else 0o644)
    for name in ("proc", "sys", "dev", "tmp", "run", "boot/efi"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "lib").symlink_to("usr/lib")
    (folder / "bin").symlink_to("usr/bin")
    shutil.copy("/bin/busybox", folder / "usr/bin/busybox")
    for name in ("sh", "env", "cat", "ip"):
        (folder / "usr/bin" / name).symlink_to("busybox")
    return folder


def disk(folder: Path, root: Path, format: DiskFormat = "qcow2") -> Path:
    """An image with that root in its first partition, behind a boot sector."""
    raw = folder / "guest.raw"
    with raw.open("wb") as file:
        file.truncate(48 << 20)
        file.seek(446)
        entry = bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (96256).to_bytes(4, "little")
        file.write(entry + bytes(48) + b"\x55\xaa")
    make = ["mke2fs", "-q", "-t", "ext4", "-U", UUID, "-d", str(root), "-E", f"offset={1 << 20}", str(raw), "47M"]
    subprocess.run(make, check=True)
    if format == "raw":
        return raw
    convert(raw, "raw", folder / "guest.qcow2", format)
    return folder / "guest.qcow2"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ask(image: Path, copy: Path | None = None, format: DiskFormat = "qcow2") -> PrepareReport:
    return prepare(PrepareRequest(image=str(image), format=format, target="aws", copy_to=str(copy or "")))


def test_a_copy_is_prepared_and_the_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    image = disk(tmp_path, tree(tmp_path / "root"))
    before = digest(image)
    copy = tmp_path / "copy.qcow2"
    report = ask(image, copy)
    assert report.state == "prepared"
    changed = [each.path for each in report.changes]
    assert changed[:2] == ["etc/fstab", "etc/network/interfaces"]
    assert {"etc/initramfs-tools/modules", "etc/cloud/cloud.cfg.d/99_novacron.cfg"} <= set(changed), "a new folder, too"
    assert changed[-2:] == ["update-initramfs", "update-grub"]
    assert report.changes[0].after == f"UUID={UUID} /"
    assert digest(image) == before
    after = digest(copy)
    again = ask(copy, tmp_path / "second.qcow2")
    assert (again.state, again.changes) == ("ready", ())
    assert digest(copy) == after
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.qcow2", "guest.qcow2", "guest.raw", "root"]
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(copy)], check=True)


def test_a_layer_over_the_image_holds_the_changes_and_the_image_stays_as_it_is(tmp_path: Path) -> None:
    image = disk(tmp_path, tree(tmp_path / "root"))
    before, beats = digest(image), list[int]()
    report = layer.make(str(image), "qcow2", "aws", "m1", 1, lambda: beats.append(1))
    assert report.state == "prepared"
    assert beats, "a worker that is stopped meanwhile stops"
    assert digest(image) == before
    over = layer.checked(str(image), "m1", 1)
    with open_image(over, "qcow2", backing=image) as shown, open_image(image, "qcow2") as old:
        assert shown.size == old.size
        assert shown.read(0, shown.size) != old.read(0, old.size)
    assert layer.drop(str(image))
    assert not layer.folder(str(image)).exists()


class Stopped(Exception):
    """The worker that prepares."""


def test_a_machine_ends_with_the_worker_that_is_stopped(tmp_path: Path) -> None:
    image = disk(tmp_path, tree(tmp_path / "root"))

    def beat() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        layer.make(str(image), "qcow2", "aws", "m1", 1, beat)
    assert list(layer.folder(str(image)).iterdir()) == []
    with open_image(image, "qcow2", writable=True) as free:
        assert free.size, "nobody has it open any more"


def test_what_is_refused_makes_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    (root / "etc/network/interfaces").write_text("iface ens3 inet static\n  address 10.0.0.5\n")
    (root / f"usr/lib/modules/{KERNEL}/modules.dep").write_text("kernel/nvme.ko:\n")
    image = disk(tmp_path, root)
    before = digest(image)
    report = ask(image, tmp_path / "copy.qcow2")
    assert report.state == "refused"
    assert [each.rule for each in report.refusals] == ["kernel", "network"]
    assert report.changes == ()
    assert not (tmp_path / "copy.qcow2").exists()
    assert digest(image) == before


def test_an_image_that_something_has_open_is_refused(tmp_path: Path) -> None:
    image = disk(tmp_path, tree(tmp_path / "root"))
    with open_image(image, "qcow2", writable=True), pytest.raises(BadDisk, match="lock"):
        ask(image)


def test_a_program_of_the_guest_that_fails_fails_it_with_its_words(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    (root / "usr/sbin/update-initramfs").write_text("#!/bin/sh\necho no room left; exit 1\n")
    with pytest.raises(BadDisk, match=r"no room left.*update-initramfs"):
        ask(disk(tmp_path, root), tmp_path / "copy.qcow2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guest.qcow2", "guest.raw", "root"]


def test_links_and_programs_of_the_guest_reach_nothing_of_this_host(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    bait = tmp_path / "bait"
    bait.write_text("as it was")
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to(bait)
    (root / "usr/sbin/update-grub").write_text(f"#!/bin/sh\necho x >{bait}; ls /orders && exit 3; exit 0\n")
    image = disk(tmp_path, root, "raw")
    with image.open("rb") as file:
        content = file.read()

    class Source:
        size = len(content)

        def read(self, offset: int, length: int) -> bytes:
            return content[offset : offset + length]

    steps = (Write("x", "etc/fstab", "gone", "-", "-"), Run("x", ("update-grub",), "-", "-"))
    with pytest.raises(BadDisk, match="failed: write"):
        work(image, "raw", read_layout(Source()), find_kernel(), steps)
    assert bait.read_text() == "as it was"
