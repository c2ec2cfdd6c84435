"""One lab and one guest for all tests on real parts: each test moves the guest from wherever it is.

The guest is heard from its boot to the end of the session, so "unbroken" spans all tests.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.integration.scene import Scene
from workers.lab.lab import Lab
from workers.lab.link import LinkSpec
from workers.lab.settings import LabSettings

LINK = LinkSpec.parse(rate="100mbit")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    lab = Lab(LabSettings(name="test", port=29233))
    os.environ["TEMPORAL_ADDRESS"] = lab.settings.address  # for the faces under test, as a user would set it
    lab.down(purge=True)  # a run that an aborted session left would hold the lock
    try:
        lab.up(hosts=2, link=LINK)
        yield lab
    finally:
        lab.down()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_scene(lab: Lab) -> AsyncIterator[Scene]:
    async with Scene.opened(lab) as scene:
        yield scene


@pytest_asyncio.fixture(loop_scope="session")
async def scene(session_scene: Scene) -> AsyncIterator[Scene]:
    """The shared scene; whatever a test broke is mended for the next."""
    yield session_scene
    await session_scene.mend(LINK)
