"""What an evacuation would do now: every VM of the host, where it could go, and what holds the others back.

Only questions are asked, the same ones a move asks before it starts: what the source knows of the VM, and whether the
destination can take it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures, ids, queues
from models.fleet import EvacuateRequest, FleetPlan, HostRoom, PlannedMove, StuckVm, SurveyRequest, VmLoad
from models.host import NOT_RECONCILED, HostReport, VmSheet
from models.migration import MigrationPolicy, VmRef
from workflows import errors
from workflows.calls.site import Control, Host
from workflows.fleet import placement
from workflows.fleet.window import Task
from workflows.request import check_host
from workflows.site.survey import alive, load, survey

_ROUNDS = 3
"""Destinations that are asked for one VM."""
_AT_ONCE = 20
_DRAWN = 32
"""Hosts that are asked for room at first. On a large site many evacuations at once would else ask every host each."""


@dataclass
class Outlook:
    report: HostReport
    rooms: dict[str, HostRoom]
    """Of hosts that may take VMs."""
    plan: FleetPlan
    tasks: list[Task] = field(default_factory=list)


async def look(site: str, request: EvacuateRequest) -> Outlook:
    """Ask the host, some of the site's hosts for their room, and each destination that is chosen; every host of the
    site when those drawn do not do. Raises what a silent host's question raises."""
    report = await Host(site, request.host).describe()
    loads = [load(vm, request.host) for vm in alive(report.vms)]
    for drawn in (_DRAWN, 0):
        around = await survey(site, SurveyRequest(most=0, among=request.to, draw=drawn))
        rooms = {each.name: each for each in around.rooms if each.name != request.host}
        moves, stuck = await _place(site, request, [each for each in loads if not each.why_not], rooms)
        if not (stuck and around.unasked):
            break
    notes = [f"{host} takes none: {why}" for host, why in sorted(around.unfit.items()) if host != request.host]
    stuck = [*((each, each.why_not) for each in loads if each.why_not), *stuck]
    plan = FleetPlan(
        moves=tuple(moves),
        stuck=tuple(
            StuckVm(vm=vm.name, memory_mib=vm.memory_mib, why=why[:1000], choice=request.non_movable)
            for vm, why in sorted(stuck, key=lambda pair: pair[0].name)
        ),
        memory_mib=sum(move.memory_mib for move in moves),
        notes=tuple(notes[:20]),
    )
    placed = {move.vm for move in moves}
    return Outlook(report, rooms, plan, [Task(each) for each in loads if each.name in placed])


async def members(site: str, host: str, more: tuple[str, ...]) -> None:
    """Refuse names the site does not have."""
    settings = await Control(site).hosts()
    for name_of, name in [("host", host), *(("to", each) for each in more)]:
        check_host(settings, name_of, name)
    if more == (host,):
        raise errors.final(failures.INVALID_INPUT, f"to: {host!r} is the host that is evacuated. Name others, or none")


def site_of(wanted: EvacuateRequest) -> str:
    """The id is what keeps moves off the host, so it has to be the right one."""
    info = workflow.info()
    site = queues.site_of(info.task_queue)
    named = ids.parse_evacuate_host(info.workflow_id)
    if wanted.dry_run:
        return site
    if named is None or named[1] != wanted.host:
        right = ids.evacuate_host(site, wanted.host)
        raise errors.final(
            failures.INVALID_INPUT,
            f"workflow id: got {info.workflow_id!r}. It is what keeps VMs off the host: start it again with {right!r}",
        )
    return named[0]


async def _place(
    site: str, request: EvacuateRequest, loads: list[VmLoad], rooms: dict[str, HostRoom]
) -> tuple[list[PlannedMove], list[tuple[VmLoad, str]]]:
    """Choose, ask, and choose again for those that were refused."""
    left, sheets = dict(rooms), await _sheets(site, request.host, loads, request.policy)
    avoid: dict[str, dict[str, str]] = {each.name: {} for each in loads}
    moves: list[PlannedMove] = []
    stuck: list[tuple[VmLoad, str]] = []
    open_ones = []
    for each in sorted(loads, key=lambda vm: (-vm.memory_mib, vm.name)):  # the large ones find room while there is some
        if isinstance(sheet := sheets[each.name], VmSheet):
            open_ones.append((each, sheet))
        else:
            stuck.append((each, sheet))
    for _ in range(_ROUNDS):
        chosen: list[tuple[VmLoad, VmSheet, placement.Choice]] = []
        for each, sheet in open_ones:
            choice = placement.choose(each, left, avoid[each.name])
            if choice.host is None:
                stuck.append((each, _because(choice.reason, avoid[each.name])))
                continue
            taken = left[choice.host]
            left[choice.host] = taken.model_copy(update={"free_mib": taken.free_mib - each.memory_mib})
            chosen.append((each, sheet, choice))
        open_ones = []
        for (each, sheet, choice), objection in zip(chosen, await _ask(site, chosen), strict=True):
            assert choice.host is not None
            if not objection:
                moves.append(
                    PlannedMove(
                        vm=each.name, source=each.host, to=choice.host, memory_mib=each.memory_mib, why=choice.reason
                    )
                )
                continue
            back = left[choice.host]
            left[choice.host] = back.model_copy(update={"free_mib": back.free_mib + each.memory_mib})
            avoid[each.name][choice.host] = objection
            open_ones.append((each, sheet))
    stuck += [(each, _because("no destination that was asked can take it", avoid[each.name])) for each, _ in open_ones]
    return sorted(moves, key=lambda move: move.vm), stuck


async def _sheets(site: str, host: str, loads: list[VmLoad], policy: MigrationPolicy) -> dict[str, VmSheet | str]:
    found: dict[str, VmSheet | str] = {}
    for first in range(0, len(loads), _AT_ONCE):
        group = loads[first : first + _AT_ONCE]
        answers = await asyncio.gather(*(_sheet(site, host, each.name, policy) for each in group))
        found |= {each.name: answer for each, answer in zip(group, answers, strict=True)}
    return found


async def _sheet(site: str, host: str, vm: str, policy: MigrationPolicy) -> VmSheet | str:
    """What the host knows of the VM, or why it did not tell."""
    try:
        return (await Host(site, host).inspect(VmRef(vm=vm))).model_copy(update={"policy": policy})
    except ActivityError as error:
        if errors.cancelled(error):
            raise
        return errors.explain(error)[1]


async def _ask(site: str, chosen: list[tuple[VmLoad, VmSheet, placement.Choice]]) -> list[str]:
    """What speaks against each; empty: nothing."""
    answers: list[str] = []
    for first in range(0, len(chosen), _AT_ONCE):
        group = chosen[first : first + _AT_ONCE]
        answers += await asyncio.gather(*(_objection(site, choice.host or "", sheet) for _, sheet, choice in group))
    return answers


async def _objection(site: str, host: str, sheet: VmSheet) -> str:
    try:
        findings = (await Host(site, host).admit(sheet)).items
    except ActivityError as error:
        if errors.cancelled(error):
            raise
        return errors.explain(error)[1]
    # A host that has just started is compared with the owner records by the first move that comes to it.
    blockers = [each for each in findings if each.severity == "blocker" and each.id != NOT_RECONCILED]
    return "; ".join(f"[{each.id}] {each.what}" for each in blockers)


def _because(reason: str, objections: dict[str, str]) -> str:
    return ". ".join([reason, *(f"{host}: {why}" for host, why in sorted(objections.items()))])
