"""Replays a recorded move through the controller: what it would have done, when and why, as a Markdown table.

    python -m bench.controller tests/unit/kvm/traces/dirty-20.json --finish-within 75 --allow-post-copy

The recording does not react to what is decided: it shows when decisions are made, not what they bring.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from clouds.kvm.controller import Controller, Goals, Reading
from workflows import details

EVERY = 5.0
"""Seconds between the rows of the table that show figures only."""


def table(trace: Path, goals: Goals) -> list[str]:
    controller, shown = Controller(goals), -EVERY
    lines = ["| s | pass | left | dirty rate | bandwidth | decision |", "| ---: | ---: | ---: | ---: | ---: | --- |"]
    for elapsed, total, remaining, iteration, dirty_rate, bandwidth in json.loads(trace.read_text())["rows"]:
        step = controller.advise(Reading(elapsed, iteration, total, remaining, dirty_rate, bandwidth))
        if step is None and elapsed - shown < EVERY:
            continue
        told = ""
        if step is not None:
            controller.done(step, elapsed)
            told = f"**{step.action}{f' {step.value:g}' if step.value else ''}**: {step.reason}"
        shown = elapsed
        figures = (details.size(remaining), details.rate(dirty_rate), details.rate(controller.bandwidth))
        lines.append(f"| {elapsed:.0f} | {iteration} | {' | '.join(figures)} | {told} |")
        if controller.switched or controller.gave_up:
            break
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--finish-within", type=float, default=600, metavar="SECONDS")
    parser.add_argument("--max-downtime", type=int, default=300, metavar="MS")
    parser.add_argument("--max-slowdown", type=int, default=0, metavar="PERCENT")
    parser.add_argument("--allow-post-copy", action="store_true")
    parser.add_argument("--allow-pause", action="store_true")
    asked = parser.parse_args()
    goals = Goals(
        deadline=asked.finish_within,
        max_downtime_ms=asked.max_downtime,
        max_slowdown=asked.max_slowdown,
        may_switch=asked.allow_post_copy,
        may_pause=asked.allow_pause,
    )
    print("\n".join(table(asked.trace, goals)))


if __name__ == "__main__":
    main()
