"""novacron.Inventory: what runs where on a site, from the hosts' own mouths. A silent host is named, never left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures, queues
from models.host import HostReport, InventoryRequest, SiteReport
from workflows import errors, request
from workflows.calls import deadlines
from workflows.calls.fleet import FleetControl
from workflows.calls.site import Control, Host

MOST_BYTES = 1 << 20
"""Of reports in one answer, measured as JSON. Temporal refuses a payload of more than 2 MiB, and the reports of 1,000
hosts with ten VMs each come to that."""


@workflow.defn(name="novacron.Inventory")
class Inventory:
    @workflow.run
    async def run(self, raw: Any = None) -> SiteReport:
        wanted = request.read_as(InventoryRequest, {} if raw is None else raw, '{"hosts": ["host-a"]}')

        def chosen(hosts: list[str], _: Container[str]) -> list[str]:
            if strangers := sorted(set(wanted.hosts) - set(hosts)):
                raise errors.final(failures.INVALID_INPUT, f"hosts: {', '.join(strangers[:5])}: not of this site")
            return list(wanted.hosts) or hosts

        return await ask_site(queues.site_of(workflow.info().task_queue), chosen, MOST_BYTES)


def all_of_them(hosts: list[str], _: Container[str]) -> list[str]:
    return hosts


async def ask_site(
    site: str,
    chosen: Callable[[list[str], Container[str]], list[str]] = all_of_them,
    most_bytes: int | None = None,
) -> SiteReport:
    """The hosts that `chosen` picks (from all of the site and those in maintenance), asked in groups. Once the reports
    take `most_bytes` the others are left for another time, and named in `rest`."""
    settings = await Control(site).hosts()
    held = (await FleetControl(site).in_maintenance()).hosts
    hosts = chosen(sorted(settings.hosts), held)
    answering = await Control(settings.site).answering(hosts)
    silent = {host: f"no worker polls {queues.host(settings.site, host)}" for host in hosts if not answering.get(host)}
    reports: list[HostReport] = []
    size, rest = 0, tuple[str, ...]()
    asked = [host for host in hosts if host not in silent]
    for first in range(0, len(asked), deadlines.HOSTS_AT_ONCE):
        group = asked[first : first + deadlines.HOSTS_AT_ONCE]
        answers = await asyncio.gather(*(_describe(settings.site, host) for host in group))
        for number, (host, answer) in enumerate(zip(group, answers, strict=True), first):
            if not isinstance(answer, HostReport):
                silent[host] = answer
                continue
            size += len(answer.model_dump_json())
            if most_bytes is not None and size > most_bytes and reports:
                rest = tuple(asked[number:])
                break
            reports.append(answer)
        if rest:
            break
    return SiteReport(site=settings.site, hosts=tuple(reports), silent=silent, maintenance=held, rest=rest)


async def _describe(site: str, host: str) -> HostReport | str:
    """The host's report, or why there is none."""
    try:
        return await Host(site, host).describe()
    except ActivityError as error:
        if errors.cancelled(error):
            raise
        return errors.explain(error)[1]
