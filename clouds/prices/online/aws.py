"""AWS's prices by its Price List Query API (`pricing:GetProducts`), through boto3 and its credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from clouds.aws.session import AwsSession
from clouds.prices.online.rows import MOST_PAGES, Rows, as_documented, endless, first_paid
from models.clouds import AwsSettings, CallSettings
from models.prices import PriceRow

SOURCE = "AWS Price List Query API, GetProducts of AmazonEC2 and AWSDataTransfer"
HOME = "us-east-1"
"""The interface is in few regions, and tells of all."""
_SIZES = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


def ask(region: str, endpoint: str | None, calls: CallSettings) -> tuple[PriceRow, ...]:
    """Sizes, gp3, snapshots, and traffic out to the internet."""
    session = AwsSession(AwsSettings(region=HOME, endpoint_url=endpoint, calls=calls))
    rows = Rows()
    for told in _products(session, "AmazonEC2", regionCode=region, **_SIZES):
        if "BoxUsage:" in told.usage:
            rows.add(told.attributes["instanceType"], "hour", told.price("Hrs"))
    for told in _products(session, "AmazonEC2", regionCode=region, productFamily="Storage", volumeApiName="gp3"):
        if told.usage.endswith("EBS:VolumeUsage.gp3"):
            rows.add("gp3", "gb-month", told.price("GB-Mo"))
    for told in _products(session, "AmazonEC2", regionCode=region, productFamily="Storage Snapshot"):
        if told.usage.endswith("EBS:SnapshotUsage"):
            rows.add("snapshot", "gb-month", told.price("GB-Mo"))
    for told in _products(session, "AWSDataTransfer", fromRegionCode=region, transferType="AWS Outbound"):
        if told.usage.endswith("DataTransfer-Out-Bytes"):
            rows.add("internet-egress", "gb", told.price("GB"))
    with as_documented("read AWS's prices"):
        return rows.all()


class _Product:
    """Of AWS's list: a JSON text of its own."""

    def __init__(self, text: str) -> None:
        told: dict[str, Any] = json.loads(text)
        self.attributes: dict[str, str] = told["product"]["attributes"]
        self.usage = self.attributes.get("usagetype", "")
        self._dimensions = [
            dimension
            for term in told.get("terms", {}).get("OnDemand", {}).values()
            for dimension in term["priceDimensions"].values()
        ]

    def price(self, unit: str) -> float | None:
        """Of the first tier that costs anything."""
        with as_documented(f"read AWS's price of {self.usage}"):
            return first_paid(
                (float(dimension.get("beginRange") or 0), float(dimension["pricePerUnit"]["USD"]))
                for dimension in self._dimensions
                if dimension["unit"] == unit and "USD" in dimension["pricePerUnit"]
            )


def _products(session: AwsSession, service: str, **fields: str) -> Iterator[_Product]:
    what = f"list AWS's prices of {service}"
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in sorted(fields.items())]
    page: dict[str, str] = {}
    for _ in range(MOST_PAGES):
        answer = session.call(
            what,
            "pricing",
            "get_products",
            ServiceCode=service,
            Filters=filters,
            FormatVersion="aws_v1",
            MaxResults=100,
            **page,
        )
        with as_documented(what):
            found = [_Product(text) for text in answer["PriceList"]]
        yield from found
        if not answer.get("NextToken"):
            return
        page = {"NextToken": answer["NextToken"]}
    raise endless(what)
