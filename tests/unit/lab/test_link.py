"""Links as a user writes them."""

from __future__ import annotations

import pytest

from workers.lab.errors import LabError
from workers.lab.link import LinkSpec, parse_delay, parse_loss, parse_rate


def test_rate_delay_and_loss_are_read_with_their_units() -> None:
    assert LinkSpec.parse("100mbit", "40ms", "0.1%") == LinkSpec(rate=100_000_000, delay=0.04, loss=0.001)
    assert LinkSpec.parse("2.5gbit", "500us", "2%") == LinkSpec(rate=2_500_000_000, delay=0.0005, loss=0.02)
    assert LinkSpec.parse("64kbit", "1 s") == LinkSpec(rate=64_000, delay=1.0)


def test_what_is_not_given_stays_as_it_was() -> None:
    base = LinkSpec.parse("100mbit", "40ms", "0.1%")
    assert LinkSpec.parse(rate="1gbit", base=base) == LinkSpec.parse("1gbit", "40ms", "0.1%")
    assert LinkSpec.parse(rate="unlimited", delay="0", loss="0", base=base) == LinkSpec()


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("rate", "fast", "100mbit"),
        ("rate", "100", "100mbit"),
        ("rate", "1kbit", "64kbit"),
        ("rate", "0", "64kbit"),
        ("delay", "40", "40ms"),
        ("delay", "-1ms", "40ms"),
        ("delay", "11s", "at most 10s"),
        ("loss", "0.1", "0.1%"),
        ("loss", "51%", "at most 50%"),
    ],
)
def test_a_wrong_value_is_refused_by_field_value_and_remedy(field: str, value: str, remedy: str) -> None:
    with pytest.raises(LabError) as error:
        {"rate": parse_rate, "delay": parse_delay, "loss": parse_loss}[field](value)
    message = str(error.value)
    assert message.startswith(f"{field}: {value!r}")
    assert remedy in message


def test_a_link_reads_as_it_was_written() -> None:
    assert str(LinkSpec.parse("100mbit", "40ms", "0.1%")) == "100 Mbit/s, 40 ms, 0.1 % loss"
    assert str(LinkSpec()) == "unlimited"


def test_the_wire_is_needed_for_delay_or_loss_only() -> None:
    assert not LinkSpec.parse("100mbit").needs_wire
    assert LinkSpec.parse(delay="1ms").needs_wire
    assert LinkSpec.parse(loss="1%").needs_wire
