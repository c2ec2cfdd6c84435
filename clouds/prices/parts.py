"""Prices of sizes, from those of their parts: some providers ask for each CPU and each GiB, by family of sizes.

In a list a part is `<family>:cpu` and `<family>:gb`, per hour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from models.clouds import Price

CPU, GB = "cpu", "gb"


@dataclass(frozen=True)
class Made:
    """A size as its provider counts it."""

    size: str
    family: str
    cpus: float
    gib: float


def with_sizes(prices: tuple[Price, ...], sizes: Iterable[Made]) -> tuple[Price, ...]:
    """Those of sizes come first; one that a list names is as the list says."""
    hours = {price.item: price for price in prices if price.per == "hour"}
    made = []
    for each in sizes:
        cpu, gb = hours.get(f"{each.family}:{CPU}"), hours.get(f"{each.family}:{GB}")
        if each.size not in hours and cpu is not None and gb is not None:
            usd = round(each.cpus * cpu.usd + each.gib * gb.usd, 6)
            made.append(cpu.model_copy(update={"item": each.size, "usd": usd}))
    return (*made, *prices)
