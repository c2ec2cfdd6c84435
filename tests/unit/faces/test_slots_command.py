"""novacron slots: who has a slot, who waits for what, and how far each bound is used."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from click.testing import CliRunner, Result

from models.slots import HostSlots, SlotLimits, SlotLine, SlotsState, SlotWish
from novacron.commands.slots import slots


class Told:
    """A command line whose site answers this."""

    def __init__(self, state: SlotsState) -> None:
        self._state = state

    def run(self, work: Any) -> SlotsState:
        return self._state


def line(name: str, why: str = "") -> SlotLine:
    wish = SlotWish(
        workflow_id=f"vm/lab/{name}",
        run_id="r",
        source="host-a",
        to="host-b",
        tenant="red",
        priority=1,
        since=datetime.now(UTC),
    )
    return SlotLine(wish=wish, held=not why, why=why)


LIMITS = SlotLimits(site=4, each_host=HostSlots(into=1))
FULL = SlotsState(
    lines=(line("late", "1 of 1 moves into host-b; it is the next"), line("first")), limits=LIMITS, counted=True
)


def shown(state: SlotsState, *args: str) -> Result:
    return CliRunner().invoke(slots, args, obj=Told(state))


def test_who_has_a_slot_comes_first_and_who_waits_says_for_what() -> None:
    rows = shown(FULL).output.splitlines()
    assert rows[1].split()[:5] == ["first", "host-a", "host-b", "red", "1"]
    assert "waits: 1 of 1 moves into host-b; it is the next" in rows[2]
    assert [row.split() for row in rows[5:]] == [
        ["moves", "into", "host-b", "1", "of", "1", "1"],
        ["moves", "of", "the", "site", "1", "of", "4", "1"],
    ]


def test_machines_get_one_json_line() -> None:
    found = json.loads(shown(FULL, "--json").output)
    assert [each["held"] for each in found["lines"]] == [False, True]
    assert found["limits"]["each_host"] == {"out": 0, "into": 1, "both": 0}


def test_a_quiet_site_and_a_keeper_that_still_counts_are_told() -> None:
    assert "no move has a slot or waits for one" in shown(SlotsState()).output
    counting = FULL.model_copy(update={"counted": False})
    assert "until then none begins" in shown(counting).output
