"""The contract of ImageExport on real libvirt and QEMU: the very tests that the fakes pass."""

import pytest

from tests.clouds.contract import test_export as contract
from tests.clouds.contract.test_export import *  # noqa: F403

pytestmark = [contract.pytestmark, pytest.mark.real, pytest.mark.timeout(120)]  # type: ignore[assignment]
