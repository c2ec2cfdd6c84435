"""Prices as of a day, from `<cloud>.json` beside this file: on-demand, Linux, US dollars, without taxes or discounts.

Never asked for at run time: a plan names `as_of` and `source` of every price it used.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from models.clouds import Cloud, Price


@cache
def of(cloud: Cloud, region: str) -> tuple[Price, ...]:
    """All that is known for this region; empty when nothing is. Nothing is taken from a neighbouring region."""
    file = resources.files(__package__) / f"{cloud}.json"
    if not file.is_file():
        return ()
    told = json.loads(file.read_text(encoding="utf-8"))
    return tuple(
        Price(cloud=cloud, region=region, as_of=told["as_of"], source=told["source"], **price)
        for price in told["regions"].get(region, ())
    )
