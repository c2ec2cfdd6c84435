"""A move's history stays small: events cost the server, and every worker that takes the move over reads all of them."""

from __future__ import annotations

import pytest
from temporalio.api.history.v1 import HistoryEvent

from activities.signals import MOST
from tests.workflow.fake_site import FakeSite, outcome

pytestmark = pytest.mark.temporal

EVENTS, BYTES, LARGEST = 150, 64 << 10, 8 << 10
"""Of a move with the fewest reports: events, bytes of all, bytes of the largest one."""
OF_A_REPORT = 4, 1 << 10
"""Events and bytes one report may add: the signal, and the workflow task it causes."""
SUGGESTED = 4096
"""Events after which Temporal wants a workflow to go on as a new one, which a move never does."""


async def history(site: FakeSite) -> list[HistoryEvent]:
    async with site.working():
        move = await site.start()
        await outcome(move)
        return [event async for event in move.fetch_history_events()]


async def test_the_history_of_a_move_keeps_its_budget(site: FakeSite) -> None:
    events = await history(site)
    sizes = [event.ByteSize() for event in events]
    assert len(events) <= EVENTS
    assert sum(sizes) <= BYTES
    assert max(sizes) <= LARGEST


async def test_as_many_reports_as_a_move_may_send_keep_the_budget(site: FakeSite) -> None:
    fewest = await history(site)
    site.source.reports = tuple(float(percent) for percent in range(MOST))
    site.switch("counter", "host-b", "host-a")
    events = await history(site)
    added = MOST - 2
    assert len(events) <= len(fewest) + added * OF_A_REPORT[0]
    assert sum(event.ByteSize() for event in events) <= BYTES + added * OF_A_REPORT[1]
    assert len(events) < SUGGESTED
