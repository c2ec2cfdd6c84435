"""A host lets so many moves leave at once, and a full one can still be asked, steered and told to stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from activities.move_slots import AGAIN_AFTER, FOR_OTHERS, MoveSlots

ALERTS = Path(__file__).resolve().parents[3] / "deploy" / "prometheus" / "alerts.yml"


def test_moves_above_the_hosts_limit_are_turned_away_to_be_tried_again() -> None:
    slots = MoveSlots("host-a", 2)
    with slots.taken("one"), slots.taken("two"):
        with pytest.raises(ApplicationError, match="2 moves leave host-a already") as full, slots.taken("three"):
            pass
        assert (full.value.non_retryable, full.value.next_retry_delay) == (False, AGAIN_AFTER)
    with slots.taken("three"), slots.taken("four"):
        pass


def test_a_later_attempt_of_a_move_shares_the_slot_of_the_one_before() -> None:
    slots = MoveSlots("host-a", 1)
    with slots.taken("one"):
        with slots.taken("one"):
            pass
        with pytest.raises(ApplicationError), slots.taken("two"):
            pass


def test_a_move_that_fails_frees_its_slot() -> None:
    slots = MoveSlots("host-a", 1)
    with pytest.raises(OSError, match="gone"), slots.taken("one"):
        raise OSError("gone")
    with slots.taken("two"):
        pass


def test_the_alert_of_a_full_host_rings_when_only_slots_for_other_steps_are_left() -> None:
    full = ALERTS.read_text().partition("alert: HostIsFull")[2].partition("- alert:")[0]
    assert f'task_queue=~"host[.].*"}} <= {FOR_OTHERS}\n' in full
