"""For all tests: properties judge results, not speed, and what needs the lab stays in one process."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("novacron", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("novacron")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` runs two tests at once. There is one lab, so tests on real parts follow one another."""
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.xdist_group("lab"))
