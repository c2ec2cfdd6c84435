"""novacron.Survey: the site's room for VMs, and a page of its live VMs by name, from the hosts' own mouths.

A child of the workflows that move many VMs: the hosts' full reports stay in its history, and only what placing needs
goes back.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from random import Random

from temporalio import workflow

from models import ids, queues
from models.fleet import HostRoom, Survey, SurveyRequest, VmLoad
from models.host import HostReport, SiteReport, VmReport
from workflows.site import verdict
from workflows.site.inventory import ask_site


@workflow.defn(name="novacron.Survey")
class SurveySite:
    @workflow.run
    async def run(self, request: SurveyRequest) -> Survey:
        site = queues.site_of(workflow.info().task_queue)
        unasked = 0

        def chosen(hosts: list[str], maintenance: Container[str]) -> list[str]:
            nonlocal unasked
            drawn = draw(hosts, request, maintenance, workflow.random())
            unasked = len(among(hosts, request)) - len(drawn)
            return drawn

        report = await ask_site(site, chosen)
        return page(report, request).model_copy(update={"unasked": unasked})


async def survey(site: str, request: SurveyRequest) -> Survey:
    """Ask for it from another workflow."""
    return await workflow.execute_child_workflow(
        SurveySite.run,
        request,
        id=ids.survey(site, workflow.uuid4().hex[:12]),
        task_queue=queues.control(site),
        static_summary=f"what room {site} has, and which VMs",
    )


def among(hosts: Iterable[str], request: SurveyRequest) -> list[str]:
    return [host for host in hosts if not request.among or host in request.among]


def draw(hosts: list[str], request: SurveyRequest, maintenance: Container[str], drawn: Random) -> list[str]:
    """The hosts to ask. A draw leaves out those in maintenance, which have no room to tell of."""
    found = among(hosts, request)
    if not request.draw or len(found) <= request.draw:
        return found
    open_ones = [host for host in found if host not in maintenance]
    return sorted(drawn.sample(open_ones, min(request.draw, len(open_ones))))


def page(report: SiteReport, request: SurveyRequest) -> Survey:
    """Pure: what of a site's report the request asks for."""
    unfit = {host: why[:300] for host, why in report.silent.items()}
    unfit |= {host: f"in maintenance ({phase})" for host, phase in report.maintenance.items()}
    found = sorted(
        (load for host in report.hosts for load in loads(host, request) if load.name > request.after),
        key=lambda load: (load.name, load.why_not != "", load.host),
    )
    return Survey(
        rooms=tuple(room(host) for host in report.hosts if host.host not in unfit),
        vms=tuple(found[: request.most]),
        more=len(found) > request.most,
        unfit=unfit,
    )


def room(host: HostReport) -> HostRoom:
    return HostRoom(
        name=host.host,
        total_mib=host.memory_total_mib,
        free_mib=max(0, host.memory_free_mib - host.memory_reserve_mib),
        running=len(alive(host.vms)),
        moves=len(host.migrations),
    )


def loads(host: HostReport, request: SurveyRequest) -> list[VmLoad]:
    """The host's live VMs that the request chooses."""
    if request.hosts and host.host not in request.hosts:
        return []
    wanted = set(request.vms)
    return [
        load(vm, host.host)
        for vm in alive(host.vms)
        if (not wanted or vm.name in wanted) and request.labels.items() <= vm.labels.items()
    ]


def load(vm: VmReport, host: str) -> VmLoad:
    return VmLoad(
        name=vm.name, host=host, memory_mib=vm.memory_mib, tenant=vm.labels.get("tenant") or None, why_not=why_not(vm)
    )


def why_not(vm: VmReport) -> str:
    """Why this VM cannot move as it is; empty when it can."""
    if vm.state not in ("running", "blocked"):
        return f"it is {vm.state}: only a running VM moves live"
    return ""


def alive(vms: Iterable[VmReport]) -> Sequence[VmReport]:
    """Those with a process: running, paused, or in a state without a name."""
    return [vm for vm in vms if vm.state not in verdict.WITHOUT_PROCESS]
