"""No VM is moved onto a host that is held in maintenance."""

from __future__ import annotations

from models import failures
from workflows import errors
from workflows.calls_fleet import FleetControl
from workflows.sharing import Sharing


async def pass_gate(site: str, source: str, host: str, priority: int) -> Sharing | None:
    """Refuses a destination in maintenance. The move's part in sharing the bandwidth, where the site shares it out."""
    answer = await FleetControl(site).gate(host)
    if answer.maintenance:
        raise errors.final(
            failures.REFUSED,
            f"to: {host} is in maintenance (workflow {answer.maintenance}), so it takes no VM. Name another host, or "
            f"end the maintenance with `novacron host resume {host}`",
        )
    return Sharing(site, source, host, priority) if answer.shares else None
