"""Idempotency tokens: the same step gives the same token, and no two steps share one."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds.tokens import name, token

text = st.text(min_size=1, max_size=30)


@given(text, text)
def test_a_token_is_a_uuid_and_always_the_same(workflow: str, step: str) -> None:
    assert token(workflow, step) == token(workflow, step) == str(uuid.UUID(token(workflow, step)))


@given(text, text, text, text)
def test_two_steps_have_two_tokens(workflow: str, step: str, other: str, other_step: str) -> None:
    assert (token(workflow, step) == token(other, other_step)) == ((workflow, step) == (other, other_step))


def test_parts_do_not_run_into_each_other() -> None:
    assert token("ab", "c") != token("a", "bc")


def test_tokens_outlive_releases() -> None:
    """A golden value: a retry by a newer worker has to meet what an older one made."""
    assert token("cloud/lab/vm-1", "import/0") == "a9034aaf-7e3c-5f72-8131-41f413320c1f"
    assert name("novacron", token("a", "b")).startswith("novacron-")


@pytest.mark.parametrize(("workflow", "step"), [("", "a"), ("a", "")])
def test_an_empty_part_is_refused(workflow: str, step: str) -> None:
    with pytest.raises(ValueError, match="workflow id and a step"):
        token(workflow, step)
