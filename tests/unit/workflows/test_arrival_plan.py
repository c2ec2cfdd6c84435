"""What a plan of a move from a cloud says: pure, so every finding is met here."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from models.cloud_bring import ArrivalFacts, CloudBringRequest, InstanceFacts
from models.clouds import Instance, InstanceState, Price, Size
from models.migration import VmRef
from workflows.cloud import arrival_plan

SIZE = Size(name="t3.micro", vcpus=2, memory_mib=1024, architecture="x86_64", firmware=("bios",))


def request(**more: Any) -> CloudBringRequest:
    return CloudBringRequest.model_validate({"vm": "web", "source": "aws:eu-west-1", "to": "host-b", **more})


def instance(state: InstanceState = "running", **more: Any) -> InstanceFacts:
    seen = Instance(cloud="aws", id="i-1", state=state, region="eu-west-1", size="t3.micro")
    told = {"instance": seen, "volumes": ("vol-1",), "size": SIZE, "export": True, "warm": True}
    return InstanceFacts.model_validate({**told, **more})


def host(**more: Any) -> ArrivalFacts:
    told = {"host": "host-b", "vm": VmRef(vm="web"), "defined": True, "disks": ("vda",), "memory_free_mib": 4096}
    return ArrivalFacts.model_validate({**told, "accounts": ("aws:eu-west-1",), **more})


def ids(wanted: CloudBringRequest, facts: InstanceFacts, there: ArrivalFacts) -> dict[str, str]:
    return {each.id: each.severity for each in arrival_plan.plan(wanted, facts, there).findings}


def test_nothing_speaks_against_a_vm_that_is_known_there() -> None:
    made = arrival_plan.plan(request(), instance(), host())
    assert (made.ok, made.warm, made.findings) == (True, True, ())
    assert any("stop instance i-1" in step for step in made.steps)


def test_a_plan_tells_the_most_that_the_first_copy_can_come_to_and_what_it_costs() -> None:
    prices = tuple(
        Price(cloud="aws", region="eu-west-1", item=item, per=per, usd=usd, as_of=date(2026, 9, 6), source="a list")
        for item, per, usd in (("internet-egress", "gb", 0.09), ("gp3", "gb-month", 0.08))
    )
    made = arrival_plan.plan(request(), instance(sizes=(10 << 30, 1)), host(), prices)
    assert made.disk_bytes == (10 << 30) + 1
    assert made.seconds == (85.9, 859.0)
    assert [(cost.usd, cost.per) for cost in made.costs] == [(0.99, "once"), (None, "month"), (0.88, "month")]
    assert (made.prices_as_of, made.prices_source) == (date(2026, 9, 6), "a list")


@pytest.mark.parametrize(
    ("wanted", "facts", "there", "id"),
    [
        (request(), instance(instance=None), host(), "instance"),
        (request(), instance(instance=None, candidates=("i-1", "i-2")), host(), "instance"),
        (request(), instance("paused"), host(), "state"),
        (request(), instance(export=False, why_not="not offered: no call"), host(), "export"),
        (request(), instance(volumes=()), host(defined=False), "no-disk"),
        (request(), instance(volumes=tuple(f"vol-{n}" for n in range(22))), host(defined=False), "disks"),
        (request(mode="warm"), instance(warm=False), host(), "warm"),
        (request(), instance(), host(alive=True), "two-copies"),
        (request(), instance(), host(accounts=()), "account"),
        (request(), instance(), host(folder=False), "folder"),
        (request(), instance(), host(architecture="arm64"), "architecture"),
        (request(), instance(), host(disks=("vda", "vdb")), "definition"),
        (request(), instance(size=None), host(defined=False, disks=()), "hardware"),
    ],
)
def test_what_cannot_go_well_is_a_blocker(
    wanted: CloudBringRequest, facts: InstanceFacts, there: ArrivalFacts, id: str
) -> None:
    assert ids(wanted, facts, there).get(id) == "blocker"


@pytest.mark.parametrize(
    ("wanted", "facts", "there", "id"),
    [
        (request(mode="warm"), instance("stopped"), host(), "off"),
        (request(), instance(), host(memory_free_mib=512), "memory"),
        (request(), instance(), host(accelerated=False), "slow"),
        (request(), instance(), host(defined=False, disks=()), "hardware"),
    ],
)
def test_what_may_surprise_is_a_warning(
    wanted: CloudBringRequest, facts: InstanceFacts, there: ArrivalFacts, id: str
) -> None:
    assert ids(wanted, facts, there) == {id: "warning"}


def test_hardware_is_as_asked_for_and_else_as_the_size_has_it() -> None:
    made = arrival_plan.hardware(request(hardware={"memory_mib": 512, "network": "default"}), instance())
    assert (made.memory_mib, made.vcpus, made.network) == (512, 2, "default")


@pytest.mark.parametrize(
    ("mode", "facts", "warm"),
    [
        ("auto", instance(), True),
        ("auto", instance("stopped"), False),
        ("auto", instance(warm=False), False),
        ("cold", instance(), False),
    ],
)
def test_it_goes_warm_where_it_can(mode: str, facts: InstanceFacts, warm: bool) -> None:
    assert arrival_plan.plan(request(mode=mode), facts, host()).warm is warm
