"""Block status over NBD, of a real qemu-nbd: what holds data, and what a dirty bitmap marks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clouds.disks.extents import ALLOCATION, Extents, dirty
from clouds.disks.nbd import Nbd
from clouds.errors import BadDisk

KIB = 1 << 10
MIB = 1 << 20


@contextmanager
def served(image: Path, *options: str) -> Iterator[str]:
    """qemu-nbd of the image; it tells by a pid file that it listens."""
    socket, pid = image.with_suffix(".sock"), image.with_suffix(".pid")
    command = ["qemu-nbd", "--fork", f"--pid-file={pid}", "--persistent", "--read-only", "--shared=4"]
    subprocess.run([*command, f"--socket={socket}", "--format=qcow2", *options, str(image)], check=True, timeout=30)
    try:
        yield str(socket)
    finally:
        subprocess.run(["kill", pid.read_text().strip()], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    for command in (
        ["qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M"],
        ["qemu-io", "-f", "qcow2", "-c", "write -P 1 1M 64k", str(path)],
        ["qemu-img", "bitmap", "--add", "-f", "qcow2", str(path), "b0"],
        ["qemu-io", "-f", "qcow2", "-c", "write -P 2 3M 128k", "-c", "write -P 0 7M 1M", str(path)],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    return path


def test_a_bitmap_tells_what_was_written_since_zeros_too(image: Path) -> None:
    with served(image, "--bitmap=b0") as socket, Extents(socket, dirty("b0")) as extents:
        assert list(extents) == [(3 * MIB, 128 * KIB), (7 * MIB, MIB)]


def test_data_is_told_apart_from_zeros_and_can_be_read_beside_it(image: Path) -> None:
    with served(image) as socket, Nbd(socket) as disk, Extents(socket, ALLOCATION) as extents:
        found = list(extents)
        assert found[:2] == [(MIB, 64 * KIB), (3 * MIB, 128 * KIB)]
        assert disk.read(3 * MIB, 4) == b"\2\2\2\2"


def test_a_bitmap_that_is_not_there_is_an_error(image: Path) -> None:
    with served(image) as socket, pytest.raises(BadDisk, match="does not know qemu:dirty-bitmap:b1"):
        Extents(socket, dirty("b1"))
