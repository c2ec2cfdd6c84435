"""Which policy holds for a VM, and what a move is told of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from models.goals import choose, effective_mode, settled
from models.host import NamedPolicy, SiteSettings
from models.migration import MigrateRequest, MigrationPolicy

NOW = datetime(2027, 1, 1, tzinfo=UTC)
GOLD = NamedPolicy(name="gold", labels={"tier": "gold"}, policy=MigrationPolicy(max_downtime_ms=100))
WEB = NamedPolicy(name="web", labels={"team": "web"}, policy=MigrationPolicy(lanes=4))
NIGHT = NamedPolicy(name="night", policy=MigrationPolicy(lanes=1))
REST = NamedPolicy(name="default", policy=MigrationPolicy(max_downtime_ms=700))
SITE = SiteSettings(site="lab", hosts=("a",), policies=(GOLD, WEB, NIGHT, REST))
NOTHING = MigrationPolicy()


@pytest.mark.parametrize(
    ("labels", "name", "expected"),
    [
        ({"tier": "gold", "team": "web"}, None, "gold"),
        ({"team": "web", "tier": "silver"}, None, "web"),
        ({"team": "web"}, "gold", "gold"),
        ({"team": "web"}, "night", "night"),
        ({}, None, "default"),
    ],
)
def test_the_first_policy_whose_labels_the_vm_has_holds(
    labels: dict[str, str], name: str | None, expected: str
) -> None:
    assert choose(SITE, labels, name, NOTHING).name == expected


def test_a_site_without_policies_has_the_built_in_one() -> None:
    bare = SiteSettings(site="lab", hosts=("a",))
    assert choose(bare, {"tier": "gold"}, None, NOTHING).policy == MigrationPolicy()
    with pytest.raises(ValueError, match="'gold' is not a policy of site 'lab'"):
        choose(bare, {}, "gold", NOTHING)


def test_what_the_request_gives_goes_over_the_policy_and_nothing_else_does() -> None:
    chosen = choose(SITE, {"tier": "gold"}, None, MigrationPolicy(lanes=7, max_lanes=8))
    assert (chosen.policy.lanes, chosen.policy.max_downtime_ms) == (7, 100)
    assert choose(SITE, {"tier": "gold"}, None, MigrationPolicy(max_downtime_ms=300)).policy.max_downtime_ms == 300


def test_a_default_that_nobody_asked_for_stays_unasked_on_its_way_to_the_workflow() -> None:
    request = MigrateRequest(vm="web", to="b", policy=MigrationPolicy(lanes=7))
    arrived = MigrateRequest.model_validate_json(request.model_dump_json())
    assert arrived == request
    assert arrived.policy.model_fields_set == {"lanes"}


def test_a_policy_may_be_a_name() -> None:
    assert MigrateRequest.model_validate({"vm": "web", "to": "b", "policy": "gold"}).policy_name == "gold"
    with pytest.raises(ValidationError):
        MigrateRequest.model_validate({"vm": "web", "to": "b", "policy": "gold", "policy_name": "web"})


def test_a_policy_name_may_be_given_once() -> None:
    with pytest.raises(ValidationError, match="'gold' is given twice"):
        SiteSettings(site="lab", hosts=("a",), policies=(GOLD, GOLD))


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        (MigrationPolicy(), "pre-copy"),
        (MigrationPolicy(allow_post_copy=True), "hybrid"),
        (MigrationPolicy(mode="post-copy"), "post-copy"),
        (MigrationPolicy(mode="post-copy", allow_post_copy=True), "post-copy"),
    ],
)
def test_pre_copy_that_may_switch_is_hybrid(policy: MigrationPolicy, mode: str) -> None:
    assert effective_mode(policy) == mode


def test_the_earlier_of_span_and_moment_holds() -> None:
    soon, late = NOW + timedelta(seconds=60), NOW + timedelta(days=3)
    assert settled(MigrationPolicy(finish_by=soon), NOW).finish_within == 60
    assert settled(MigrationPolicy(finish_by=late, finish_within=600), NOW).finish_within == 600
    with pytest.raises(ValueError, match="finish_by"):
        settled(MigrationPolicy(finish_by=NOW), NOW)
