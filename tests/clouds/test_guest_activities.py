"""The steps that make a guest ready for a cloud, on real images: the layer is what is sent, the image stays as it is,
and no layer outlives the cut-over that it was made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from clouds.disks.images import make_overlay, open_image
from clouds.errors import BadDisk, MissingPackage
from clouds.preparing import layer
from models.cloud_guests import DropLayers, GuestPrepared, LookAtGuest, PrepareGuest
from models.cloud_move import SettleSource
from models.disks import DiskImage
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.fake_guest import WHAT, WHERE, FakeMachine
from tests.clouds.fake_source import OFF, RUNNING, Source
from tests.clouds.test_cloud_activities import order, send


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    found = FakeMachine()
    monkeypatch.setattr(layer, "prepare", found)
    monkeypatch.setattr("activities.cloud_guests.prepare", found)
    monkeypatch.setattr("activities.cloud_guests.check_tools", lambda: None)
    return found


@pytest.fixture
def source(aws: AwsCloud, tmp_path: Path, machine: FakeMachine) -> Source:
    found = Source(tmp_path, aws.settings, adapter=aws.adapter)
    found.write(0, 3, 5)
    found.domain.number = OFF
    return found


def wanted(source: Source, attempt: int = 1) -> PrepareGuest:
    return PrepareGuest(move="m1", attempt=attempt, vm=source.ref, image=source.image, target="aws")


def prepared(source: Source, attempt: int = 1) -> GuestPrepared:
    return ActivityEnvironment().run(source.guests.prepare_guest, wanted(source, attempt))


def test_the_cloud_gets_the_layer_and_the_image_stays_as_it_is(aws: AwsCloud, source: Source) -> None:
    before = source.domain.image.read_bytes()
    first, _ = send(source, order(source))
    assert first is not None
    done = prepared(source)
    assert done.layer == 1
    second, _ = send(source, order(source, "2", first.disk).model_copy(update={"layer": 1}))
    assert second is not None
    assert second.bytes == len(WHAT), "what was changed, and nothing else"
    assert second.source == second.content != first.content
    assert aws.content(second.disk) == {**source.content(), WHERE: WHAT}
    assert source.domain.image.read_bytes() == before


def test_after_an_undone_cut_over_the_cloud_gets_what_the_guest_has_then(aws: AwsCloud, source: Source) -> None:
    prepared(source)
    first, _ = send(source, order(source).model_copy(update={"layer": 1}))
    assert first is not None
    source.write(3, 7, what=b"since then")
    prepared(source, 2)
    assert not layer.layer(str(source.domain.image), "m1", 1).exists()
    second, _ = send(source, order(source, "2", first.disk).model_copy(update={"layer": 2}))
    assert second is not None
    assert aws.content(second.disk) == {**source.content(), WHERE: WHAT}


def test_asked_again_it_is_not_prepared_again(source: Source, machine: FakeMachine) -> None:
    first = prepared(source)
    source.restart()
    assert prepared(source) == first
    assert len(machine.asked) == 1


def test_a_layer_that_a_worker_left_half_done_is_made_anew(source: Source, machine: FakeMachine) -> None:
    half = layer.layer(str(source.domain.image), "m1", 1)
    half.parent.mkdir()
    make_overlay(half, source.domain.image, "raw")
    with pytest.raises(BadDisk, match="is gone"):
        layer.checked(str(source.domain.image), "m1", 1)
    prepared(source)
    with open_image(half, "qcow2", backing=source.domain.image) as disk:
        assert disk.read(WHERE * len(WHAT), len(WHAT)) == WHAT


def test_a_layer_over_another_image_is_not_opened(source: Source, tmp_path: Path) -> None:
    prepared(source)
    with (
        pytest.raises(BadDisk, match="needs another file"),
        open_image(layer.layer(str(source.domain.image), "m1", 1), "qcow2", backing=tmp_path / "other"),
    ):
        pass


def test_a_refused_guest_leaves_nothing(source: Source, machine: FakeMachine) -> None:
    machine.refuses = True
    with pytest.raises(ApplicationError, match="vda2 is encrypted") as caught:
        prepared(source)
    assert (caught.value.type, caught.value.non_retryable) == ("Refused", True)
    assert not layer.folder(str(source.domain.image)).exists()


def test_a_guest_that_is_ready_has_no_layer(source: Source, machine: FakeMachine) -> None:
    machine.ready = True
    assert prepared(source).layer == 0


def test_a_guest_that_runs_is_not_prepared(source: Source, machine: FakeMachine) -> None:
    source.domain.number = RUNNING
    with pytest.raises(ApplicationError) as caught:
        prepared(source)
    assert caught.value.type == "Ambiguous"
    assert machine.asked == []


@pytest.mark.parametrize("by", ["drop", "settle"])
def test_what_was_prepared_goes(source: Source, by: str) -> None:
    prepared(source)
    env = ActivityEnvironment()
    for _ in range(2):
        if by == "drop":
            env.run(source.guests.drop_layers, DropLayers(vm=source.ref, image=source.image))
        else:
            env.run(source.activities.settle_source, SettleSource(move="m1", vm=source.ref, disks=(source.image,)))
    assert [path.name for path in source.folder.iterdir() if path.name != "state"] == [source.domain.image.name]


def look(source: Source, image: DiskImage | None = None) -> Any:
    wish = LookAtGuest(vm=source.ref, image=image or source.image, target="aws")
    return ActivityEnvironment().run(source.guests.look_at_guest, wish)


def test_a_guest_that_is_off_is_looked_at_and_not_changed(source: Source) -> None:
    before = source.domain.image.read_bytes()
    seen = look(source)
    assert seen.report is not None
    assert seen.report.state == "to be changed"
    assert source.domain.image.read_bytes() == before
    assert not layer.folder(str(source.domain.image)).exists()


def test_a_guest_that_runs_is_not_looked_at(source: Source, machine: FakeMachine) -> None:
    source.domain.number = RUNNING
    assert (look(source).report, look(source).obstacle) == (None, "")
    assert machine.asked == []


def test_what_this_host_lacks_is_said_though_the_guest_runs(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingPackage("busybox is not installed here", "Install the package busybox-static.")

    monkeypatch.setattr("activities.cloud_guests.check_tools", missing)
    source.domain.number = RUNNING
    assert look(source).obstacle == "busybox is not installed here. Install the package busybox-static."


def test_a_format_that_cannot_be_prepared_is_an_obstacle(source: Source) -> None:
    image = source.image.model_copy(update={"format": "vmdk"})
    assert "Only raw and qcow2" in look(source, image).obstacle
