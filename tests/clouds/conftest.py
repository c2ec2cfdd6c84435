"""Clouds under test, and the capability table at the end: what it says `works` was exercised by the tests just run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from clouds.capabilities import CAPABILITIES, CLOUDS, OFFERS
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.aws.server import AwsServer
from tests.clouds.scene import Cloud

BUILT = ("aws",)
"""Adapters that the contract suite runs for."""


@pytest.fixture(scope="session")
def aws_server() -> Iterator[AwsServer]:
    server = AwsServer()
    yield server
    server.close()


@pytest.fixture
def aws(aws_server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsCloud]:
    """A fresh account. The test fails when anything went over the wire that AWS's model does not know."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    aws_server.reset()
    yield AwsCloud(aws_server)
    assert aws_server.drift == []


@pytest.fixture(params=BUILT)
def cloud(request: pytest.FixtureRequest) -> Cloud:
    found: Cloud = request.getfixturevalue(request.param)
    return found


_results: Counter[tuple[str, str, str]] = Counter()
"""(cloud, capability, outcome) of the contract's tests."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    marker = item.get_closest_marker("capability")
    callspec = getattr(item, "callspec", None)
    if marker and callspec and "cloud" in callspec.params and (report.when == "call" or report.failed):
        _results[callspec.params["cloud"], marker.args[0], report.outcome] += 1
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _results:
        return
    terminalreporter.section("clouds: what works")
    width = max(map(len, CAPABILITIES)) + 2
    terminalreporter.line("".join(name.ljust(width) for name in ("", *CAPABILITIES)).rstrip())
    for cloud in CLOUDS:
        cells = (_cell(cloud, capability) for capability in CAPABILITIES)
        terminalreporter.line("".join(cell.ljust(width) for cell in (cloud, *cells)).rstrip())
    terminalreporter.line("works n/n: tests of the contract passed, over HTTP by the cloud's own SDK against a fake of it.")
    for cloud in CLOUDS:
        for capability in CAPABILITIES:
            if OFFERS[cloud][capability].state == "not offered":
                terminalreporter.line(f"{cloud} {capability} not offered: {OFFERS[cloud][capability].how}")


def _cell(cloud: str, capability: str) -> str:
    offer = OFFERS[cloud][capability]  # type: ignore[index]
    passed, failed = _results[cloud, capability, "passed"], _results[cloud, capability, "failed"]
    if offer.state != "works":
        return offer.state
    return f"works {passed}/{passed + failed}" if passed and not failed else f"NOT SHOWN {passed}/{passed + failed}"
