"""Whole Debian systems boot on the devices of clouds: unprepared they do not, prepared they do, by both firmwares.

As far as QEMU has these devices: NVMe as on AWS (its network card, ena, QEMU does not have: virtio-net stands in for
it), virtio-scsi and virtio-net as on Google Cloud. Azure's Hyper-V cannot be had. The guest tells by a line on its
serial port how it went; nothing here waits by the clock.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clouds.preparing.prepare import prepare
from models.clouds import Cloud, DiskFormat
from models.preparing import PrepareReport, PrepareRequest

pytestmark = [pytest.mark.boot, pytest.mark.timeout(900)]

DEBIAN = Path(os.environ.get("NOVACRON_LAB_DIR", "/var/lib/novacron/lab")) / "debian/debian.raw"
OVMF = Path("/usr/share/OVMF")
WITHIN = 300.0
NVME = ("-device", "nvme,drive=disk,serial=novacron")
SCSI = ("-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=disk")
BLOCK = ("-device", "virtio-blk-pci,drive=disk")
UEFI = ("-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE.fd")
UEFI_STATE = ("-drive", f"if=pflash,format=raw,snapshot=on,file={OVMF}/OVMF_VARS.fd")


@contextmanager
def booted(image: Path, format: DiskFormat, *devices: str) -> Iterator[subprocess.Popen[bytes]]:
    """A machine that runs it; what it writes is forgotten."""
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
    command += ["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nic"]
    command += ["user,model=virtio-net-pci,restrict=on"]
    command += ["-drive", f"if=none,id=disk,file={image},format={format},snapshot=on", *devices]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        try:
            yield machine
        finally:
            machine.kill()


def told(image: Path, format: DiskFormat, *devices: str) -> str:
    """All that came over the serial port, up to the line by which the guest says how it went."""
    with booted(image, format, *devices) as machine:
        assert machine.stdout
        os.set_blocking(machine.stdout.fileno(), False)
        heard, until = b"", time.monotonic() + WITHIN
        while time.monotonic() < until:
            more = machine.stdout.read()
            heard += more or b""
            if b"TEST-" in heard and b"\n" in heard.partition(b"TEST-")[2]:
                return heard.decode(errors="replace")
            if more == b"":
                break
            time.sleep(0.1)
        pytest.fail(f"nothing was told within {WITHIN:.0f} s: {heard[-2000:]!r}")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Cloud, tuple[Path, PrepareReport]]]:
    """Copies for two clouds, made once."""
    if not DEBIAN.exists():
        pytest.fail(f"{DEBIAN} is not there: run `make setup-boot`")
    folder = tmp_path_factory.mktemp("prepared")
    made: dict[Cloud, tuple[Path, PrepareReport]] = {}
    for target in ("aws", "gcp"):
        request = PrepareRequest(image=str(DEBIAN), format="raw", target=target, copy_to=f"{folder}/{target}.raw")
        made[target] = (Path(request.copy_to), prepare(request))
    yield made
    for path, _ in made.values():
        path.unlink()


def test_unprepared_it_boots_at_home_and_from_nothing_else() -> None:
    assert "TEST-UP root=/dev/vda2" in told(DEBIAN, "raw", *BLOCK)
    for devices in (NVME, SCSI):
        assert "TEST-NO-ROOT /dev/vda2" in told(DEBIAN, "raw", *devices)


def test_prepared_for_aws_it_boots_from_nvme_by_bios(prepared: dict[Cloud, tuple[Path, PrepareReport]]) -> None:
    path, report = prepared["aws"]
    assert report.state == "prepared"
    assert report.firmware == ("bios", "uefi")
    said = told(path, "raw", *NVME)
    assert "TEST-UP root=/dev/nvme0n1p2 net=10.0.2.15/24." in said


def test_prepared_for_aws_it_boots_from_nvme_by_uefi(prepared: dict[Cloud, tuple[Path, PrepareReport]]) -> None:
    said = told(prepared["aws"][0], "raw", *UEFI, *UEFI_STATE, *NVME)
    assert "TEST-UP root=/dev/nvme0n1p2 net=10.0.2.15/24." in said


def test_prepared_for_google_it_boots_from_virtio_scsi_by_uefi(
    prepared: dict[Cloud, tuple[Path, PrepareReport]],
) -> None:
    said = told(prepared["gcp"][0], "raw", *UEFI, *UEFI_STATE, *SCSI)
    assert "TEST-UP root=/dev/sda2 net=10.0.2.15/24." in said


def test_prepared_the_second_time_there_is_nothing_to_do(
    prepared: dict[Cloud, tuple[Path, PrepareReport]], tmp_path: Path
) -> None:
    path, _ = prepared["aws"]
    report = prepare(PrepareRequest(image=str(path), format="raw", target="aws", copy_to=str(tmp_path / "again.raw")))
    assert report.state == "ready"
    assert list(tmp_path.iterdir()) == []
