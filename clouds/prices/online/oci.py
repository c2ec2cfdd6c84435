"""Oracle's prices by its public list of prices: no account is needed. They are the same in all commercial regions, but
for traffic out, which depends on the continent.

A flexible shape is asked for by OCPU and GB; a list keeps these (`VM.Standard.E5.Flex:cpu`, `:gb`), and the price of a
size is made of them when the shapes are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from clouds.prices.online.rows import MOST_PAGES, Rows, as_documented, endless, first_paid
from clouds.prices.online.web import get, same_host
from clouds.prices.parts import CPU, GB
from models.clouds import CallSettings
from models.prices import PriceRow

SOURCE = "Oracle's public list of prices, pay as you go"
ADDRESS = "https://apexapps.oracle.com"
PATH = "/pls/apex/cetools/api/v1/products/?currencyCode=USD"
BALANCED = 10
"""Performance units of a volume of balanced performance, which boot volumes are unless told otherwise."""
_SHAPE = re.compile(r"(?:OCI - )?Compute - Standard - (E\d+|A\d+|X9)(?: -)? (OCPU|Memory)")
_FIXED = {"Compute - Virtual Machine Standard - X7": ("VM.Standard2", (1, 2, 4, 8, 16, 24))}
"""Shapes whose price has the memory in it, and their OCPUs."""
_TRAFFIC = (
    (r"(us|ca|eu|uk)-", "North America, Europe, and UK"),
    (r"(ap|sa)-", "APAC, Japan, and South America"),
    (r"(me|af|il)-", "Middle East and Africa"),
)


def ask(region: str, endpoint: str | None, calls: CallSettings) -> tuple[PriceRow, ...]:
    """Parts of shapes, block volumes of balanced performance, objects, and traffic out to the internet."""
    rows, volume, units = Rows(), None, None
    with as_documented("read Oracle's prices"):
        for item in _items(endpoint or ADDRESS, calls):
            name, metric, usd = " ".join(item["displayName"].split()), item["metricName"], _price(item)
            if found := _SHAPE.fullmatch(name):
                part = CPU if found[2] == "OCPU" else GB
                if metric in ("OCPU Per Hour", "Gigabyte Per Hour", "Gigabytes Per Hour"):
                    rows.add(f"{_shape(found[1])}:{part}", "hour", usd)
            elif name in _FIXED and metric == "OCPU Per Hour" and usd:
                shape, counts = _FIXED[name]
                for ocpus in counts:
                    rows.add(f"{shape}.{ocpus}", "hour", ocpus * usd)
            elif name == "Storage - Block Volume - Storage":
                volume = usd
            elif name == "Storage - Block Volume - Performance Units":
                units = usd
            elif name == "Object Storage - Storage":
                rows.add("object-storage", "gb-month", usd)
            elif name == f"Outbound Data Transfer - Originating in {_continent(region)}":
                rows.add("internet-egress", "gb", usd)
        if volume and units:
            rows.add("block-volume", "gb-month", volume + BALANCED * units)
        return rows.all()


def _shape(family: str) -> str:
    return "VM.Standard3.Flex" if family == "X9" else f"VM.Standard.{family}.Flex"


def _continent(region: str) -> str:
    return next((name for pattern, name in _TRAFFIC if re.match(pattern, region)), "nowhere")


def _price(item: dict[str, Any]) -> float | None:
    tiers = [
        (float(price.get("rangeMin") or 0), float(price["value"]))
        for told in item["currencyCodeLocalizations"]
        if told["currencyCode"] == "USD"
        for price in told["prices"]
        if price["model"] == "PAY_AS_YOU_GO"
    ]
    return first_paid(tiers)


def _items(base: str, calls: CallSettings) -> Iterator[dict[str, Any]]:
    what = "list Oracle's prices"
    first = url = f"{base}{PATH}"
    for _ in range(MOST_PAGES):
        answer = get(what, url, calls)
        yield from answer["items"]
        if not answer.get("hasMore"):
            return
        url = same_host(next(link["href"] for link in answer["links"] if link["rel"] == "next"), first)
    raise endless(what)
