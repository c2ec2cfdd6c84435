"""Everything that can be found out before anything has started: names, workers, the VM's place, its policy, what the
destination says of it. Only questions are asked here, so there is nothing to undo; but a destination that was started
anew is compared with the owner records, and let in when all is well.

What speaks against the move comes back as findings: a plan shows them, a move turns its blockers into a refusal
(`refuse`). Only a request that cannot be meant (a wrong name, a VM nobody has) is an error for both.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures, goals, queues
from models.disks import DiskImage
from models.host import NOT_RECONCILED, Finding, SiteSettings, VmSheet, VmSighting
from models.migration import MigrateRequest, VmRef
from models.planning import PlanRequest
from workflows import errors, request
from workflows.calls import deadlines
from workflows.calls.fleet import FleetControl
from workflows.calls.site import Control, Host
from workflows.plan import clocks
from workflows.site import verdict, welcome

_KINDS = {"agent": failures.HOST_UNAVAILABLE, "copies": failures.AMBIGUOUS}
"""Type of the error a blocker becomes; Refused for all others."""

Wish = MigrateRequest | PlanRequest


@dataclass(frozen=True)
class Survey:
    """What is known of a move before it starts. Later fields are empty when an earlier finding hides them."""

    findings: tuple[Finding, ...] = ()
    source: str = ""
    sheet: VmSheet | None = None
    """With the policy that holds, settled for `start`."""
    chosen: goals.Chosen | None = None
    opens: datetime | None = None
    """When the first of the policy's windows opens; None: it may start now."""
    copies: tuple[DiskImage, ...] = ()
    """Disk images that have to be copied."""
    shares: bool = False
    """The site shares out its bandwidth among moves."""
    slots: bool = False
    """The site bounds how many moves run at once."""
    half: bool = False
    """The VM is in post-copy, left by a run that ended: it is to come together, not to be moved."""

    @property
    def blockers(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "blocker")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "warning")


def refuse(found: Survey, wanted: Wish) -> None:
    """Raise what the blockers say, if there are any."""
    if found.blockers:
        listed = "; ".join(f"[{finding.id}] {finding.what}. {finding.remedy}" for finding in found.blockers)
        kind = _KINDS.get(found.blockers[0].id, failures.REFUSED)
        raise errors.final(kind, f"{wanted.vm} cannot move to {wanted.to}, and nothing was started: {listed}")


async def survey(site: str, wanted: Wish, now: bool = False) -> Survey:
    """`now`: whatever the policy's windows say. Raises InvalidInput, NotFound."""
    settings = await Control(site).hosts()
    _check_names(settings, wanted)
    asked = [wanted.source, wanted.to] if wanted.source else sorted(settings.hosts)
    answering = await Control(site).answering(asked)
    needed = [wanted.to] + ([wanted.source] if wanted.source else [])
    if silent := tuple(_no_agent(site, name) for name in needed if not answering.get(name)):
        return Survey(silent)
    hosts = [name for name in asked if answering.get(name)]
    found = wanted.source or await find(
        site, wanted.vm, hosts, [name for name in asked if not answering.get(name)], wanted.to
    )
    if isinstance(found, Finding):
        return Survey((found,))
    if found == wanted.to:
        what = f"{wanted.vm} is already on {found}"
        return Survey((_blocker("place", what, "Nothing to do; name another host to move it"),), found)
    begun = Survey(source=found)
    source, destination = Host(site, found), Host(site, wanted.to)
    try:
        asked_at = workflow.now()
        sheet = await source.inspect(VmRef(vm=wanted.vm))
        here = clocks.ahead(sheet.standing, _since(asked_at))
        chosen = goals.choose(settings, sheet.vm.labels, wanted.policy_name, wanted.policy)
        begun = replace(begun, sheet=sheet.model_copy(update={"policy": chosen.policy}), chosen=chosen)
        if verdict.presence(_sight(source, sheet)) == "half":
            return await _half(begun, sheet, source, destination)
        begun = await _settled(begun, sheet, chosen, Control(site), now)
        if stuck := _cannot_move_now(sheet, source):
            return replace(begun, findings=(stuck,))
        assert begun.sheet is not None
        asked_at = workflow.now()
        admission = await destination.admit(begun.sheet)
        skew = clocks.compare(here, clocks.ahead(admission.standing, _since(asked_at)))
        if any(finding.id == NOT_RECONCILED for finding in admission.items):
            await welcome.welcome(site, wanted.to)
            admission = await destination.admit(begun.sheet)
        gate = await FleetControl(site).gate(wanted.to)
        closed = (_in_maintenance(wanted.to, gate.maintenance),) if gate.maintenance else ()
    except ActivityError as error:
        kind, why = errors.explain(error)
        if errors.cancelled(error) or kind != failures.HOST_UNAVAILABLE:
            raise
        return replace(begun, findings=(_blocker("agent", why, "Look at the worker's log on that host"),))
    found_there = (*closed, *admission.items, *skew)
    return replace(begun, findings=found_there, copies=admission.copies, shares=gate.shares, slots=gate.slots)


async def find(site: str, vm: str, hosts: list[str], silent: list[str], to: str = "") -> str | Finding:
    """The one host on which the VM is alive; of a VM in two halves, the host that still has memory to send. Or what
    speaks against moving it. Raises NotFound."""
    alive: list[VmSighting] = []
    defined: list[str] = []
    for first in range(0, len(hosts), deadlines.HOSTS_AT_ONCE):
        group = hosts[first : first + deadlines.HOSTS_AT_ONCE]
        for answer in await asyncio.gather(*(_sighting(site, host, vm) for host in group)):
            if isinstance(answer, verdict.Silence):
                silent = [*silent, answer.host]
            elif verdict.alive(answer):
                alive.append(answer)
            elif answer.present:
                defined.append(answer.host)
    if len(alive) == 1:
        return alive[0].host
    here = next((each for each in alive if each.host != to), None)
    there = next((each for each in alive if each.host == to), None)
    if len(alive) == 2 and here and there and verdict.judge(here, there).kind == "split":
        return here.host
    if alive:
        both = " and ".join(each.host for each in alive)
        remedy = "Find out which one is the VM, stop the other by hand, and start again"
        return _blocker("copies", f"{both} both hold a live copy of {vm}", remedy)
    unasked = f" These did not answer: {', '.join(silent)}." if silent else ""
    if defined:
        what = f"{vm} does not run; it is defined on {', '.join(defined)}.{unasked}".removesuffix(".")
        return _blocker("state", what, "Start it there first: only a running VM moves live")
    raise errors.final(
        failures.NOT_FOUND,
        f"vm: no host of site {site!r} has {vm!r}.{unasked} `novacron vm list` shows what runs where",
    )


def _check_names(settings: SiteSettings, wanted: Wish) -> None:
    for field, name in (("to", wanted.to), ("source", wanted.source)):
        if name is not None:
            request.check_host(settings, field, name)
    try:
        goals.choose(settings, {}, wanted.policy_name, wanted.policy)
    except ValueError as error:
        raise errors.final(failures.INVALID_INPUT, str(error)) from None


async def _settled(begun: Survey, sheet: VmSheet, chosen: goals.Chosen, control: Control, now: bool) -> Survey:
    """When the policy lets the move start, and the policy as such a move has to be told."""
    at = workflow.now()
    start = at if now or not chosen.policy.windows else await control.opening(chosen.policy.windows, at)
    try:
        policy = goals.settled(chosen.policy, start)
    except ValueError as error:
        raise errors.final(failures.INVALID_INPUT, f"policy.{error}") from None
    return replace(begun, sheet=sheet.model_copy(update={"policy": policy}), opens=start if start > at else None)


async def _half(begun: Survey, sheet: VmSheet, source: Host, destination: Host) -> Survey:
    where = verdict.judge(_sight(source, sheet), await destination.has(VmRef(vm=sheet.vm.name)))
    if where.kind == "split":
        return replace(begun, half=True)
    what = f"{sheet.vm.name} is in post-copy, and {destination.name} does not have its other half. {where.reason}"
    return replace(
        begun, findings=(_blocker("half", what, "Move it to the host that runs it: it comes together there"),)
    )


def _cannot_move_now(sheet: VmSheet, source: Host) -> Finding | None:
    vm = sheet.vm
    if vm.state not in ("running", "blocked"):
        remedy = "Only a running VM moves live: start or resume it first"
        return _blocker("state", f"{vm.name} is {vm.state} on {source.name}", remedy)
    if vm.job:
        what = f"libvirt on {source.name} already runs a job on {vm.name} (a migration, save or dump)"
        return _blocker("job", what, f"Wait for its end, or stop it with `virsh domjobabort {vm.name}` there")
    return None


def _in_maintenance(host: str, held_by: str) -> Finding:
    what = f"{host} is in maintenance (workflow {held_by}), so it takes no VM"
    return _blocker(
        "maintenance", what, f"Name another host, or end the maintenance with `novacron host resume {host}`"
    )


def _no_agent(site: str, host: str) -> Finding:
    what = f"{host}: no worker polls {queues.host(site, host)!r}"
    return _blocker("agent", what, "Start that host's worker, or look at its log if it is running")


_WHY = {
    "agent": "Every step of a move is done by the workers of its two hosts.",
    "copies": "Which of them is the VM cannot be told from outside, and neither may be lost.",
    "state": "Live migration moves the memory of a guest that runs.",
    "job": "libvirt runs one job at a time on a VM.",
    "place": "A move needs two hosts.",
    "maintenance": "What is moved onto a host that is being emptied has to leave it again.",
    "half": "Each host holds a part of its memory, and both are needed.",
}


def _blocker(id: str, what: str, remedy: str) -> Finding:
    return Finding(id=id, severity="blocker", what=what, remedy=remedy, why=_WHY[id])


def _sight(source: Host, sheet: VmSheet) -> VmSighting:
    return VmSighting(host=source.name, present=True, vm=sheet.vm)


def _since(moment: datetime) -> float:
    return (workflow.now() - moment).total_seconds()


async def _sighting(site: str, host: str, vm: str) -> VmSighting | verdict.Silence:
    try:
        return await Host(site, host).has(VmRef(vm=vm))
    except ActivityError as error:
        if errors.cancelled(error):
            raise
        return verdict.Silence(host, errors.explain(error)[1])
