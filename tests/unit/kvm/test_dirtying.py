"""Measuring a guest's dirty rate: never during a job, never by the mode that ends a QEMU, and with an honest range."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds.kvm.connection import Session
from clouds.kvm.dirtying import MIB, measure, samples, spread
from clouds.kvm.errors import Refused
from models.migration import VmRef
from models.planning import Dirtying

DONE = {"dirtyrate.calc_status": 2, "dirtyrate.calc_period": 2, "dirtyrate.megabytes_per_second": 8}
RSS = {"balloon.rss": 1024}


def measured(connection: Any) -> Dirtying:
    with Session("/s", None, lambda _: connection) as session:
        return measure(session, VmRef(vm="web"), 2, lambda: None)


def test_the_rate_comes_with_a_range_and_what_it_is_from(domain: Any, connection: Any) -> None:
    connection.figures = [RSS, {}, {"dirtyrate.calc_status": 1}, DONE]
    found = measured(connection)
    assert domain.calls == [("dirty rate", 2, 0)], "page-sampling: mode 0"
    assert found.bytes_per_second.likely == 8 * MIB
    assert (found.resident_bytes, found.seconds) == (1 << 20, 2)
    assert "256 pages" in found.note


def test_a_vm_with_a_job_is_left_alone(domain: Any, connection: Any) -> None:
    domain.stats = {"type": 2, "operation": 5}
    with pytest.raises(Refused):
        measured(connection)
    assert domain.calls == []


def test_a_measurement_of_an_attempt_that_died_is_used(domain: Any, connection: Any) -> None:
    connection.figures = [RSS, {"dirtyrate.calc_status": 1}, DONE]
    assert measured(connection).bytes_per_second.likely == 8 * MIB
    assert domain.calls == []


def test_a_figure_that_cannot_be_had_is_none_with_the_reason(domain: Any, connection: Any, failure: Any) -> None:
    domain.fails["dirty rate"] = failure(84, text="not supported")
    found = measured(connection)
    assert found.bytes_per_second.likely is None
    assert "not supported" in found.note


def test_a_guest_too_small_for_sampling_has_no_figure(domain: Any, connection: Any) -> None:
    domain.info = lambda: [1, 65536, 65536, 1, 0]
    assert "128 MiB" in measured(connection).note


@given(st.integers(0, 10_000), st.integers(128, 1 << 20), st.integers(1, 30))
def test_the_range_holds_what_was_seen_and_no_more_than_there_is(rate: int, memory_mib: int, seconds: int) -> None:
    found = spread(rate, memory_mib, seconds)
    assert found.low is not None
    assert found.likely is not None
    assert found.high is not None
    assert found.likely == min(rate, memory_mib / seconds) * MIB
    assert found.high <= max(memory_mib / seconds * MIB, found.likely)
    assert found.high > 0, "nothing seen is not nothing there"
    assert samples(memory_mib) >= 64
