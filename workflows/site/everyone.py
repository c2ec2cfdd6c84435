"""Ask every host of a site about one VM. One that is silent ends it: it could be the one that runs the VM."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from temporalio.exceptions import ActivityError

from models import failures
from models.host import VmSighting
from models.migration import VmRef
from workflows import errors
from workflows.calls import deadlines
from workflows.calls.site import Control
from workflows.site import verdict

Question = Callable[[str], Awaitable[VmSighting]]


async def hosts_of(site: str, vm: str) -> list[str]:
    """All hosts of the site, if all have a worker. Raises HostUnavailable that names those without."""
    hosts = sorted((await Control(site).hosts()).hosts)
    answering = await Control(site).answering(hosts)
    silent = [verdict.Silence(host, "no worker") for host in hosts if not answering.get(host)]
    if silent:
        raise _silence(vm, silent)
    return hosts


async def ask(hosts: list[str], ref: VmRef, question: Question) -> list[VmSighting]:
    """One answer of each. Raises HostUnavailable that names the silent ones."""
    answers: list[VmSighting | verdict.Silence] = []
    for first in range(0, len(hosts), deadlines.HOSTS_AT_ONCE):
        group = hosts[first : first + deadlines.HOSTS_AT_ONCE]
        answers += await asyncio.gather(*(_answer(host, question) for host in group))
    silent = [answer for answer in answers if isinstance(answer, verdict.Silence)]
    if silent:
        raise _silence(ref.vm, silent)
    return [answer for answer in answers if isinstance(answer, VmSighting)]


async def _answer(host: str, question: Question) -> VmSighting | verdict.Silence:
    try:
        return await question(host)
    except ActivityError as error:
        kind, why = errors.explain(error)
        if errors.cancelled(error) or kind == failures.REFUSED:
            raise
        return verdict.Silence(host, why)


def _silence(vm: str, silent: list[verdict.Silence]) -> Exception:
    named = ", ".join(f"{each.host} ({each.why})" for each in silent)
    return errors.final(
        failures.HOST_UNAVAILABLE,
        f"{vm}: silent: {named}. Each of them could be running it, so nothing was done. Bring their workers back, or "
        f"take hosts that are gone for good out of the site's settings, then recover again",
    )
