"""Clouds under test, and the capability table at the end: what it says `works` was exercised by the tests just run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator

import pytest

from clouds.capabilities import CAPABILITIES, CLOUDS, OFFERS
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.aws.server import AwsServer
from tests.clouds.azure.scene import AzureCloud
from tests.clouds.azure.server import IDENTITY, AzureServer
from tests.clouds.scene import Cloud

BUILT = ("aws", "azure")
"""Adapters that the contract suite runs for."""


@pytest.fixture(scope="session")
def aws_of_the_session() -> Iterator[AwsCloud]:
    """One server and one adapter: boto3 takes a second to build its clients. No credentials but the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
            patch.delenv(name)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = AwsServer()
        yield AwsCloud(server)
        server.close()


@pytest.fixture
def aws(aws_of_the_session: AwsCloud) -> Iterator[AwsCloud]:
    """A fresh account. The test fails when anything went over the wire that AWS's model does not know."""
    aws_of_the_session.server.reset()
    yield aws_of_the_session
    assert aws_of_the_session.server.drift == []


@pytest.fixture(scope="session")
def azure_of_the_session() -> Iterator[AzureCloud]:
    """The SDK's real credential chain finds a managed identity, whose tokens the fake gives out."""
    server = AzureServer()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AZURE_", "MSI_", "IDENTITY_"))]:
            patch.delenv(name)
        patch.setenv("IDENTITY_ENDPOINT", f"{server.url}/identity")
        patch.setenv("IDENTITY_HEADER", IDENTITY)
        yield AzureCloud(server)
    server.close()


@pytest.fixture
def azure(azure_of_the_session: AzureCloud) -> Iterator[AzureCloud]:
    """A fresh resource group. The test fails when anything went over the wire that the SDK's models do not know."""
    azure_of_the_session.server.reset()
    yield azure_of_the_session
    assert azure_of_the_session.server.drift == []


@pytest.fixture(params=BUILT)
def cloud(request: pytest.FixtureRequest) -> Cloud:
    found: Cloud = request.getfixturevalue(request.param)
    return found


_results: Counter[tuple[str, str, str]] = Counter()
"""(cloud, capability, outcome) of the contract's tests."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    marker = item.get_closest_marker("capability")
    callspec = getattr(item, "callspec", None)
    if marker and callspec and "cloud" in callspec.params and (report.when == "call" or report.failed):
        _results[callspec.params["cloud"], marker.args[0], report.outcome] += 1
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _results:
        return
    terminalreporter.section("clouds: what works")
    width = max(map(len, CAPABILITIES)) + 2
    terminalreporter.line("".join(name.ljust(width) for name in ("", *CAPABILITIES)).rstrip())
    for cloud in CLOUDS:
        cells = (_cell(cloud, capability) for capability in CAPABILITIES)
        terminalreporter.line("".join(cell.ljust(width) for cell in (cloud, *cells)).rstrip())
    terminalreporter.line(
        "works n/n: the contract's tests that passed, over HTTP by the cloud's own SDK to a fake of it."
    )
    for cloud in CLOUDS:
        for capability in CAPABILITIES:
            if OFFERS[cloud][capability].state == "not offered":
                terminalreporter.line(f"{cloud} {capability} not offered: {OFFERS[cloud][capability].how}")


def _cell(cloud: str, capability: str) -> str:
    offer = OFFERS[cloud][capability]  # type: ignore[index]
    passed, failed = _results[cloud, capability, "passed"], _results[cloud, capability, "failed"]
    if offer.state != "works":
        return offer.state
    return f"works {passed}/{passed + failed}" if passed and not failed else f"FAILED {failed}" if failed else "not run"
