"""The fake refuses what AWS refuses: without this, the contract would prove nothing."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.clouds.aws.ebs import BLOCK
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.aws.wire import AwsFault, Drift, write, write_fault
from tests.clouds.scene import ignore, order, small_disk


@pytest.fixture
def ebs(aws: AwsCloud) -> Any:
    return aws.session._client("ebs")


def put(ebs: Any, snapshot: str, index: int = 0, data: bytes = b"\1" * BLOCK, **other: Any) -> Any:
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
    asked = {"Checksum": checksum, "ChecksumAlgorithm": "SHA256", "DataLength": len(data), **other}
    return ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockData=data, **asked)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"data": b"short"}, "INVALID_BLOCK"),
        ({"Checksum": base64.b64encode(bytes(32)).decode()}, "INVALID_BLOCK"),
        ({"index": 2048}, "INVALID_BLOCK"),
    ],
)
def test_a_wrong_block_is_refused(ebs: Any, wrong: dict[str, Any], reason: str) -> None:
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    with pytest.raises(ClientError) as caught:
        put(ebs, snapshot, **wrong)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert caught.value.response["Reason"] == reason


def test_a_wrong_end_is_refused(ebs: Any) -> None:
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    put(ebs, snapshot)
    linear = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    for wrong in ({"ChangedBlocksCount": 2}, {"ChangedBlocksCount": 1, "Checksum": "bm8=", **linear}):
        with pytest.raises(ClientError, match="ValidationException"):
            ebs.complete_snapshot(SnapshotId=snapshot, **wrong)
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    with pytest.raises(ClientError, match="not pending"):
        put(ebs, snapshot)
    with pytest.raises(ClientError, match="not completed"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot)


def test_a_parent_has_to_be_complete_and_no_larger(aws: AwsCloud, ebs: Any) -> None:
    pending = ebs.start_snapshot(VolumeSize=2)["SnapshotId"]
    with pytest.raises(ClientError, match="must be completed"):
        ebs.start_snapshot(VolumeSize=2, ParentSnapshotId=pending)
    aws.server.strict.snapshots[pending].state = "completed"
    with pytest.raises(ClientError, match="smaller than its parent"):
        ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=pending)
    with pytest.raises(ClientError, match="exclude each other"):
        ebs.start_snapshot(VolumeSize=2, ParentSnapshotId=pending, Encrypted=True)


def test_a_token_of_an_older_list_is_refused(aws: AwsCloud, ebs: Any) -> None:
    assert aws.adapter.image_import is not None
    disk = aws.adapter.image_import.import_disk(order(), small_disk(), ignore).disk
    token = ebs.list_snapshot_blocks(SnapshotId=disk)["Blocks"][0]["BlockToken"]
    aws.server.strict.forget_tokens()
    with pytest.raises(ClientError) as caught:
        ebs.get_snapshot_block(SnapshotId=disk, BlockIndex=0, BlockToken=token)
    assert caught.value.response["Reason"] == "INVALID_BLOCK_TOKEN"


def test_lists_are_paged_and_start_where_they_are_told(aws: AwsCloud, ebs: Any) -> None:
    assert aws.adapter.image_import is not None
    disk = aws.adapter.image_import.import_disk(order(), small_disk(*range(150), size=150 * BLOCK), ignore).disk
    first = ebs.list_snapshot_blocks(SnapshotId=disk, MaxResults=100, StartingBlockIndex=20)
    assert [block["BlockIndex"] for block in first["Blocks"]] == list(range(20, 120))
    last = ebs.list_snapshot_blocks(SnapshotId=disk, NextToken=first["NextToken"])
    assert [block["BlockIndex"] for block in last["Blocks"]] == list(range(120, 150))
    assert "NextToken" not in last


class _Call:
    service = "ebs"
    name = "ListSnapshotBlocks"
    operation = boto3.client("ebs", region_name="us-east-1").meta.service_model.operation_model("ListSnapshotBlocks")


def test_an_answer_that_the_model_does_not_know_is_drift() -> None:
    for wrong in ({"Blocks": [{"Index": 1}]}, {"Blocks": "none"}, {"VolumeSize": "1"}):
        with pytest.raises(Drift, match="does not fit botocore's model"):
            write(_Call, wrong)  # type: ignore[arg-type]
    with pytest.raises(Drift, match="cannot answer with NoSuchThing"):
        write_fault(_Call, AwsFault("NoSuchThing", ""))  # type: ignore[arg-type]
