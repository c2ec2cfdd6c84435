"""What is Google's own: error codes, operations, uploads that lost their session, names, settings."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions as theirs
from google.auth import exceptions as auth
from google.cloud import compute_v1
from pydantic import TypeAdapter, ValidationError

from clouds import errors
from clouds.adapters import connect
from clouds.capabilities import ImageImport, Instances
from clouds.gcp import names
from clouds.gcp.errors import of_operation, retry_after, translate
from clouds.prices import of
from clouds.tokens import token
from models.clouds import AwsSettings, CallSettings, CloudSettings, GcpSettings, ImageOrder
from tests.clouds.gcp.compute import GIB
from tests.clouds.gcp.scene import GcpCloud
from tests.clouds.gcp.server import PART
from tests.clouds.scene import Journal, Killed, boot_image, ignore, instance_order, order, small_disk

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def images(gcp: GcpCloud) -> ImageImport:
    assert gcp.adapter.image_import is not None
    return gcp.adapter.image_import


@pytest.fixture
def instances(gcp: GcpCloud) -> Instances:
    assert gcp.adapter.instances is not None
    return gcp.adapter.instances


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "rateLimitExceeded", errors.Throttled),
        (403, "userRateLimitExceeded", errors.Throttled),
        (429, "", errors.Throttled),
        (403, "quotaExceeded", errors.QuotaExceeded),
        (403, "dailyLimitExceeded", errors.QuotaExceeded),
        (403, "forbidden", errors.NotPermitted),
        (403, "accessNotConfigured", errors.NotPermitted),
        (403, "somethingNew", errors.NotPermitted),
        (401, "authError", errors.CredentialsExpired),
        (401, "required", errors.NotAuthenticated),
        (404, "notFound", errors.NotFound),
        (409, "alreadyExists", errors.Conflict),
        (400, "resourceInUseByAnotherResource", errors.Conflict),
        (400, "resourceNotReady", errors.Busy),
        (412, "conditionNotMet", errors.Busy),
        (503, "backendError", errors.Unavailable),
        (502, "", errors.Unavailable),
        (400, "invalid", errors.Invalid),
    ],
)
def test_a_code_has_one_meaning(status: int, reason: str, kind: type[errors.CloudError]) -> None:
    told = translate(theirs.from_http_status(status, "words", errors=[{"reason": reason}]), "do it")
    assert type(told) is kind
    assert str(told).startswith(f"cannot do it: Google says {status} {reason}: words. ")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (auth.DefaultCredentialsError("none"), errors.NotAuthenticated),
        (auth.RefreshError("revoked"), errors.CredentialsExpired),
        (auth.TransportError("no way"), errors.Unavailable),
    ],
)
def test_credentials_have_their_own(error: Exception, kind: type[errors.CloudError]) -> None:
    assert type(translate(error, "do it")) is kind


def test_a_bug_of_ours_is_not_dressed_up() -> None:
    bug = KeyError("x")
    assert translate(bug, "do it") is bug


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("QUOTA_EXCEEDED", errors.QuotaExceeded),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", errors.Busy),
        ("RESOURCE_NOT_FOUND", errors.NotFound),
        ("RESOURCE_ALREADY_EXISTS", errors.Conflict),
        ("PERMISSIONS_ERROR", errors.NotPermitted),
        ("INTERNAL_ERROR", errors.Unavailable),
        ("SOMETHING_NEW", errors.OperationFailed),
    ],
)
def test_an_operation_that_failed_says_of_what(code: str, kind: type[errors.CloudError]) -> None:
    told = compute_v1.Operation(name="op", error={"errors": [{"code": code, "message": "words"}]})
    assert type(of_operation(told, "do it")) is kind
    assert of_operation(compute_v1.Operation(name="op"), "do it") is None


def test_google_is_given_the_time_it_asks_for(gcp: GcpCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("clouds.attempts.time.sleep", pauses.append)
    gcp.server.headers_of_faults = {"Retry-After": "7"}
    gcp.faults.on(gcp.calls.list, "throttle", times=2)
    assert gcp.adapter.instances is not None
    gcp.adapter.instances.list_instances()
    assert pauses == [7.0, 7.0]
    assert retry_after(ValueError()) == 0


def test_a_quota_of_an_operation_is_told_and_room_lets_the_same_step_go_on(gcp: GcpCloud, instances: Instances) -> None:
    """Google answers one request id with the operation that failed, for an hour; the step is not stuck for so long."""
    made = instance_order(gcp, boot_image(gcp))
    gcp.server.compute.fail_next["instances.insert"] = ("QUOTA_EXCEEDED", "Quota 'CPUS' exceeded.", 403)
    with pytest.raises(errors.QuotaExceeded, match="Ask for more"):
        instances.create_instance(made, token("move/lab", "run"))
    found = instances.create_instance(made, token("move/lab", "run"))
    assert list(gcp.server.compute.instances) == [found.id]


def test_a_zone_that_is_full_is_told_by_start(gcp: GcpCloud, instances: Instances) -> None:
    made = instances.create_instance(instance_order(gcp, boot_image(gcp)), token("move/lab", "run"))
    instances.stop_instance(made.id)
    while instances.get_instance(made.id).state != "stopped":
        pass
    gcp.server.compute.fail_next["instances.start"] = ("ZONE_RESOURCE_POOL_EXHAUSTED", "No room.", 503)
    with pytest.raises(errors.Busy, match="none of these now"):
        instances.start_instance(made.id)


def test_an_instance_has_all_disks_of_its_image(gcp: GcpCloud, images: ImageImport, instances: Instances) -> None:
    sources = [small_disk(0), small_disk(5)]
    disks = [images.import_disk(order(f"disk/{n}", f"vm-1-vd{n}"), s, ignore).disk for n, s in enumerate(sources)]
    image = images.create_image(ImageOrder(name="vm-1", token=token("move/lab", "image"), disks=tuple(disks)))
    made = instances.create_instance(instance_order(gcp, image.id), token("move/lab", "run"))
    held = [gcp.server.compute.disks[disk.disk] for disk in made.disks]
    assert held == [source.blocks() for source in sources]
    assert [disk.boot for disk in made.disks] == [True, False]


def test_a_session_that_google_forgot_is_replaced(gcp: GcpCloud, images: ImageImport) -> None:
    source, journal = small_disk(), Journal(deadly=4)
    with pytest.raises(Killed):
        images.import_disk(order(), source, journal)
    gcp.server.storage.sessions.clear()
    arrived = images.import_disk(order(), source, ignore, journal.kept[-1])
    assert gcp.content(arrived.disk) == source.blocks()


def test_what_google_keeps_of_a_part_is_what_counts(gcp: GcpCloud, images: ImageImport) -> None:
    gcp.server.storage.take_at_most = 256 << 10
    source = small_disk()
    assert gcp.content(images.import_disk(order(), source, ignore).disk) == source.blocks()


def test_a_google_that_takes_nothing_is_unavailable(gcp: GcpCloud, images: ImageImport) -> None:
    gcp.server.storage.take_at_most = 0
    with pytest.raises(errors.Unavailable, match="took none of bytes"):
        images.import_disk(order(), small_disk(), ignore)


def test_bytes_that_changed_on_the_way_are_seen_before_they_become_a_disk(gcp: GcpCloud, images: ImageImport) -> None:
    gcp.faults.on(PART, "damage", after=3)
    with pytest.raises(errors.Damaged, match="sent again"):
        images.import_disk(order(), small_disk(), ignore)
    assert gcp.things() == []
    source = small_disk()
    assert gcp.content(images.import_disk(order(), source, ignore).disk) == source.blocks()


@pytest.mark.parametrize("told", ['{"session": 1}', "no record", None])
def test_a_record_of_somebody_elses_is_not_followed(gcp: GcpCloud, images: ImageImport, told: str | None) -> None:
    """Who may write into the bucket could else send the disk, and our credentials, where he likes."""
    journal = Journal(deadly=4)
    with pytest.raises(Killed):
        images.import_disk(order(), small_disk(), journal)
    (record,) = gcp.server.storage.objects.values()
    record.data = told.encode() if told else record.data.replace(b"http://127.0.0.1:", b"http://127.0.0.2:")
    sent = gcp.sent()
    with pytest.raises(errors.Conflict, match="is not ours"):
        images.import_disk(order(), small_disk(), ignore)
    assert gcp.sent() == sent


def test_nothing_of_an_upload_stays_in_the_bucket(gcp: GcpCloud, images: ImageImport) -> None:
    images.import_disk(order(), small_disk(), ignore)
    journal = Journal(deadly=4)
    with pytest.raises(Killed):
        images.import_disk(order("half"), small_disk(), journal)
    assert list(gcp.server.storage.objects) == [f"novacron/{journal.kept[-1].disk}.json"]
    assert gcp.server.storage.sessions.popitem()[1].done is None
    images.delete_disk(journal.kept[-1].disk)
    assert gcp.server.storage.objects == {}


def test_no_cursor_tells_where_an_upload_may_be_written(gcp: GcpCloud, images: ImageImport) -> None:
    journal = Journal()
    images.import_disk(order(), small_disk(), journal)
    assert not any("session" in cursor.model_dump_json() for cursor in journal.kept)


def test_an_import_that_takes_too_long_is_unavailable_and_goes_on(gcp: GcpCloud) -> None:
    gcp.server.compute.slow = 10**6
    calls = gcp.settings.calls.model_copy(update={"finish_within": 0.05})
    imports = connect(gcp.settings.model_copy(update={"calls": calls})).image_import
    assert imports is not None
    with pytest.raises(errors.Unavailable, match="did not import"):
        imports.import_disk(order(), small_disk(), ignore)
    for operation in gcp.server.compute.operations.values():
        operation.looks = 1
    assert imports.import_disk(order(), small_disk(), ignore).size == GIB
    assert gcp.faults.count("images.insert") == 1


def test_a_name_that_google_does_not_take_becomes_one_that_it_does() -> None:
    step = token("move/lab", "run")
    assert names.resource("vm-1", step) == "vm-1"
    for name in ("VM_1", "1vm", "a." * 31, "vm-"):
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", names.resource(name, step))
    assert names.resource("VM_1", step) != names.resource("VM_1", token("move/lab", "other"))


def test_a_tag_that_is_no_label_is_refused_by_its_name(gcp: GcpCloud, images: ImageImport) -> None:
    wrong = order().model_copy(update={"tags": {"Owner": "Ann"}})
    with pytest.raises(errors.Invalid, match="tag 'Owner'='Ann'"):
        images.import_disk(wrong, small_disk(), ignore)
    assert gcp.faults.calls == []


IN_ADDITION = {
    "compute.images.setLabels", "compute.images.useReadOnly", "compute.disks.create", "compute.disks.setLabels",
    "compute.instances.setMetadata", "compute.instances.setTags", "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp", "storage.objects.create", "storage.objects.get", "storage.objects.delete",
}  # fmt: skip
"""What Google asks for beside the permission that a compute call is named after."""


def test_the_documented_permissions_are_those_of_the_calls_and_no_more() -> None:
    page = (ROOT / "docs" / "clouds.md").read_text().split("### Permissions on Google Cloud")[1].split("\n### ")[0]
    allowed = set(re.findall(r"`((?:compute|storage)\.\w+\.\w+)`", page))
    code = "\n".join(path.read_text() for path in (ROOT / "clouds" / "gcp").glob("*.py"))
    calls = set(re.findall(r'"([A-Z]\w+)",\s*"([a-z_]+)"', code))
    calls |= {("Instances", method) for method in re.findall(r'"([a-z_]+)", instance\b', code)}
    names = {"insert": "create", "aggregated_list": "list", "set_labels": "setLabels"}
    methods = {(service, method.removesuffix("_unary")) for service, method in calls}
    needed = {f"compute.{one[0].lower()}{one[1:]}.{names.get(method, method)}" for one, method in methods}
    assert len(needed) > 12
    assert allowed == needed | IN_ADDITION


def test_settings_are_told_apart_by_their_cloud() -> None:
    read: TypeAdapter[CloudSettings] = TypeAdapter(CloudSettings)
    told: dict[str, Any] = {"project": "my-project", "region": "us-east1", "zone": "us-east1-b", "bucket": "my-bucket"}
    assert isinstance(read.validate_python({"cloud": "gcp", **told}), GcpSettings)
    assert isinstance(read.validate_python({"cloud": "aws", "region": "eu-west-1"}), AwsSettings)
    with pytest.raises(ValidationError, match="bucket"):
        read.validate_python({"cloud": "gcp", **told, "bucket": "No Bucket"})
    with pytest.raises(ValidationError, match="use https, or a loopback address"):
        read.validate_python({"cloud": "gcp", **told, "endpoints": {"storage": "http://storage.example.com"}})


def test_a_region_without_prices_has_none() -> None:
    assert of("gcp", "us-east1")
    assert of("gcp", "europe-west1") == ()


def test_nobody_loads_googles_packages_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GcpSettings(
        project="my-project", region="us-east1", zone="us-east1-b", bucket="my-bucket", calls=CallSettings(attempts=1)
    )
    monkeypatch.setitem(sys.modules, "google.auth", None)
    monkeypatch.setitem(sys.modules, "google.cloud.compute_v1", None)
    adapter = connect(settings)
    assert adapter.instances is not None
    with pytest.raises(errors.MissingPackage, match=r"Install novacron\[gcp\]"):
        adapter.instances.list_instances()
