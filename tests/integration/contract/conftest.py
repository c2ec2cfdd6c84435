"""The contract of cloud adapters for KVM: a folder and the libvirt of one lab host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds import table
from tests.integration.contract.place import OF_LIBVIRT, KvmCloud
from workers.lab.lab import Lab

HOST = "host-b"
OF_A_SERVICE = (
    "test_a_disk_that_the_cloud_gives_up_is_told",
    "test_a_quota_ends_an_upload_that_goes_on_when_there_is_room",
)

pytest.register_assert_rewrite("tests.clouds.contract")
pytest_runtest_makereport = table.pytest_runtest_makereport
pytest_terminal_summary = table.pytest_terminal_summary


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cloud" in metafunc.fixturenames:
        metafunc.parametrize("cloud", ["kvm"], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Faults that other clouds have, and no file or libvirtd of a host: left out, not skipped each time."""
    here = Path(__file__).parent
    others = [item for item in items if here in item.path.parents and _of_other_clouds(item)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def _of_other_clouds(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    kind = item.callspec.params.get("kind") if hasattr(item, "callspec") else None
    if item.originalname in OF_A_SERVICE:
        return True
    return kind is not None and (item.path.stem != "test_instances" or kind not in OF_LIBVIRT)


@pytest.fixture
def cloud(lab: Lab) -> Iterator[KvmCloud]:
    """A fresh folder. What a test leaves is removed by the adapter itself; then nothing may be there."""
    made = KvmCloud(lab, HOST)
    try:
        yield made
    finally:
        made.clean()
