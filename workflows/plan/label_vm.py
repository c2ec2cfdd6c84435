"""novacron.LabelVm: gives a VM labels and takes others off. Policies and bulk moves choose by them."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from models import failures, queues
from models.host import Finding
from models.migration import VmRef
from models.planning import LabelOrder, LabelReport
from workflows import errors, request
from workflows.calls.site import Control, Host
from workflows.plan import preflight


@workflow.defn(name="novacron.LabelVm")
class LabelVm:
    @workflow.run
    async def run(self, raw: Any = None) -> LabelReport:
        wanted = request.read_label(raw)
        site = queues.site_of(workflow.info().task_queue)
        settings = await Control(site).hosts()
        if wanted.source is not None:
            request.check_host(settings, "source", wanted.source)
        host = wanted.source or await self._find(site, wanted.vm, sorted(settings.hosts))
        order = LabelOrder(vm=VmRef(vm=wanted.vm), give=wanted.give, take=wanted.take)
        return await Host(site, host).label(order)

    @staticmethod
    async def _find(site: str, vm: str, members: list[str]) -> str:
        answering = await Control(site).answering(members)
        hosts = [host for host in members if answering.get(host)]
        found = await preflight.find(site, vm, hosts, [host for host in members if not answering.get(host)])
        if isinstance(found, Finding):
            raise errors.final(failures.REFUSED, f"{found.what}. {found.remedy}. Or name its host in `source`")
        return found
