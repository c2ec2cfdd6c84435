"""The capability table says what adapters have, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest

from clouds import capabilities
from clouds.adapters import connect
from clouds.capabilities import CAPABILITIES, CLOUDS, OFFERS, Adapter, Capability
from clouds.errors import NotOffered
from models.clouds import KvmSettings
from tests.clouds import table
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.conftest import BUILT
from tests.clouds.scene import Cloud

FIELDS: dict[Capability, str] = {
    "Instances": "instances",
    "ImageImport": "image_import",
    "ImageExport": "image_export",
    "BlockDelta": "block_delta",
    "Catalogue": "catalogue",
    "RegionalCache": "cache",
}


def test_the_table_is_whole_and_gives_a_reason_in_every_cell() -> None:
    assert set(OFFERS) == set(CLOUDS)
    for row in OFFERS.values():
        assert set(row) == set(CAPABILITIES)
        assert all(offer.how for offer in row.values())


def test_what_works_is_under_test() -> None:
    working = {cloud for cloud, row in OFFERS.items() if any(offer.state == "works" for offer in row.values())}
    assert working == {*BUILT, "kvm"}


def test_what_works_on_real_parts_is_under_the_whole_contract() -> None:
    here = Path(__file__).parent
    contracts = {
        path.name
        for path in (here / "contract").glob("test_*.py")
        if any(f'"{each}"' in path.read_text() for each in CAPABILITIES if OFFERS["kvm"][each].state == "works")
    }
    assert contracts == {path.name for path in (here.parent / "integration" / "contract").glob("test_*.py")}


def test_the_table_does_not_say_that_real_parts_were_run() -> None:
    assert table.cell("kvm", "Instances") in ("on real parts", f"works {table.results['kvm', 'Instances', 'passed']}")


def test_every_capability_has_a_contract() -> None:
    modules = "".join(path.read_text() for path in (Path(__file__).parent / "contract").glob("test_*.py"))
    assert all(f'pytestmark = pytest.mark.capability("{capability}")' in modules for capability in CAPABILITIES)


def test_an_adapter_has_what_the_table_says(cloud: Cloud) -> None:
    it_has_what_the_table_says(cloud.adapter)


def test_the_kvm_adapter_has_what_the_table_says() -> None:
    it_has_what_the_table_says(connect(KvmSettings(region="here")))


def it_has_what_the_table_says(adapter: Adapter) -> None:
    for capability, field in FIELDS.items():
        works = OFFERS[adapter.cloud][capability].state == "works"
        part = getattr(adapter, field)
        assert (part is not None) == works
        if works:
            protocol = getattr(capabilities, capability)
            missing = [name for name in vars(protocol) if name[0] != "_" and not hasattr(part, name)]
            assert not missing


def test_what_is_not_there_is_refused_with_the_reason(aws: AwsCloud) -> None:
    aws.adapter.require("BlockDelta")
    with pytest.raises(NotOffered, match="helper VM"):
        capabilities.Adapter("gcp").require("BlockDelta")
