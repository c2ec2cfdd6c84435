"""A small machine of our own that opens a guest's disk: the one place where a guest's file system is mounted.

A disk is a guest's to write, so its file system and its programs are hostile input. They are given what they would be
given as a guest, a virtual machine: QEMU without network, without devices but two disks, in its own seccomp sandbox,
with a kernel of this host and busybox. This host's kernel mounts nothing, no name of the guest's is opened here, and
nothing needs root. What is read comes out as a tar, of bounded size, and is taken apart in memory.

It works with KVM and, slowly, without.
"""

from __future__ import annotations

import gzip
import lzma
import os
import posixpath
import re
import select
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clouds.disks.images import qemu_format
from clouds.errors import BadDisk, MissingPackage
from clouds.preparing.cpio import archive
from clouds.preparing.guest import Guest, module_name
from clouds.preparing.layout import Layout
from clouds.preparing.steps import Copy, Remove, Run, Step, Write
from models.clouds import DiskFormat

LOOK_WITHIN, WORK_WITHIN = 900.0, 3600.0
"""Seconds. Without KVM an initramfs takes a minute or two."""
BEAT_EVERY = 1.0
QEMU = "qemu-system-x86_64"
_NEEDS = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "xfs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8")
_ANSWER = 64 << 20
_FILE, _TABLE, _FILES, _ALL = 256 << 10, 8 << 20, 5000, 48 << 20
"""Most bytes of one file, of a table of modules, most files, most bytes of all."""
_HEARD = 20_000
_WANTED = """
    etc/fstab etc/os-release usr/lib/os-release etc/default/grub etc/default/grub.d/* etc/initramfs-tools/modules
    etc/initramfs-tools/initramfs.conf etc/initramfs-tools/conf.d/* etc/dracut.conf.d/* etc/udev/rules.d/*
    etc/network/interfaces etc/network/interfaces.d/* etc/netplan/* etc/systemd/network/*
    etc/NetworkManager/system-connections/* etc/sysconfig/network-scripts/ifcfg-* etc/cloud/cloud.cfg
    etc/cloud/cloud.cfg.d/* boot/grub/grub.cfg boot/grub2/grub.cfg boot/loader/entries/*
    usr/lib/modules/*/modules.dep usr/lib/modules/*/modules.builtin lib/modules/*/modules.dep
    lib/modules/*/modules.builtin
"""
PROGRAMS = tuple(
    f"usr/{folder}/{name}"
    for folder in ("bin", "sbin")
    for name in ("update-initramfs", "dracut", "update-grub", "grub-mkconfig", "grub2-mkconfig", "cloud-init")
)


Beat = Callable[[], None]
"""Called every second while a machine runs; what it raises ends the machine."""


def nothing() -> None:
    """A beat that nobody hears."""


@dataclass(frozen=True)
class Kernel:
    """What this host's machine boots: an image, and its modules."""

    image: Path
    modules: Path


def find_kernel(roots: Sequence[Path] = (Path("/"), Path("/var/lib/novacron/lab/kernel"))) -> Kernel:
    """The newest that has its modules. Raises MissingPackage."""
    for root in roots:
        for image in sorted(root.glob("boot/vmlinuz-*"), key=lambda path: _version(path.name), reverse=True):
            modules = root / "lib/modules" / image.name.removeprefix("vmlinuz-")
            if (modules / "modules.dep").is_file():
                return Kernel(image, modules)
    raise MissingPackage(f"no kernel in {roots[0]}boot to look into disks with", "Install linux-image-cloud-amd64.")


def check_tools() -> None:
    """Raises MissingPackage when something of this host's is not installed."""
    find_kernel()
    _busybox()
    if shutil.which(QEMU) is None:
        raise _no_qemu()


def look(image: Path, format: DiskFormat, layout: Layout, kernel: Kernel, beat: Beat = nothing) -> Guest:
    """The guest's files; its disk is not written. Raises BadDisk."""
    with tempfile.TemporaryDirectory(prefix="novacron-look-") as folder:
        answer = Path(folder) / "answer"
        with answer.open("wb") as file:
            file.truncate(_ANSWER)
        orders = {
            "mode": "look",
            "wanted": "\n".join(f"root/{path}" for path in _WANTED.split()),
            "programs": "".join(f"{path}\n" for path in PROGRAMS),
        }
        _run(Path(folder), image, format, layout, kernel, orders, answer, LOOK_WITHIN, beat)
        return read_answer(answer, layout)


def work(
    image: Path, format: DiskFormat, layout: Layout, kernel: Kernel, steps: Sequence[Step], beat: Beat = nothing
) -> None:
    """Do the steps, in order, to the image. Raises BadDisk with the guest's words; the image is then half done."""
    orders = {"mode": "work"}
    for number, step in enumerate(steps):
        orders |= {f"steps/{number:03}/{name}": text for name, text in _order(step).items()}
    with tempfile.TemporaryDirectory(prefix="novacron-work-") as folder:
        _run(Path(folder), image, format, layout, kernel, orders, None, WORK_WITHIN, beat)


def _order(step: Step) -> dict[str, str]:
    match step:
        case Write(path=path, text=text, mode=mode):
            return {"kind": "write", "path": path, "text": text, "mode": f"{mode:o}"}
        case Remove(path=path):
            return {"kind": "remove", "path": path}
        case Copy(source=source, path=path):
            return {"kind": "copy", "source": source, "path": path}
        case Run(words=words):
            return {"kind": "run", "words": " ".join(words)}


def _run(
    folder: Path,
    image: Path,
    format: DiskFormat,
    layout: Layout,
    kernel: Kernel,
    orders: dict[str, str],
    answer: Path | None,
    within: float,
    beat: Beat,
) -> None:
    (folder / "initrd").write_bytes(_initramfs(layout, kernel, orders))
    looking = "on" if answer else "off"
    command = [QEMU, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-nic", "none"]
    command += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    command += ["-machine", "q35", "-cpu", "max", "-smp", "1", "-m", "1024"]
    command += ["-kernel", str(kernel.image), "-initrd", str(folder / "initrd")]
    command += ["-append", "console=ttyS0 quiet panic=-1 oops=panic rdinit=/init"]
    command += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    command += _disk("vda", image, qemu_format(format), f"cache=unsafe,snapshot={looking}")
    command += _disk("vdb", answer, "raw", "cache=unsafe") if answer else []
    try:
        said, trouble = _start(command, within, beat)
    except FileNotFoundError as error:
        raise _no_qemu() from error
    except TimeoutError as error:
        raise BadDisk(f"{image} was not done with within {within:.0f} s", "Is this machine too busy?") from error
    if "NOVACRON done" in [line for line in said if line.startswith("NOVACRON ")][-1:]:
        return
    words = " / ".join(said[-6:])[-600:] or trouble
    raise BadDisk(f"{image} could not be opened or changed: {words}", "See these words; check its file systems.")


def _no_qemu() -> MissingPackage:
    return MissingPackage(f"{QEMU} is not installed here", "Install qemu-system-x86.")


def _start(command: list[str], within: float, beat: Beat) -> tuple[list[str], str]:
    """Its last lines, and what QEMU said. /dev/kvm may be there and QEMU still abort on it: then without."""
    for accelerator in ("kvm", "tcg"):
        if accelerator == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            continue
        code, heard, trouble = _hear([*command, "-accel", accelerator], within, beat)
        if code == 0 or heard:
            break
    said = re.sub(r"[^\n\x20-\x7e]", "", heard.decode(errors="replace")).strip().splitlines()
    return said, trouble.decode(errors="replace").strip()


def _hear(command: list[str], within: float, beat: Beat) -> tuple[int, bytes, bytes]:
    """Exit code, the end of what came over the serial port, some of stderr. A guest's programs may write there for
    ever, so only the end is kept. Raises TimeoutError."""
    with (
        tempfile.TemporaryFile() as trouble,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=trouble) as machine,
    ):
        assert machine.stdout
        heard, until = b"", time.monotonic() + within
        try:
            while (left := until - time.monotonic()) > 0:
                beat()
                if select.select([machine.stdout], [], [], min(left, BEAT_EVERY))[0]:
                    if not (data := os.read(machine.stdout.fileno(), 65536)):
                        machine.wait(60)
                        trouble.seek(0)
                        return machine.returncode, heard, trouble.read(600)
                    heard = (heard + data)[-_HEARD:]
        finally:
            machine.kill()
        raise TimeoutError(within)


def _disk(name: str, path: Path, format: str, options: str) -> list[str]:
    file = str(path).replace(",", ",,")
    drive = f"if=none,id={name},file={file},format={format},{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def _initramfs(layout: Layout, kernel: Kernel, orders: dict[str, str]) -> bytes:
    dependencies = (kernel.modules / "modules.dep").read_text()
    files = {"init": Path(__file__).with_name("appliance.sh").read_bytes(), "bin/busybox": _busybox()}
    order = load_order(dependencies, _NEEDS)
    for path in order:
        files[f"modules/{module_name(path)}"] = _unpacked(kernel.modules / path)
    partitions = [(p.device, p.kind, p.uuid, p.label, p.partuuid) for p in layout.partitions]
    plain = [[re.sub(r"[^\x21-\x7e]", "_", field) or "-" for field in fields] for fields in partitions]
    orders = orders | {
        "modules": "".join(f"{module_name(path)}\n" for path in order),
        "partitions": "".join(" ".join(fields) + "\n" for fields in plain),
    }
    files |= {f"orders/{name}": text.encode(errors="surrogateescape") for name, text in orders.items()}
    return gzip.compress(archive(files, frozenset({"init", "bin/busybox"})), 1)


def load_order(dependencies: str, names: Sequence[str]) -> list[str]:
    """Paths of these modules and of what they need, each after what it needs. What is no module is built in."""
    needs: dict[str, list[str]] = {}
    for line in dependencies.splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    by_name = {module_name(path): path for path in needs}
    order: list[str] = []

    def add(path: str) -> None:
        for each in needs.get(path, ()):
            add(each)
        if path not in order:
            order.append(path)

    for name in names:
        if name in by_name:
            add(by_name[name])
    return order


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case ".ko":
            return data
    raise MissingPackage(f"{path} is packed in a way that is not read here", "Boot a kernel of Debian's with it.")


def _busybox() -> bytes:
    for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")):
        if path.exists():
            return path.read_bytes()
    raise MissingPackage("busybox is not installed here", "Install the package busybox-static.")


def read_answer(answer: Path, layout: Layout) -> Guest:
    """The tar, in memory. Raises BadDisk when it is larger than any guest's settings are."""
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    total = 0
    try:
        with tarfile.open(answer, "r:") as tar:
            for number, member in enumerate(tar):
                if number > _FILES or (total := total + member.size) > _ALL:
                    raise BadDisk("the guest has more settings than is sensible", "See its /etc and /boot.")
                name = posixpath.normpath(member.name)
                if member.issym():
                    links[name.removeprefix("root/")] = member.linkname
                elif member.isreg() and (taken := tar.extractfile(member)):
                    if member.size > _most(name):
                        raise BadDisk(f"the guest's {name[:200]} has {member.size} bytes", "No settings are that long.")
                    text = taken.read().decode(errors="surrogateescape")
                    files[name.removeprefix("root/")] = text
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise BadDisk(f"what was read out of the disk makes no sense: {error}", "Check the image.") from error
    facts = {path: files.pop(path) for path in list(files) if path.startswith("facts/")}
    packed = {
        path.removeprefix("facts/packed/"): frozenset(module_name(line) for line in text.splitlines())
        for path, text in facts.items()
        if path.startswith("facts/packed/")
    }
    present = facts.get("facts/boot", "").splitlines() + facts.get("facts/programs", "").splitlines()
    return Guest(
        files=files,
        layout=layout,
        root=facts.get("facts/roots", "").strip(),
        links=links,
        present=frozenset(present),
        packed={_kernel_of(name): modules for name, modules in packed.items()},
        unmounted=tuple(facts.get("facts/unmounted", "").splitlines()[:20]),
        damaged=tuple(facts.get("facts/damaged", "").splitlines()[:20]),
    )


def _most(name: str) -> int:
    tables = name.startswith("facts/") or posixpath.basename(name) in ("modules.dep", "modules.builtin")
    return _TABLE if tables else _FILE


def _kernel_of(image: str) -> str:
    return image.removeprefix("initrd.img-").removeprefix("initramfs-").removesuffix(".img")


def _version(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]
