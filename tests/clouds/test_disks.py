"""Image formats with the real qemu-img: one content in all of them, and bad images refused with a reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds.disks.content import BLOCK, ContentHash, RawFile, blocks, content_hash, touched
from clouds.disks.images import FORMATS, convert, hash_image, make_empty, open_image, probe, verified
from clouds.errors import BadDisk
from models.clouds import DiskFormat

MIB = 1 << 20
writes = st.lists(st.tuples(st.integers(0, 5 * MIB), st.integers(1, 3 * BLOCK), st.integers(0, 255)), max_size=5)


def make_raw(path: Path, size: int, pieces: list[tuple[int, bytes]]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data[: max(0, size - offset)])
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """9 MiB and 1536 bytes: no whole MiB, no whole block."""
    pieces = [(0, b"boot" * 128), (3 * MIB + 700, b"\x01" * 70_000), (9 * MIB + 1000, b"the end")]
    return make_raw(tmp_path / "disk.raw", 9 * MIB + 1536, pieces)


@pytest.mark.parametrize("format", FORMATS)
def test_content_survives_the_way_into_a_format_and_back(tmp_path: Path, raw: Path, format: DiskFormat) -> None:
    there = tmp_path / f"there.{format}"
    info = convert(raw, "raw", there, format)
    assert verified(raw, "raw", there, format) == hash_image(raw, "raw")
    assert info.size == {"vhd": 10 * MIB, "gcp": 1 << 30}.get(format, 9 * MIB + 1536)
    back = tmp_path / "back.raw"
    convert(there, format, back, "raw")
    assert hash_image(back, "raw") == hash_image(raw, "raw")
    with back.open("rb") as found:
        assert found.read(raw.stat().st_size) == raw.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_sparse_stays_sparse(tmp_path: Path, format: DiskFormat) -> None:
    raw = make_raw(tmp_path / "disk.raw", 1 << 30, [(500 * MIB, b"x" * 4096)])
    there = tmp_path / "there"
    convert(raw, "raw", there, format)
    assert there.stat().st_blocks * 512 < MIB
    assert not [entry for entry in tmp_path.iterdir() if entry not in (raw, there)], "nothing is left behind"


def test_a_vhd_has_the_footer_and_the_size_that_azure_asks_for(tmp_path: Path, raw: Path) -> None:
    there = tmp_path / "disk.vhd"
    convert(raw, "raw", there, "vhd")
    footer = there.read_bytes()[-512:]
    assert footer[:8] == b"conectix"
    assert int.from_bytes(footer[48:56], "big") == 10 * MIB == there.stat().st_size - 512
    assert int.from_bytes(footer[60:64], "big") == 2, "fixed"


def test_a_google_archive_holds_one_sparse_file_of_whole_gibibytes(tmp_path: Path, raw: Path) -> None:
    there = tmp_path / "disk.tar.gz"
    convert(raw, "raw", there, "gcp")
    listed = subprocess.run(["tar", "-tvzf", there], capture_output=True, text=True, check=True).stdout.split()
    assert (listed[2], listed[5]) == (str(1 << 30), "disk.raw")
    header = subprocess.run(["gzip", "-dc", there], capture_output=True, check=True).stdout[:512]
    assert header[156:157] == b"S", "old GNU's type of a sparse file"
    assert header[257:265] == b"ustar  \0"


@settings(max_examples=12)
@given(writes=writes, size=st.integers(1, 6 * MIB), format=st.sampled_from(["qcow2", "vhd", "vmdk"]))
def test_any_content_has_one_hash_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int, int]], size: int, format: DiskFormat
) -> None:
    folder = tmp_path_factory.mktemp("any")
    size = -(-size // 512) * 512
    raw = make_raw(folder / "raw", size, [(at, bytes([value]) * length) for at, length, value in writes])
    convert(raw, "raw", folder / "there", format)
    verified(raw, "raw", folder / "there", format)


@settings(max_examples=50)
@given(writes=writes, size=st.integers(1, 6 * MIB))
def test_the_hash_sees_content_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int, int]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    raw = make_raw(folder / "raw", size, [(at, bytes([value]) * length) for at, length, value in writes])
    whole = raw.read_bytes()
    full = folder / "full"
    full.write_bytes(whole + bytes(BLOCK))  # no holes, and zeros behind the end
    with RawFile(raw) as one, RawFile(full) as other:
        assert content_hash(one) == content_hash(other)
    flipped = folder / "flipped"
    flipped.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with RawFile(raw) as one, RawFile(flipped) as other:
        assert content_hash(one) != content_hash(other)


def test_the_hash_is_the_one_that_is_written_down(tmp_path: Path) -> None:
    """A golden value: cursors and reports of earlier releases hold it."""
    raw = make_raw(tmp_path / "raw", 2 * BLOCK + 3, [(BLOCK, b"nova"), (2 * BLOCK, b"cr\1")])
    with RawFile(raw) as disk:
        assert content_hash(disk) == GOLDEN


GOLDEN = "125a7d7b6df2a6e80747cdc0012ad9f2a8cdd364ef124c1ca6cec479646931df"


def test_blocks_of_ranges_come_ascending_and_once(tmp_path: Path) -> None:
    assert list(touched(10 * BLOCK, [(0, 1), (100, BLOCK), (5 * BLOCK - 1, 2)])) == [0, 1, 4, 5]
    raw = make_raw(tmp_path / "raw", BLOCK + 100, [(BLOCK, b"x")])
    with RawFile(raw) as disk:
        assert [block.index for block in blocks(disk)] == [1]
        asked = list(blocks(disk, [(0, 5), (BLOCK, 1)]))
        assert [(block.index, block.empty, len(block.data)) for block in asked] == [(0, True, BLOCK), (1, False, BLOCK)]


@pytest.mark.parametrize("ranges", [[(0, 0)], [(10, 5), (0, 5)], [(0, 11)], [(-1, 5)]])
def test_ranges_that_do_not_fit_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(BadDisk, match="ascending ranges"):
        list(touched(10, ranges))


def test_a_hash_takes_no_block_twice() -> None:
    digest = ContentHash()
    digest.add(3, b"a" * 32)
    with pytest.raises(ValueError, match="block 3 comes after block 3"):
        digest.add(3, b"a" * 32)


@pytest.mark.parametrize("format", ["raw", "qcow2", "vhd"])
def test_an_image_can_be_written_block_by_block(tmp_path: Path, raw: Path, format: DiskFormat) -> None:
    there = tmp_path / "there"
    make_empty(there, format, raw.stat().st_size)
    with RawFile(raw) as source, open_image(there, format, writable=True) as target:
        for block in blocks(source):
            offset = block.index * BLOCK
            target.write(offset, block.data[: min(BLOCK, target.size - offset)])
        target.zero(0, 512)
        target.flush()
    with RawFile(raw, writable=True) as source:
        source.zero(0, 512)
    verified(raw, "raw", there, format)


def test_an_image_that_needs_another_file_is_refused(tmp_path: Path, raw: Path) -> None:
    top = tmp_path / "top.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, top], check=True)
    with pytest.raises(BadDisk, match="needs another file"):
        probe(top, "qcow2")
    flat = tmp_path / "flat.vmdk"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat"]
    subprocess.run([*command, raw, flat], check=True)
    with pytest.raises(BadDisk, match="needs another file"):
        probe(flat, "vmdk")


def test_an_image_of_another_format_is_refused(tmp_path: Path, raw: Path) -> None:
    for format in ("qcow2", "vhd", "vmdk", "gcp"):
        with pytest.raises(BadDisk):
            probe(raw, format)
    with pytest.raises(BadDisk, match="cannot be opened"):
        probe(tmp_path / "none", "raw")


def test_a_raw_disk_with_another_formats_header_is_still_raw(tmp_path: Path, raw: Path) -> None:
    """Its guest wrote the header: to believe it would open the file that it names."""
    top = tmp_path / "top.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, top], check=True)
    convert(top, "raw", tmp_path / "there.qcow2", "qcow2")
    verified(top, "raw", tmp_path / "there.qcow2", "qcow2")


def test_a_cut_image_is_refused(tmp_path: Path, raw: Path) -> None:
    there = tmp_path / "disk.vmdk"
    convert(raw, "raw", there, "vmdk")
    there.write_bytes(there.read_bytes()[:2000])
    with pytest.raises(BadDisk):
        hash_image(there, "vmdk")


def test_an_archive_with_another_member_is_refused(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("x")
    subprocess.run(["tar", "-C", tmp_path, "-czf", tmp_path / "a.tar.gz", "passwd"], check=True)
    with pytest.raises(BadDisk, match="no archive of one file"):
        convert(tmp_path / "a.tar.gz", "gcp", tmp_path / "out", "raw")


def test_nothing_is_overwritten(tmp_path: Path, raw: Path) -> None:
    (tmp_path / "there").write_text("precious")
    with pytest.raises(BadDisk, match="not overwritten"):
        convert(raw, "raw", tmp_path / "there", "qcow2")
    assert (tmp_path / "there").read_text() == "precious"


def test_a_reader_that_dies_leaves_no_server(tmp_path: Path, raw: Path) -> None:
    there = tmp_path / "disk.qcow2"
    convert(raw, "raw", there, "qcow2")
    with pytest.raises(RuntimeError), open_image(there, "qcow2"):
        raise RuntimeError
    with open_image(there, "qcow2", writable=True):  # nobody holds its lock
        pass
