"""The contract of cloud adapters for KVM: a folder and the libvirt of one lab host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clouds import table
from tests.integration.contract.place import KvmCloud
from workers.lab.lab import Lab

HOST = "host-b"

pytest.register_assert_rewrite("tests.clouds.contract")
pytest_runtest_makereport = table.pytest_runtest_makereport
pytest_terminal_summary = table.pytest_terminal_summary


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cloud" in metafunc.fixturenames:
        metafunc.parametrize("cloud", ["kvm"], indirect=True)


@pytest.fixture
def cloud(lab: Lab) -> Iterator[KvmCloud]:
    """A fresh folder. What a test leaves is removed by the adapter itself; then nothing may be there."""
    made = KvmCloud(lab, HOST)
    try:
        yield made
    finally:
        made.clean()
