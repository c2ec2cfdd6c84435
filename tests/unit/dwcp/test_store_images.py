"""Indexes of disk images: each distinct block once, only while the image is what it was, never a wrong block."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dwcp.encoding.store import Store, extents, indexing
from dwcp.encoding.store.reading import digest

from .store_scene import KEY, MIB, PAGE, key, page, settings, some_pages

BLOCKS = some_pages(12, "image")
NEEDS_QEMU = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "base.img"
    path.parent.mkdir()
    path.write_bytes(b"".join(BLOCKS))
    return path


def store_of(tmp_path: Path, *images: Path, **more: object) -> Store:
    return Store(settings(tmp_path / "store", images=tuple(map(str, images)), **more))


def known(store: Store) -> list[bytes]:
    """All blocks the store can supply."""
    found = []
    for one in store.images():
        keys = store.image_keys(one.root)
        assert len(keys) == one.blocks * KEY
        assert digest(keys) == one.root
        for index in range(one.blocks):
            block = store.read_image(one.root, index)
            assert block is not None
            assert key(block) == keys[index * KEY :][:KEY]
            found.append(block)
    return found


def test_an_image_is_known_block_by_block(tmp_path: Path, image: Path) -> None:
    with store_of(tmp_path, image) as store:
        done = store.index_images()
        assert (done.indexed, done.blocks, done.read_bytes) == ([str(image)], 12, 12 * PAGE)
        assert known(store) == BLOCKS
        (one,) = store.images()
        into = bytearray(b"x" * 5 * PAGE)
        assert store.supply(one.root, [3, 4, 12, -1, 0], into) == [2, 3]
        assert into == BLOCKS[3] + BLOCKS[4] + bytes(2 * PAGE) + BLOCKS[0]
        assert store.stats().image_blocks == 12
        assert store.stats().uses == 1


def test_the_same_content_has_the_same_root_wherever_it_lies(tmp_path: Path, image: Path) -> None:
    copy = tmp_path / "copy.img"
    copy.write_bytes(image.read_bytes())
    with store_of(tmp_path, image, copy) as store:
        store.index_images()
        assert len({one.root for one in store.images()}) == 1
        image.write_bytes(b"changed" * PAGE)
        (one,) = store.images()
        assert one.path == copy
        assert store.read_image(one.root, 5) == BLOCKS[5]


def test_zeros_holes_repetitions_and_the_rest_of_a_block_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "sparse.img"
    with path.open("wb") as file:
        file.write(BLOCKS[0] + bytes(PAGE) + BLOCKS[0] + BLOCKS[1])
        file.seek(64 * MIB)
        file.write(BLOCKS[2])
        file.seek(128 * MIB)
        file.write(BLOCKS[3] + b"half a block")
    with store_of(tmp_path, path) as store:
        done = store.index_images()
        assert done.read_bytes < MIB
        assert known(store) == BLOCKS[:4]


def test_an_image_of_nothing_is_not_told_and_not_read_again(tmp_path: Path) -> None:
    for name, size in (("empty", 0), ("hole", MIB), ("small", 100)):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, size)
    with store_of(tmp_path, *(tmp_path / name for name in ("empty", "hole", "small"))) as store:
        assert len(store.index_images().indexed) == 3
        assert store.images() == []
        assert len(store.index_images().unchanged) == 3
        assert store.verify().damage == []


def test_only_what_has_changed_is_read_again(tmp_path: Path, image: Path) -> None:
    other = image.parent / "other.img"
    other.write_bytes(BLOCKS[0])
    with store_of(tmp_path, image.parent) as store:
        assert len(store.index_images().indexed) == 2
        other.write_bytes(BLOCKS[1] + BLOCKS[2])
        assert [one.path for one in store.images()] == [image]
        done = store.index_images()
        assert (done.indexed, done.unchanged) == ([str(other)], [str(image)])
        assert known(store) == [*BLOCKS[1:3], *BLOCKS]
        assert store.stats().images == 2


@pytest.mark.parametrize("how", ["written", "longer", "replaced", "gone", "touched"])
def test_an_image_that_is_not_what_it_was_serves_no_more(tmp_path: Path, image: Path, how: str) -> None:
    with store_of(tmp_path, image) as store:
        store.index_images()
        (one,) = store.images()
        match how:
            case "written":
                with image.open("r+b") as file:
                    file.write(b"!")
            case "longer":
                with image.open("ab") as file:
                    file.write(b"!")
            case "replaced":
                (tmp_path / "new").write_bytes(b"".join(BLOCKS))
                (tmp_path / "new").rename(image)
            case "gone":
                image.unlink()
            case "touched":
                os.utime(image, ns=(1, 1))
        assert store.images() == []
        assert store.image_keys(one.root) == b""
        assert store.read_image(one.root, 0) is None
        into = bytearray(b"x" * PAGE)
        assert store.supply(one.root, [0], into) == [0]
        assert into == bytes(PAGE)


def test_a_block_that_changed_behind_an_unchanged_inode_is_found_and_marked(tmp_path: Path, image: Path) -> None:
    with store_of(tmp_path, image) as store:
        store.index_images()
        (one,) = store.images()
        assert store.read_image(one.root, 0) == BLOCKS[0]
        seen = image.stat()
        with image.open("r+b") as file:
            file.seek(4 * PAGE)
            file.write(b"!")
        os.utime(image, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        into = bytearray(12 * PAGE)
        assert store.supply(one.root, range(12), into) == [4]
        assert store.stats().damaged == 1
        assert into[5 * PAGE :] == b"".join(BLOCKS[5:])


def test_an_image_that_is_written_while_it_is_read_is_skipped(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_of(tmp_path, image) as store:
        real = indexing._distinct

        def busy(first: int, pages: bytes, seen: set[bytes]) -> tuple[bytes, bytes]:
            os.utime(image, ns=(1, 1))
            return real(first, pages, seen)

        monkeypatch.setattr(indexing, "_distinct", busy)
        ((path, why),) = store.index_images().skipped
        assert path == str(image)
        assert "changed while it was read" in why
        assert store.stats().drafts == 0


def test_an_image_not_named_any_more_is_forgotten_at_once(tmp_path: Path, image: Path) -> None:
    with store_of(tmp_path, image) as store:
        store.index_images()
        (one,) = store.images()
    with store_of(tmp_path) as store:
        assert store.images() == []
        assert store.read_image(one.root, 0) is None
        assert store.index_images().dropped == [str(image)]
        assert store.stats().images == 0


def test_an_image_indexed_by_hand_stays_until_it_is_forgotten(tmp_path: Path, image: Path) -> None:
    with store_of(tmp_path) as store:
        assert store.index_images(paths=[str(image)]).indexed == [str(image)]
        assert store.index_images().dropped == []
        assert len(store.images()) == 1
        assert store.forget_images([str(image)]) == [str(image)]
        assert store.images() == []


def test_what_cannot_be_indexed_is_skipped_with_its_reason(tmp_path: Path, image: Path) -> None:
    with store_of(tmp_path, tmp_path / "missing", Path("/dev/null"), image) as store:
        done = store.index_images()
        assert done.indexed == [str(image)]
        assert dict(done.skipped) == {
            str(tmp_path / "missing"): "No such file or directory",
            "/dev/null": "neither a file nor a folder: a device does not tell when it was changed",
        }


def test_an_index_that_does_not_fit_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "big.img"
    path.write_bytes(page(1) * 60_000)
    with store_of(tmp_path, path, limit_mib=1) as store:
        ((_, why),) = store.index_images().skipped
        assert "of 1 MiB" in why
        assert store.stats().drafts == 0


def test_progress_is_told_in_bytes(tmp_path: Path, image: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with store_of(tmp_path, image) as store:
        store.index_images(lambda *progress: told.append(progress))
    assert told == [(str(image), 12 * PAGE, 12 * PAGE)]


def qcow2(tmp_path: Path, *options: str) -> Path:
    raw, path = tmp_path / "raw", tmp_path / "disk.qcow2"
    with raw.open("wb") as file:
        file.write(b"".join(BLOCKS) + bytes(4 * PAGE))
        file.truncate(8 * MIB)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", *options, str(raw), str(path)], check=True, timeout=60)
    return path


@NEEDS_QEMU
def test_qcow2_is_known_by_its_own_mapping(tmp_path: Path) -> None:
    path = qcow2(tmp_path)
    with store_of(tmp_path, path) as store:
        store.index_images()
        assert known(store) == BLOCKS


@NEEDS_QEMU
def test_compressed_clusters_are_left_out(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "disk.qcow2"
    raw.write_bytes(b"compressible " * 100_000)
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(path)], check=True, timeout=60)
    with store_of(tmp_path, path) as store:
        done = store.index_images()
        assert done.indexed == [str(path)]
        assert store.images() == []


@NEEDS_QEMU
def test_a_backing_file_is_not_opened_whatever_an_image_says(tmp_path: Path) -> None:
    base, path = qcow2(tmp_path), tmp_path / "overlay.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(path)],
        check=True, timeout=60, capture_output=True,
    )  # fmt: skip
    base.unlink()
    with store_of(tmp_path, path) as store:
        assert store.index_images().indexed == [str(path)]
        assert store.images() == []


@NEEDS_QEMU
def test_an_image_whose_data_lies_elsewhere_is_skipped(tmp_path: Path) -> None:
    path = qcow2(tmp_path, "-o", f"data_file={tmp_path}/data,data_file_raw=on")
    with store_of(tmp_path, path) as store:
        ((_, why),) = store.index_images().skipped
        assert "keeps its data in another file" in why


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense",
        b"[1]",
        b'[{"start": 0}]',
        b'{"a": 1}',
        b'[{"data": true, "zero": false, "depth": 0, "offset": "x", "length": 1}]',
    ],
)
def test_an_answer_of_qemu_img_that_is_not_understood_skips_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(200))
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, stdout=answer, stderr=b"")
    )
    with store_of(tmp_path, path) as store:
        ((_, why),) = store.index_images().skipped
        assert "is not understood" in why


def test_without_qemu_img_a_qcow2_image_is_skipped_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(200))
    monkeypatch.setenv("PATH", str(tmp_path))
    with store_of(tmp_path, path) as store:
        ((_, why),) = store.index_images().skipped
        assert "install qemu-utils" in why


def test_only_whole_blocks_in_the_file_are_taken_from_a_map() -> None:
    whole = {"start": 0, "length": 3 * PAGE, "depth": 0, "present": True, "zero": False, "data": True, "offset": PAGE}
    assert extents._extent(whole, 10 * PAGE) == (1, 3)
    assert extents._extent(whole, 3 * PAGE) == (1, 2)
    assert extents._extent(whole, PAGE) is None
    for change in (
        {"offset": 512},
        {"offset": -PAGE},
        {"zero": True},
        {"data": False},
        {"depth": 1},
        {"compressed": True},
    ):
        assert extents._extent({**whole, **change}, 10 * PAGE) is None, change
    assert extents._extent({name: value for name, value in whole.items() if name != "offset"}, 10 * PAGE) is None
    assert extents._merged([(8, 2), (1, 3), (4, 1), (2, 3)]) == [(1, 4), (8, 2)]
