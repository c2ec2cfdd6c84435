"""Google's archive as a stream: tar and gzip read it, and it is the same whoever makes it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds.disks.archive import Piece, stream, survey
from clouds.disks.content import BLOCK, content_hash
from clouds.disks.images import convert, hash_image
from tests.clouds.scene import MemoryDisk, small_disk

GIB = 1 << 30


def written(path: Path, source: MemoryDisk) -> Path:
    path.write_bytes(b"".join(piece.data for piece in stream(source, survey(source))))
    return path


@settings(max_examples=15, deadline=None)
@given(held=st.sets(st.integers(0, 60), max_size=40))
def test_tar_unpacks_what_the_disk_holds(tmp_path_factory: pytest.TempPathFactory, held: set[int]) -> None:
    source = MemoryDisk(61 * BLOCK + 1000)
    for index in held:
        source.write(index * BLOCK + 7, b"%d" % index * 3)
    archive = written(tmp_path_factory.mktemp("any") / "disk.tar.gz", source)
    convert(archive, "gcp", archive.parent / "raw", "raw")
    assert hash_image(archive.parent / "raw", "raw") == content_hash(source)
    assert (archive.parent / "raw").stat().st_size == GIB


def test_only_what_is_not_zero_is_in_it(tmp_path: Path) -> None:
    archive = written(tmp_path / "disk.tar.gz", small_disk(0, 9))
    assert 2 * BLOCK < archive.stat().st_size < 2 * BLOCK + 16384
    subprocess.run(["gzip", "-t", archive], check=True)
    listed = subprocess.run(["tar", "-tvzf", archive], capture_output=True, text=True, check=True).stdout.split()
    assert (listed[2], listed[5]) == (str(GIB), "disk.raw")


def test_a_disk_beyond_the_reach_of_octal_digits_has_its_size_and_place(tmp_path: Path) -> None:
    class Large(MemoryDisk):
        def __post_init__(self) -> None:
            self.held = bytearray()

        def read(self, offset: int, length: int) -> bytes:
            return b"x" * length

        def data(self) -> list[tuple[int, int]]:
            return [(9 * GIB, 1)]

    archive = written(tmp_path / "disk.tar.gz", Large(10 * GIB))
    convert(archive, "gcp", tmp_path / "raw", "raw")
    with (tmp_path / "raw").open("rb") as raw:
        assert raw.seek(0, 2) == 10 * GIB
        raw.seek(9 * GIB - 1)
        assert raw.read(3) == b"\0xx"


def test_a_survey_counts_neighbours_as_one_run() -> None:
    found = survey(small_disk(0, 1, 2, 7))
    assert (found.runs, found.count, found.size) == (((0, 3), (7, 1)), 4, GIB)
    assert [piece.block.index for piece in stream(small_disk(0, 1, 2, 7), found) if piece.block] == [0, 1, 2, 7]
    assert isinstance(next(stream(small_disk(), found)), Piece)
