"""Lists of prices are refreshed from each provider's own interface, over HTTP: whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import cast

import pytest

from clouds import errors, prices
from clouds.prices.refresh import Wishes, refresh
from models.clouds import CallSettings, Cloud
from novacron.cli import run
from novacron.commands import prices as command
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.gcp.scene import GcpCloud
from tests.clouds.oci.scene import OciCloud
from tests.clouds.prices.public import PublicPrices

DAY = date(2026, 11, 24)
CALLS = CallSettings(attempts=3, read_timeout=5)
DISK_OF_E2 = {("pd-balanced", "gb-month"): 0.1, ("e2:cpu", "hour"): 0.02181159, ("e2:gb", "hour"): 0.00292353}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOVACRON_PRICES", str(tmp_path / "prices"))
    monkeypatch.setattr("clouds.attempts.time.sleep", lambda _: None)
    return tmp_path / "prices"


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[PublicPrices]:
    """With what Azure and Oracle told of their prices, and what is not meant among it."""
    server = PublicPrices()
    machines = "Virtual Machines Dsv5 Series"
    for size, usd in (("Standard_D2s_v5", 0.115), ("Standard_D4s_v5", 0.23), ("Standard_D8s_v5", 0.46)):
        meter = size.removeprefix("Standard_").replace("_", " ")
        server.azure("Virtual Machines", machines, meter, "1 Hour", usd, armSkuName=size)
        server.azure("Virtual Machines", machines, f"{meter} Spot", "1 Hour", usd * 2, armSkuName=size)
        server.azure("Virtual Machines", f"{machines} Windows", meter, "1 Hour", usd * 2, armSkuName=size)
        server.azure("Virtual Machines", machines, meter, "1 Hour", 9, armSkuName=size, type="Reservation")
        server.azure("Virtual Machines", machines, meter, "1 Hour", 9, armSkuName=size, armRegionName="eastus")
    server.azure("Storage", "Standard SSD Managed Disks", "E10 LRS Disk", "1/Month", 9.6)
    server.azure("Storage", "Standard SSD Managed Disks", "E10 LRS Disk Mount", "1/Month", 20)
    server.azure("Storage", "Standard SSD Managed Disks", "E10 LRS Disk Operations", "10K", 0.002)
    server.azure("Storage", "Standard HDD Managed Disks", "LRS Snapshots", "1 GB/Month", 0.05)
    for least, usd in ((0, 0), (100, 0.08), (10335, 0.06)):
        server.azure("Bandwidth", "Rtn Preference: MGN", "Standard Data Transfer Out", "1 GB", usd,
                     tierMinimumUnits=float(least), isPrimaryMeterRegion=False)  # fmt: skip
    server.oracle("Compute - Standard - E5 - OCPU", "OCPU Per Hour", 0.03)
    server.oracle("Compute - Standard - E5  - Memory", "Gigabytes Per Hour", 0.002)
    server.oracle("Compute - Standard - A1 - OCPU", "OCPU Per Hour", 0, 0.01)
    server.oracle("Oracle Compute Cloud@Customer - Compute - Standard - E5", "OCPU Per Hour", 3)
    server.oracle("Compute - Virtual Machine Standard - X7", "OCPU Per Hour", 0.0638)
    server.oracle("Storage - Block Volume - Storage", "Gigabyte Storage Capacity Per Month", 0.0255)
    server.oracle("Storage - Block Volume - Performance Units", "Performance Units Per Gigabyte Per Month", 0.0017)
    server.oracle("Outbound Data Transfer - Originating in North America, Europe, and UK", "Gigabyte", 0, 0.0085)
    server.oracle("Outbound Data Transfer - Originating in Middle East and Africa", "Gigabyte", 0, 0.05)
    yield server
    server.close()


def wishes(**endpoints: str) -> Wishes:
    return Wishes(cast(dict[Cloud, str], endpoints), CALLS)


def found(cloud: Cloud, region: str) -> dict[tuple[str, str], float]:
    return {(price.item, price.per): price.usd for price in prices.of(cloud, region)}


def test_aws_tells_its_prices_in_pages(aws: AwsCloud, folder: Path) -> None:
    told = aws.server.prices
    for number in range(130):
        told.size(f"m{number}.large", f"0.{1000 + number}000000")
    told.size("t3.micro", "0.0114000000")
    told.size("t3.micro", "0.0206000000", operatingSystem="Windows")
    told.size("t3.micro", "0.0000000000", usagetype="EU-Reservation:t3.micro")
    told.size("t3.micro", "0.0104000000", region="us-east-1")
    told.storage()
    aws.faults.on("GetProducts", "throttle")
    path = refresh("aws", "eu-west-1", wishes(aws=aws.server.url), DAY)
    assert path == folder / "aws-eu-west-1.json"
    rows = found("aws", "eu-west-1")
    assert len(rows) == 134
    assert rows["t3.micro", "hour"] == 0.0114
    assert (rows["gp3", "gb-month"], rows["snapshot", "gb-month"]) == (0.088, 0.05)
    assert rows["internet-egress", "gb"] == 0.09


def test_azure_tells_its_prices_in_pages(public: PublicPrices) -> None:
    public.faults.on("azure", "throttle", after=1)
    public.faults.on("azure", "drop", after=2)
    refresh("azure", "westeurope", wishes(azure=public.url), DAY)
    assert found("azure", "westeurope") == {
        ("Standard_D2s_v5", "hour"): 0.115,
        ("Standard_D4s_v5", "hour"): 0.23,
        ("Standard_D8s_v5", "hour"): 0.46,
        ("StandardSSD_LRS", "gb-month"): 0.075,
        ("snapshot", "gb-month"): 0.05,
        ("internet-egress", "gb"): 0.08,
    }


def test_google_tells_parts_that_machine_types_are_made_of(gcp: GcpCloud) -> None:
    told = gcp.server.catalogue
    told.add("E2 Instance Core running in Americas", "h", 0.02181159)
    told.add("E2 Instance Ram running in Americas", "GiBy.h", 0.00292353)
    told.add("Spot Preemptible E2 Instance Core running in Americas", "h", 0.9, usage="Preemptible")
    told.add("E2 Custom Instance Core running in Americas", "h", 0.9)
    told.add("N2 Instance Core running in EMEA", "h", 0.9, region="europe-west1")
    told.add("N2 Instance Core running in Americas", "h", 0.031611)
    told.add("N2 Instance Ram running in Americas", "GiBy.h", 0.004237)
    told.add("Balanced PD Capacity", "GiBy.mo", 0.1)
    told.add("Regional Balanced PD Capacity", "GiBy.mo", 0.2)
    told.add("Storage PD Snapshot", "GiBy.mo", 0, 0.05)
    told.add("Network Internet Egress from Americas to Americas", "GiBy", 0, 0.12, 0.11)
    told.add("Network Internet Egress from Americas to China", "GiBy", 0.23)
    gcp.faults.on("services.skus.list", "throttle", after=1)
    shipped = found("gcp", "us-east1")
    refresh("gcp", "us-east1", wishes(gcp=gcp.server.url), DAY)
    rows = found("gcp", "us-east1")
    assert rows == {
        **DISK_OF_E2,
        ("n2:cpu", "hour"): 0.031611,
        ("n2:gb", "hour"): 0.004237,
        ("snapshot", "gb-month"): 0.05,
        ("internet-egress", "gb"): 0.12,
    }
    catalogue = gcp.adapter.catalogue
    assert catalogue is not None
    made = {price.item: price.usd for price in catalogue.prices()}
    both = [size for size, per in shipped if per == "hour" and size in made]
    assert len(both) >= 3
    for size in both:
        assert made[size] == pytest.approx(shipped[size, "hour"], rel=0.001), "as another source has it"


def test_oracle_tells_parts_that_sizes_are_made_of(oci: OciCloud, public: PublicPrices) -> None:
    public.faults.on("oci", "unavailable")
    refresh("oci", "us-ashburn-1", wishes(oci=public.url), DAY)
    rows = found("oci", "us-ashburn-1")
    assert (rows["VM.Standard.A1.Flex:cpu", "hour"], rows["internet-egress", "gb"]) == (0.01, 0.0085)
    assert rows["block-volume", "gb-month"] == 0.0425
    catalogue = oci.adapter.catalogue
    assert catalogue is not None
    made = {price.item: price.usd for price in catalogue.prices()}
    assert made["VM.Standard.E5.Flex:2:32"] == 0.124
    assert made["VM.Standard2.4"] == 0.2552


def test_shapes_have_prices_without_an_update(oci: OciCloud) -> None:
    catalogue = oci.adapter.catalogue
    assert catalogue is not None
    made = {price.item: price for price in catalogue.prices()}
    assert made["VM.Standard.E5.Flex:2:32"].usd == 0.124
    assert made["VM.Standard.E5.Flex:2:32"].as_of == date(2026, 1, 5)


@pytest.mark.parametrize("fault", ["damage", "throttle", "unavailable", "drop"])
def test_an_update_that_fails_leaves_the_old_list(public: PublicPrices, folder: Path, fault: str) -> None:
    refresh("azure", "westeurope", wishes(azure=public.url), DAY)
    before = (folder / "azure-westeurope.json").read_bytes()
    public.faults.on("azure", fault, times=1000, after=2)  # type: ignore[arg-type]
    with pytest.raises(errors.CloudError, match="cannot list Azure's prices"):
        refresh("azure", "westeurope", wishes(azure=public.url))
    assert [path.name for path in folder.iterdir()] == ["azure-westeurope.json"]
    assert (folder / "azure-westeurope.json").read_bytes() == before


def test_half_a_list_is_refused(public: PublicPrices, gcp: GcpCloud, folder: Path) -> None:
    public.items = [item for item in public.items if item["serviceName"] != "Storage"]
    with pytest.raises(errors.Damaged, match="0 of storage"):
        refresh("azure", "westeurope", wishes(azure=public.url))
    with pytest.raises(errors.Damaged, match="Check the region's name"):
        refresh("azure", "atlantis", wishes(azure=public.url))
    public.items[0]["retailPrice"] = "cheap"
    with pytest.raises(errors.Damaged, match="not as documented"):
        refresh("azure", "westeurope", wishes(azure=public.url))
    gcp.server.catalogue.damage = True
    with pytest.raises(errors.Damaged, match="not as documented"):
        refresh("gcp", "us-east1", wishes(gcp=gcp.server.url))
    assert not folder.exists()


def test_a_list_does_not_go_on_at_another_host(public: PublicPrices) -> None:
    public.leads_to = "http://127.0.0.2:1"
    with pytest.raises(errors.Damaged, match="another host"):
        refresh("azure", "westeurope", wishes(azure=public.url))


def test_what_may_not_be_asked_is_told_with_its_remedy(aws: AwsCloud) -> None:
    aws.faults.on("GetProducts", "permission")
    with pytest.raises(errors.NotPermitted, match="AccessDenied"):
        refresh("aws", "eu-west-1", wishes(aws=aws.server.url))
    with pytest.raises(errors.NotOffered, match="no list of prices"):
        refresh("kvm", "rack-1", wishes())
    with pytest.raises(errors.Invalid, match="is no region"):
        refresh("oci", "../../etc", wishes())


def test_a_users_file_that_is_damaged_is_not_used_and_said(public: PublicPrices, folder: Path) -> None:
    folder.mkdir()
    (folder / "azure-eastus.json").write_text('{"as_of": "2026-11-24"')
    known = prices.find("azure", "eastus")
    assert known is not None
    assert known.file is None
    assert "azure-eastus.json, which is no list of prices" in prices.of("azure", "eastus")[0].source


def test_a_list_cannot_be_written_where_a_file_is(public: PublicPrices, folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(errors.Final, match="NOVACRON_PRICES to another folder"):
        refresh("azure", "westeurope", wishes(azure=public.url))


@pytest.fixture
def told(public: PublicPrices, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> PublicPrices:
    monkeypatch.setattr(command, "WISHES", wishes(azure=public.url, oci=public.url))
    return public


def test_the_command_updates_a_place_and_says_which_file_is_used(
    told: PublicPrices, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cloud", "prices", "--place", "azure:westeurope", "--update"]) == 0
    assert str(folder / "azure-westeurope.json") in capsys.readouterr().out
    assert run(["cloud", "prices", "--place", "azure:westeurope", "--json"]) == 0
    (place,) = json.loads(capsys.readouterr().out)["places"]
    assert (place["file"], place["count"]) == (str(folder / "azure-westeurope.json"), 6)
    assert {"item": "snapshot", "per": "gb-month", "usd": 0.05} in place["prices"]
    assert run(["cloud", "prices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "aws:us-east-1", "azure:eastus", "azure:westeurope", "gcp:us-east1", "oci:all",
    ]  # fmt: skip
    assert lines[2].rstrip().endswith("NovaCron's own list")


def test_the_command_keeps_the_old_list_and_says_why(
    told: PublicPrices, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cloud", "prices", "--place", "azure:westeurope", "--update"]) == 0
    told.faults.on("azure", "damage", times=1000)
    capsys.readouterr()
    assert run(["cloud", "prices", "--place", "azure:westeurope", "--update"]) == 1
    out, err = capsys.readouterr()
    assert "not updated: cannot list Azure's prices of Virtual Machines: the answer is no JSON" in out
    assert "as they were" in err
    assert run(["cloud", "prices", "--place", "azure:westeurope", "--update", "--json"]) == 1
    (place,) = json.loads(capsys.readouterr().out)["places"]
    assert "no JSON" in place["why"]
    assert place["count"] == 6


def test_the_command_refuses_what_is_no_place(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("mars", "kvm:rack-1", "aws:"):
        assert run(["cloud", "prices", "--place", wrong]) == 2
        assert "--place" in capsys.readouterr().err
    assert run(["cloud", "prices", "--place", "aws:eu-north-1"]) == 2
    assert "--update" in capsys.readouterr().err
