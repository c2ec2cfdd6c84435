"""RAM of a Debian guest that has been used: real kernel, Debian's own programs, files read, a database written.

The guest boots the lab's kernel from a small disk made of this machine's installed packages, does what jobs/day.sh
says, and is stopped; then its RAM is saved as it lies there. Pages of 0xCC, with which Linux poisons its freed start-up
code, are dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from bench.corpora.packages import need
from bench.corpora.pages import LIMIT, PageFile, add_file
from bench.qmp import Qmp
from workers.lab.errors import LabError
from workers.lab.lab import Lab
from workers.lab.settings import LabSettings

JOBS: Final = Path(__file__).parent / "jobs"
PACKAGES: Final = (JOBS / "packages").read_text().split()
"""Those of them that are installed here are copied."""
DISK_MIB: Final = 1200
MODULES: Final = (
    "drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk",
)  # fmt: skip
WITHIN: Final = 420
"""Seconds for boot and work, without hardware virtualization."""


def make(out: PageFile, folder: Path) -> str:
    for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("mke2fs", "e2fsprogs"), ("cpio", "cpio")):
        need(program, package)
    lab = Lab(LabSettings.from_environment())
    kernel = lab.settings.guest_folder / "vmlinuz"
    if not kernel.exists():
        raise LabError(f"the guest is not built in {lab.settings.guest_folder}: run `make setup`")
    disk = _disk(folder)
    initrd = _initrd(folder, _modules())
    ram = folder / "ram"
    asyncio.run(_use(folder, kernel, initrd, disk, lab.accelerator(), ram))
    add_file(out, ram)
    return f"a Debian guest of {LIMIT >> 20} MiB after a day's work: {JOBS.name}/day.sh; pages of 0xCC dropped"


def _modules() -> Path:
    """Of the kernel that the lab's guest was built with: the newest cloud kernel, as in guest/build.sh."""
    found = sorted(Path("/lib/modules").glob("*-cloud-amd64"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise LabError("/lib/modules holds no cloud kernel's modules: run `make setup`")
    return found[-1]


def _disk(folder: Path) -> Path:
    """A file system with the packages' files and the job."""
    root = folder / "root"
    root.mkdir()
    listed = subprocess.run(["dpkg", "-L", *PACKAGES], capture_output=True, text=True, timeout=60).stdout
    for path in (Path(line) for line in listed.splitlines() if line.startswith("/")):
        if len(path.parts) > 2 and (path.is_symlink() or path.is_file()):
            target = root / path.relative_to("/")
            if os.path.lexists(target):
                continue
            _parents(root, path)
            shutil.copy2(path, target, follow_symlinks=False)
    for link in ("bin", "lib", "lib64", "sbin"):
        _parents(root, Path(f"/{link}/x"))
    for name in ("proc", "sys", "dev", "tmp", "root", "run", "var/lib/dpkg"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2("/var/lib/dpkg/status", root / "var/lib/dpkg/status")
    for job in ("day.sh", "day.py"):
        shutil.copy2(JOBS / job, root / "root" / job)
    disk = folder / "disk"
    mke2fs = need("mke2fs", "e2fsprogs")
    made = subprocess.run(
        [mke2fs, "-q", "-t", "ext4", "-d", str(root), str(disk), f"{DISK_MIB}M"], capture_output=True, timeout=180
    )
    if made.returncode:
        raise LabError(f"mke2fs failed: {made.stderr.decode(errors='replace').strip()[-400:]}")
    shutil.rmtree(root)
    return disk


def _parents(root: Path, path: Path) -> None:
    """Folders above `path`, with /bin and its like as the links into /usr that they are."""
    target = root
    for part in path.relative_to("/").parts[:-1]:
        source = Path("/") / target.relative_to(root) / part
        target = target / part
        if os.path.lexists(target):
            continue
        if source.is_symlink():
            link = Path(os.readlink(source))
            target.symlink_to(link)
            (target.parent / link).mkdir(parents=True, exist_ok=True)
        else:
            target.mkdir()


def _initrd(folder: Path, modules: Path) -> Path:
    root = folder / "initrd"
    (root / "bin").mkdir(parents=True)
    for name in ("proc", "dev", "new"):
        (root / name).mkdir()
    shutil.copy2("/bin/busybox", root / "bin" / "busybox")
    shutil.copy2(JOBS / "init", root / "init")
    (root / "init").chmod(0o755)
    for name in MODULES:
        shutil.copy2(modules / "kernel" / f"{name}.ko", root / "bin")
    names = "\n".join(str(path.relative_to(root)) for path in [root, *sorted(root.rglob("*"))])
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), capture_output=True, timeout=60
    )
    if packed.returncode:
        raise LabError(f"cpio failed: {packed.stderr.decode(errors='replace')[-400:]}")
    path = folder / "initrd.cpio"
    path.write_bytes(packed.stdout)
    return path


async def _use(folder: Path, kernel: Path, initrd: Path, disk: Path, accel: str, ram: Path) -> None:
    """Boot, wait for the end of the work, stop, save the RAM."""
    accelerator, cpu = ("kvm", "host") if accel == "kvm" else ("tcg,thread=multi", "max")
    console = folder / "console"
    command = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display"]
    command += ["none", "-machine", "q35", "-accel", accelerator, "-cpu", cpu, "-m", f"{LIMIT >> 20}M"]
    command += ["-serial", f"file:{console}"]
    command += ["-qmp", f"unix:{folder / 'qmp.sock'},server=on,wait=off", "-kernel", str(kernel)]
    command += ["-initrd", str(initrd), "-append", "console=ttyS0 quiet panic=-1"]
    command += ["-drive", f"file={disk},if=none,id=disk,format=raw,cache=unsafe"]
    command += ["-device", "virtio-blk-pci,drive=disk"]
    with (folder / "qemu.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        qmp = await Qmp.connect(folder / "qmp.sock", "corpus")
        try:
            await _until_done(console, process)
            await qmp.execute("stop")
            await qmp.execute("pmemsave", {"val": 0, "size": LIMIT, "filename": str(ram)}, within=120)
        finally:
            await qmp.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _until_done(console: Path, process: asyncio.subprocess.Process) -> None:
    """Until the job says that its day is over. Bounded polling: it takes minutes."""
    deadline = time.monotonic() + WITHIN
    while True:
        text = _said(console)
        if "DAY OVER" in text:
            return
        if "DAY FAILED" in text or process.returncode is not None or time.monotonic() > deadline:
            raise LabError(f"the corpus guest did not get through its day; its console ends with {text[-400:]!r}")
        await asyncio.sleep(0.5)


def _said(console: Path) -> str:
    return console.read_text(errors="replace") if console.exists() else ""
