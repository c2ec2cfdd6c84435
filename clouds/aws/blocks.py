"""EBS direct: snapshots written and read block by block, without S3 and without a helper VM.

In: StartSnapshot (with a parent for a delta), PutSnapshotBlock for each block with its SHA-256, CompleteSnapshot with
the number of blocks and the SHA-256 over all their checksums in order, so that AWS itself refuses what is not whole. A
full copy leaves zero blocks out; a delta sends them, because the parent's data would show through.

Out: ListSnapshotBlocks or ListChangedBlocks, then GetSnapshotBlock for each, verified. Block tokens and page tokens
live for one list and are never kept; a transfer goes on from the index of the next block.

Cursor of a write: every block below `next_block` was acknowledged by AWS. With `calls.parallel` n, a new process sends
at most the n blocks again that were in flight. Cursor of a read: blocks below are flushed in the target.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Literal

from clouds.aws.reading import PAGE, AwsReader
from clouds.aws.session import AwsSession, tag_dict, tag_list
from clouds.capabilities import Note, Range
from clouds.disks.content import BLOCK, Block, Disk, Reader, blocks, ranges_of
from clouds.errors import BadDisk, Conflict, Damaged, NotFound, OperationFailed
from clouds.pipeline import in_order
from clouds.tokens import TAG
from clouds.transfer import Sending, Tally, receive, source_changed, unsent
from models.clouds import Cursor, DeltaOrder, DiskOrder, Snapshot, Transferred

GIB = 1 << 30
PARENT_TAG = "novacron-parent"
CONTENT_TAG = "novacron-content"
"""Content hash of what was sent, set before a snapshot is completed: a later attempt compares."""
IDLE_MINUTES = 4320
"""AWS gives a pending snapshot up after this long without a block: its longest, three days, so that a worker that was
down over a weekend can go on."""
_STATES: dict[str, Literal["pending", "ready", "failed"]] = {
    "pending": "pending",
    "completed": "ready",
    "error": "failed",
    "recoverable": "failed",
    "recovering": "pending",
}


class AwsBlocks:
    """ImageImport, ImageExport and BlockDelta as far as they move blocks."""

    def __init__(self, session: AwsSession) -> None:
        self._aws = session
        self._parallel = session.settings.calls.parallel

    def import_disk(self, order: DiskOrder, source: Reader, note: Note, resume: Cursor | None = None) -> Transferred:
        return self._send(order, None, source, blocks(source), note, resume)

    def import_delta(
        self, order: DeltaOrder, source: Reader, changed: tuple[Range, ...], note: Note, resume: Cursor | None = None
    ) -> Transferred:
        base = self.get_snapshot(order.base)
        if base.state != "ready":
            raise Conflict(f"snapshot {order.base} is {base.state}", "A delta needs a base that is complete.")
        if source.size > base.size:
            raise BadDisk(
                f"the disk has {source.size} bytes and its base {order.base} {base.size}",
                "A disk that grew is sent whole.",
            )
        return self._send(order, base, source, blocks(source, changed), note, resume)

    def get_snapshot(self, disk: str) -> Snapshot:
        answer = self._aws.call(f"find snapshot {disk}", "ec2", "describe_snapshots", SnapshotIds=[disk])
        if not answer["Snapshots"]:
            raise NotFound(f"there is no snapshot {disk}", "Check the id and the region.")
        return snapshot(answer["Snapshots"][0])

    def create_snapshot(self, volume: str, token: str) -> Snapshot:
        """CreateSnapshot has no token: one with its tag is taken for the first attempt's."""
        filters = [{"Name": f"tag:{TAG}", "Values": [token]}]
        found = self._aws.call(
            f"look for a snapshot of {volume}", "ec2", "describe_snapshots", OwnerIds=["self"], Filters=filters
        )
        if found["Snapshots"]:
            return snapshot(found["Snapshots"][0])
        tags = [{"ResourceType": "snapshot", "Tags": tag_list({TAG: token})}]
        made = self._aws.call(
            f"snapshot {volume}",
            "ec2",
            "create_snapshot",
            VolumeId=volume,
            TagSpecifications=tags,
            Description="NovaCron",
        )
        return snapshot(made)

    def delete_disk(self, disk: str) -> None:
        with suppress(NotFound):
            self._aws.call(f"delete snapshot {disk}", "ec2", "delete_snapshot", SnapshotId=disk)

    def export_disk(self, disk: str, target: Disk, note: Note, resume: Cursor | None = None) -> Transferred:
        ask = partial(self._aws.call, f"list the blocks of {disk}", "ebs", "list_snapshot_blocks", SnapshotId=disk)
        return self._receive(disk, self._listed(ask, "Blocks"), target, note, resume, delta=False)

    def export_delta(self, base: str, disk: str, target: Disk, note: Note, resume: Cursor | None = None) -> Transferred:
        return self._receive(
            disk, self._listed(self._changes(base, disk), "ChangedBlocks"), target, note, resume, delta=True
        )

    @contextmanager
    def open_disk(self, disk: str) -> Iterator[Reader]:
        ask = partial(self._aws.call, f"list the blocks of {disk}", "ebs", "list_snapshot_blocks", SnapshotId=disk)

        def page(index: int) -> tuple[list[dict[str, Any]], bool]:
            answer = ask(MaxResults=PAGE, StartingBlockIndex=index)
            return answer.get("Blocks", []), bool(answer.get("NextToken"))

        def get(index: int, item: dict[str, Any]) -> bytes:
            return self._get(disk, (index, item))

        yield AwsReader(self.get_snapshot(disk).size, page, lambda: self._listed(ask, "Blocks"), get)

    def volume_size(self, volume: str) -> int:
        told = self._aws.call(f"find volume {volume}", "ec2", "describe_volumes", VolumeIds=[volume])
        return int(told["Volumes"][0]["Size"]) * GIB

    def changed(self, base: str, disk: str) -> tuple[Range, ...]:
        ask = self._changes(base, disk)
        size = self.get_snapshot(disk).size
        return tuple(ranges_of(size, (item["BlockIndex"] for item in self._listed(ask, "ChangedBlocks"))))

    # Writing.

    def _send(
        self,
        order: DiskOrder,
        base: Snapshot | None,
        source: Reader,
        moved: Iterator[Block],
        note: Note,
        resume: Cursor | None,
    ) -> Transferred:
        cursor = resume or self._start(order, base, source.size)
        note(cursor)
        there = self.get_snapshot(cursor.disk)
        if there.state == "failed":
            raise OperationFailed(
                f"AWS gave snapshot {cursor.disk} up", "Delete it, and send the disk again under another step's token."
            )
        done = there.state == "ready"
        tally = Tally()
        put = partial(self._put, cursor.disk)
        with closing(in_order(put, unsent(moved, cursor, tally, done), self._parallel)) as results:
            for item, _ in results:
                cursor = item.cursor(cursor.disk)
                note(cursor)
        content = tally.content.hexdigest()
        if done and there.tags.get(CONTENT_TAG) != content:
            raise source_changed(cursor.disk)
        if not done:
            self._complete(cursor, tally, note)
        return Transferred(disk=cursor.disk, size=there.size, content=content, blocks=tally.count)

    def _start(self, order: DiskOrder, base: Snapshot | None, size: int) -> Cursor:
        tags = {"Name": order.name, **order.tags, TAG: order.token}
        parent: dict[str, Any] = {}
        if base is not None:
            parent = {"ParentSnapshotId": base.id}
            tags[PARENT_TAG] = base.id
        started = self._aws.call(
            f"start a snapshot for {order.name}",
            "ebs",
            "start_snapshot",
            VolumeSize=base.size // GIB if base else -(-size // GIB),
            ClientToken=order.token,
            Timeout=IDLE_MINUTES,
            Description=f"NovaCron {order.name}",
            Tags=tag_list(tags),
            **parent,
        )
        return Cursor(disk=started["SnapshotId"])

    def _put(self, disk: str, item: Sending) -> None:
        self._aws.call(
            f"write block {item.block.index} of {disk}",
            "ebs",
            "put_snapshot_block",
            SnapshotId=disk,
            BlockIndex=item.block.index,
            BlockData=item.block.data,
            DataLength=BLOCK,
            Checksum=base64.b64encode(item.digest).decode(),
            ChecksumAlgorithm="SHA256",
        )

    def _complete(self, cursor: Cursor, tally: Tally, note: Note) -> None:
        checksum: dict[str, Any] = {}
        if tally.count:
            checksum = {
                "Checksum": base64.b64encode(tally.checksums.digest()).decode(),
                "ChecksumAlgorithm": "SHA256",
                "ChecksumAggregationMethod": "LINEAR",
            }
        what = f"complete {cursor.disk}"
        tags = tag_list({CONTENT_TAG: tally.content.hexdigest()})
        self._aws.call(f"tag {cursor.disk}", "ec2", "create_tags", Resources=[cursor.disk], Tags=tags)
        self._aws.call(
            what, "ebs", "complete_snapshot", SnapshotId=cursor.disk, ChangedBlocksCount=tally.count, **checksum
        )

        def ready() -> bool:
            state = self.get_snapshot(cursor.disk).state
            if state == "failed":
                raise OperationFailed(
                    f"AWS could not {what}", "Delete it, and send the disk again under another step's token."
                )
            return state == "ready"

        self._aws.wait(what, ready, lambda: note(cursor))

    # Reading.

    def _changes(self, base: str, disk: str) -> Any:
        what = f"list what changed from {base} to {disk}"
        return partial(self._aws.call, what, "ebs", "list_changed_blocks", FirstSnapshotId=base, SecondSnapshotId=disk)

    def _listed(self, ask: Any, key: str) -> Iterator[dict[str, Any]]:
        """All blocks, ascending. Pages are asked for one by one, so that tokens are young."""
        above, page = 0, dict[str, str]()
        while True:
            answer = ask(MaxResults=PAGE, **page)
            if answer.get("BlockSize", BLOCK) != BLOCK:
                raise Damaged(f"AWS tells blocks of {answer['BlockSize']} bytes, not {BLOCK}", "Ask AWS.")
            for item in answer.get(key, ()):
                if item["BlockIndex"] < above:
                    raise Damaged(f"AWS lists block {item['BlockIndex']} after {above - 1}", "The list is read anew.")
                above = item["BlockIndex"] + 1
                yield item
            if not answer.get("NextToken"):
                return
            page = {"NextToken": answer["NextToken"]}

    def _receive(
        self,
        disk: str,
        listed: Iterator[dict[str, Any]],
        target: Disk,
        note: Note,
        resume: Cursor | None,
        *,
        delta: bool,
    ) -> Transferred:
        indexed = ((item["BlockIndex"], item) for item in listed)
        size = self.get_snapshot(disk).size
        get = partial(self._get, disk)
        return receive(disk, size, indexed, get, target, note, resume, parallel=self._parallel, delta=delta)

    def _get(self, disk: str, listed: tuple[int, dict[str, Any]]) -> bytes:
        index, item = listed
        token = item.get("BlockToken") or item.get("SecondBlockToken")
        if not token:  # of a change: the block is gone, and reads as zeros
            return bytes(BLOCK)
        what = f"read block {index} of {disk}"
        answer = self._aws.call(what, "ebs", "get_snapshot_block", SnapshotId=disk, BlockIndex=index, BlockToken=token)
        data = self._aws.read(what, answer["BlockData"], BLOCK + 1)
        if len(data) != BLOCK or answer["DataLength"] != BLOCK:
            raise Damaged(f"block {index} of {disk} came with {len(data)} bytes, not {BLOCK}", "It is read again.")
        if base64.b64encode(hashlib.sha256(data).digest()).decode() != answer["Checksum"]:
            raise Damaged(f"block {index} of {disk} does not fit its checksum", "It is read again.")
        return data


def snapshot(told: dict[str, Any]) -> Snapshot:
    """Ours for one of EC2's."""
    tags = tag_dict(told.get("Tags"))
    return Snapshot(
        id=told["SnapshotId"],
        state=_STATES.get(told.get("State", ""), "pending"),
        size=told["VolumeSize"] * GIB,
        parent=tags.get(PARENT_TAG, ""),
        tags=tags,
    )
