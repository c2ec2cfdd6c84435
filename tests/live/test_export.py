"""The contract of ImageExport on a real account: the very tests that the fakes pass."""

import pytest

from tests.clouds.contract import test_export as contract
from tests.clouds.contract.test_export import *  # noqa: F403

pytestmark = [contract.pytestmark, pytest.mark.timeout(3600)]  # type: ignore[assignment]
