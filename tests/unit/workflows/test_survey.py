"""Which hosts a survey asks: all of them, those named, or a draw that leaves out hosts in maintenance."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from models.fleet import SurveyRequest
from workflows.site.survey import draw

HOSTS = [f"h{number:03}" for number in range(100)]


def test_without_a_draw_every_host_is_asked() -> None:
    assert draw(HOSTS, SurveyRequest(), {"h001"}, Random(1)) == HOSTS


def test_only_hosts_that_are_named_are_asked() -> None:
    assert draw(HOSTS, SurveyRequest(among=("h007", "h003"), draw=50), {}, Random(1)) == ["h003", "h007"]


def test_a_small_site_is_asked_as_a_whole_so_that_its_hosts_in_maintenance_are_named() -> None:
    assert draw(HOSTS[:5], SurveyRequest(draw=5), {"h001"}, Random(1)) == HOSTS[:5]


@given(st.integers(1, 120), st.sets(st.sampled_from(HOSTS)), st.integers())
def test_a_draw_is_as_large_as_it_can_be_and_leaves_out_maintenance(size: int, held: set[str], seed: int) -> None:
    drawn = draw(HOSTS, SurveyRequest(draw=size), held, Random(seed))
    if size < len(HOSTS):
        assert not held & set(drawn)
        assert len(drawn) == min(size, len(HOSTS) - len(held))
    assert drawn == sorted(set(drawn))
