"""The contract of cloud adapters on a real account: only when it is asked for by name, because it costs money.

    pytest tests/live --live aws:eu-west-1 [--live-settings account.json] [--live-size t3.micro]
    pytest tests/live --live aws:eu-west-1 --clean live-20261123-0a1b2c

Credentials are found by the provider's own chain. docs/clouds.md says what it costs and what it leaves.
"""

from __future__ import annotations

import inspect
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from clouds.errors import CloudError
from models.clouds import CloudSettings, place_of
from tests.clouds import table
from tests.clouds.scene import PACE, RUN, SALT
from tests.live.account import WHY_NOT, LiveCloud

SETTINGS: TypeAdapter[CloudSettings] = TypeAdapter(CloudSettings)
WHY = "tests/live: not collected: --live CLOUD:REGION was not given, and tests on a real account cost money"
CANNOT = re.compile(r"\.faults\.on\(|\.guest_writes\(")
"""What a test needs that no real account has."""

pytest.register_assert_rewrite("tests.clouds.contract")
pytest_runtest_makereport = table.pytest_runtest_makereport


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("live", "the clouds' contract on a real account")
    group.addoption("--live", metavar="CLOUD:REGION", help="run on this account, for money")
    group.addoption("--live-settings", metavar="FILE", help="its CloudSettings as JSON, where a region is not enough")
    group.addoption("--live-size", metavar="SIZE", help="size of instances; default: a small one")
    group.addoption("--clean", metavar="RUN", help="run nothing: remove what carries this run's tag")


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """--clean, and all that is wrong with the options, before anything is collected."""
    place, run = config.getoption("live", None), config.getoption("clean", None)
    if run and not place:
        raise pytest.UsageError(f"--clean {run} needs --live CLOUD:REGION: where to look")
    if not place:
        return None
    if run:
        cloud = LiveCloud(_settings(config), run, None)
        _pace(cloud)
        removed = cloud.clean()
        print(f"removed of run {run} on {place}: {', '.join(removed) or 'nothing was there'}")
        return 0
    _settings(config)
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.suffix == ".py" and not config.getoption("live", None) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cloud" in metafunc.fixturenames:
        metafunc.parametrize("cloud", [metafunc.config.getoption("live").partition(":")[0]], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped before they make anything that costs."""
    for item in items:
        if Path(__file__).parent in item.path.parents and CANNOT.search(inspect.getsource(item.obj)):  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.skip(reason="breaks the cloud on purpose, or writes as a guest: fakes only"))


@pytest.fixture(scope="session")
def live(pytestconfig: pytest.Config) -> Iterator[LiveCloud]:
    run = f"live-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(3)}"
    made = LiveCloud(_settings(pytestconfig), run, pytestconfig.getoption("live_size"))
    place = pytestconfig.getoption("live")
    at = getattr(made.settings, "endpoint_url", None)
    table.remarks.append(
        f"this run was on {place}{f' at {at}' if at else ''}, as {run}; +n: tests that break the cloud on purpose."
    )
    table.remarks.append("Should it have been cut off, clean up with")
    table.remarks.append(f"  pytest tests/live --live {place} --clean {run}   (and --live-settings, if you gave it)")
    assert made.adapter.instances is not None
    try:
        made.adapter.instances.list_instances(limit=5)
    except CloudError as error:
        pytest.exit(f"tests/live: {place} cannot be used: {error}", 4)
    _pace(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN, run)
        yield made
        left = made.clean()
        assert left == [], f"left behind by tests, and removed now: {left}"


@pytest.fixture
def cloud(live: LiveCloud, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveCloud]:
    """Each test has tokens of its own, and what it made is removed behind it."""
    monkeypatch.setenv(SALT, f"{live.run}/{request.node.nodeid}/")
    yield live
    live.clean()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("live", None):
        terminalreporter.line(WHY)
    table.pytest_terminal_summary(terminalreporter)


def _settings(config: pytest.Config) -> CloudSettings:
    place, file = str(config.getoption("live")), config.getoption("live_settings")
    cloud, _, region = place.partition(":")
    if cloud in WHY_NOT:
        raise pytest.UsageError(f"--live {place}: {cloud} is not run live: {WHY_NOT[cloud]}")
    try:
        told: dict[str, Any] = {"cloud": cloud, "region": region}
        found = SETTINGS.validate_json(Path(file).read_text()) if file else SETTINGS.validate_python(told)
    except OSError as error:
        raise pytest.UsageError(f"--live-settings {file}: {error.strerror}") from None
    except ValidationError as error:
        raise pytest.UsageError(f"--live {place}: {error}; give --live-settings where a region is not enough") from None
    if place_of(found) != place:
        raise pytest.UsageError(f"--live {place}, but --live-settings {file} is of {place_of(found)}: which is meant?")
    return found


def _pace(cloud: LiveCloud) -> None:
    PACE.pause = cloud.settings.calls.poll
    PACE.looks = max(20, int(900 / max(PACE.pause, 0.1))) if PACE.pause >= 1 else 20
