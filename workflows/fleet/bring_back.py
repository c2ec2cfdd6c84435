"""VMs that were moved away from a host go back to it: from where they are found to run now."""

from __future__ import annotations

from dataclasses import dataclass

from models.fleet import EvacuateRequest, SurveyRequest
from workflows.calls.site import Host
from workflows.fleet.window import Task, Window
from workflows.site.survey import room, survey


@dataclass
class Returning:
    window: Window
    unseen: dict[str, str]
    """VMs that cannot go back, with the reason."""

    def back(self) -> tuple[str, ...]:
        return tuple(sorted(each.vm for each in self.window.moved))

    def not_back(self) -> dict[str, str]:
        return self.unseen | {each.vm: each.why for each in self.window.failed}


async def look(site: str, request: EvacuateRequest, moved: dict[str, str]) -> Returning:
    """A window in which each VM that still runs elsewhere moves back to the host of the request."""
    names = tuple(sorted(moved))[:2000]
    found = await survey(site, SurveyRequest(vms=names, most=2000))
    here = room(await Host(site, request.host).describe())
    window = Window(request.slots, {here.name: here}, request.attempts)
    window.add(Task(load, request.host) for load in found.vms if load.host != request.host and not load.why_not)
    unseen = {vm: f"not found on any host that answers; it was moved to {moved[vm]}" for vm in names}
    for load in found.vms:
        unseen.pop(load.name, None)
        if load.why_not:
            unseen[load.name] = f"{load.why_not}, on {load.host}"
    return Returning(window, unseen)
