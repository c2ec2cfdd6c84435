"""Formats as streams, without a copy: the tools that own the formats read them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds.disks import archive, qcow2
from clouds.disks.content import BLOCK, content_hash
from clouds.disks.images import convert, hash_image
from clouds.disks.survey import survey
from tests.clouds.scene import MemoryDisk, small_disk

GIB = 1 << 30


def written(path: Path, source: MemoryDisk) -> Path:
    path.write_bytes(b"".join(piece.data for piece in archive.stream(source, survey(source, GIB))))
    return path


@settings(max_examples=15, deadline=None)
@given(held=st.sets(st.integers(0, 60), max_size=40))
def test_tar_unpacks_what_the_disk_holds(tmp_path_factory: pytest.TempPathFactory, held: set[int]) -> None:
    source = MemoryDisk(61 * BLOCK + 1000)
    for index in held:
        source.write(index * BLOCK + 7, b"%d" % index * 3)
    packed = written(tmp_path_factory.mktemp("any") / "disk.tar.gz", source)
    convert(packed, "gcp", packed.parent / "raw", "raw")
    assert hash_image(packed.parent / "raw", "raw") == content_hash(source)
    assert (packed.parent / "raw").stat().st_size == GIB


def test_only_what_is_not_zero_is_in_it(tmp_path: Path) -> None:
    packed = written(tmp_path / "disk.tar.gz", small_disk(0, 9))
    assert 2 * BLOCK < packed.stat().st_size < 2 * BLOCK + 16384
    subprocess.run(["gzip", "-t", packed], check=True)
    listed = subprocess.run(["tar", "-tvzf", packed], capture_output=True, text=True, check=True).stdout.split()
    assert (listed[2], listed[5]) == (str(GIB), "disk.raw")


def test_a_disk_beyond_the_reach_of_octal_digits_has_its_size_and_place(tmp_path: Path) -> None:
    class Large(MemoryDisk):
        def __post_init__(self) -> None:
            self.held = bytearray()

        def read(self, offset: int, length: int) -> bytes:
            return b"x" * length

        def data(self) -> list[tuple[int, int]]:
            return [(9 * GIB, 1)]

    packed = written(tmp_path / "disk.tar.gz", Large(10 * GIB))
    convert(packed, "gcp", tmp_path / "raw", "raw")
    with (tmp_path / "raw").open("rb") as raw:
        assert raw.seek(0, 2) == 10 * GIB
        raw.seek(9 * GIB - 1)
        assert raw.read(3) == b"\0xx"


@settings(max_examples=15, deadline=None)
@given(held=st.sets(st.integers(0, 60), max_size=40))
def test_qemu_finds_nothing_wrong_with_a_qcow2_and_reads_what_the_disk_holds(
    tmp_path_factory: pytest.TempPathFactory, held: set[int]
) -> None:
    source = MemoryDisk(61 * BLOCK + 1024)
    for index in held:
        source.write(index * BLOCK + 7, b"%d" % index * 3)
    found, image = survey(source, 512), tmp_path_factory.mktemp("any") / "disk.qcow2"
    image.write_bytes(b"".join(piece.data for piece in qcow2.stream(source, found)))
    assert image.stat().st_size == qcow2.length(found)
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=True)
    assert hash_image(image, "qcow2") == content_hash(source) == found.content


def test_tables_of_a_large_qcow2_are_counted_too(tmp_path: Path) -> None:
    """More data than one refcount block counts, and more than one L2 table maps; only the tables are written."""
    found = survey(small_disk(), 512)
    large = replace(found, size=9 * GIB, runs=((0, 6000), (18000, 1)), count=6001)
    image = tmp_path / "disk.qcow2"
    with image.open("wb") as file:
        file.write(qcow2.head(large))
        file.truncate(qcow2.length(large))
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=True)


def test_a_long_survey_can_be_ended() -> None:
    class Enough(Exception):
        pass

    def end() -> None:
        raise Enough

    with pytest.raises(Enough):
        survey(MemoryDisk(300 * BLOCK), GIB, end)


def test_a_survey_counts_neighbours_as_one_run() -> None:
    found = survey(small_disk(0, 1, 2, 7), GIB)
    assert (found.runs, found.count, found.size) == (((0, 3), (7, 1)), 4, GIB)
    for made in (archive.stream, qcow2.stream):
        assert [piece.block.index for piece in made(small_disk(0, 1, 2, 7), found) if piece.block] == [0, 1, 2, 7]
