"""For all tests: properties judge results, not speed, and what needs the lab stays in one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_timeout  # type: ignore[import-untyped]
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("novacron", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("novacron")

CLEANED_WITHIN = 240
"""Seconds for what follows a test; a clean-up of a lab made anew is the longest."""
ON_REAL_PARTS = ("tests/integration/", "tests/chaos/")
WITH_PARTS_OF_THEIR_OWN = (
    "tests/chaos/",
    "tests/integration/test_kvm.py",
    "tests/integration/test_lab.py",
    "tests/integration/test_preparing.py",
    "tests/integration/test_rdma.py",
)
"""They share nothing with the lab `test` of the rest, nor with each other."""


class OneLab(LoadScopeScheduling):  # type: ignore[misc]  # xdist carries no types
    """`make test` runs two tests at once. There is one lab, so tests on it follow one another.

    By name, not by xdist's mark for groups: that one says nothing when it no longer works (xdist 3.8, pytest 9.2).
    """

    def _split_scope(self, nodeid: str) -> str:
        for own in WITH_PARTS_OF_THEIR_OWN:
            if nodeid.startswith(own):
                return own
        return "lab" if nodeid.startswith(ON_REAL_PARTS) else nodeid


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """pytest-timeout's clock ends with a test that fails. What cleans up after it could take for ever."""
    bound = pytest_timeout.Settings(CLEANED_WITHIN, "signal", func_only=False, disable_debugger_detection=False)
    item.config.hook.pytest_timeout_set_timer(item=item, settings=bound)
    try:
        yield
    finally:
        item.config.hook.pytest_timeout_cancel_timer(item=item)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneLab:
    return OneLab(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test on real parts outside those folders would run beside the lab's: it is refused."""
    for each in items:
        if each.get_closest_marker("real") and not each.nodeid.startswith(ON_REAL_PARTS):
            raise pytest.UsageError(f"{each.nodeid} is marked real: move it to one of {', '.join(ON_REAL_PARTS)}")
