"""What is Oracle's own: error codes, sizes, firmware, uploads that were given up, settings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from oci import exceptions as theirs

from clouds import errors
from clouds.adapters import connect
from clouds.capabilities import ImageImport, Instances
from clouds.disks.content import BLOCK
from clouds.oci.errors import translate
from clouds.tokens import token
from models.clouds import ImageOrder
from tests.clouds.oci.fake import COMPARTMENT
from tests.clouds.oci.scene import OciCloud
from tests.clouds.scene import Journal, Killed, MemoryDisk, boot_image, ignore, instance_order, order, small_disk

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def images(oci: OciCloud) -> ImageImport:
    assert oci.adapter.image_import is not None
    return oci.adapter.image_import


@pytest.fixture
def instances(oci: OciCloud) -> Instances:
    assert oci.adapter.instances is not None
    return oci.adapter.instances


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "TooManyRequests", errors.Throttled),
        (400, "LimitExceeded", errors.QuotaExceeded),
        (400, "QuotaExceeded", errors.QuotaExceeded),
        (401, "NotAuthenticated", errors.CredentialsExpired),
        (403, "NotAuthorized", errors.NotPermitted),
        (404, "NotAuthorizedOrNotFound", errors.NotFound),
        (404, "ObjectNotFound", errors.NotFound),
        (404, None, errors.NotFound),  # of a HEAD, which has no words
        (409, "IncorrectState", errors.Conflict),
        (409, "InvalidatedRetryToken", errors.Conflict),
        (412, "NoEtagMatch", errors.Busy),
        (412, "IfNoneMatchFailed", errors.Busy),
        (500, "InternalServerError", errors.Unavailable),
        (400, "InvalidParameter", errors.Invalid),
    ],
)
def test_a_code_has_one_meaning(status: int, code: str | None, kind: type[errors.CloudError]) -> None:
    told = translate(theirs.ServiceError(status, code, {}, "words"), "do it")
    assert type(told) is kind
    assert str(told).startswith(f"cannot do it: Oracle says {status} {code or ''}: words. ")


def test_a_full_house_is_no_error_of_oracles_own() -> None:
    told = translate(theirs.ServiceError(500, "InternalError", {}, "Out of host capacity."), "do it")
    assert type(told) is errors.Busy


def test_a_bug_of_ours_is_not_dressed_up() -> None:
    bug = KeyError("x")
    assert translate(bug, "do it") is bug


def test_oracle_is_given_the_time_it_asks_for(
    oci: OciCloud, instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("clouds.attempts.time.sleep", pauses.append)
    oci.server.headers_of_faults = {"Retry-After": "7"}
    oci.faults.on(oci.calls.list, "throttle", times=2)
    instances.list_instances()
    assert pauses == [7.0, 7.0]


@pytest.mark.parametrize(("firmware", "mode"), [("bios", "PARAVIRTUALIZED"), ("uefi", "CUSTOM")])
def test_an_image_has_the_firmware_that_it_needs(oci: OciCloud, images: ImageImport, firmware: str, mode: str) -> None:
    disk = images.import_disk(order(), small_disk(), ignore).disk
    made = images.create_image(
        ImageOrder.model_validate(
            {"name": "vm-1", "token": token("move/lab", "image"), "disks": [disk], "firmware": firmware}
        )
    )
    assert made.firmware == firmware
    assert oci.server.cloud.images[made.id]["launchMode"] == mode


def test_what_oracle_has_no_way_for_is_refused(oci: OciCloud, images: ImageImport) -> None:
    disk = images.import_disk(order(), small_disk(), ignore).disk
    two = ImageOrder(name="vm-1", token=token("move/lab", "image"), disks=(disk, disk))
    with pytest.raises(errors.NotOffered, match="helper VM"):
        images.create_image(two)
    arm = ImageOrder(name="vm-1", token=token("move/lab", "image"), disks=(disk,), architecture="arm64")
    with pytest.raises(errors.NotOffered, match="Arm"):
        images.create_image(arm)

    class Large(MemoryDisk):
        def __post_init__(self) -> None:
            self.held = bytearray()

    with pytest.raises(errors.BadDisk, match="Oracle imports"):
        images.import_disk(order("large"), Large((400 << 30) + 512), ignore)


def test_an_upload_that_was_given_up_is_begun_anew(oci: OciCloud, images: ImageImport) -> None:
    source, journal = small_disk(), Journal(deadly=4)
    with pytest.raises(Killed):
        images.import_disk(order(), source, journal)
    oci.server.cloud.uploads.clear()
    arrived = images.import_disk(order(), source, ignore, journal.kept[-1])
    assert oci.content(arrived.disk) == source.blocks()
    assert oci.things() == [arrived.disk]


def test_parts_that_are_there_are_not_sent_again(oci: OciCloud, images: ImageImport) -> None:
    source, journal = small_disk(*range(20), size=20 * BLOCK), Journal(deadly=15)
    with pytest.raises(Killed):
        images.import_disk(order(), source, journal)
    before = oci.sent()
    images.import_disk(order(), source, ignore)  # its cursor was lost
    assert oci.sent() - before < 8 * BLOCK


def test_bytes_that_changed_on_the_way_are_refused(oci: OciCloud, images: ImageImport) -> None:
    oci.faults.on(oci.calls.write, "damage")
    with pytest.raises(errors.Invalid, match="UnmatchedContentMD5"):
        images.import_disk(order(), small_disk(), ignore)


def test_a_compartment_that_may_not_be_seen_is_no_empty_one(oci: OciCloud) -> None:
    other = connect(oci.settings.model_copy(update={"compartment": COMPARTMENT + "other"}))
    assert other.instances is not None
    with pytest.raises(errors.NotPermitted, match="IAM policy"):
        other.instances.list_instances()


def test_a_size_of_a_flexible_shape_says_how_much_of_it(oci: OciCloud, instances: Instances) -> None:
    catalogue = oci.adapter.catalogue
    assert catalogue is not None
    sizes = {size.name: size for size in catalogue.list_sizes().items}
    assert (sizes["VM.Standard.E5.Flex:4:64"].vcpus, sizes["VM.Standard.E5.Flex:4:64"].memory_mib) == (8, 65536)
    assert sizes["VM.Standard.A1.Flex:4:64"].firmware == ("uefi",)
    assert sizes["VM.Standard2.2"].vcpus == 4
    assert not [name for name in sizes if name.startswith("BM.")]
    made = instance_order(oci, boot_image(oci)).model_copy(update={"size": "VM.Standard2.2", "name": "vm-2"})
    assert instances.create_instance(made, token("move/lab", "vm-2")).size == "VM.Standard2.2"
    for wrong in ("VM.Standard.E5.Flex:much", "VM.Standard.E5.Flex:1:2:3"):
        with pytest.raises(errors.Invalid, match="no shape"):
            instances.create_instance(made.model_copy(update={"size": wrong, "name": "vm-3"}), token("m", wrong))


def test_no_configuration_file_is_told_with_its_remedy(
    oci: OciCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OCI_CONFIG_FILE", str(tmp_path / "none"))
    adapter = connect(oci.settings)
    assert adapter.instances is not None
    with pytest.raises(errors.NotAuthenticated, match="oci setup config"):
        adapter.instances.list_instances()


def test_the_documented_policy_names_every_family_that_is_used() -> None:
    page = (ROOT / "docs" / "clouds.md").read_text().split("### Permissions on Oracle Cloud")[1].split("\n### ")[0]
    families = set(re.findall(r"Allow group \S+ to \w+ ([a-z-]+) in", page))
    code = "\n".join(path.read_text() for path in (ROOT / "clouds" / "oci").glob("*.py"))
    services = set(re.findall(r'"(compute|network|volumes|requests|storage|limits)",\s*"[a-z_]+"', code)) | {"storage"}
    needed = {
        "compute": {"instance-family", "volume-family"},
        "network": {"virtual-network-family"},
        "volumes": {"volume-family"},
        "requests": {"work-requests"},
        "storage": {"objects"},
        "limits": {"resource-availability"},
    }
    assert families == set[str]().union(*(needed[service] for service in services))


def test_nobody_loads_oracles_package_before_the_first_call(oci: OciCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "oci", None)
    adapter = connect(oci.settings)
    assert adapter.instances is not None
    with pytest.raises(errors.MissingPackage, match=r"Install novacron\[oci\]"):
        adapter.instances.list_instances()
