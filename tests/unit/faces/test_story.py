"""The story of a move as people read it, and the command that changes its goals."""

from __future__ import annotations

import pytest

from models.decisions import Decision, GoalReport, Mark, Story
from models.migration import Progress
from novacron import story
from novacron.commands.steer import _pair
from novacron.errors import InvalidInput
from workflows import details

FIGURES = {"bandwidth": 1 << 20, "stalled": 1, "best": 0}
THROTTLED = Decision(number=1, at=52, action="throttle", value=40, reason="it stalls", inputs=FIGURES)


def test_a_story_is_told_in_the_order_of_its_times_with_reasons_figures_and_goals() -> None:
    told = Story(
        vm="web",
        source="host-a",
        destination="host-b",
        phase="failed",
        elapsed=70,
        moving_since=4,
        marks=(Mark(phase="checking", at=0), Mark(phase="moving", at=4), Mark(phase="failed", at=70)),
        decisions=(THROTTLED,),
        goals=(GoalReport(goal="finish_within", wanted="60 s", got="not moved", kept=False),),
        notes=("it was late",),
    )
    lines = story.lines(told)
    order = [
        next(n for n, line in enumerate(lines) if word in line) for word in ("● moving", "throttle 40 %", "● failed")
    ]
    assert order == sorted(order)
    text = "\n".join(lines)
    assert "56 s    throttle 40 %: it stalls" in text
    assert "bandwidth 1.0 MiB/s, stalled" in text
    assert "NOT KEPT  finish_within 60 s: not moved" in text
    assert "it was late" in text


def test_the_page_of_the_ui_has_the_decisions() -> None:
    assert "- +52 s throttle 40 %: it stalls" in details.markdown("web", Progress(), decisions=[THROTTLED])


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(eta=25, eta_low=21, eta_high=33), "25 s (21 s to 33 s)"),
        (Progress(eta=25, eta_low=21), "25 s (21 s or more)"),
        (Progress(eta=25), "25 s"),
        (Progress(), ""),
    ],
)
def test_an_eta_is_told_with_its_band(progress: Progress, words: str) -> None:
    assert details.eta(progress) == words


def test_changes_are_numbers_truths_and_texts() -> None:
    assert [_pair("finish_within=900"), _pair("allow_pause=true"), _pair("finish_by=2030-01-01T00:00:00Z")] == [
        ("finish_within", 900), ("allow_pause", True), ("finish_by", "2030-01-01T00:00:00Z"),
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="--set"):
        _pair("finish_within")
