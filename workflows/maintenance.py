"""No VM is moved onto a host that is held in maintenance."""

from __future__ import annotations

from models import failures
from models.fleet import HostGate
from workflows import errors
from workflows.calls_fleet import FleetControl


async def gate(site: str, host: str) -> HostGate:
    """What a move has to know of its destination. Refuses one in maintenance."""
    answer = await FleetControl(site).gate(host)
    if answer.maintenance:
        raise errors.final(
            failures.REFUSED,
            f"to: {host} is in maintenance (workflow {answer.maintenance}), so it takes no VM. Name another host, or "
            f"end the maintenance with `novacron host resume {host}`",
        )
    return answer
