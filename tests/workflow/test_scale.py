"""The scale bench at a small size: a simulated site through the real workflows, on a Temporal server of its own."""

from __future__ import annotations

import pytest

from bench.scale_run import Run, Size

pytestmark = [pytest.mark.temporal, pytest.mark.timeout(400)]

SMALL = Size(
    hosts=30, vms=300, evacuate=3, plans=1, moves=5, faults=0.1, silent=2, crashes=2, crash_seconds=3, move_seconds=1,
    within=300,
)  # fmt: skip
EVENTS = {"novacron.MigrateVm": 300, "novacron.EvacuateHost": 1000, "novacron.Inventory": 400, "novacron.Survey": 400}
"""Most events a history may have at this size."""


async def test_no_vm_is_lost_or_doubled_while_hosts_are_evacuated_and_moves_and_workers_fail() -> None:
    run = Run(SMALL, say=lambda _: None)
    found = await run.run()
    assert [fact for fact in found.facts if not fact.holds] == []
    assert not run.site.ran_twice
    most = {each.type: each.events.most for each in found.histories}
    assert [kind for kind, bound in EVENTS.items() if not 0 < most[kind] <= bound] == []
    assert found.drain[0][1] == 20  # of the three hosts one is silent: its VMs stay where they are
    assert found.drain[-1][1] == 0
