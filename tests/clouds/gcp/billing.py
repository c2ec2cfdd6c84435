"""Google's Cloud Billing Catalog: SKUs of Compute Engine, in pages; answers are held to Google's description."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.clouds.gcp.wire import Call, Fault, write

SERVICE = "6F81-5844-456A"
PAGE = 4
"""Fewer than may be asked for, so that there are several."""


@dataclass
class Catalogue:
    skus: list[dict[str, Any]] = field(default_factory=list)
    damage: bool = False
    """The next answer has no price in its prices."""

    def add(
        self, description: str, unit: str, *tiers: float, region: str = "us-east1", usage: str = "OnDemand"
    ) -> None:
        """`tiers`: prices in US dollars, each from a thousand units on."""
        rates = [
            {
                "startUsageAmount": 1000.0 * number,
                "unitPrice": {"currencyCode": "USD", "units": str(int(usd)), "nanos": round(usd % 1 * 1e9)},
            }
            for number, usd in enumerate(tiers)
        ]
        id = f"{len(self.skus):04X}-0000-0000"
        self.skus.append(
            {
                "name": f"services/{SERVICE}/skus/{id}", "skuId": id, "description": description,
                "category": {"serviceDisplayName": "Compute Engine", "resourceFamily": "Compute",
                             "resourceGroup": "CPU", "usageType": usage},
                "serviceRegions": [region],
                "pricingInfo": [{"summary": "", "currencyConversionRate": 1,
                                 "pricingExpression": {"usageUnit": unit, "displayQuantity": 1, "tieredRates": rates}}],
                "serviceProviderName": "Google",
            }
        )  # fmt: skip

    def answer(self, call: Call) -> bytes:
        if call.name != "services.skus.list" or call.params["servicesId"] != SERVICE:
            raise Fault(404, "notFound", "There is no such service.")
        if not 0 <= int(call.params.get("pageSize", 5000)) <= 5000 or call.params.get("currencyCode") != "USD":
            raise Fault(400, "badRequest", "The page's size is 5000 at most.")
        start = int(call.params.get("pageToken", "0"))
        more = str(start + PAGE) if start + PAGE < len(self.skus) else ""
        told = {"skus": self.skus[start : start + PAGE], "nextPageToken": more}
        if self.damage:
            told = {"skus": [{"description": "N2 Instance Core running in Americas"}], "nextPageToken": ""}
        return write(call, told)
