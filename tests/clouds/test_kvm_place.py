"""A KVM host as a cloud, as far as it is files and words: no libvirt is there. Else: tests/integration/contract."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from clouds import tokens
from clouds.adapters import connect
from clouds.capabilities import Adapter, ImageImport
from clouds.disks.content import BLOCK, touched
from clouds.errors import BadDisk, Busy, Conflict, Invalid, NotFound, Unavailable
from clouds.kvm.place.domain import Mark, compose
from clouds.kvm.place.store import Store
from models.clouds import CallSettings, DeltaOrder, ImageOrder, InstanceOrder, KvmSettings, KvmSize
from tests.clouds.scene import Journal, Killed, ignore, order, small_disk, token


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KvmSettings:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "place").mkdir()
    calls = CallSettings(attempts=1, parallel=1)
    short = KvmSettings(region="here", libvirt_socket="/nowhere/libvirt-sock", calls=calls)
    return short.model_copy(update={"folder": str(tmp_path / "place")})


@pytest.fixture
def adapter(settings: KvmSettings) -> Adapter:
    return connect(settings)


@pytest.fixture
def images(adapter: Adapter) -> ImageImport:
    assert adapter.image_import is not None
    return adapter.image_import


@pytest.mark.parametrize("id", ["../place/secret", "disk-../../x", "", "disk-0", "image-" + "0" * 32])
def test_only_ids_of_ours_are_ever_part_of_a_path(images: ImageImport, settings: KvmSettings, id: str) -> None:
    folder = Path(settings.folder)
    (folder / "disks").mkdir()
    (folder / "secret.json").write_text("{}")
    with pytest.raises(NotFound, match="there is no disk"):
        images.get_snapshot(id)
    images.delete_disk(id)
    images.delete_image("../secret")
    assert (folder / "secret.json").exists()


def test_two_processes_do_not_write_to_one_disk(images: ImageImport, settings: KvmSettings) -> None:
    with pytest.raises(Killed):
        images.import_disk(order(), small_disk(), journal := Journal(deadly=3))
    disk = journal.kept[-1].disk
    with Store(settings.folder).writing(disk):
        for act in (lambda: images.import_disk(order(), small_disk(), ignore), lambda: images.delete_disk(disk)):
            with pytest.raises(Busy, match="another process writes"):
                _done(act)
    images.import_disk(order(), small_disk(), ignore)


def test_a_block_that_the_storage_lost_is_seen_before_the_disk_is_ready(
    images: ImageImport, settings: KvmSettings
) -> None:
    """As after a power cut, on storage that lies about a flush."""
    with pytest.raises(Killed):
        images.import_disk(order(), small_disk(), journal := Journal(deadly=5))
    disk = journal.kept[-1].disk
    with Store(settings.folder).writing(disk) as file:
        file.write(0, bytes(BLOCK))
    with pytest.raises(Conflict):
        images.import_disk(order(), small_disk(), ignore, journal.kept[-1])
    assert images.get_snapshot(disk).state == "pending"


def test_a_disk_of_the_folder_is_read_as_one_likes_and_tells_where_it_differs(
    adapter: Adapter, images: ImageImport
) -> None:
    export, delta = adapter.image_export, adapter.block_delta
    assert export is not None
    assert delta is not None
    source = small_disk()
    base = images.import_disk(order(), source, ignore).disk
    source.write(5 * BLOCK, b"new")
    source.zero(7 * BLOCK, BLOCK)
    wish = DeltaOrder(name="vm-1-vda", token=token("move/lab/vm-1", "round/1"), base=base)
    disk = delta.import_delta(wish, source, ((5 * BLOCK, 5), (7 * BLOCK, 5)), ignore).disk
    assert delta.changed(base, disk) == ((5 * BLOCK, BLOCK), (7 * BLOCK, BLOCK))
    with export.open_disk(disk) as shown:
        assert set(touched(shown.size, shown.data())) == set(source.blocks())
        for index in (12, 5, 7):
            assert shown.read(index * BLOCK, 1000) == source.read(index * BLOCK, 1000)
        assert shown.read(3 * BLOCK - 5, 10) == source.read(3 * BLOCK - 5, 10)


def test_a_damaged_record_is_told_and_not_guessed(images: ImageImport, settings: KvmSettings) -> None:
    disk = images.import_disk(order(), small_disk(), ignore).disk
    (Path(settings.folder) / "disks" / f"{disk}.json").write_text('{"snapshot": ')
    with pytest.raises(BadDisk, match="is damaged"):
        images.get_snapshot(disk)


def test_an_image_of_a_disk_that_is_not_whole_is_refused(images: ImageImport) -> None:
    with pytest.raises(Killed):
        images.import_disk(order(), small_disk(), journal := Journal(deadly=3))
    wanted = ImageOrder(name="half", token=token("place", "image"), disks=(journal.kept[-1].disk,))
    with pytest.raises(Conflict, match="complete"):
        images.create_image(wanted)
    with pytest.raises(Invalid, match="arm64"):
        images.create_image(wanted.model_copy(update={"architecture": "arm64"}))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"user_data": "#cloud-config"}, "user_data"),
        ({"security_groups": ("web",)}, "security groups"),
        ({"zone": "elsewhere"}, "zone elsewhere"),
    ],
)
def test_what_a_host_does_not_have_is_refused_before_anything_is_made(
    adapter: Adapter, more: dict[str, object], why: str
) -> None:
    assert adapter.instances is not None
    wanted = InstanceOrder(name="vm-1", image="image-" + "0" * 32, size="1x1").model_copy(update=more)
    with pytest.raises(Invalid, match=why):
        adapter.instances.create_instance(wanted, tokens.token("place", "run"))


def test_a_libvirtd_that_is_not_there_is_unavailable(adapter: Adapter) -> None:
    pytest.importorskip("libvirt")
    assert adapter.instances is not None
    with pytest.raises(Unavailable, match="Check that libvirtd runs"):
        adapter.instances.list_instances()


def test_a_definition_says_what_it_was_made_of() -> None:
    mark = Mark(order="0" * 64, image="image-1", size="1x1", tags={"a": "<&>"})
    size = KvmSize(name="1x1", vcpus=1, memory_mib=1024)
    xml = compose("vm-1", "u", size, ["/a.qcow2", "/b.qcow2"], "uefi", "default", "kvm", mark)
    root = ET.fromstring(xml)
    told = root.find("metadata/{urn:novacron:instance:1}instance")
    assert told is not None
    assert Mark.model_validate_json(told.text or "") == mark
    assert [disk.get("dev") for disk in root.iterfind("devices/disk/target")] == ["vda", "vdb"]
    system = root.find("os")
    assert system is not None
    assert system.get("firmware") == "efi"
    assert compose("vm-1", "u", size, [], "bios", None, "kvm", mark).count("interface") == 0


def _done(act: Callable[[], object]) -> None:
    act()
