"""Contract of Instances: what a caller may rely on, whatever the cloud."""

from __future__ import annotations

from contextlib import suppress

import pytest

from clouds.capabilities import Instances
from clouds.errors import (
    CloudError,
    Conflict,
    CredentialsExpired,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Throttled,
    Unavailable,
)
from models.clouds import Instance
from tests.clouds.faults import Kind
from tests.clouds.scene import Cloud, boot_image, instance_order, looks, token

pytestmark = pytest.mark.capability("Instances")


@pytest.fixture
def instances(cloud: Cloud) -> Instances:
    assert cloud.adapter.instances is not None
    return cloud.adapter.instances


@pytest.fixture
def image(cloud: Cloud) -> str:
    return boot_image(cloud)


def create(cloud: Cloud, image: str, name: str = "vm-1") -> Instance:
    assert cloud.adapter.instances is not None
    return cloud.adapter.instances.create_instance(instance_order(cloud, image, name), token("move/lab", name))


def settle(instances: Instances, id: str, *, wanted: str) -> Instance:
    for _ in looks():
        found = instances.get_instance(id)
        if found.state == wanted:
            return found
    raise AssertionError(f"{found.state}, not {wanted}")


def listed(instances: Instances) -> tuple[list[str], int]:
    """Ids, and in how many pages they came."""
    pages = [instances.list_instances(limit=5)]
    while pages[-1].next:
        pages.append(instances.list_instances(pages[-1].next, limit=5))
    return [instance.id for page in pages for instance in page.items], len(pages)


def test_an_instance_lives_its_life(cloud: Cloud, instances: Instances, image: str) -> None:
    made = create(cloud, image)
    assert made.state in ("pending", "running")
    found = settle(instances, made.id, wanted="running")
    assert (found.name, found.size, found.image, found.tags["purpose"]) == ("vm-1", cloud.size, image, "contract")
    assert found.private_addresses or not cloud.calls.addressed
    assert [disk.boot for disk in found.disks] == [True]
    instances.stop_instance(made.id)
    settle(instances, made.id, wanted="stopped")
    instances.start_instance(made.id)
    settle(instances, made.id, wanted="running")
    instances.reboot_instance(made.id, token("move/lab", "reboot"))
    settle(instances, made.id, wanted="running")
    instances.terminate_instance(made.id)
    with suppress(NotFound):  # some clouds forget at once what is terminated
        settle(instances, made.id, wanted="terminated")


def test_twice_is_once(cloud: Cloud, instances: Instances, image: str) -> None:
    made = create(cloud, image)
    settle(instances, made.id, wanted="running")
    instances.start_instance(made.id)
    for _ in range(2):
        instances.stop_instance(made.id)
    settle(instances, made.id, wanted="stopped")
    for _ in range(2):
        instances.terminate_instance(made.id)


def test_one_token_makes_one_instance(cloud: Cloud, image: str) -> None:
    before = cloud.things()
    assert create(cloud, image).id == create(cloud, image).id
    assert len(cloud.things()) == len(before) + 1


def test_a_lost_answer_makes_no_second_instance(cloud: Cloud, image: str) -> None:
    before = cloud.things()
    cloud.faults.on(cloud.calls.create_instance, "lose")
    create(cloud, image)
    assert cloud.faults.count(cloud.calls.create_instance) == (2 if cloud.calls.asked_again else 1)
    assert len(cloud.things()) == len(before) + 1


def test_a_token_of_another_order_is_a_conflict(cloud: Cloud, instances: Instances, image: str) -> None:
    create(cloud, image)
    with pytest.raises(Conflict):
        instances.create_instance(instance_order(cloud, image, "other"), token("move/lab", "vm-1"))


def test_one_token_reboots_once(cloud: Cloud, instances: Instances, image: str) -> None:
    made = create(cloud, image)
    for step in ("one", "one", "two"):
        instances.reboot_instance(made.id, token("move/lab", step))
    assert cloud.faults.count(cloud.calls.reboot) == 2


def test_a_list_comes_in_pages_and_whole(cloud: Cloud, instances: Instances, image: str) -> None:
    others, _ = listed(instances)
    made = {create(cloud, image, f"vm-{number}").id for number in range(7)}
    found, pages = listed(instances)
    assert pages == 2 or others
    assert sorted(set(found) - set(others)) == sorted(made)
    assert len(found) == len(set(found))


def test_what_is_not_there_is_not_found(cloud: Cloud, instances: Instances) -> None:
    for call in (instances.get_instance, instances.start_instance, instances.stop_instance):
        with pytest.raises(NotFound, match="Check the id and the region"):
            call("i-0123456789abcdef0")
    instances.terminate_instance("i-0123456789abcdef0")


def test_an_instance_of_no_image_is_refused(cloud: Cloud) -> None:
    with pytest.raises(NotFound):
        create(cloud, "ami-0123456789abcdef0")


@pytest.mark.parametrize("kind", ["throttle", "unavailable", "drop"])
def test_a_passing_fault_is_not_seen(cloud: Cloud, instances: Instances, image: str, kind: Kind) -> None:
    made = create(cloud, image)
    cloud.faults.on(cloud.calls.get, kind)
    assert instances.get_instance(made.id).id == made.id


@pytest.mark.parametrize(
    ("kind", "error", "remedy"),
    [
        ("throttle", Throttled, "tried again"),
        ("unavailable", Unavailable, "tried again"),
        ("drop", Unavailable, "network"),
        ("expired", CredentialsExpired, "Renew the credentials"),
        ("permission", NotPermitted, "docs/clouds.md has the whole"),
        ("quota", QuotaExceeded, "Ask for more"),
    ],
)
def test_a_lasting_fault_has_its_name_and_remedy(
    cloud: Cloud, instances: Instances, kind: Kind, error: type[CloudError], remedy: str
) -> None:
    cloud.faults.on(cloud.calls.list, kind, times=99)
    with pytest.raises(error, match=remedy):
        instances.list_instances()
