"""What a plan of a move between clouds says: pure, so every finding is met here."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds import prices
from clouds.capabilities import OFFERS
from clouds.disks.content import BLOCK, ranges_of, touched
from models.cloud_bring import InstanceFacts
from models.cloud_move import PlaceReport
from models.cloud_transfer import CloudTransferRequest, TransferPlan
from models.clouds import Instance, Quota, Size
from workflows.cloud import transfer_plan

SMALL = Size(name="t3.micro", vcpus=2, memory_mib=1024, architecture="x86_64", firmware=("bios",))
THERE = Size(name="Standard_B2s", vcpus=2, memory_mib=4096, architecture="x86_64", firmware=("bios", "uefi"))
GIB = 1 << 30


def request(**more: Any) -> CloudTransferRequest:
    told = {"vm": "web", "source": "aws:us-east-1", "to": "azure:eastus", "size": "Standard_B2s"}
    return CloudTransferRequest.model_validate({**told, **more})


def instance(state: Any = "running", **more: Any) -> InstanceFacts:
    seen = Instance(cloud="aws", id="i-1", state=state, region="us-east-1", size="t3.micro")
    told = {"instance": seen, "volumes": ("vol-1",), "sizes": (8 * GIB,), "size": SMALL, "export": True, "warm": True}
    return InstanceFacts.model_validate({**told, **more})


def offer(**more: Any) -> PlaceReport:
    told = {"size": THERE, "warm": True, "export": True, "prices": prices.of("azure", "eastus")}
    return PlaceReport.model_validate({**told, **more})


def made(
    wanted: CloudTransferRequest | None = None, facts: InstanceFacts | None = None, there: PlaceReport | None = None
) -> TransferPlan:
    return transfer_plan.plan(wanted or request(), facts or instance(), there or offer(), prices.of("aws", "us-east-1"))


def ids(plan: TransferPlan, severity: str) -> set[str]:
    return {each.id for each in plan.findings if each.severity == severity}


def test_a_warm_plan_tells_bytes_times_and_what_each_cloud_charges() -> None:
    plan = made()
    assert (plan.ok, plan.warm, plan.disk_bytes, plan.instance) == (True, True, 8 * GIB, "i-1")
    assert ids(plan, "warning") == {"prepare"}
    costs = {cost.what: cost for cost in plan.costs}
    out = next(cost for what, cost in costs.items() if "out of aws:us-east-1" in what)
    assert (out.usd, out.per) == (0.72, "once"), "8 GiB at 0.09"
    assert any("read back" in what for what in costs)
    assert any(what.startswith("Standard_B2s") and cost.usd for what, cost in costs.items())
    assert any("read what was written back" in step for step in plan.steps)


@pytest.mark.parametrize(
    ("wanted", "facts", "there", "id"),
    [
        (request(), instance(instance=None), offer(), "instance"),
        (request(), instance(instance=None, candidates=("i-1", "i-2")), offer(), "instance"),
        (request(), instance("paused"), offer(), "state"),
        (request(), instance(export=False, why_not="not offered: no call"), offer(), "export"),
        (request(), instance(volumes=()), offer(), "no-disk"),
        (request(mode="warm"), instance(warm=False), offer(), "warm"),
        (request(mode="warm"), instance(), offer(warm=False), "warm"),
        (request(), instance(), offer(size=None), "size"),
        (request(), instance(size=SMALL.model_copy(update={"architecture": "arm64"})), offer(), "architecture"),
        (request(firmware="uefi"), instance(), offer(size=SMALL), "firmware"),
        (request(), instance(), offer(quotas=(Quota(name="vCPUs", limit=4, used=3, unit="vCPU"),)), "quota"),
        (request(to="oci:eu-frankfurt-1"), instance(volumes=("vol-1", "vol-2")), offer(warm=False), "disks"),
    ],
)
def test_what_cannot_go_well_is_a_blocker(
    wanted: CloudTransferRequest, facts: InstanceFacts, there: PlaceReport, id: str
) -> None:
    plan = made(wanted, facts, there)
    assert id in ids(plan, "blocker")
    assert not plan.ok


@pytest.mark.parametrize(
    ("wanted", "facts", "there", "id"),
    [
        (request(), instance(warm=False), offer(), "cold"),
        (request(), instance(), offer(warm=False), "cold"),
        (request(to="gcp:us-east1"), instance(), offer(warm=False), "twice"),
        (request(), instance(), offer(export=False), "not-read-back"),
        (request(mode="warm"), instance("stopped"), offer(), "off"),
        (request(), instance(), offer(size=SMALL.model_copy(update={"memory_mib": 64})), "smaller"),
    ],
)
def test_what_may_go_wrong_is_said(
    wanted: CloudTransferRequest, facts: InstanceFacts, there: PlaceReport, id: str
) -> None:
    plan = made(wanted, facts, there)
    assert plan.ok
    assert id in ids(plan, "warning")


def test_within_one_cloud_the_guest_meets_the_devices_that_it_knows() -> None:
    assert "prepare" not in ids(made(request(to="aws:eu-west-1")), "warning")


@given(
    mode=st.sampled_from(["auto", "cold", "warm"]),
    out=st.booleans(),
    delta=st.booleans(),
    back=st.booleans(),
    changed=st.booleans(),
    state=st.sampled_from(["running", "stopped", "paused"]),
)
def test_a_plan_is_warm_only_where_both_clouds_can_and_never_good_without_a_way_out(
    mode: str, out: bool, delta: bool, back: bool, changed: bool, state: str
) -> None:
    plan = made(request(mode=mode), instance(state, export=out, warm=delta), offer(warm=changed, export=back))
    assert plan.warm == (mode != "cold" and delta and changed and state == "running")
    assert not plan.ok or out
    assert plan.ok or out is False or state == "paused" or (mode == "warm" and not (delta and changed))
    assert ("not-read-back" in ids(plan, "warning")) == (not back)


def test_the_plan_knows_of_every_cloud_that_takes_archives_only() -> None:
    """Those that take no changed blocks make an image of one archive."""
    assert {name for name in ("aws", "azure", "gcp", "oci") if OFFERS[name]["BlockDelta"].state != "works"} == set(
        transfer_plan.ARCHIVES
    )


@given(indices=st.sets(st.integers(0, 30)), tail=st.integers(1, BLOCK))
def test_blocks_and_ranges_are_the_same_thing(indices: set[int], tail: int) -> None:
    size = 24 * BLOCK + tail
    ranges = list(ranges_of(size, sorted(indices)))
    assert list(touched(size, ranges)) == [index for index in sorted(indices) if index * BLOCK < size]
    assert all(start + length < after for (start, length), (after, _) in pairwise(ranges))
