"""PlanMove: the checks of a move as data, measured where nothing forbids it, and nothing started or left behind."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from models.host import Finding, NamedPolicy
from models.migration import MigrationPolicy, Window
from models.planning import Dirtying, LinkSpeed, Plan, Range
from tests.workflow.fake_site import MIB, VM, FakeSite, vm
from tests.workflow.test_client import novacron
from workflows.plan.label_vm import LabelVm
from workflows.plan.plan_move import PlanMove

pytestmark = pytest.mark.temporal


async def planned(site: FakeSite, **more: Any) -> Plan:
    async with asyncio.timeout(30):
        return await site.client.execute_workflow(
            PlanMove.run,
            {"vm": VM, "to": "host-b", **more},
            id=f"plan/{site.name}/{uuid4().hex[:8]}",
            task_queue=site.queue,
        )


async def failure(site: FakeSite, **more: Any) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await planned(site, **more)
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause


async def test_a_plan_tells_what_a_move_would_cost_and_starts_nothing(site: FakeSite) -> None:
    async with site.working():
        plan = await planned(site, source="host-a")
    assert (plan.ok, plan.source, plan.chosen) == (True, "host-a", "pre-copy")
    assert [each.mode for each in plan.strategies] == ["pre-copy", "hybrid", "post-copy"]
    assert plan.strategies[0].converges == "yes"
    assert plan.dirtying.bytes_per_second.likely == 2 * MIB
    assert site.journal[:6] == [
        "host-a.inspect_vm",
        "host-b.admit_vm",
        "host-a.measure_dirtying",
        "host-b.open_path",
        "host-a.open_path",
        "host-a.probe_link",
    ]
    assert sorted(site.journal[6:]) == ["host-a.close_path", "host-b.close_path"]
    assert (site.left_open(), site.runs_on()) == ([], ["host-a"])


async def test_the_probe_is_no_data_path_a_move_could_use(site: FakeSite) -> None:
    asked: list[bool] = []
    site.at(site.source, "probe_link", change=lambda: asked.extend(path.probe for path in site.source.paths.values()))
    async with site.working():
        await planned(site)
    assert asked == [True]


async def test_a_blocked_vm_is_a_plan_with_its_blockers_and_nothing_is_measured(site: FakeSite) -> None:
    blocker = Finding(id="cpu", severity="blocker", what="no avx2", remedy="Lower the model.", why="It crashes.")
    site.destination.findings = (blocker, blocker.model_copy(update={"id": "old", "severity": "warning"}))
    async with site.working():
        plan = await planned(site)
    assert not plan.ok
    assert plan.blockers == (blocker,)
    assert [warning.id for warning in plan.warnings] == ["old"]
    assert (plan.strategies, plan.chosen) == ((), None)
    assert not any("measure" in entry or "path" in entry for entry in site.journal)


@pytest.mark.parametrize(
    ("there", "id"), [(vm(job=True), "job"), (vm("paused"), "state"), (vm("shutoff"), "state"), (None, "copies")]
)
async def test_what_a_move_would_refuse_is_a_blocker(site: FakeSite, there: Any, id: str) -> None:
    if there is None:
        site.hosts["host-c"].vms[VM] = vm()
    else:
        site.source.vms[VM] = there
    async with site.working():
        plan = await planned(site)
    assert [(blocker.id, plan.ok) for blocker in plan.blockers] == [(id, False)]
    assert plan.blockers[0].remedy


async def test_clocks_that_differ_for_certain_are_a_warning_and_a_slow_answer_is_none(site: FakeSite) -> None:
    site.source.clock_ahead, site.destination.clock_ahead = 100.0, 0.0
    async with site.working():
        assert [warning.id for warning in (await planned(site, measure=False)).warnings] == ["clock-skew"]
        site.source.clock_ahead = 0.3
        assert (await planned(site, measure=False)).warnings == ()


async def test_a_host_without_a_worker_is_a_blocker(site: FakeSite) -> None:
    site.seen_polling.discard("host-b")
    async with site.working():
        plan = await planned(site, source="host-a")
    assert [blocker.id for blocker in plan.blockers] == ["agent"]


@pytest.mark.parametrize(
    ("more", "type", "words"),
    [
        ({"to": "host-x"}, "InvalidInput", "'host-x' is not a host"),
        ({"vm": "none"}, "NotFound", "no host of site"),
        ({"mesure": True}, "InvalidInput", "did you mean 'measure'?"),
        ({"policy": "gold"}, "InvalidInput", "'gold' is not a policy"),
        ({"policy": {"windows": [{"since": "1:00"}]}}, "InvalidInput", "policy.windows.0"),
    ],
)
async def test_what_cannot_be_meant_is_an_error(site: FakeSite, more: dict[str, Any], type: str, words: str) -> None:
    async with site.working():
        error = await failure(site, **more)
    assert error.type == type
    assert words in error.message


async def test_a_link_that_cannot_be_probed_is_told_and_both_ends_are_closed(site: FakeSite) -> None:
    error = ApplicationError("the firewall drops it", type="DataPathFailed", non_retryable=True)
    site.at(site.source, "open_path", error=error)
    async with site.working():
        plan = await planned(site)
    assert plan.ok
    assert "the firewall drops it" in plan.link.note
    assert plan.strategies[0].converges == "unknown"
    assert site.left_open() == []


async def test_without_measuring_nothing_is_opened(site: FakeSite) -> None:
    async with site.working():
        plan = await planned(site, measure=False)
    assert (plan.link, plan.dirtying) == (LinkSpeed(note="not measured"), Dirtying(note="not measured"))
    assert not any("path" in entry or "measure" in entry for entry in site.journal)


async def test_a_goal_that_is_out_of_reach_is_a_warning(site: FakeSite) -> None:
    busy = 1 << 34
    site.source.planning.dirtying = Dirtying(bytes_per_second=Range(low=busy, likely=busy, high=busy))
    async with site.working():
        plan = await planned(site, policy={"max_downtime_ms": 10, "codec": "raw"})
    assert plan.ok, "it may be tried"
    assert "goal" in [warning.id for warning in plan.warnings]
    assert "does not converge" in plan.reason


async def test_the_policy_of_the_vms_labels_holds_and_the_request_goes_over_it(site: FakeSite) -> None:
    gold = MigrationPolicy(max_downtime_ms=77, allow_post_copy=True)
    site.policies = (NamedPolicy(name="gold", labels={"tier": "gold"}, policy=gold),)
    site.source.vms[VM] = vm().model_copy(update={"labels": {"tier": "gold"}})
    async with site.working():
        plan = await planned(site, policy={"lanes": 3})
    assert (plan.policy_name, plan.policy.max_downtime_ms, plan.policy.lanes) == ("gold", 77, 3)
    assert "tier=gold" in plan.policy_why
    assert (plan.chosen, plan.labels) == ("hybrid", {"tier": "gold"})
    asked = site.destination.asked
    assert asked is not None
    assert asked.policy.mode == "hybrid", "the destination is asked whether it can take a post-copy"


async def test_a_plan_outside_the_windows_says_when_the_move_would_start(site: FakeSite) -> None:
    async with site.working():
        plan = await planned(site, policy={"windows": [never_now()]})
    assert plan.starts_at is not None


def never_now() -> dict[str, Any]:
    """A window that opens on two days on the other side of the week."""
    from datetime import UTC, datetime

    day = datetime.now(UTC).weekday()
    names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    return Window.model_validate(
        {"days": [names[(day + 3) % 7], names[(day + 4) % 7]], "since": "01:00", "until": "02:00"}
    ).model_dump()


async def test_labels_are_given_where_the_vm_is(site: FakeSite) -> None:
    async with site.working():
        report = await site.client.execute_workflow(
            LabelVm.run, {"vm": VM, "give": {"tier": "gold"}}, id=f"label/{site.name}/{VM}", task_queue=site.queue
        )
    assert (report.host, report.labels) == ("host-a", {"tier": "gold"})
    assert "host-a.label_vm" in site.journal


async def test_the_command_line_shows_a_plan_and_a_dry_run_is_the_same_plan(site: FakeSite) -> None:
    async with site.working():
        shown = await novacron(site, "plan", VM, "--to", "host-b", "--allow-post-copy")
        dry = await novacron(site, "migrate", VM, "--to", "host-b", "--max-downtime", "99", "--dry-run", "--json")
        site.destination.findings = (Finding(id="cpu", severity="blocker", what="no avx2", remedy="Lower it."),)
        blocked = await novacron(site, "plan", VM, "--to", "host-b")
    assert shown.code == 0
    assert "HYBRID *" in shown.out
    plan = Plan.model_validate_json(dry.out)
    assert (plan.ok, plan.policy.max_downtime_ms, site.runs_on()) == (True, 99, ["host-a"])
    assert blocked.code == 6
    assert "blocker [cpu] no avx2" in blocked.out
