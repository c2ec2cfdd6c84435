"""The fake refuses what Azure refuses: without this, the contract would prove nothing."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.compute import models as compute
from azure.storage.blob import BlobClient

from clouds.disks.vhd import footer
from clouds.errors import CloudError, Conflict, Invalid, OperationFailed
from clouds.tokens import token
from tests.clouds.azure.arm import ROOT, SUBNET
from tests.clouds.azure.scene import AzureCloud
from tests.clouds.azure.wire import Drift, judge_answer, judge_request

SIZE = 20 << 20


def upload(azure: AzureCloud, name: str = "d", size: int = SIZE + 512) -> Any:
    creation = {"createOption": "Upload", "uploadSizeBytes": size}
    body = {"location": "eastus", "properties": {"creationData": creation}}
    return azure.session.run("make", "disks", "begin_create_or_update", "lab", name, body)


def grant(azure: AzureCloud, name: str = "d", access: str = "Write") -> str:
    body = {"access": access, "durationInSeconds": 60}
    return str(azure.session.run("open", "disks", "begin_grant_access", "lab", name, body).access_sas)


def blob(url: str) -> Any:
    return BlobClient.from_blob_url(url, retry_total=0)


@pytest.mark.parametrize("size", [SIZE, SIZE + 1024, (10 << 20) + 512, SIZE + 512 + 4096])
def test_an_upload_of_another_size_is_refused(azure: AzureCloud, size: int) -> None:
    with pytest.raises(Invalid, match="20 MiB at least"):
        upload(azure, size=size)


def test_a_disk_that_is_attached_or_complete_takes_no_writes(azure: AzureCloud) -> None:
    upload(azure)
    url = grant(azure)
    blob(url).upload_page(footer(SIZE, token("a", "b")), offset=SIZE, length=512)
    azure.session.run("end", "disks", "begin_revoke_access", "lab", "d")
    with pytest.raises(HttpResponseError, match="AuthenticationFailed"):
        blob(url).upload_page(bytes(512), offset=0, length=512)
    with pytest.raises(Conflict, match="Write access is not permitted"):
        grant(azure)
    reader = blob(grant(azure, access="Read"))
    with pytest.raises(HttpResponseError, match="AuthorizationPermissionMismatch"):
        reader.upload_page(bytes(512), offset=0, length=512)


@pytest.mark.parametrize("tail", [b"", b"conectix", footer(SIZE + (1 << 20), token("a", "b"))])
def test_an_upload_without_its_footer_does_not_end_well(azure: AzureCloud, tail: bytes) -> None:
    upload(azure)
    blob(grant(azure)).upload_page(tail.ljust(512, b"\0"), offset=SIZE, length=512)
    with pytest.raises(OperationFailed, match="InvalidVhd"):
        azure.session.run("end", "disks", "begin_revoke_access", "lab", "d")


def test_nothing_is_deleted_that_an_address_leads_to(azure: AzureCloud) -> None:
    upload(azure)
    grant(azure)
    with pytest.raises(Conflict, match="active shared access signature"):
        azure.session.run("delete", "disks", "begin_delete", "lab", "d")


def test_pages_are_whole_inside_and_small(azure: AzureCloud) -> None:
    upload(azure)
    client = blob(grant(azure))
    for offset, length in ((SIZE, 1024), (0, (4 << 20) + 512)):
        with pytest.raises(HttpResponseError, match="InvalidPageRange"):
            client.upload_page(bytes(length), offset=offset, length=length)


def test_bytes_that_change_on_the_way_in_are_refused(azure: AzureCloud) -> None:
    upload(azure)
    wrong = {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    with pytest.raises(HttpResponseError, match="Md5Mismatch"):
        blob(grant(azure)).upload_page(b"\1" * 512, offset=0, length=512, headers=wrong)


def test_disks_of_two_lines_have_no_difference(azure: AzureCloud) -> None:
    urls = []
    for name in ("one", "two"):
        upload(azure, name)
        blob(grant(azure, name)).upload_page(footer(SIZE, token("a", "b")), offset=SIZE, length=512)
        azure.session.run("end", "disks", "begin_revoke_access", "lab", name)
        urls.append(grant(azure, name, "Read"))
    with pytest.raises(HttpResponseError, match="PreviousSnapshotNotFound"):
        blob(urls[0]).get_page_range_diff_for_managed_disk(urls[1])


def test_a_vm_needs_its_interface_its_image_and_nothing_to_provision(azure: AzureCloud) -> None:
    body: dict[str, Any] = {
        "location": "eastus",
        "properties": {
            "hardwareProfile": {"vmSize": azure.size},
            "storageProfile": {
                "imageReference": {"id": f"{ROOT}/Microsoft.Compute/galleries/g/images/i/versions/1.0.0"},
                "osDisk": {"createOption": "FromImage"},
            },
            "networkProfile": {"networkInterfaces": [{"id": f"{ROOT}/Microsoft.Network/networkInterfaces/n"}]},
        },
    }
    with pytest.raises(CloudError, match="was not found"):
        azure.session.call("run", "virtual_machines", "begin_create_or_update", "lab", "vm", body)
    body["properties"]["osProfile"] = {"computerName": "vm"}
    with pytest.raises(Invalid, match="the image is specialized"):
        azure.session.call("run", "virtual_machines", "begin_create_or_update", "lab", "vm", body)


def test_a_subnet_has_to_be_there(azure: AzureCloud) -> None:
    address = {"name": "primary", "properties": {"subnet": {"id": f"{SUBNET}x"}}}
    body = {"location": "eastus", "properties": {"ipConfigurations": [address]}}
    with pytest.raises(Invalid, match="InvalidResourceReference"):
        azure.session.run("make", "network_interfaces", "begin_create_or_update", "lab", "n", body)


GOOD = {"location": "eastus", "properties": {"creationData": {"createOption": "Upload", "uploadSizeBytes": 512}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 5}, "does not know"),
        ({"id": "x"}, "read-only"),
        ({"location": 5}, "not <class 'str'>"),
        ({"properties": {}}, "requires"),
        ({"properties": {"creationData": {"createOption": "Upoad"}}}, "not one of"),
        ({"properties": {"creationData": {"createOption": "Upload", "uploadSizeBytes": "512"}}}, "not <class 'int'>"),
    ],
)
def test_what_the_model_does_not_know_is_drift(change: dict[str, Any], words: str) -> None:
    judge_request(GOOD, compute.Disk, "request")
    with pytest.raises(Drift, match=words):
        judge_request({**GOOD, **change}, compute.Disk, "request")


def test_an_answer_may_have_what_a_request_may_not() -> None:
    judge_answer({**GOOD, "id": "x"}, compute.Disk, "answer")
