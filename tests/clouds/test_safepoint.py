"""A point to which an image can be taken back: nothing that was written since is left, and it goes while QEMU runs."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clouds.disks import safepoint
from clouds.disks.content import BLOCK
from clouds.disks.images import hash_image, make_empty, open_image
from clouds.kvm import arrived
from clouds.kvm.connection import Session
from models.disks import DiskImage
from models.migration import VmRef

UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "web,1-vda.qcow2"
    make_empty(path, "qcow2", 64 << 20)
    write(path, 3, b"before")
    return path


def write(path: Path, index: int, what: bytes) -> None:
    with open_image(path, "qcow2", writable=True) as disk:
        disk.write(index * BLOCK, what.ljust(BLOCK, b"\0"))


def test_what_was_written_since_is_gone_and_the_point_too(image: Path) -> None:
    before = hash_image(image, "qcow2")
    for _ in range(2):
        safepoint.make(image)
    write(image, 3, b"after")
    write(image, 9, b"after")
    assert hash_image(image, "qcow2") != before
    for _ in range(2):
        safepoint.take_back(image)
    assert hash_image(image, "qcow2") == before
    assert not safepoint.there(image)


def test_dropping_it_keeps_what_was_written(image: Path) -> None:
    safepoint.make(image)
    write(image, 9, b"after")
    after = hash_image(image, "qcow2")
    for _ in range(2):
        safepoint.drop(image)
    assert hash_image(image, "qcow2") == after
    assert not safepoint.there(image)


class Monitor:
    """A real QEMU, whose guest never starts, with this image open."""

    def __init__(self, image: Path, folder: Path) -> None:
        address = folder / "qmp"
        name = str(image).replace(",", ",,")
        command = ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "64", "-display", "none", "-nodefaults"]
        command += ["-S", "-qmp", f"unix:{address},server=on,wait=off"]
        command += ["-blockdev", f"driver=file,node-name=libvirt-1-storage,filename={name}"]
        command += ["-blockdev", "driver=qcow2,node-name=libvirt-1-format,file=libvirt-1-storage"]
        command += ["-device", "virtio-blk-pci,drive=libvirt-1-format"]
        self.process = subprocess.Popen(command)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        until = time.monotonic() + 30
        while True:
            try:
                self._socket.connect(str(address))
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)
        self._lines = self._socket.makefile("rw")
        self._lines.readline()
        self.ask(None, '{"execute": "qmp_capabilities"}')

    def ask(self, _: Any, command: str) -> str:
        self._lines.write(command + "\n")
        self._lines.flush()
        while "event" in json.loads(answer := self._lines.readline()):
            pass
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self._socket.close()


class Running:
    """libvirt's word for it."""

    def state(self) -> list[int]:
        return [1, 1]

    def setAutostart(self, autostart: int) -> int:
        return 0

    def isAlive(self) -> int:
        return 1

    def close(self) -> int:
        return 0

    def lookupByUUIDString(self, uuid: str) -> Running:
        return self


@pytest.fixture
def monitor(image: Path, tmp_path: Path) -> Iterator[Monitor]:
    safepoint.make(image)
    running = Monitor(image, tmp_path)
    yield running
    running.end()


def test_a_qemu_that_runs_drops_the_point_itself(
    image: Path, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrived, "ask_qemu", monitor.ask)
    session = Session("", opener=lambda _: Running())  # type: ignore[arg-type,return-value]
    disk = DiskImage(target="vda", path=str(image), format="qcow2")
    for _ in range(2):
        arrived.accept(session, VmRef(vm="web", uuid=UUID), (disk,), autostart=False)
    monitor.end()
    assert not safepoint.there(image)
