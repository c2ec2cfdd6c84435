"""The memory digest is called verified only when both ends recorded the same."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from models.datapath import DataPathStatus, FlowStatus
from workflows.move.evidence import Evidence, compare, join


def end(role: Literal["source", "destination"], *flows: FlowStatus, **counters: Any) -> DataPathStatus:
    return DataPathStatus(role=role, migration_id="m1", pid=1, state="closed", flows=flows, **counters)


def sent(digest: str = "d", size: int = 9, ordinal: int = 0) -> FlowStatus:
    return FlowStatus(service="ram", ordinal=ordinal, raw_out=size, digest_out=digest)


def got(digest: str = "d", size: int = 9, ordinal: int = 0) -> FlowStatus:
    return FlowStatus(service="ram", ordinal=ordinal, raw_in=size, digest_in=digest)


RPC = FlowStatus(service="virt", ordinal=1, raw_out=5, digest_out="x")


def test_equal_digests_and_counts_verify_the_memory() -> None:
    proof = compare(
        end("source", sent(), RPC, raw_out=14, wire_out=6, redials=2), end("destination", got(), wire_out=1, redials=1)
    )
    assert (proof.digest, proof.verified, proof.notes) == ("d", True, ())
    assert (proof.raw_bytes, proof.wire_bytes, proof.redials) == (14, 7, 2)


@pytest.mark.parametrize(
    ("source", "destination", "words"),
    [
        (end("source", sent("d")), end("destination", got("e")), "memory digest differs"),
        (end("source", sent(size=9)), end("destination", got(size=8)), "memory digest differs"),
        (end("source", sent("")), end("destination", got("")), "without digest"),
        (end("source", sent(ordinal=0)), end("destination", got(ordinal=2)), "not compared"),
        (end("source"), end("destination"), "not compared"),
        (None, end("destination", got()), "no data path report from the source"),
        (end("source", sent()), None, "no data path report from the destination"),
        (None, None, "from the source and the destination"),
    ],
)
def test_anything_else_is_said_in_a_note(
    source: DataPathStatus | None, destination: DataPathStatus | None, words: str
) -> None:
    proof = compare(source, destination)
    assert not proof.verified
    assert words in proof.notes[0]


def test_what_crossed_over_two_paths_is_counted_together_and_not_called_verified() -> None:
    first = Evidence(raw_bytes=100, wire_bytes=30, redials=2, notes=("memory digest differs",))
    second = Evidence(digest="d2", verified=True, raw_bytes=50, wire_bytes=20, redials=1)
    both = join([first, second])
    assert (both.digest, both.verified) == ("d2", False)
    assert (both.raw_bytes, both.wire_bytes, both.redials) == (150, 50, 3)
    assert "2 data paths" in both.notes[0]
    assert join([second]) is second
