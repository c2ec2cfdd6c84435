"""Azure's prices by its public Retail Prices API: no account is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from clouds.prices.online.rows import MOST_PAGES, Rows, as_documented, endless, first_paid
from clouds.prices.online.web import get, same_host
from models.clouds import CallSettings
from models.prices import PriceRow

SOURCE = "Azure Retail Prices API, consumption"
ADDRESS = "https://prices.azure.com"
DISKS = {
    "Standard HDD Managed Disks": ("Standard_LRS", "S10"),
    "Standard SSD Managed Disks": ("StandardSSD_LRS", "E10"),
    "Premium SSD Managed Disks": ("Premium_LRS", "P10"),
}
"""Our name, and the step of 128 GiB that a GB's price is taken from: Azure bills steps of sizes."""
STEP_GB = 128
_NOT_MEANT = re.compile(r"windows|spot|low priority|cloud ?services|dedicated", re.IGNORECASE)


def ask(region: str, endpoint: str | None, calls: CallSettings) -> tuple[PriceRow, ...]:
    """Sizes, managed disks by the GB, snapshots, and traffic out to the internet."""
    base = endpoint or ADDRESS
    rows = Rows()
    with as_documented("read Azure's prices"):
        for item in _items(base, region, calls, serviceName="Virtual Machines"):
            if _is_size(item):
                rows.add(item["armSkuName"], "hour", float(item["retailPrice"]))
        for product, (disk, step) in DISKS.items():
            for item in _items(base, region, calls, serviceName="Storage", productName=product):
                meter, unit = item["meterName"], item["unitOfMeasure"]
                if unit == "1/Month" and re.fullmatch(rf"{step}( LRS)? Disks?", meter):
                    rows.add(disk, "gb-month", float(item["retailPrice"]) / STEP_GB)
                if disk == "Standard_LRS" and unit == "1 GB/Month" and re.fullmatch(r"(LRS )?Snapshots", meter):
                    rows.add("snapshot", "gb-month", float(item["retailPrice"]))
        out = _items(base, region, calls, serviceName="Bandwidth", meterName="Standard Data Transfer Out")
        tiers = [
            (float(item["tierMinimumUnits"]), float(item["retailPrice"]))
            for item in out
            if item["productName"] == "Rtn Preference: MGN" and item["unitOfMeasure"] == "1 GB"
        ]
        rows.add("internet-egress", "gb", first_paid(tiers))
        return rows.all()


def _is_size(item: dict[str, Any]) -> bool:
    return bool(
        item.get("armSkuName")
        and item["unitOfMeasure"] == "1 Hour"
        and not float(item.get("tierMinimumUnits") or 0)
        and not _NOT_MEANT.search(f"{item['productName']} {item['skuName']} {item['meterName']}")
    )


def _items(base: str, region: str, calls: CallSettings, **fields: str) -> Iterator[dict[str, Any]]:
    """In US dollars, paid as used."""
    what = f"list Azure's prices of {fields['serviceName']}"
    wanted = {**fields, "armRegionName": region, "priceType": "Consumption"}
    query = urlencode(
        {"currencyCode": "USD", "$filter": " and ".join(f"{field} eq '{value}'" for field, value in wanted.items())}
    )
    first = url = f"{base}/api/retail/prices?{query}"
    for _ in range(MOST_PAGES):
        answer = get(what, url, calls)
        for item in answer["Items"]:
            if (item["currencyCode"], item["type"], item["armRegionName"]) == ("USD", "Consumption", region):
                yield item
        if not answer["NextPageLink"]:
            return
        url = same_host(answer["NextPageLink"], first)
    raise endless(what)
