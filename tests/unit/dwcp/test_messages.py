"""What two stores say to each other: every message comes back as it was, in whatever pieces it arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp.encoding import messages
from dwcp.encoding.messages import BaseIs, Done, Feed, Keys, Message, Pages, Roots, Same, Want
from dwcp.errors import ProtocolError

keys = st.binary(min_size=16, max_size=16)
roots = st.lists(keys, max_size=5).map(tuple)
numbers = st.integers(0, 2**32 - 1)
batches = st.integers(0, 2**64 - 1)
pages = st.binary(min_size=1, max_size=8).map(lambda seed: (seed * 4096)[:4096])
any_message: st.SearchStrategy[Message] = st.one_of(
    st.builds(Roots, roots, roots),
    st.builds(BaseIs, keys),
    st.builds(Same, keys, st.integers(0, messages.MAX_KEYS)),
    st.builds(Keys, st.lists(keys, min_size=1, max_size=9).map(b"".join)),
    st.builds(Done, st.integers(0, messages.MAX_KEYS)),
    st.builds(Want, numbers, batches, st.lists(numbers, min_size=1, max_size=9).map(tuple)),
    st.builds(Pages, numbers, batches, st.lists(pages, max_size=3).map(tuple)),
)


@given(said=st.lists(any_message, max_size=6), cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_messages_come_back_whatever_pieces_they_arrive_in(said: list[Message], cuts: list[int]) -> None:
    wire = b"".join(messages.encode(message) for message in said)
    feed, heard, at = Feed(), list[Message](), 0
    while at < len(wire):
        size = cuts[len(heard) % len(cuts)] if at else cuts[0]
        heard += feed.add(wire[at : at + size])
        at += size
    assert heard == said


@given(kind=st.integers(0, 255), body=st.binary(max_size=200))
def test_a_body_is_a_message_or_an_error_and_never_anything_else(kind: int, body: bytes) -> None:
    try:
        message = messages.decode(kind, body)
    except ProtocolError:
        return
    assert messages.encode(message)[5:] == body


def test_a_message_longer_than_the_bound_is_refused_before_it_is_held() -> None:
    with pytest.raises(ProtocolError, match="over 1048576"):
        list(Feed().add(b"\xff\xff\xff\xff\x04"))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (1, b"\0\2\0\0" + bytes(16)),
        (3, bytes(16) + b"\xff\xff\xff\xff"),
        (4, b""),
        (4, bytes(15)),
        (6, bytes(12)),
        (7, bytes(12) + bytes(4095)),
        (8, b""),
    ],
)
def test_what_does_not_add_up_is_refused(kind: int, body: bytes) -> None:
    with pytest.raises(ProtocolError, match="peer is in error"):
        messages.decode(kind, body)
