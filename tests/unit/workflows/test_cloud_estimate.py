"""The plan of a move to a cloud: findings, steps and costs from the VM's facts and the place's offer."""

from __future__ import annotations

from typing import Any

import pytest

from models.cloud_guests import GuestForecast
from models.cloud_move import CloudMoveRequest, PlaceReport, SourceFacts, owner_of
from models.clouds import Price, Quota, Size
from models.disks import DiskImage
from models.migration import VmRef
from models.preparing import PrepareReport, Refusal
from workflows.cloud.estimate import plan

GIB = 1 << 30
DISKS = (
    DiskImage(target="vda", path="/a", format="qcow2", capacity=10 * GIB, allocated=2 * GIB),
    DiskImage(target="vdb", path="/b", format="raw", capacity=5 * GIB, allocated=6 * GIB),
)
SIZE = Size(name="t3.small", vcpus=2, memory_mib=2048, architecture="x86_64", firmware=("bios", "uefi"))
PRICES = tuple(
    Price(cloud="aws", region="us-east-1", item=item, per=per, usd=usd, as_of="2026-09-06", source="a list")
    for item, per, usd in (("t3.small", "hour", 0.02), ("gp3", "gb-month", 0.08))
)
WANTED = CloudMoveRequest(vm="web", to="aws:us-east-1", size="t3.small")
OFFER = PlaceReport(size=SIZE, prices=PRICES, warm=True)


def facts(**more: Any) -> SourceFacts:
    given = {
        "host": "host-a", "vm": VmRef(vm="web"), "persistent": True, "running": True, "vcpus": 2, "memory_mib": 2048,
        "architecture": "x86_64", "disks": DISKS, "accounts": ("aws:us-east-1",), **more,
    }  # fmt: skip
    return SourceFacts.model_validate(given)


def test_all_well() -> None:
    made = plan(WANTED, facts(), OFFER)
    assert made.ok
    assert made.warm
    assert (made.disk_bytes, made.send_bytes) == (15 * GIB, 7 * GIB)
    assert [(cost.what, cost.usd) for cost in made.costs[:2]] == [
        ("t3.small, 730 hours", 14.6),
        ("15 GiB of disks", 1.2),
    ]
    assert made.costs[2].usd is None, "a price that the list does not have is not made up"


@pytest.mark.parametrize(
    ("the_vm", "the_place", "finding"),
    [
        ({"persistent": False}, {}, "transient"),
        ({"disks": ()}, {}, "no-disk"),
        ({"obstacles": ("vdb is a device",)}, {}, "disk"),
        ({"accounts": ("aws:eu-west-1",)}, {}, "account"),
        ({"architecture": "aarch64"}, {}, "architecture"),
        ({"firmware": "uefi"}, {"size": SIZE.model_copy(update={"firmware": ("bios",)})}, "firmware"),
        ({}, {"size": None, "like": ("t3.large",)}, "size"),
        ({}, {"most_disks": 1}, "disks"),
        ({}, {"quotas": (Quota(name="vCPUs", limit=5, used=4, unit="vCPU"),)}, "quota"),
    ],
)
def test_what_stands_in_the_way_is_a_blocker(the_vm: dict[str, Any], the_place: dict[str, Any], finding: str) -> None:
    made = plan(WANTED, facts(**the_vm), OFFER.model_copy(update=the_place))
    assert not made.ok
    assert [each.id for each in made.findings if each.severity == "blocker"] == [finding]


@pytest.mark.parametrize(
    ("the_vm", "the_size", "finding"),
    [
        ({"memory_mib": 4096}, {}, "smaller"),
        ({"host_kernel": True}, {}, "host-kernel"),
        ({}, {"drivers": ("nvme", "ena")}, "drivers"),
    ],
)
def test_what_people_should_know_is_a_warning(the_vm: dict[str, Any], the_size: dict[str, Any], finding: str) -> None:
    made = plan(WANTED, facts(**the_vm), OFFER.model_copy(update={"size": SIZE.model_copy(update=the_size)}))
    assert made.ok
    assert [each.id for each in made.findings] == [finding]


PREPARED = WANTED.model_copy(update={"prepare": True})
LUKS = Refusal(rule="machine", why="vda2 is encrypted (LUKS)", remedy="Move it by hand.")


@pytest.mark.parametrize(
    ("the_vm", "seen", "severity", "said"),
    [
        ({}, GuestForecast(), "warning", "is known when it is off"),
        ({}, GuestForecast(obstacle="no busybox"), "blocker", "host-a cannot prepare web: no busybox"),
        ({}, GuestForecast(report=PrepareReport(target="aws", state="refused", refusals=(LUKS,))), "blocker", "LUKS"),
        ({"architecture": "aarch64"}, None, "blocker", "only guests of x86_64"),
    ],
)
def test_what_is_known_of_preparing_it(
    the_vm: dict[str, Any], seen: GuestForecast | None, severity: str, said: str
) -> None:
    offer = OFFER.model_copy(update={"size": SIZE.model_copy(update={"drivers": ("nvme",), "architecture": "arm64"})})
    offer = offer if the_vm else OFFER
    (found,) = plan(PREPARED, facts(**the_vm), offer, seen).findings
    assert (found.id, found.severity) == ("prepare", severity)
    assert said in found.what


def test_a_guest_that_can_be_prepared_is_told_of_with_what_would_be_changed() -> None:
    report = PrepareReport(target="aws", state="to be changed")
    offer = OFFER.model_copy(update={"size": SIZE.model_copy(update={"drivers": ("nvme",)})})
    made = plan(PREPARED, facts(running=False), offer, GuestForecast(report=report))
    assert made.findings == (), "drivers are what it is prepared with"
    assert made.prepared == report
    assert [number for number, step in enumerate(made.steps) if "ready for aws" in step] == [1]
    assert not any("ready for aws" in step for step in plan(WANTED, facts(), OFFER).steps)


def test_warm_is_what_both_sides_can() -> None:
    assert not plan(WANTED, facts(running=False), OFFER).warm
    assert not plan(WANTED, facts(), OFFER.model_copy(update={"warm": False})).warm
    insisted = plan(WANTED.model_copy(update={"mode": "warm"}), facts(), OFFER.model_copy(update={"warm": False}))
    assert [each.id for each in insisted.findings] == ["warm"]


def test_a_cloud_is_told_from_a_host_in_owner_records() -> None:
    assert owner_of("aws:eu-west-1") == "cloud.aws.eu-west-1"
