"""As a user would, on the lab: a guest moves to "AWS" warm and comes home, a second one of the same base sends little.

The AWS is the tests' own (moto, strict); it keeps every byte, and boots nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from clouds.disks.content import BLOCK
from clouds.disks.images import open_image
from models import ids
from tests.clouds import conftest
from tests.clouds.aws.scene import AwsCloud
from tests.integration.scene import SITE, Scene
from tests.integration.test_faces import command
from workers.lab.errors import run
from workers.lab.settings import SCRATCH_FOLDER

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

aws, aws_of_the_session = conftest.aws, conftest.aws_of_the_session
PLACE = "aws:us-east-1"
BASE_MIB, OWN_MIB = 64, 2
"""What the two disks have alike, and what each guest writes over, again and again."""
WORKERS = ("host-a.worker", "host-b.worker", "control.worker")


@pytest_asyncio.fixture(loop_scope="session")
async def site(scene: Scene, aws: AwsCloud) -> AsyncIterator[Scene]:
    """The lab's workers know the account, as a site's settings would tell them."""
    lab = scene.lab
    files = [host.worker_settings for host in scene.hosts] + [lab.settings.folder / "control.json"]
    before = [file.read_text() for file in files]
    for file, text in zip(files, before, strict=True):
        file.write_text(json.dumps({**json.loads(text), "clouds": [aws.settings.model_dump(mode="json")]}))
    await asyncio.to_thread(_restart, scene)
    code, out, err = await command("novacron", "reconcile")
    assert code == 0, out + err
    yield scene
    for file, text in zip(files, before, strict=True):
        file.write_text(text)
    await asyncio.to_thread(_restart, scene)


def _restart(scene: Scene) -> None:
    for part in WORKERS:
        scene.lab.kill(part)
    for part in WORKERS:
        scene.lab.start(part)


@pytest.fixture
def guests(scene: Scene, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Two VMs of host-a whose disks began as one: name -> image."""
    base = tmp_path / "base.raw"
    with (scene.lab.settings.guest_folder / "content.img").open("rb") as content:
        base.write_bytes(content.read(BASE_MIB << 20))
    made = {name: scene.lab.settings.scratch_image("host-a", name) for name in ("elder", "younger")}
    try:
        for name, image in made.items():
            scene.lab.boot_guest(name, "host-a", memory_mib=128, fill=0, check=1, scratch=OWN_MIB)
            _from_base(scene, name, base, image)
        yield made
    finally:
        for name in made:
            scene.lab.destroy_guest(name)
        for left in scene.lab.settings.scratch_image("host-a", "elder").parent.glob("*er*.qcow2*"):
            left.unlink()


def _from_base(scene: Scene, name: str, base: Path, image: Path) -> None:
    """Define the guest, give it the base for its disk, and let it run."""
    with closing(_libvirt().open(scene.lab.settings.libvirt_uri("host-a"))) as connection:
        domain = connection.lookupByName(name)
        connection.defineXML(domain.XMLDesc())
        domain.destroy()
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(base), str(image))
        domain.create()


def _libvirt() -> Any:
    import libvirt

    return libvirt


async def cloud(*words: str) -> dict[str, Any]:
    code, out, err = await command("novacron", "cloud", *words, "--json", within=240)
    assert code == 0, out + err
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


async def outcome(scene: Scene, vm: str) -> dict[str, Any]:
    handle = scene.nc.client.get_workflow_handle(ids.migrate_vm(SITE, vm))
    result: dict[str, Any] = await handle.result()
    return result


async def goes(scene: Scene, vm: str) -> dict[str, Any]:
    """Warm; the lab's guests do not heed the power button."""
    how = ["--size", "t3.micro", "--cut-power", "--stop-within", "5", "--keep-source-for", "0"]
    await cloud("move", vm, "--to", PLACE, *how)
    return await outcome(scene, vm)


def held(aws: AwsCloud, instance: str) -> dict[int, bytes]:
    """What the instance's disk holds."""
    assert aws.adapter.instances is not None
    (disk,) = aws.adapter.instances.get_instance(instance).disks
    return {index: data for index, data in aws.server.strict.volumes[disk.disk].items() if data.strip(b"\0")}


def content(image: Path) -> dict[int, bytes]:
    with open_image(str(image), "qcow2") as opened:
        blocks = {index: opened.read(index * BLOCK, BLOCK) for index in range((BASE_MIB << 20) // BLOCK)}
    return {index: data for index, data in blocks.items() if data.strip(b"\0")}


async def test_a_guest_goes_to_aws_and_comes_home_and_the_second_of_its_base_sends_under_15_percent(
    site: Scene, aws: AwsCloud, guests: dict[str, Path]
) -> None:
    first = await goes(site, "elder")
    assert len(first["rounds"]) > 1, "it went warm"
    assert held(aws, first["instance"]) == content(guests["elder"])
    second = await goes(site, "younger")
    whole = len(content(guests["younger"])) * BLOCK
    assert held(aws, second["instance"]) == content(guests["younger"])
    assert second["sent_bytes"] < 0.15 * whole, f"{second['sent_bytes']} of {whole} bytes"
    assert second["saved_bytes"] > 0

    aws.guest_writes(_volume(aws, first["instance"]), 99, b"written in the cloud")
    with site.lab.heartbeats("elder") as heard:
        await cloud(
            "bring", "elder", "--from", PLACE, "--to", "host-a", "--folder", SCRATCH_FOLDER, "--keep-source-for", "0"
        )
        await asyncio.to_thread(heard.wait_for, lambda story: story.beats >= 3, 60, "beats of elder at home")
    back = await outcome(site, "elder")
    (disk,) = back["disks"]
    assert disk["source"] == disk["content"]
    (image,) = back["images"]
    assert [host.name for host in site.hosts if "elder" in host.qemu()] == ["host-a"]
    assert not any("younger" in host.qemu() for host in site.hosts)
    _off(site, "elder")
    home = content(_seen_from_here(site, image))
    assert home[99].startswith(b"written in the cloud")
    own = range((OWN_MIB << 20) // BLOCK)
    away = held(aws, first["instance"])
    assert {at: data for at, data in home.items() if at not in own} == {
        at: data for at, data in away.items() if at not in own
    }
    states = {each.name: each.state for each in aws.adapter.instances.list_instances().items}  # type: ignore[union-attr]
    assert states == {"elder": "stopped", "younger": "running"}


def _off(scene: Scene, name: str) -> None:
    """While it runs, its image is QEMU's alone."""
    with closing(_libvirt().open(scene.lab.settings.libvirt_uri("host-a"))) as connection:
        connection.lookupByName(name).destroy()


def _volume(aws: AwsCloud, instance: str) -> str:
    assert aws.adapter.instances is not None
    return aws.adapter.instances.get_instance(instance).disks[0].disk


def _seen_from_here(scene: Scene, image: str) -> Path:
    """The host has a folder of its own in that place."""
    return scene.lab.settings.scratch_image("host-a", "elder").parent / Path(image).name
