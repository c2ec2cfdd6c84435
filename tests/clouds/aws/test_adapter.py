"""What is AWS's own: error codes, stale tokens, device names, settings."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from clouds import errors
from clouds.adapters import connect
from clouds.aws.blocks import AwsBlocks
from clouds.aws.errors import translate
from clouds.prices import of
from models.clouds import AwsSettings
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.scene import MemoryDisk, ignore, order, small_disk

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestLimitExceeded", 503, errors.Throttled),
        ("RequestThrottledException", 400, errors.Throttled),
        ("ConcurrentLimitExceededException", 400, errors.Busy),
        ("ConcurrentSnapshotLimitExceeded", 400, errors.Busy),
        ("InsufficientInstanceCapacity", 500, errors.Busy),
        ("ExpiredTokenException", 403, errors.CredentialsExpired),
        ("AuthFailure", 401, errors.NotAuthenticated),
        ("UnauthorizedOperation", 403, errors.NotPermitted),
        ("VcpuLimitExceeded", 400, errors.QuotaExceeded),
        ("ServiceQuotaExceededException", 402, errors.QuotaExceeded),
        ("InvalidInstanceID.NotFound", 400, errors.NotFound),
        ("InvalidAMIID.Unavailable", 400, errors.NotFound),
        ("ResourceNotFoundException", 404, errors.NotFound),
        ("IncorrectInstanceState", 400, errors.Conflict),
        ("InvalidSnapshot.InUse", 400, errors.Conflict),
        ("IdempotentParameterMismatch", 400, errors.Conflict),
        ("InternalServerException", 500, errors.Unavailable),
        ("SomethingNew", 502, errors.Unavailable),
        ("SomethingNew", 400, errors.Invalid),
    ],
)
def test_a_code_has_one_meaning(code: str, status: int, kind: type[errors.CloudError]) -> None:
    from botocore.exceptions import ClientError

    answer = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    told = translate(ClientError(answer, "Operation"), "do it")
    assert type(told) is kind
    assert str(told).startswith(f"cannot do it: AWS says {code}: words. ")
    assert told.code == code
    assert isinstance(told, errors.Retryable | errors.Final)


def test_a_bug_of_ours_is_not_dressed_up() -> None:
    bug = KeyError("x")
    assert translate(bug, "do it") is bug


def test_tokens_that_went_stale_are_retryable_and_the_export_goes_on(
    aws: AwsCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert aws.adapter.image_import is not None
    assert aws.adapter.image_export is not None
    source = small_disk()
    disk = aws.adapter.image_import.import_disk(order(), source, ignore).disk
    strict, token = aws.server.strict, aws.server.strict._token

    def stale(*args: object) -> str:
        strict.forget_tokens()
        return token(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(strict, "_token", stale)
    with pytest.raises(errors.Busy, match="read anew"):
        aws.adapter.image_export.export_disk(disk, MemoryDisk(source.size), ignore)
    monkeypatch.undo()
    target = MemoryDisk(source.size)
    aws.adapter.image_export.export_disk(disk, target, ignore)
    assert target.held == source.held


def test_a_snapshot_that_stays_pending_is_unavailable_not_lost(aws: AwsCloud) -> None:
    aws.server.strict.slow = 10**6
    settings = aws.settings.model_copy(update={"calls": aws.settings.calls.model_copy(update={"finish_within": 0.05})})
    imports = connect(settings).image_import
    assert isinstance(imports, AwsBlocks)
    with pytest.raises(errors.Unavailable, match="did not complete snap-"):
        imports.import_disk(order(), small_disk(), ignore)


def test_the_documented_policy_allows_what_the_adapter_calls_and_no_more() -> None:
    page = (ROOT / "docs" / "clouds.md").read_text()
    policy = json.loads(page.split("```json\n")[1].split("```")[0])
    allowed = {action.lower() for statement in policy["Statement"] for action in statement["Action"]}
    code = "\n".join(path.read_text() for path in (ROOT / "clouds" / "aws").glob("*.py"))
    calls = re.findall(r'"(ec2|ebs|service-quotas)",\s*"([a-z]+_[a-z_]+)"', code)
    assert len(calls) > 15
    assert {f"{service.replace('-', '')}:{name.replace('_', '')}" for service, name in calls} == allowed


def test_the_documented_policy_of_the_bucket_allows_what_the_cache_calls_and_no_more() -> None:
    page = (ROOT / "docs" / "cloud-cache.md").read_text()
    policy = json.loads(page.split("## Permissions on AWS")[1].split("```json\n")[1].split("```")[0])
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    code = "\n".join(path.read_text() for path in (ROOT / "clouds" / "aws").glob("*.py"))
    calls = set(re.findall(r'"s3",\s*"([a-z0-9_]+)"', code))
    assert calls == {"put_object", "get_object", "delete_object", "list_objects_v2"}
    assert allowed == {"s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket"}


def test_a_region_without_prices_has_none() -> None:
    assert of("aws", "us-east-1")
    assert of("aws", "eu-west-1") == ()
    assert of("gcp", "us-east-1") == ()


def test_nobody_loads_boto3_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    adapter = connect(AwsSettings(region="eu-west-1"))
    assert adapter.instances is not None
    with pytest.raises(errors.MissingPackage, match=r"Install novacron\[aws\]"):
        adapter.instances.list_instances()
