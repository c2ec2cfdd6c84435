"""novacron.PlanMove: what a move would meet, cost and do, without doing it.

The checks are those of MigrateVm itself. Where nothing forbids the move, the guest's dirty rate is sampled and the link
is probed, and all three strategies are estimated against the policy's goals. Nothing is changed on either host.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import queues
from models.host import Finding, VmSheet
from models.migration import VmRef
from models.planning import Dirtying, LinkSpeed, Plan, PlanRequest, Strategy
from workflows import errors, request
from workflows.calls.site import Host
from workflows.plan import estimate, preflight
from workflows.plan.probing import probe

MIB = 1 << 20


@workflow.defn(name="novacron.PlanMove")
class PlanMove:
    @workflow.run
    async def run(self, raw: Any = None) -> Plan:
        wanted = request.read_plan(raw)
        site = queues.site_of(workflow.info().task_queue)
        workflow.set_current_details(f"plan of {wanted.vm} → {wanted.to}: checking")
        found = await preflight.survey(site, wanted)
        sheet = found.sheet
        plan = Plan(
            vm=wanted.vm,
            site=site,
            source=found.source or None,
            destination=wanted.to,
            ok=not found.blockers,
            blockers=found.blockers,
            warnings=found.warnings,
            labels=sheet.vm.labels if sheet else {},
            policy_name=found.chosen.name if found.chosen else wanted.policy_name,
            policy_why=found.chosen.why if found.chosen else "",
            policy=found.chosen.policy if found.chosen else wanted.policy,
            starts_at=found.opens,
            memory_bytes=sheet.vm.memory_mib * MIB if sheet else 0,
            disk_bytes=sum(image.allocated for image in found.copies),
        )
        if found.half:
            return plan.model_copy(update={"reason": "the VM is in two halves: a move brings them together"})
        if found.blockers or sheet is None:
            return plan.model_copy(update={"reason": "blocked: nothing was measured"})
        return await self._estimated(plan, sheet, wanted)

    async def _estimated(self, plan: Plan, sheet: VmSheet, wanted: PlanRequest) -> Plan:
        source, destination = Host(plan.site, sheet.host), Host(plan.site, wanted.to)
        dirtying, link = Dirtying(note="not measured"), LinkSpeed(note="not measured")
        if wanted.measure:
            workflow.set_current_details(f"plan of {plan.vm} → {plan.destination}: measuring")
            dirtying = await _dirtying(source, VmRef(vm=plan.vm, uuid=sheet.vm.uuid))
            link = await probe(source, destination, sheet.policy)
        figures = estimate.Figures(
            memory=plan.memory_bytes,
            policy=plan.policy,
            start=plan.starts_at or workflow.now(),
            resident=dirtying.resident_bytes,
            disks=plan.disk_bytes,
            dirty=dirtying.bytes_per_second,
            link=link.bytes_per_second,
            round_trip=link.round_trip,
        )
        strategies = estimate.strategies(figures)
        mode, reason = estimate.chosen(plan.policy, strategies)
        picked = next(each for each in strategies if each.mode == mode)
        return plan.model_copy(
            update={
                "dirtying": dirtying,
                "link": link,
                "ratio": estimate.ratio(plan.policy),
                "strategies": strategies,
                "chosen": mode,
                "reason": reason,
                "warnings": (*plan.warnings, *_unmet(picked)),
            }
        )


def _unmet(picked: Strategy) -> tuple[Finding, ...]:
    """Goals that the chosen strategy is not expected to reach."""
    return tuple(
        Finding(
            id="goal",
            severity="warning",
            what=f"{goal.name} {goal.wanted} is not expected to be met in mode {picked.mode}: {goal.why}",
            remedy="Loosen this goal, allow another strategy, or move when the guest is quieter.",
            why="A move that cannot reach its goals is given up, and the VM stays where it is.",
        )
        for goal in picked.goals
        if goal.met == "no"
    )


async def _dirtying(source: Host, ref: VmRef) -> Dirtying:
    try:
        return await source.measure_dirtying(ref)
    except ActivityError as error:
        if errors.cancelled(error):
            raise
        return Dirtying(note=errors.explain(error)[1][:4000])
