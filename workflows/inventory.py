"""novacron.Inventory: what runs where on a site, from the hosts' own mouths. A silent host is named, never left out."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import queues
from models.host import HostReport, SiteReport
from workflows import deadlines, errors
from workflows.calls import Control, Host


@workflow.defn(name="novacron.Inventory")
class Inventory:
    @workflow.run
    async def run(self) -> SiteReport:
        return await ask_site(queues.site_of(workflow.info().task_queue))


async def ask_site(site: str) -> SiteReport:
    """Every host of the site, asked in groups."""
    settings = await Control(site).hosts()
    hosts = sorted(settings.hosts)
    answering = await Control(settings.site).answering(hosts)
    silent = {host: f"no worker polls {queues.host(settings.site, host)}" for host in hosts if not answering.get(host)}
    reports: list[HostReport] = []
    asked = [host for host in hosts if host not in silent]
    for first in range(0, len(asked), deadlines.HOSTS_AT_ONCE):
        group = asked[first : first + deadlines.HOSTS_AT_ONCE]
        answers = await asyncio.gather(*(_describe(settings.site, host) for host in group))
        for host, answer in zip(group, answers, strict=True):
            if isinstance(answer, HostReport):
                reports.append(answer)
            else:
                silent[host] = answer
    return SiteReport(site=settings.site, hosts=tuple(reports), silent=silent)


async def _describe(site: str, host: str) -> HostReport | str:
    """The host's report, or why there is none."""
    try:
        return await Host(site, host).describe()
    except ActivityError as error:
        if errors.cancelled(error):
            raise
        return errors.explain(error)[1]
