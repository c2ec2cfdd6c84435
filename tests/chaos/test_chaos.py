"""A part of the fault matrix, in a lab of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos import trial
from tests.chaos.ground import Ground
from tests.chaos.table import QUICK, pick
from workers.lab.settings import LabSettings

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ground() -> AsyncIterator[Ground]:
    async with Ground.opened(LabSettings(name="ctest", port=25233)) as ground:
        yield ground


@pytest.mark.parametrize("name", QUICK)
async def test_one_vm_is_left_whole_and_nothing_else(ground: Ground, name: str) -> None:
    (combination,) = pick([name])
    ended = await trial.run(ground, combination, seed=20)
    assert ended.row().good, "\n".join([ended.outcome, *ended.problems, ended.told])
