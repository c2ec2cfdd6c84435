"""Everything that can be refused before anything has started: names, workers, the VM's place, the destination's room.

Only questions are asked here, so there is nothing to undo.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from temporalio.exceptions import ActivityError

from models import failures, queues
from models.disks import DiskImage
from models.host import NOT_RECONCILED, Finding, VmSheet, VmSighting
from models.migration import MigrateRequest, MigrationPolicy, VmRef
from workflows import deadlines, errors, verdict, welcome
from workflows.calls import Control, Host


async def hosts_to_ask(control: Control, site: str, request: MigrateRequest) -> tuple[list[str], list[str]]:
    """(hosts whose workers answer, silent ones). Refuses a name the site does not have, and a host without a worker."""
    members = sorted((await control.hosts()).hosts)
    needed = [("to", request.to)] + ([("source", request.source)] if request.source else [])
    for field, name in needed:
        if name not in members:
            raise errors.final(
                failures.INVALID_INPUT,
                f"{field}: {name!r} is not a host of site {site!r}. Its hosts: {', '.join(members)}",
            )
    asked = [name for _, name in needed] if request.source else members
    answering = await control.answering(asked)
    for _, name in needed:
        if not answering.get(name):
            raise errors.final(
                failures.HOST_UNAVAILABLE,
                f"{name}: no worker polls {queues.host(site, name)!r}, so nothing was started. "
                f"Start that host's worker, or look at its log if it is running",
            )
    return [name for name in asked if answering.get(name)], [name for name in asked if not answering.get(name)]


async def find(site: str, request: MigrateRequest, hosts: list[str], silent: list[str]) -> str:
    """The one host on which the VM is alive; of a VM in two halves, the host that still has memory to send."""
    alive: list[VmSighting] = []
    defined: list[str] = []
    for first in range(0, len(hosts), deadlines.HOSTS_AT_ONCE):
        group = hosts[first : first + deadlines.HOSTS_AT_ONCE]
        for answer in await asyncio.gather(*(_sighting(site, host, request.vm) for host in group)):
            if isinstance(answer, verdict.Silence):
                silent = [*silent, answer.host]
            elif verdict.alive(answer):
                alive.append(answer)
            elif answer.present:
                defined.append(answer.host)
    if len(alive) == 1:
        if alive[0].host == request.to:
            raise errors.final(
                failures.REFUSED,
                f"{request.vm}: already on {request.to}. Nothing to do; name another host to move it",
            )
        return alive[0].host
    here = next((each for each in alive if each.host != request.to), None)
    there = next((each for each in alive if each.host == request.to), None)
    if len(alive) == 2 and here and there and verdict.judge(here, there).kind == "split":
        return here.host
    if alive:
        both = " and ".join(each.host for each in alive)
        raise errors.final(
            failures.AMBIGUOUS,
            f"{request.vm}: {both} both hold a live copy. Nothing was started; find out which "
            f"one is the VM, stop the other by hand, and start again",
        )
    unasked = f" These did not answer: {', '.join(silent)}." if silent else ""
    if defined:
        raise errors.final(
            failures.REFUSED,
            f"{request.vm}: not running; defined on {', '.join(defined)}.{unasked} Start it there first: only a "
            f"running VM moves live",
        )
    raise errors.final(
        failures.NOT_FOUND,
        f"vm: no host of site {site!r} has {request.vm!r}.{unasked} `novacron vm list` shows what runs where",
    )


@dataclass(frozen=True)
class Admitted:
    sheet: VmSheet
    warnings: tuple[Finding, ...]
    copies: tuple[DiskImage, ...]
    """Disk images that have to be copied."""
    half: bool = False
    """The VM is in post-copy, left by a run that ended: it is to come together, not to be moved."""


async def admit(site: str, source: Host, destination: Host, vm: str, policy: MigrationPolicy) -> Admitted:
    """What both hosts know of the VM; the destination's blockers are refusals."""
    sheet = (await source.inspect(VmRef(vm=vm))).model_copy(update={"policy": policy})
    here = VmSighting(host=source.name, present=True, vm=sheet.vm)
    if verdict.presence(here) == "half":
        where = verdict.judge(here, await destination.has(VmRef(vm=vm)))
        if where.kind != "split":
            raise errors.final(
                failures.REFUSED,
                f"{vm}: in post-copy, and {destination.name} does not have its other half. {where.reason}. Move it to "
                f"the host that runs it: it comes together there",
            )
        return Admitted(sheet, (), (), half=True)
    if sheet.vm.state not in ("running", "blocked"):
        raise errors.final(
            failures.REFUSED,
            f"{vm}: {sheet.vm.state} on {source.name}. Only a running VM moves live: start or resume it first",
        )
    if sheet.vm.job:
        raise errors.final(
            failures.REFUSED,
            f"{vm}: libvirt on {source.name} already runs a job on it (a migration, save or dump). Wait for its end, "
            f"or stop it with `virsh domjobabort {vm}` there",
        )
    admission = await destination.admit(sheet)
    if any(finding.id == NOT_RECONCILED for finding in admission.items):
        await welcome.welcome(site, destination.name)
        admission = await destination.admit(sheet)
    findings = admission.items
    blockers = [finding for finding in findings if finding.severity == "blocker"]
    if blockers:
        listed = "; ".join(f"[{finding.id}] {finding.what}. {finding.remedy}" for finding in blockers)
        raise errors.final(failures.REFUSED, f"{destination.name} cannot take {vm}: {listed}")
    warnings = tuple(finding for finding in findings if finding.severity == "warning")
    return Admitted(sheet, warnings, admission.copies)


async def _sighting(site: str, host: str, vm: str) -> VmSighting | verdict.Silence:
    try:
        return await Host(site, host).has(VmRef(vm=vm))
    except ActivityError as error:
        if errors.cancelled(error):
            raise
        return verdict.Silence(host, errors.explain(error)[1])
