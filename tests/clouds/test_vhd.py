"""The footer of a fixed VHD, held to qemu-img's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clouds.disks.images import hash_image, probe
from clouds.disks.vhd import FOOTER, MIB, aligned, footer
from clouds.tokens import token

IDENTITY = token("move/lab/vm-1", "disk")


@pytest.mark.parametrize("mib", [1, 20, 503, 2049, 140_000])
def test_it_is_the_footer_that_qemu_writes(tmp_path: Path, mib: int) -> None:
    theirs = tmp_path / "vhd"
    command = ["qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size", str(theirs), f"{mib}M"]
    subprocess.run(command, check=True)
    with theirs.open("rb") as file:
        file.seek(-FOOTER, 2)
        tail = file.read()
    assert _plain(footer(mib * MIB, IDENTITY)) == _plain(tail)


def _plain(tail: bytes) -> bytes:
    """Without the time stamp, the checksum and the identity."""
    return tail[:24] + tail[28:64] + tail[84:]


def test_a_raw_disk_and_its_footer_are_the_same_disk(tmp_path: Path) -> None:
    raw, vhd = tmp_path / "raw", tmp_path / "vhd"
    for path, tail in ((raw, b""), (vhd, footer(2049 * MIB, IDENTITY))):
        with path.open("wb") as file:
            file.write(b"boot sector")
            file.truncate(2049 * MIB)
            file.seek(2049 * MIB)
            file.write(tail)
    assert probe(vhd, "vhd").size == 2049 * MIB
    assert hash_image(vhd, "vhd") == hash_image(raw, "raw")


def test_its_checksum_is_right_and_twice_is_once() -> None:
    tail = footer(20 * MIB, IDENTITY)
    assert int.from_bytes(tail[64:68], "big") == ~sum(tail[:64] + bytes(4) + tail[68:]) & 0xFFFFFFFF
    assert footer(20 * MIB, IDENTITY) == tail


@pytest.mark.parametrize(("size", "whole"), [(1, MIB), (MIB, MIB), (MIB + 1, 2 * MIB)])
def test_a_size_is_rounded_up_to_whole_mebibytes(size: int, whole: int) -> None:
    assert aligned(size) == whole
