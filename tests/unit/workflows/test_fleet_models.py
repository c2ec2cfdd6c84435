"""Requests on many VMs: an operation keeps its priority unless the policy names one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.fleet import EvacuateRequest, RebalanceRequest, Slots


def test_an_evacuation_goes_first_and_rebalancing_last_unless_told_otherwise() -> None:
    assert EvacuateRequest(host="a").policy.priority == 1
    assert EvacuateRequest.model_validate({"host": "a", "policy": {"mode": "hybrid"}}).policy.priority == 1
    assert EvacuateRequest.model_validate({"host": "a", "policy": {"priority": 4}}).policy.priority == 4
    assert RebalanceRequest.model_validate({"policy": {"mode": "hybrid"}}).policy.priority == 5


def test_only_what_was_said_of_a_policy_is_handed_on() -> None:
    asked = EvacuateRequest.model_validate({"host": "a", "policy": {"mode": "hybrid"}})
    assert asked.policy.model_dump(exclude_unset=True) == {"mode": "hybrid", "priority": 1}


@pytest.mark.parametrize("wrong", [{"out": 0}, {"total": 201}, {"into": 65}])
def test_slots_are_bounded(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Slots.model_validate(wrong)
