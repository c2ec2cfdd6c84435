"""The price interfaces that need no account, as their providers document them: Azure's Retail Prices, with OData
filters and pages, and Oracle's list."""

from __future__ import annotations

import json
import re
import threading
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.clouds.faults import FaultPlan
from tests.clouds.loopback import Answer, HungUp, Loopback

PAGE = 3
"""Items of a page: a thousand, in Azure."""
FIELDS = ("serviceName", "armRegionName", "priceType", "productName", "meterName")
ORACLE = "/pls/apex/cetools/api/v1/products/"


class PublicPrices:
    """Listens on a free port of the loopback. Faults come between by `azure` and `oci`."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.products: list[dict[str, Any]] = []
        self.faults = FaultPlan()
        self.leads_to = ""
        """Instead of this server, where Azure's pages go on."""
        self._lock = threading.Lock()
        self._server = Loopback(self.answer)
        self.url = self._server.url
        self.close = self._server.close

    def azure(self, service: str, product: str, meter: str, unit: str, usd: float, **other: Any) -> None:
        self.items.append(
            {
                "currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": usd, "unitPrice": usd,
                "armRegionName": "westeurope", "location": "EU West", "effectiveStartDate": "2026-01-01T00:00:00Z",
                "meterId": f"meter-{len(self.items)}", "meterName": meter, "productId": "DZH318Z0BQ4B",
                "skuId": "DZH318Z0BQ4B/003F", "productName": product, "skuName": meter, "serviceName": service,
                "serviceId": "DZH313Z7MMC8", "serviceFamily": "Compute", "unitOfMeasure": unit, "type": "Consumption",
                "isPrimaryMeterRegion": True, "armSkuName": "", **other,
            }
        )  # fmt: skip

    def oracle(self, name: str, metric: str, *tiers: float) -> None:
        """`tiers`: each from a thousand on."""
        prices: list[dict[str, Any]] = [{"model": "PAY_AS_YOU_GO", "value": usd} for usd in tiers]
        for number, price in enumerate(prices) if len(tiers) > 1 else ():
            price |= {"rangeMin": 1000 * number, "rangeMax": 1000 * (number + 1), "rangeUnit": "GB"}
        localized = [{"currencyCode": currency, "prices": prices} for currency in ("EUR", "USD")]
        self.products.append(
            {
                "partNumber": f"B{len(self.products):05d}", "displayName": name, "metricName": metric,
                "serviceCategory": "Compute - Virtual Machine", "currencyCodeLocalizations": localized,
            }
        )  # fmt: skip

    def answer(self, verb: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        parts = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        name = {"/api/retail/prices": "azure", ORACLE: "oci"}[parts.path]
        with self._lock:
            kind = self.faults.next(name)
            if kind == "throttle":
                return 429, {"Retry-After": "1"}, b"Too many requests."
            if kind == "unavailable":
                return 503, {}, b""
            if kind == "drop":
                raise HungUp
            told = json.dumps(self._azure(query) if name == "azure" else self._oracle(query)).encode()
            return 200, {}, told[: len(told) // 2] if kind == "damage" else told

    def _azure(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = dict(re.findall(r"(\w+) eq '([^']*)'", query["$filter"]))
        assert " and ".join(f"{key} eq '{value}'" for key, value in wanted.items()) == query["$filter"]
        assert wanted.keys() <= set(FIELDS), wanted
        wanted["type"] = wanted.pop("priceType")
        found = [item for item in self.items if all(item[key] == value for key, value in wanted.items())]
        start = int(query.get("$skip", "0"))
        link = None
        if start + PAGE < len(found):
            link = f"{self.leads_to or self.url}/api/retail/prices?{urlencode({**query, '$skip': start + PAGE})}"
        page = found[start : start + PAGE]
        return {
            "BillingCurrency": query["currencyCode"], "CustomerEntityId": "Default", "CustomerEntityType": "Retail",
            "Items": page, "NextPageLink": link, "Count": len(page),
        }  # fmt: skip

    def _oracle(self, query: dict[str, str]) -> dict[str, Any]:
        assert query == {"currencyCode": "USD"}
        return {"lastUpdated": "2026-11-20T14:26:53.943Z", "items": self.products}
