"""What is Azure's own: error codes, signed addresses, page differences, names, settings, permissions."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from clouds import errors
from clouds.adapters import connect
from clouds.azure import pages
from clouds.azure.errors import translate
from clouds.azure.ids import parse
from clouds.azure.instances import AzureInstances
from clouds.capabilities import BlockDelta, ImageExport, ImageImport
from clouds.disks.content import BLOCK
from clouds.tokens import token
from models.clouds import AzureSettings, Cursor, DeltaOrder, ImageOrder
from tests.clouds.azure.arm import NOT_HERE, ROOT, SIZES, SUBSCRIPTION
from tests.clouds.azure.scene import AzureCloud
from tests.clouds.scene import Journal, Killed, MemoryDisk, boot_image, ignore, instance_order, order, small_disk

DOCS = Path(__file__).resolve().parents[3] / "docs" / "clouds.md"
CODE = Path(__file__).resolve().parents[3] / "clouds" / "azure"


@pytest.fixture
def disks(azure: AzureCloud) -> ImageImport:
    assert azure.adapter.image_import is not None
    return azure.adapter.image_import


@pytest.fixture
def export(azure: AzureCloud) -> ImageExport:
    assert azure.adapter.image_export is not None
    return azure.adapter.image_export


@pytest.fixture
def delta(azure: AzureCloud) -> BlockDelta:
    assert azure.adapter.block_delta is not None
    return azure.adapter.block_delta


@pytest.fixture
def instances(azure: AzureCloud) -> AzureInstances:
    assert isinstance(azure.adapter.instances, AzureInstances)
    return azure.adapter.instances


# Errors.


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("TooManyRequests", 429, errors.Throttled),
        ("ServerBusy", 503, errors.Throttled),
        ("AllocationFailed", 409, errors.Busy),
        ("OverconstrainedZonalAllocationRequest", 409, errors.Busy),
        ("AnotherOperationInProgress", 409, errors.Busy),
        ("ExpiredAuthenticationToken", 401, errors.CredentialsExpired),
        ("AuthenticationFailed", 403, errors.CredentialsExpired),
        ("AuthenticationFailed", 401, errors.NotAuthenticated),
        ("InvalidAuthenticationTokenTenant", 401, errors.NotAuthenticated),
        ("AuthorizationFailed", 403, errors.NotPermitted),
        ("LinkedAuthorizationFailed", 403, errors.NotPermitted),
        ("QuotaExceeded", 409, errors.QuotaExceeded),
        ("ResourceGroupNotFound", 404, errors.NotFound),
        ("SkuNotAvailable", 409, errors.Conflict),
        ("OperationNotAllowed", 409, errors.Conflict),
        ("NicInUse", 400, errors.Conflict),
        ("Md5Mismatch", 400, errors.Damaged),
        ("InternalServerError", 500, errors.Unavailable),
        ("SomethingNew", 502, errors.Unavailable),
        ("SomethingNew", 400, errors.Invalid),
        ("InternalExecutionError", 200, errors.OperationFailed),
        ("AllocationFailed", 200, errors.Busy),
    ],
)
def test_a_code_has_one_meaning(code: str, status: int, kind: type[errors.CloudError]) -> None:
    told = translate(_answer(code, "words", status), "do it")
    assert type(told) is kind
    assert str(told).startswith(f"cannot do it: Azure says {code}: words. ")
    assert told.code == code
    assert isinstance(told, errors.Retryable | errors.Final)


def test_the_one_code_for_two_things_is_told_apart_by_its_words() -> None:
    words = "Operation could not be completed as it results in exceeding approved Total Regional Cores quota."
    assert type(translate(_answer("OperationNotAllowed", words, 409), "do it")) is errors.QuotaExceeded


def test_a_bug_of_ours_is_not_dressed_up() -> None:
    bug = KeyError("x")
    assert translate(bug, "do it") is bug


def test_a_text_has_no_signature_in_it() -> None:
    from azure.core.exceptions import ServiceRequestError

    error = ServiceRequestError("Max retries exceeded with url: /c/abcd?sv=2018&sig=SECRET%3D&sr=b (refused)")
    assert "SECRET" not in str(translate(error, "write"))
    assert "sig=***&sr=b" in str(translate(error, "write"))


def test_without_credentials_it_says_how_to_give_some(azure: AzureCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.identity import CredentialUnavailableError

    told = translate(CredentialUnavailableError("DefaultAzureCredential failed to retrieve a token"), "list")
    assert isinstance(told, errors.NotAuthenticated)
    assert "az login" in str(told)


def _answer(code: str, message: str, status: int) -> Exception:
    from azure.core.exceptions import HttpResponseError

    class Response:
        status_code = status
        reason = "reason"
        headers: dict[str, str] = {}  # noqa: RUF012

        def text(self, _: str | None = None) -> str:
            return f'{{"error": {{"code": "{code}", "message": "{message}"}}}}'

        content_type = "application/json"

    error: Exception = HttpResponseError(response=Response())
    return error


# Signed addresses.


def test_an_upload_whose_address_expires_asks_for_another(azure: AzureCloud, disks: ImageImport) -> None:
    source = small_disk()
    azure.faults.on("PUT page", "expired", after=2)
    arrived = disks.import_disk(order(), source, ignore)
    assert azure.content(arrived.disk) == source.blocks()
    assert azure.faults.count("POST disks/beginGetAccess") == 2


def test_a_delta_whose_base_is_closed_by_somebody_else_asks_for_it_again(
    azure: AzureCloud, disks: ImageImport, delta: BlockDelta
) -> None:
    source = small_disk()
    base = disks.import_disk(order(), source, ignore).disk
    asked = DeltaOrder(name="vm-1-vda", token=token("move", "delta"), base=base)

    noted: list[Cursor] = []

    def close_once(cursor: Cursor) -> None:
        noted.append(cursor)
        if len(noted) == 2:
            azure.server.arm.blobs.expire()

    moved = delta.import_delta(asked, source, ((0, 9 * BLOCK),), close_once)
    assert azure.content(moved.disk) == source.blocks()


def test_an_upload_goes_on_after_days(azure: AzureCloud, disks: ImageImport) -> None:
    source, journal = small_disk(), Journal(deadly=4)
    with pytest.raises(Killed):
        disks.import_disk(order(), source, journal)
    azure.server.arm.blobs.expire()
    arrived = disks.import_disk(order(), source, ignore, journal.kept[-1])
    assert azure.content(arrived.disk) == source.blocks()


def test_what_was_read_can_be_deleted_and_attached_again(
    azure: AzureCloud, disks: ImageImport, export: ImageExport
) -> None:
    disk = disks.import_disk(order(), small_disk(), ignore).disk
    export.export_disk(disk, MemoryDisk(small_disk().size), ignore)
    (thing,) = azure.server.arm.things.values()
    assert thing.properties["diskState"] == "Unattached"
    assert not any(leave.good for leave in azure.server.arm.blobs.leaves.values())


def test_an_address_that_a_crash_left_is_taken_back_before_the_disk_is_deleted(
    azure: AzureCloud, disks: ImageImport
) -> None:
    disk = disks.import_disk(order(), small_disk(), ignore).disk
    name = disk.rpartition("/")[2]
    azure.session.run("read", "disks", "begin_grant_access", "lab", name, {"access": "Read", "durationInSeconds": 60})
    disks.delete_disk(disk)
    assert azure.things() == []


# Transfers.


def test_a_disk_ends_with_the_footer_of_a_fixed_vhd(azure: AzureCloud, disks: ImageImport) -> None:
    disks.import_disk(order(), small_disk(), ignore)
    (thing,) = azure.server.arm.things.values()
    assert thing.properties["creationData"]["uploadSizeBytes"] == (20 << 20) + 512, "Azure's smallest"
    assert thing.blob is not None
    assert bytes(thing.blob.held[-512:-504]) == b"conectix"


def test_a_read_is_one_call(azure: AzureCloud, disks: ImageImport, export: ImageExport) -> None:
    """The SDK alone would list all pages with each."""
    disk = disks.import_disk(order(), small_disk(), ignore).disk
    export.export_disk(disk, MemoryDisk(small_disk().size), ignore)
    assert (azure.faults.count("GET blob"), azure.faults.count("GET pagelist")) == (6, 1)


def test_a_list_of_pages_that_comes_in_pages_is_read_to_its_end(
    azure: AzureCloud, disks: ImageImport, export: ImageExport
) -> None:
    source = small_disk(0, 2, 4, 6, 8, 10)
    disk = disks.import_disk(order(), source, ignore).disk
    azure.server.arm.blobs.listed = 4
    target = MemoryDisk(source.size)
    export.export_disk(disk, target, ignore)
    assert target.held == source.held
    assert azure.faults.count("GET pagelist") == 2


def test_a_delta_copies_inside_azure_what_did_not_change(
    azure: AzureCloud, disks: ImageImport, delta: BlockDelta
) -> None:
    source = small_disk(*range(24), size=24 * BLOCK)
    base = disks.import_disk(order(), source, ignore).disk
    source.write(9 * BLOCK, b"new")
    before = azure.sent()
    asked = DeltaOrder(name="vm-1-vda", token=token("move", "delta"), base=base)
    moved = delta.import_delta(asked, source, ((9 * BLOCK, 3),), ignore)
    assert azure.content(moved.disk) == source.blocks()
    assert azure.sent() - before == BLOCK
    assert azure.faults.count("PUT page from URL") == 2 + 2, "9 blocks and 14, by 8"


def test_pages_that_a_guest_gave_back_are_zeros_and_not_read(
    azure: AzureCloud, disks: ImageImport, export: ImageExport, delta: BlockDelta, instances: AzureInstances
) -> None:
    made = instances.create_instance(instance_order(azure, boot_image(azure)), token("move", "run"))
    volume = made.disks[0].disk
    first = export.create_snapshot(volume, token("move", "snapshot/1")).id
    azure.server.arm.guest_trims(volume, 1)
    second = export.create_snapshot(volume, token("move", "snapshot/2")).id
    settled(disks, first, second)
    home = small_disk(0, 1)
    reads = azure.faults.count("GET blob")
    moved = delta.export_delta(first, second, home, ignore)
    assert home.blocks() == small_disk(0).blocks()
    assert (moved.blocks, azure.faults.count("GET blob") - reads) == (1, 0)


def test_a_list_of_changes_that_is_cut_short_is_asked_for_in_halves(
    azure: AzureCloud,
    disks: ImageImport,
    export: ImageExport,
    delta: BlockDelta,
    instances: AzureInstances,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SDK gives the first answer only and does not say that there is more."""
    made = instances.create_instance(instance_order(azure, boot_image(azure)), token("move", "run"))
    volume = made.disks[0].disk
    first = export.create_snapshot(volume, token("move", "snapshot/1")).id
    for index in range(0, 40, 2):
        azure.guest_writes(volume, index, b"new")
    second = export.create_snapshot(volume, token("move", "snapshot/2")).id
    settled(disks, first, second)
    monkeypatch.setattr(pages, "LISTED", 4)
    azure.server.arm.blobs.listed = 4
    home = MemoryDisk(20 << 20)
    home.held[: small_disk(0, 1).size] = small_disk(0, 1).held
    assert delta.export_delta(first, second, home, ignore).blocks == 20
    assert home.blocks() == azure.content(second)
    assert azure.faults.count("GET pagelist") > 20 / 4


def settled(disks: ImageImport, *ids: str) -> None:
    for id in ids:
        assert any(disks.get_snapshot(id).state == "ready" for _ in range(20))


def test_an_upload_that_dies_at_its_end_sends_nothing_again(azure: AzureCloud, disks: ImageImport) -> None:
    source, journal = small_disk(), Journal()
    azure.faults.on("POST disks/endGetAccess", "drop", times=3)
    with pytest.raises(errors.Unavailable):
        disks.import_disk(order(), source, journal)
    before = azure.faults.count("PUT page")
    arrived = disks.import_disk(order(), source, ignore, journal.kept[-1])
    assert azure.content(arrived.disk) == source.blocks()
    assert azure.faults.count("PUT page") == before
    assert azure.faults.count("POST disks/beginGetAccess") == 1


def test_a_size_that_differs_from_the_first_attempt_is_a_source_that_changed(
    azure: AzureCloud, disks: ImageImport
) -> None:
    disks.import_disk(order(), small_disk(), ignore)
    with pytest.raises(errors.SourceChanged, match="another step's token"):
        disks.import_disk(order(), MemoryDisk(30 << 20), ignore)


# Instances and images.


def test_a_vm_has_all_disks_of_its_image_and_takes_them_along(
    azure: AzureCloud, disks: ImageImport, instances: AzureInstances
) -> None:
    made = [disks.import_disk(order(f"disk/{n}"), small_disk(n), ignore).disk for n in range(3)]
    image = disks.create_image(
        ImageOrder(name="three", token=token("move", "image"), disks=tuple(made), firmware="uefi")
    )
    assert any(disks.get_image(image.id).state == "ready" for _ in range(20))
    before = azure.things()
    vm = instances.create_instance(instance_order(azure, image.id), token("move", "run"))
    assert [disk.device for disk in vm.disks] == ["os", "lun0", "lun1"]
    assert [azure.content(disk.disk) for disk in vm.disks] == [small_disk(n).blocks() for n in range(3)]
    instances.terminate_instance(vm.id)
    with pytest.raises(errors.NotFound):
        for _ in range(20):
            instances.get_instance(vm.id)
    assert azure.things() == before


def test_a_vm_that_cannot_be_made_leaves_no_interface(azure: AzureCloud, instances: AzureInstances) -> None:
    image = boot_image(azure)
    before = azure.things()
    azure.faults.on("PUT virtualMachines", "quota")
    with pytest.raises(errors.QuotaExceeded):
        instances.create_instance(instance_order(azure, image), token("move", "run"))
    for _ in range(5):
        azure.session.seek("look", "network_interfaces", "lab", f"novacron-{token('move', 'run').replace('-', '')}")
    assert azure.things() == before


def test_a_name_that_another_vm_has_is_a_conflict(azure: AzureCloud, instances: AzureInstances) -> None:
    image = boot_image(azure)
    instances.create_instance(instance_order(azure, image), token("move", "one"))
    with pytest.raises(errors.Conflict, match="Choose another name"):
        instances.create_instance(instance_order(azure, image), token("move", "other"))


def test_an_image_that_is_not_ready_is_busy(azure: AzureCloud, disks: ImageImport, instances: AzureInstances) -> None:
    azure.server.arm.slow = 10
    disk = disks.import_disk(order(), small_disk(0), ignore).disk
    image = disks.create_image(ImageOrder(name="slow", token=token("move", "image"), disks=(disk,)))
    assert image.state == "pending"
    with pytest.raises(errors.Busy, match="still being made"):
        instances.create_instance(instance_order(azure, image.id), token("move", "run"))


def test_an_order_that_azure_cannot_have_names_the_field(azure: AzureCloud) -> None:
    image = boot_image(azure)
    bare = connect(azure.settings.model_copy(update={"subnet": ""})).instances
    assert bare is not None
    wanted = instance_order(azure, image)
    with pytest.raises(errors.Invalid, match=r"AzureSettings\.subnet"):
        bare.create_instance(wanted, token("move", "run"))
    groups = wanted.model_copy(update={"security_groups": (f"{ROOT}/a", f"{ROOT}/b")})
    with pytest.raises(errors.Invalid, match="one network security group"):
        azure.adapter.instances.create_instance(groups, token("move", "run"))  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["disks", "snapshots", "virtualMachines"])
def test_what_azure_does_not_have_is_not_found(
    azure: AzureCloud, disks: ImageImport, instances: AzureInstances, kind: str
) -> None:
    look = instances.get_instance if kind == "virtualMachines" else disks.get_snapshot
    with pytest.raises(errors.NotFound, match="Check the id and the region"):
        look(f"{ROOT}/Microsoft.Compute/{kind}/missing")
    assert azure.faults.count(f"GET {kind}") == 1


def test_a_page_leads_to_azure_only(azure: AzureCloud, instances: AzureInstances) -> None:
    for page in ("0 https://elsewhere.example/x", "nonsense"):
        with pytest.raises(errors.Invalid, match="no page of a list"):
            instances.list_instances(page)


def test_ids_have_one_spelling() -> None:
    told = f"/SUBSCRIPTIONS/{SUBSCRIPTION.upper()}/resourcegroups/LAB/providers/microsoft.compute/DISKS/Vda"
    found = parse(told)
    assert str(found) == f"/subscriptions/{SUBSCRIPTION}/resourceGroups/LAB/providers/Microsoft.Compute/disks/Vda"
    for wrong in ("vm-1", f"{ROOT}/Microsoft.Network/disks/x", f"{ROOT}/Microsoft.Compute/disks", f"{told}/y/z"):
        assert parse(wrong) is None


def test_sizes_say_how_a_guest_reaches_its_disk_and_leave_out_what_is_not_to_be_had(azure: AzureCloud) -> None:
    catalogue = azure.adapter.catalogue
    assert catalogue is not None
    page = catalogue.list_sizes()
    sizes = {size.name: size for size in page.items}
    while page.next:
        page = catalogue.list_sizes(page.next)
        sizes |= {size.name: size for size in page.items}
    assert set(sizes) == set(SIZES) - {NOT_HERE}
    assert sizes["Standard_D2s_v6"].drivers == ("hv_vmbus", "nvme", "hv_netvsc")
    assert sizes["Standard_D2s_v5"].drivers == ("hv_vmbus", "hv_storvsc", "hv_netvsc")
    assert (sizes["Standard_D2ps_v5"].architecture, sizes["Standard_D2ps_v5"].firmware) == ("arm64", ("uefi",))


# Calls.


def test_retry_after_is_kept_to(azure: AzureCloud, disks: ImageImport, instances: AzureInstances) -> None:
    """Of a throttled call and of a long operation; the fake calls it drift when anybody comes earlier."""
    azure.server.pause = 1.0
    azure.faults.on("GET virtualMachines", "throttle")
    assert instances.list_instances().items == ()
    azure.session.run(
        "make a gallery", "galleries", "begin_create_or_update", "lab", "novacron", {"location": "eastus"}
    )
    assert azure.faults.count("GET operations") == 2


def test_an_operation_that_takes_too_long_is_unavailable_not_lost(azure: AzureCloud) -> None:
    azure.server.arm.slow = 10**6
    calls = azure.settings.calls.model_copy(update={"finish_within": 0.05})
    imports = connect(azure.settings.model_copy(update={"calls": calls})).image_import
    assert imports is not None
    with pytest.raises(errors.Unavailable, match="did not make disk novacron-"):
        imports.import_disk(order(), small_disk(), ignore)


def test_a_lost_answer_of_a_reboot_is_told_and_not_sent_again(azure: AzureCloud, instances: AzureInstances) -> None:
    vm = instances.create_instance(instance_order(azure, boot_image(azure)), token("move", "run"))
    azure.faults.on("POST virtualMachines/restart", "lose")
    with pytest.raises(errors.Unavailable):
        instances.reboot_instance(vm.id, token("move", "reboot"))
    assert azure.faults.count("POST virtualMachines/restart") == 1


def test_tokens_travel_encrypted_or_not_at_all() -> None:
    with pytest.raises(ValidationError, match="use https, or a loopback address"):
        AzureSettings(region="eastus", subscription=SUBSCRIPTION, resource_group="lab", endpoint_url="http://proxy:80")


def test_nobody_loads_the_sdk_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("azure.")] + ["azure"]:
        monkeypatch.setitem(sys.modules, name, None)
    adapter = connect(AzureSettings(region="eastus", subscription=SUBSCRIPTION, resource_group="lab"))
    assert adapter.instances is not None
    with pytest.raises(errors.MissingPackage, match=r"Install novacron\[azure\]"):
        adapter.instances.list_instances()


VERBS = {
    "get": "read",
    "list": "read",
    "begin_create_or_update": "write",
    "begin_update": "write",
    "begin_delete": "delete",
    "begin_start": "start/action",
    "begin_deallocate": "deallocate/action",
    "begin_restart": "restart/action",
    "begin_grant_access": "beginGetAccess/action",
    "begin_revoke_access": "endGetAccess/action",
}
PARTS = {
    "disks": "Microsoft.Compute/disks",
    "snapshots": "Microsoft.Compute/snapshots",
    "virtual_machines": "Microsoft.Compute/virtualMachines",
    "galleries": "Microsoft.Compute/galleries",
    "gallery_images": "Microsoft.Compute/galleries/images",
    "gallery_image_versions": "Microsoft.Compute/galleries/images/versions",
    "network_interfaces": "Microsoft.Network/networkInterfaces",
    "resource_skus": "Microsoft.Compute/skus",
    "usage": "Microsoft.Compute/locations/usages",
}
JOINED = {"Microsoft.Network/virtualNetworks/subnets/join/action", "Microsoft.Network/networkInterfaces/join/action"}
"""Checked by Azure on its own when an interface names a subnet, and a VM an interface."""
GROUPS_JOINED = {"Microsoft.Network/networkSecurityGroups/join/action", "Microsoft.Network/publicIPAddresses/read"}


def test_the_documented_role_allows_what_the_adapter_calls_and_no_more() -> None:
    section = DOCS.read_text().split("### Permissions on Azure")[1].split("```json\n")[1].split("```")[0]
    allowed = set(re.findall(r'"(Microsoft\.[^"]+)"', section))
    code = "\n".join(path.read_text() for path in CODE.glob("*.py")).replace("PART,", '"virtual_machines",')
    calls = set(re.findall(r'"([a-z_]+)",\s*"((?:begin_\w+|get|list))"', code))
    calls |= {(part, "get") for part in re.findall(r'seek\(\s*f?"[^"]*",\s*"([a-z_]+)"', code)}
    on_any_disk = set(re.findall(r'thing\.kind,\s*"((?:begin_\w+|get))"', code))
    calls |= {(part, verb) for part in ("disks", "snapshots") for verb in on_any_disk}
    assert len(calls) > 15
    assert {f"{PARTS[part]}/{VERBS[verb]}" for part, verb in calls} == allowed - JOINED - GROUPS_JOINED
