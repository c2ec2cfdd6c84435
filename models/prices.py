"""Lists of prices, as they lie in files: on-demand, Linux, US dollars, without taxes or discounts."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from models.base import Model, Text
from models.clouds import CloudId, Region, Usd

MOST_PRICES = 5000
"""Of one region. The largest have about 1,500."""
EVERYWHERE: Literal["*"] = "*"
"""Instead of a region, where a provider asks the same in all of them."""


class PriceRow(Model):
    item: CloudId
    """A size, a kind of disk, or a part that sizes are made of: `e2:cpu`, `VM.Standard.E5.Flex:gb`."""
    per: Literal["hour", "gb-month", "gb"]
    usd: Usd


class PriceList(Model):
    as_of: date
    source: Text
    regions: Annotated[
        dict[Region | Literal["*"], Annotated[tuple[PriceRow, ...], Field(max_length=MOST_PRICES)]],
        Field(max_length=200),
    ]


class PriceSummary(Model):
    """What is known of a place, and from where."""

    place: Annotated[str, StringConstraints(max_length=80)]
    count: int
    as_of: date
    source: Text
    file: Text
    """Path of the user's own list; empty for NovaCron's."""
    why: Text = ""
    """Why the user's own list is not the one that is used; or why an update failed."""
