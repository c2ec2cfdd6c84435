"""The story of a move for people to read."""

from __future__ import annotations

import click

from models.decisions import Decision, Story
from workflows import details

_BYTES = ("bandwidth", "dirty_rate", "remaining", "pass_began_with", "best")
_RATES = ("bandwidth", "dirty_rate")


def tell(story: Story) -> None:
    for line in lines(story):
        click.echo(line)


def lines(story: Story) -> list[str]:
    """Phases and decisions in the order of their times, then the goals and the notes."""
    way = f": {story.source} → {story.destination}" if story.source else ""
    found = [f"{story.vm}{way}, {story.phase} after {details.duration(story.elapsed)}", ""]
    events = [(mark.at, f"● {mark.phase}", "") for mark in story.marks]
    events += [(story.moving_since + one.at, f"  {_what(one)}", figures(one)) for one in story.decisions]
    for at, what, why in sorted(events, key=lambda event: event[0]):
        found.append(f"{details.duration(at):>12}  {what}")
        if why:
            found.append(f"{'':>12}    {why}")
    if story.goals:
        found += ["", "goals"]
        found += [
            f"  {'kept' if goal.kept else 'NOT KEPT':<8}  {goal.goal} {goal.wanted}: {goal.got}" for goal in story.goals
        ]
    if story.notes:
        found += ["", "notes", *(f"  {note}" for note in story.notes)]
    return found


def _what(one: Decision) -> str:
    """Without its time: that stands before it."""
    return details.decision(one).partition(" s ")[2]


def figures(one: Decision) -> str:
    """'bandwidth 11.4 MiB/s, dirty_rate 11.3 MiB/s, remaining 71.2 MiB'; zeros are left out."""
    shown = []
    for name, value in one.inputs.items():
        if not value:
            continue
        if name in _BYTES:
            shown.append(f"{name} {details.rate(value) if name in _RATES else details.size(value)}")
        elif name.endswith("seconds") or name.startswith("seconds"):
            shown.append(f"{name} {details.duration(value)}")
        elif name == "stalled":
            shown.append("stalled")
        else:
            shown.append(f"{name} {value:g}")
    return ", ".join(shown)
