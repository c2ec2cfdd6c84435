"""The capability table at the end of a run: what it says `works` was exercised by the tests just run, or says where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import pytest

from clouds.capabilities import CAPABILITIES, CLOUDS, OFFERS, Capability
from models.clouds import Cloud

results: Counter[tuple[str, str, str]] = Counter()
"""(cloud, capability, outcome) of the contract's tests."""
remarks: list[str] = []
"""On this run, printed below the table."""
_printed: list[bool] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    marker = item.get_closest_marker("capability")
    callspec = getattr(item, "callspec", None)
    key = (item.nodeid, report.when)
    fresh = key not in _seen  # two folders of one session have this hook
    _seen.add(key)
    if fresh and marker and callspec and "cloud" in callspec.params and (report.when == "call" or not report.passed):
        results[callspec.params["cloud"], marker.args[0], report.outcome] += 1
    return report


_seen: set[tuple[str, str]] = set()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not results or _printed:
        return
    _printed.append(True)
    terminalreporter.section("clouds: what works")
    for line in lines():
        terminalreporter.line(line)


def lines() -> list[str]:
    width = max(map(len, CAPABILITIES)) + 6
    told = ["".join(name.ljust(width) for name in ("", *CAPABILITIES)).rstrip()]
    for cloud in CLOUDS:
        cells = (cell(cloud, capability) for capability in CAPABILITIES)
        told.append("".join(each.ljust(width) for each in (cloud, *cells)).rstrip())
    told.append("works n/n: the contract's tests that passed, over HTTP by the cloud's own SDK to a fake of it;")
    told.append("  of kvm on real libvirt and QEMU, without faults that only a service has.")
    told.append("on real parts: works, by the same contract in tests/integration/contract; not run here (root, a lab).")
    told += [
        f"{cloud} {capability} {OFFERS[cloud][capability].state}: {OFFERS[cloud][capability].how}"
        for cloud in CLOUDS
        for capability in CAPABILITIES
        if OFFERS[cloud][capability].state == "not offered"
    ]
    return [*told, *remarks]


def cell(cloud: Cloud, capability: Capability) -> str:
    offer = OFFERS[cloud][capability]
    passed, failed, skipped = (results[cloud, capability, each] for each in ("passed", "failed", "skipped"))
    if offer.state != "works":
        return offer.state
    if failed:
        return f"FAILED {failed}"
    if passed:
        return f"works {passed}/{passed}{f' +{skipped}' if skipped else ''}"
    return "on real parts" if cloud == "kvm" else "not run"
