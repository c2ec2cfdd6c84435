"""One Temporal server with skipped time for all workflow tests, and a fresh site per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from tests.workflow.fake_site import FakeSite, temporal_binary
from workflows import search_attributes
from workflows.plugin import plugin

SERVER_ARGS = [
    option
    for setting in (
        "frontend.WorkflowTimeSkippingEnabled=true",
        "history.transferProcessorMaxPollRPS=2000",
        "history.timerProcessorMaxPollRPS=2000",
    )
    for option in ("--dynamic-config-value", setting)
]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=temporal_binary(),
        dev_server_startup_timeout=timedelta(seconds=60),
        dev_server_extra_args=SERVER_ARGS,
        dev_server_log_level="error",
        search_attributes=search_attributes.ALL,
        plugins=[plugin()],
    ) as environment:
        yield environment


@pytest.fixture
def site(temporal: WorkflowEnvironment) -> FakeSite:
    return FakeSite(temporal.client)
