"""The contract of Catalogue on real libvirt and QEMU: the very tests that the fakes pass."""

import pytest

from tests.clouds.contract import test_catalogue as contract
from tests.clouds.contract.test_catalogue import *  # noqa: F403

pytestmark = [contract.pytestmark, pytest.mark.real, pytest.mark.timeout(120)]  # type: ignore[assignment]
