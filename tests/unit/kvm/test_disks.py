"""Images for copied disks: made where nothing is, told apart by their mark, and only those are ever removed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from clouds.kvm import disks
from clouds.kvm.disks import Place
from clouds.kvm.errors import Refused
from models.disks import DiskImage

SIZE = 3 << 20
OWNER = os.getuid(), os.getgid()


def image(folder: Path, name: str = "scratch.raw", format: str = "raw") -> DiskImage:
    return DiskImage(target="vda", path=str(folder / name), format=format, capacity=SIZE)


@pytest.fixture(autouse=True)
def qemu_img(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """qemu-img, played: it makes a file of the size it is told."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        Path(command[-2]).write_bytes(bytes(int(command[-1])))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_an_image_is_made_with_its_format_and_size_and_marked(tmp_path: Path, qemu_img: list[list[str]]) -> None:
    wanted = image(tmp_path, format="qcow2")
    assert disks.make([wanted], "m1", OWNER) == (wanted.path,)
    assert qemu_img == [["qemu-img", "create", "-q", "-f", "qcow2", wanted.path, str(SIZE)]]
    assert disks.is_ours(wanted, "m1")
    assert not disks.is_ours(wanted, "m2")


def test_a_file_that_is_there_is_never_touched(tmp_path: Path) -> None:
    wanted = image(tmp_path)
    Path(wanted.path).write_text("somebody's data")
    with pytest.raises(Refused, match="not overwritten"):
        disks.make([wanted], "m1", OWNER)
    assert disks.remove([wanted], "m1") == ()
    assert Path(wanted.path).read_text() == "somebody's data"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scratch.raw"]


def test_a_link_that_leads_nowhere_is_something_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "scratch.raw").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused):
        disks.make([image(tmp_path)], "m1", OWNER)
    assert not (tmp_path / "elsewhere").exists()


def test_of_several_all_are_made_or_none(tmp_path: Path) -> None:
    first, second = image(tmp_path, "first"), image(tmp_path, "second")
    Path(second.path).touch()
    with pytest.raises(Refused):
        disks.make([first, second], "m1", OWNER)
    assert [entry.name for entry in tmp_path.iterdir()] == ["second"]


def test_another_migrations_image_is_left_alone(tmp_path: Path) -> None:
    wanted = image(tmp_path)
    disks.make([wanted], "m1", OWNER)
    with pytest.raises(Refused, match="not overwritten"):
        disks.make([wanted], "m2", OWNER)
    assert disks.remove([wanted], "m2") == ()
    assert disks.is_ours(wanted, "m1")


def test_another_migrations_claim_is_respected_before_its_image_is_there(tmp_path: Path) -> None:
    wanted = image(tmp_path)
    disks.make([wanted], "m1", OWNER)
    Path(wanted.path).unlink()
    with pytest.raises(Refused, match="another migration"):
        disks.make([wanted], "m2", OWNER)
    assert disks.is_ours(wanted, "m1")


def test_a_second_attempt_makes_anew_what_the_first_left(tmp_path: Path) -> None:
    wanted = image(tmp_path)
    disks.make([wanted], "m1", OWNER)
    Path(wanted.path).write_text("half made")
    disks.make([wanted], "m1", OWNER)
    assert Path(wanted.path).stat().st_size == SIZE


def test_removing_leaves_nothing_and_may_be_done_again(tmp_path: Path) -> None:
    wanted = image(tmp_path)
    disks.make([wanted], "m1", OWNER)
    assert disks.remove([wanted], "m1") == (wanted.path,)
    assert list(tmp_path.iterdir()) == []
    assert disks.remove([wanted], "m1") == ()


def test_a_kept_image_is_nobodys_to_remove_any_more(tmp_path: Path) -> None:
    wanted = image(tmp_path)
    disks.make([wanted], "m1", OWNER)
    assert disks.keep([wanted], "m1") == (wanted.path,)
    assert disks.remove([wanted], "m1") == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["scratch.raw"]


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has to be there"):
        disks.make([image(tmp_path / "none")], "m1", OWNER)
    assert list(tmp_path.iterdir()) == []


def test_what_qemu_img_says_against_it_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no space left")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(Refused, match="no space left"):
        disks.make([image(tmp_path)], "m1", OWNER)
    assert list(tmp_path.iterdir()) == []


def test_a_place_tells_what_is_there_and_how_much_fits(tmp_path: Path) -> None:
    path = tmp_path / "image"
    assert Place.of(str(tmp_path / "none" / "image")) == Place(folder=False)
    assert not Place.of(str(path)).exists
    path.touch()
    place = Place.of(str(path))
    assert place.exists
    assert place.free > 0
