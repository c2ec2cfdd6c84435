"""Labels in a domain's metadata: written to all of its definitions, read back, and never trusted blindly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds.kvm.connection import Session
from clouds.kvm.errors import Refused
from clouds.kvm.labels import change, compose, labels_of, parse
from models.migration import VmRef

WORD = st.from_regex(r"[A-Za-z0-9._-]{0,63}", fullmatch=True)
KEY = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)


def changed(connection: Any, give: dict[str, str], take: list[str]) -> dict[str, str]:
    with Session("/s", None, lambda _: connection) as session:
        return change(session, VmRef(vm="web"), give, take)


@given(st.dictionaries(KEY, WORD, max_size=32))
def test_what_is_written_is_read(labels: dict[str, str]) -> None:
    assert parse(compose(labels)) == labels


def test_a_vm_without_labels_has_none(domain: Any) -> None:
    assert labels_of(domain) == {}


def test_labels_are_given_and_taken_and_others_stay(domain: Any, connection: Any) -> None:
    assert changed(connection, {"tier": "gold", "team": "web"}, []) == {"tier": "gold", "team": "web"}
    assert changed(connection, {"tier": "silver"}, ["team", "none"]) == {"tier": "silver"}
    assert changed(connection, {}, ["tier"]) == {}
    assert domain.calls[-1] == ("metadata", None, 1), "the last label takes the element along"


@pytest.mark.parametrize(("state", "persistent", "flags"), [(1, 0, 1), (1, 1, 3), (5, 1, 2)])
def test_the_running_vm_and_its_definition_are_both_changed(
    domain: Any, connection: Any, state: int, persistent: int, flags: int
) -> None:
    domain.now, domain.persistent = [state, 1], persistent
    changed(connection, {"tier": "gold"}, [])
    assert domain.calls[-1][2] == flags


def test_what_is_no_label_is_left_out() -> None:
    assert parse(
        "<labels><label key='a b' value='c'/><label key='ok' value='1'/><other key='x' value='y'/></labels>"
    ) == {"ok": "1"}
    assert parse("no xml <") == {}


def test_more_labels_than_a_vm_may_have_are_refused(connection: Any) -> None:
    with pytest.raises(Refused):
        changed(connection, {f"l{number}": "" for number in range(33)}, [])
