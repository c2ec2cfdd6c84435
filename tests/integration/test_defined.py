"""A VM that its host has defined, as most of a fleet are: the definition goes where it goes, stays where it stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import libvirt
import pytest
from temporalio.client import WorkflowFailureError

from models.migration import MigrationPolicy
from tests.integration.scene import GUEST, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def defined(scene: Scene) -> Iterator[None]:
    """The guest is defined where it runs; and, for the tests after this one, no more."""
    with libvirt_of(scene, scene.here()) as connection:
        connection.defineXML(connection.lookupByName(GUEST).XMLDesc()).setAutostart(1)
    yield
    with libvirt_of(scene, scene.here()) as connection:
        connection.lookupByName(GUEST).undefine()


@contextmanager
def libvirt_of(scene: Scene, host: str) -> Iterator[Any]:
    with closing(libvirt.open(scene.lab.settings.libvirt_uri(host))) as connection:
        yield connection


def definitions(scene: Scene) -> dict[str, bool]:
    """Host that has the guest defined, running or not -> it starts with this host."""
    found: dict[str, bool] = {}
    for host in scene.hosts:
        with libvirt_of(scene, host.name) as connection:
            for each in connection.listAllDomains():
                if each.name() == GUEST and each.isPersistent():
                    found[host.name] = bool(each.autostart())
    return found


@pytest.mark.parametrize(
    "policy", [MigrationPolicy(), MigrationPolicy(mode="post-copy", bandwidth_mib=16)], ids=["pre-copy", "post-copy"]
)
async def test_a_definition_goes_with_its_vm(scene: Scene, policy: MigrationPolicy) -> None:
    there = scene.there()
    outcome = await scene.end(await scene.start(there, policy))
    assert definitions(scene) == {there: True}
    assert not outcome.notes
    await scene.proved(on=there)


async def test_a_definition_stays_with_a_vm_whose_move_was_cancelled(scene: Scene) -> None:
    here = scene.here()
    handle = await scene.start(scene.there())
    await scene.middle(handle)
    await handle.execute_update("cancel", "the test wants it back")
    with pytest.raises(WorkflowFailureError):
        await scene.end(handle)
    assert definitions(scene) == {here: True}
    await scene.proved(on=here)


async def test_a_move_whose_data_path_died_leaves_one_definition_beside_the_vm(scene: Scene) -> None:
    here = scene.here()
    handle = await scene.start(scene.there())
    await scene.middle(handle)
    scene.kill_data_path(here)
    with pytest.raises(WorkflowFailureError):
        await scene.end(handle)
    assert definitions(scene) == {here: True}
    await scene.proved(on=here)
