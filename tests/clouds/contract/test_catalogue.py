"""Contract of Catalogue: what there is to be had, and for how much."""

from __future__ import annotations

import pytest

from clouds.capabilities import Catalogue
from tests.clouds.scene import Cloud

pytestmark = pytest.mark.capability("Catalogue")


@pytest.fixture
def catalogue(cloud: Cloud) -> Catalogue:
    assert cloud.adapter.catalogue is not None
    return cloud.adapter.catalogue


def test_sizes_come_in_pages_and_say_what_a_guest_needs(cloud: Cloud, catalogue: Catalogue) -> None:
    pages = [catalogue.list_sizes(limit=5)]
    while pages[-1].next:
        pages.append(catalogue.list_sizes(pages[-1].next, limit=5))
    sizes = {size.name: size for page in pages for size in page.items}
    assert len(pages) > 1
    found = sizes[cloud.size]
    assert found.vcpus
    assert found.memory_mib
    assert found.firmware
    assert found.drivers


def test_quotas_have_a_name_and_a_limit(cloud: Cloud, catalogue: Catalogue) -> None:
    quotas = catalogue.quotas()
    assert quotas
    assert all(quota.name and quota.limit > 0 for quota in quotas)
    assert any(quota.used is not None for quota in quotas)


def test_prices_say_their_day_and_source_and_are_none_where_no_source_is(cloud: Cloud, catalogue: Catalogue) -> None:
    prices = catalogue.prices()
    if not cloud.calls.priced:
        assert prices == ()
        return
    assert {price.per for price in prices} >= {"hour", "gb-month"}
    assert cloud.size in {price.item for price in prices}
    assert all(price.source and price.as_of.year >= 2026 for price in prices)
