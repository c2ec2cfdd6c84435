"""AWS's Price List Query API: products with their terms, each a JSON text of its own, in pages of a hundred."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.clouds.aws.wire import AwsFault

SERVED = ("AmazonEC2", "AWSDataTransfer")


@dataclass
class Prices:
    products: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, service: str, family: str, unit: str, tiers: dict[str, str], term: str = "OnDemand", **attributes: str
    ) -> None:
        """`tiers`: price in US dollars by the amount from which it holds."""
        sku = f"SKU{len(self.products):05d}"
        dimensions = {
            f"{sku}.JRTCKXETXF.{number}": {
                "unit": unit, "beginRange": begin, "endRange": "Inf", "description": "", "appliesTo": [],
                "rateCode": f"{sku}.JRTCKXETXF.{number}", "pricePerUnit": {"USD": usd},
            }
            for number, (begin, usd) in enumerate(tiers.items())
        }  # fmt: skip
        self.products.append(
            {
                "product": {"productFamily": family, "attributes": {"servicecode": service, **attributes}, "sku": sku},
                "serviceCode": service,
                "terms": {term: {f"{sku}.JRTCKXETXF": {"sku": sku, "priceDimensions": dimensions}}},
                "version": "20261120000000",
                "publicationDate": "2026-11-20T00:00:00Z",
            }
        )

    def size(self, name: str, usd: str, region: str = "eu-west-1", **other: str) -> None:
        attributes = {
            "instanceType": name, "regionCode": region, "operatingSystem": "Linux", "tenancy": "Shared",
            "preInstalledSw": "NA", "capacitystatus": "Used", "marketoption": "OnDemand",
            "usagetype": f"EU-BoxUsage:{name}", **other,
        }  # fmt: skip
        self.add("AmazonEC2", "Compute Instance", "Hrs", {"0": usd}, **attributes)

    def storage(self, region: str = "eu-west-1") -> None:
        self.add("AmazonEC2", "Storage", "GB-Mo", {"0": "0.0880000000"}, regionCode=region, volumeApiName="gp3",
                 usagetype="EU-EBS:VolumeUsage.gp3")  # fmt: skip
        self.add("AmazonEC2", "Storage Snapshot", "GB-Mo", {"0": "0.0500000000"}, regionCode=region,
                 usagetype="EU-EBS:SnapshotUsage")  # fmt: skip
        self.add("AWSDataTransfer", "Data Transfer", "GB", {"0": "0.0900000000", "10240": "0.0850000000"},
                 fromRegionCode=region, transferType="AWS Outbound", usagetype="EU-DataTransfer-Out-Bytes")  # fmt: skip

    def get_products(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["ServiceCode"] not in SERVED or asked.get("FormatVersion", "aws_v1") != "aws_v1":
            raise AwsFault("InvalidParameterException", "The service code or format is not known.")
        if not 1 <= asked.get("MaxResults", 100) <= 100:
            raise AwsFault("InvalidParameterException", "MaxResults is 1 to 100.")
        found = [json.dumps(each) for each in self.products if _fits(each, asked)]
        start, most = int(asked.get("NextToken", "0")), asked.get("MaxResults", 100)
        more = {"NextToken": str(start + most)} if start + most < len(found) else {}
        return {"FormatVersion": "aws_v1", "PriceList": found[start : start + most], **more}


def _fits(each: dict[str, Any], asked: dict[str, Any]) -> bool:
    told = {**each["product"]["attributes"], "productFamily": each["product"]["productFamily"]}
    wanted = {entry["Field"]: entry["Value"] for entry in asked.get("Filters", ())}
    return each["serviceCode"] == asked["ServiceCode"] and all(told.get(key) == value for key, value in wanted.items())
