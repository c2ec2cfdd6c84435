"""Google's prices by its Cloud Billing Catalog, with the credentials that google.auth finds.

Google asks for each CPU and each GiB by family of machine types; a list keeps these (`e2:cpu`, `e2:gb`), and the price
of a machine type is made of them when the types are known. Families with GPUs or disks of their own are left out: their
price has further parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlencode

from clouds.attempts import attempt
from clouds.errors import MissingPackage
from clouds.gcp.errors import retry_after, translate
from clouds.gcp.session import SCOPES
from clouds.prices.online.rows import MOST_PAGES, Rows, as_documented, endless, first_paid
from clouds.prices.online.web import LARGEST_ANSWER, parsed
from clouds.prices.parts import CPU, GB
from models.clouds import CallSettings
from models.prices import PriceRow

SOURCE = "Google Cloud Billing Catalog, services.skus of Compute Engine"
ADDRESS = "https://cloudbilling.googleapis.com"
SERVICE = "6F81-5844-456A"
"""Compute Engine."""
FAMILIES = {
    "e2": "E2 Instance",
    "n1": "N1 Predefined Instance",
    "n2": "N2 Instance",
    "n2d": "N2D AMD Instance",
    "n4": "N4 Instance",
    "c2": "Compute optimized( Instance)?",
    "c2d": "C2D AMD Instance",
    "c3": "C3 Instance",
    "t2d": "T2D AMD Instance",
}
_STORAGE = {
    "pd-standard": "Storage PD Capacity",
    "pd-balanced": "Balanced PD Capacity",
    "pd-ssd": "SSD backed PD Capacity",
    "snapshot": "Storage PD Snapshot",
    "image": "Storage Image",
}
Per = Literal["hour", "gb-month", "gb"]
_KINDS: tuple[tuple[str, str, Per, str], ...] = (
    *((f"{family}:{CPU}", rf"{stem} Core running in .+", "hour", "h") for family, stem in FAMILIES.items()),
    *((f"{family}:{GB}", rf"{stem} Ram running in .+", "hour", "GiBy.h") for family, stem in FAMILIES.items()),
    *((item, rf"{name}( in .+)?", "gb-month", "GiBy.mo") for item, name in _STORAGE.items()),
    ("internet-egress", r"Network Internet (Egress|Data Transfer Out) from (\w+) to \2", "gb", "GiBy"),
)
"""Our item, how Google describes it, what it is for, and Google's unit."""


def ask(region: str, endpoint: str | None, calls: CallSettings) -> tuple[PriceRow, ...]:
    """Parts of machine types, disks, snapshots, images, and traffic out to the internet of the same continent."""
    rows = Rows()
    with as_documented("read Google's prices"):
        for sku in _skus(endpoint or ADDRESS, calls):
            if region not in sku["serviceRegions"] or sku["category"]["usageType"] != "OnDemand":
                continue
            for item, pattern, per, unit in _KINDS:
                if re.fullmatch(pattern, sku["description"]):
                    rows.add(item, per, _price(sku, unit))
        return rows.all()


def _price(sku: dict[str, Any], unit: str) -> float | None:
    told = sku["pricingInfo"][-1]["pricingExpression"]
    if told["usageUnit"] != unit:
        return None
    tiers = []
    for rate in told["tieredRates"]:
        price = rate["unitPrice"]
        if price["currencyCode"] == "USD":
            usd = int(price.get("units", 0)) + int(price.get("nanos", 0)) / 1e9
            tiers.append((float(rate.get("startUsageAmount", 0)), usd))
    return first_paid(tiers)


def _skus(base: str, calls: CallSettings) -> Iterator[dict[str, Any]]:
    what = "list Google's prices"
    session = attempt(what, _session, calls, translate, retry_after)
    page: dict[str, str] = {}
    for _ in range(MOST_PAGES):
        query = urlencode({"currencyCode": "USD", "pageSize": 5000, **page})
        url = f"{base}/v1/services/{SERVICE}/skus?{query}"
        answer = parsed(what, attempt(what, lambda url=url: _get(session, url, calls), calls, translate, retry_after))  # type: ignore[misc]
        yield from answer.get("skus", ())
        if not answer.get("nextPageToken"):
            return
        page = {"pageToken": answer["nextPageToken"]}
    raise endless(what)


def _session() -> Any:
    try:
        import google.auth
        from google.auth.transport.requests import AuthorizedSession
    except ImportError as error:
        raise MissingPackage(f"google-auth is not installed ({error})", "Install novacron[gcp] here.") from error
    return AuthorizedSession(google.auth.default(scopes=SCOPES)[0])


def _get(session: Any, url: str, calls: CallSettings) -> bytes:
    from google.api_core.exceptions import from_http_response

    with session.get(url, timeout=(calls.connect_timeout, calls.read_timeout), stream=True) as answer:
        if answer.status_code != 200:
            raise from_http_response(answer)
        data = bytearray()
        for part in answer.iter_content(1 << 20):
            data += part
            if len(data) > LARGEST_ANSWER:
                break
        return bytes(data)
