"""What all providers' answers have in common once they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import ValidationError

from clouds.errors import Damaged
from models.prices import PriceRow

MOST_PAGES = 400
"""Of one list; more of them have no end."""


class Rows:
    """One price for each item. Of two that a provider has, the higher one: no plan is to look too cheap."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], float] = {}

    def add(self, item: str, per: Literal["hour", "gb-month", "gb"], usd: float | None) -> None:
        """Nothing when there is none, or it is for nothing: a free tier is no price."""
        if usd is not None and usd > 0:
            key = (item, per)
            self._found[key] = max(self._found.get(key, 0.0), usd)

    def all(self) -> tuple[PriceRow, ...]:
        """Those of storage and traffic first. Raises ValidationError."""
        ordered = sorted(self._found.items(), key=lambda entry: (entry[0][1] == "hour", entry[0]))
        return tuple(
            PriceRow.model_validate({"item": item, "per": per, "usd": round(usd, 9)}) for (item, per), usd in ordered
        )


def first_paid(tiers: Iterable[tuple[float, float]]) -> float | None:
    """Of (from how much on, price): the first that is not for nothing."""
    return next((usd for _, usd in sorted(tiers) if usd > 0), None)


@contextmanager
def as_documented(what: str) -> Iterator[None]:
    """An answer that does not look as the provider's documents say raises Damaged."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ValidationError) as error:
        raise Damaged(
            f"cannot {what}: the answer is not as documented ({type(error).__name__}: {str(error)[:200]})",
            "Try again later; if it stays so, the interface has changed.",
        ) from error


def endless(what: str) -> Damaged:
    return Damaged(f"cannot {what}: the list has more than {MOST_PAGES} pages", "Look who answers.")
