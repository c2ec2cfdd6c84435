"""What the lab's links are like: rate, delay and loss, as a user writes them and as the machine needs them.

`rate` bounds each host's uplink in both directions. `delay` and `loss` befall what a host sends, so a
packet from one host to another is delayed once and a round trip takes twice `delay`.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from models.base import Model
from workers.lab.errors import LabError

_RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_NUMBER_AND_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z%]*)", re.IGNORECASE)

LEAST_RATE, MOST_RATE = 64_000, 100_000_000_000
MOST_DELAY = 10.0
MOST_LOSS = 0.5


class LinkSpec(Model):
    """The links of a lab; the default is a plain bridge."""

    rate: Annotated[int, Field(ge=LEAST_RATE, le=MOST_RATE)] | None = None
    """Bits a second; None is as fast as the machine."""
    delay: Annotated[float, Field(ge=0, le=MOST_DELAY)] = 0.0
    """Seconds, one way."""
    loss: Annotated[float, Field(ge=0, le=MOST_LOSS)] = 0.0
    """Probability that a packet is lost."""

    @property
    def needs_wire(self) -> bool:
        return self.delay > 0 or self.loss > 0

    @classmethod
    def parse(
        cls,
        rate: str | None = None,
        delay: str | None = None,
        loss: str | None = None,
        base: LinkSpec | None = None,
    ) -> LinkSpec:
        """Of `100mbit` (or `unlimited`), `40ms`, `0.1%`; None leaves it as in `base`. LabError names what is wrong."""
        base = base or cls()
        return cls(
            rate=base.rate if rate is None else parse_rate(rate),
            delay=base.delay if delay is None else parse_delay(delay),
            loss=base.loss if loss is None else parse_loss(loss),
        )

    def __str__(self) -> str:
        rate = "unlimited" if self.rate is None else _short(self.rate)
        parts = [rate]
        if self.delay:
            parts.append(f"{self.delay * 1000:g} ms")
        if self.loss:
            parts.append(f"{self.loss * 100:g} % loss")
        return ", ".join(parts)


def parse_rate(text: str) -> int | None:
    """`64kbit`, `100mbit`, `2.5gbit`; `unlimited` is None."""
    if text.strip().lower() in {"unlimited", "none"}:
        return None
    remedy = "write a number with kbit, mbit or gbit, such as 100mbit (64kbit to 100gbit), or unlimited"
    value = round(_amount("rate", text, _RATES, remedy))
    return int(_bounded("rate", text, value, LEAST_RATE, MOST_RATE, remedy))


def parse_delay(text: str) -> float:
    """Seconds of `500us`, `40ms`, `0.2s` or `0`."""
    remedy = "write a number with us, ms or s, such as 40ms (at most 10s), or 0"
    return _bounded("delay", text, _amount("delay", text, _TIMES, remedy), 0, MOST_DELAY, remedy)


def parse_loss(text: str) -> float:
    """Probability of `0.1%` or `0`."""
    remedy = "write a percentage such as 0.1% (at most 50%), or 0"
    return _bounded("loss", text, _amount("loss", text, {"%": 0.01}, remedy), 0, MOST_LOSS, remedy)


def _amount(field: str, text: str, units: dict[str, float] | dict[str, int], remedy: str) -> float:
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match and float(match[1]) == 0 and not match[2]:
        return 0.0
    if not match or match[2].lower() not in units:
        raise LabError(f"{field}: {text!r} is not understood; {remedy}")
    return float(match[1]) * units[match[2].lower()]


def _bounded(field: str, text: str, value: float, least: float, most: float, remedy: str) -> float:
    if not least <= value <= most:
        raise LabError(f"{field}: {text!r} is out of range; {remedy}")
    return value


def _short(rate: int) -> str:
    for unit, size in (("Gbit/s", 10**9), ("Mbit/s", 10**6), ("kbit/s", 10**3)):
        if rate >= size:
            return f"{rate / size:g} {unit}"
    return f"{rate} bit/s"
