"""One certificate authority for all tests, and pairs of ends that always stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .harness import Authority, Pair, pair


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("authority")))


@pytest.fixture
def ends(authority: Authority) -> Iterator[Callable[..., Pair]]:
    """Makes pairs that are stopped when the test ends."""
    with ExitStack() as stack:

        def make(**options: Any) -> Pair:
            return stack.enter_context(pair(authority, **options))

        yield make
