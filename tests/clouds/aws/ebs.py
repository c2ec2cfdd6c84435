"""Snapshots, their blocks and images, as strict as AWS documents them; moto takes anything.

Kept here: what every disk holds, block by block. A snapshot is pending until completed and looked at `slow` times more.
Sources: EBS direct API reference (StartSnapshot, PutSnapshotBlock, CompleteSnapshot, ListChangedBlocks), RegisterImage.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from tests.clouds.aws.wire import AwsFault

SIZES = (
    "t3.micro",
    "t3.large",
    "m5.large",
    "m5.xlarge",
    "m6g.large",
    "c4.large",
    "t2.small",
    "mac1.metal",
    "c7g.large",
)
BLOCK = 512 << 10
OWNER = "123456789012"
Tags = list[dict[str, str]]


@dataclass
class Disk:
    """A snapshot with all it shows, its parent's blocks included."""

    id: str
    gib: int
    tags: Tags
    blocks: dict[int, bytes]
    state: str = "pending"
    written: dict[int, bytes] = field(default_factory=dict)
    """Index to SHA-256 of what was put."""
    origin: str = ""
    """The volume it is a snapshot of, or of its parent."""
    looks: int = 0
    ending: str = "completed"
    request: str = ""

    def told(self) -> dict[str, Any]:
        return {
            "SnapshotId": self.id,
            "State": self.state,
            "VolumeSize": self.gib,
            "VolumeId": self.origin or "vol-ffffffff",
            "OwnerId": OWNER,
            "StartTime": datetime(2026, 1, 1, tzinfo=UTC),
            "Progress": "100%" if self.state == "completed" else "0%",
            "Tags": self.tags,
        }


class StrictEbs:
    """Operations by AWS's name, each a method that takes the parameters and gives the answer."""

    def __init__(self, slow: int = 2) -> None:
        self.slow = slow
        self.snapshots: dict[str, Disk] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, dict[int, bytes]] = {}
        self.put_bytes = 0
        """All bytes of blocks that were accepted, again and again too."""
        self.fail_next: set[str] = set()
        """Operations whose long part ends badly."""
        self._started: dict[str, str] = {}
        self._generation = 0
        self._made = 0

    # EBS direct.

    def StartSnapshot(self, p: dict[str, Any]) -> dict[str, Any]:
        asked = repr(sorted((k, v) for k, v in p.items() if k != "ClientToken"))
        token = p.get("ClientToken", "")
        if token in self._started:
            disk = self.snapshots[self._started[token]]
            if disk.request != asked:
                raise AwsFault("ConflictException", "The client token was used with other parameters.", 503)
            return self._start_answer(disk)
        blocks: dict[int, bytes] = {}
        if parent := p.get("ParentSnapshotId"):
            base = self._snapshot_of_ebs(parent)
            if base.state != "completed":
                raise self._invalid("INVALID_SNAPSHOT_ID", "The parent snapshot must be completed.")
            if base.gib > p["VolumeSize"]:
                raise self._invalid("INVALID_VOLUME_SIZE", "The volume is smaller than its parent.")
            if "Encrypted" in p:
                raise self._invalid("INVALID_PARAMETER_VALUE", "Encrypted and ParentSnapshotId exclude each other.")
            blocks = dict(base.blocks)
        disk = self._make(p["VolumeSize"], p.get("Tags", []), blocks)
        disk.request = asked
        disk.origin = self.snapshots[parent].origin or f"vol-{parent[5:]}" if parent else f"vol-{disk.id[5:]}"
        if token:
            self._started[token] = disk.id
        return self._start_answer(disk)

    def PutSnapshotBlock(self, p: dict[str, Any]) -> dict[str, Any]:
        disk, data = self._pending(p["SnapshotId"]), p["BlockData"]
        data = data if isinstance(data, bytes) else data.encode("latin-1")
        if len(data) != BLOCK or p["DataLength"] != BLOCK:
            raise self._invalid("INVALID_BLOCK", f"{len(data)} bytes came, 524288 is the only length.")
        digest = hashlib.sha256(data).digest()
        if p["ChecksumAlgorithm"] != "SHA256" or p["Checksum"] != base64.b64encode(digest).decode():
            raise self._invalid("INVALID_BLOCK", "The checksum does not fit the data.")
        if not 0 <= p["BlockIndex"] < disk.gib << 11:
            raise self._invalid("INVALID_BLOCK", "The index is outside the volume.")
        disk.blocks[p["BlockIndex"]] = data
        disk.written[p["BlockIndex"]] = digest
        self.put_bytes += len(data)
        return {"Checksum": p["Checksum"], "ChecksumAlgorithm": "SHA256"}

    def CompleteSnapshot(self, p: dict[str, Any]) -> dict[str, Any]:
        disk = self.snapshots.get(p["SnapshotId"])
        if disk is not None and (disk.state == "completed" or disk.looks):
            return {"Status": "completed" if disk.state == "completed" else "pending"}
        disk = self._pending(p["SnapshotId"])
        if p["ChangedBlocksCount"] != len(disk.written):
            raise self._invalid("INVALID_PARAMETER_VALUE", f"{len(disk.written)} blocks were written.")
        if "Checksum" in p:
            if (p.get("ChecksumAggregationMethod"), p.get("ChecksumAlgorithm")) != ("LINEAR", "SHA256"):
                raise self._invalid("INVALID_PARAMETER_VALUE", "LINEAR and SHA256 are the only ones.")
            linear = hashlib.sha256(b"".join(digest for _, digest in sorted(disk.written.items()))).digest()
            if p["Checksum"] != base64.b64encode(linear).decode():
                raise self._invalid("INVALID_PARAMETER_VALUE", "The aggregated checksum does not fit.")
        self._settle(disk, "CompleteSnapshot")
        return {"Status": "pending"}

    def ListSnapshotBlocks(self, p: dict[str, Any]) -> dict[str, Any]:
        disk = self._complete(p["SnapshotId"])
        rows = [{"BlockIndex": i, "BlockToken": self._token(disk, i)} for i in sorted(disk.blocks)]
        return self._page(p, "Blocks", rows, disk)

    def ListChangedBlocks(self, p: dict[str, Any]) -> dict[str, Any]:
        second = self._complete(p["SecondSnapshotId"])
        first = self._complete(p["FirstSnapshotId"]) if "FirstSnapshotId" in p else None
        if first is not None and first.origin != second.origin:
            raise self._invalid("UNRELATED_SNAPSHOTS", "The snapshots are not of one lineage.")
        old = first.blocks if first else {}
        rows = []
        for index in sorted(old.keys() | second.blocks.keys()):
            if old.get(index) != second.blocks.get(index):
                row: dict[str, Any] = {"BlockIndex": index}
                if index in old and first is not None:
                    row["FirstBlockToken"] = self._token(first, index)
                if index in second.blocks:
                    row["SecondBlockToken"] = self._token(second, index)
                rows.append(row)
        return self._page(p, "ChangedBlocks", rows, second)

    def GetSnapshotBlock(self, p: dict[str, Any]) -> dict[str, Any]:
        disk = self._complete(p["SnapshotId"])
        if p["BlockToken"] != self._token(disk, p["BlockIndex"]):
            raise self._invalid("INVALID_BLOCK_TOKEN", "The block token is invalid or has expired.")
        data = disk.blocks[p["BlockIndex"]]
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        return {
            "DataLength": BLOCK, "BlockData": data, "Checksum": checksum, "ChecksumAlgorithm": "SHA256"
        }  # fmt: skip

    # EC2: snapshots and images.

    def DescribeSnapshots(self, p: dict[str, Any]) -> dict[str, Any]:
        ids = p.get("SnapshotIds")
        for missing in set(ids or ()) - self.snapshots.keys():
            raise AwsFault("InvalidSnapshot.NotFound", f"The snapshot '{missing}' does not exist.")
        found = [disk for disk in self.snapshots.values() if not ids or disk.id in ids]
        for rule in p.get("Filters", ()):
            assert rule["Name"].startswith("tag:"), rule
            found = [
                d for d in found if any(t["Key"] == rule["Name"][4:] and t["Value"] in rule["Values"] for t in d.tags)
            ]
        for disk in found:
            if disk.state == "pending" and disk.looks:
                disk.looks -= 1
                disk.state = disk.ending if not disk.looks else "pending"
        return {"Snapshots": [disk.told() for disk in found]}

    def CreateTags(self, p: dict[str, Any]) -> dict[str, Any]:
        """Of snapshots; those of instances are moto's."""
        for name in p["Resources"]:
            disk = self._snapshot_of_ebs(name)
            given = {tag["Key"] for tag in p["Tags"]}
            disk.tags = [tag for tag in disk.tags if tag["Key"] not in given] + p["Tags"]
        return {}

    def CreateSnapshot(self, p: dict[str, Any]) -> dict[str, Any]:
        if p["VolumeId"] not in self.volumes:
            raise AwsFault("InvalidVolume.NotFound", f"The volume '{p['VolumeId']}' does not exist.")
        disk = self._make(1, _tags(p, "snapshot"), dict(self.volumes[p["VolumeId"]]))
        disk.origin = p["VolumeId"]
        self._settle(disk, "CreateSnapshot")
        return disk.told()

    def DeleteSnapshot(self, p: dict[str, Any]) -> dict[str, Any]:
        if p["SnapshotId"] not in self.snapshots:
            raise AwsFault("InvalidSnapshot.NotFound", f"The snapshot '{p['SnapshotId']}' does not exist.")
        for image in self.images.values():
            if any(m["Ebs"]["SnapshotId"] == p["SnapshotId"] for m in image["BlockDeviceMappings"]):
                raise AwsFault("InvalidSnapshot.InUse", f"The snapshot is in use by {image['ImageId']}")
        del self.snapshots[p["SnapshotId"]]
        return {}

    def RegisterImage(self, p: dict[str, Any]) -> dict[str, Any]:
        if any(image["Name"] == p["Name"] for image in self.images.values()):
            raise AwsFault("InvalidAMIName.Duplicate", f"AMI name {p['Name']} is already in use by AMI.")
        if p.get("VirtualizationType") != "hvm" or p.get("RootDeviceName") not in [
            m["DeviceName"] for m in p["BlockDeviceMappings"]
        ]:
            raise AwsFault("InvalidParameterValue", "An image of today is hvm and has its root device mapped.")
        mappings = []
        for mapping in p["BlockDeviceMappings"]:
            disk = self.snapshots.get(mapping["Ebs"]["SnapshotId"])
            if disk is None:
                raise AwsFault(
                    "InvalidSnapshot.NotFound", f"The snapshot {mapping['Ebs']['SnapshotId']} does not exist."
                )
            if disk.state != "completed":
                raise AwsFault("InvalidSnapshot", f"{disk.id} is not completed.")
            mappings.append({**mapping, "Ebs": {"VolumeSize": disk.gib, **mapping["Ebs"]}})
        image: dict[str, Any] = {
            "ImageId": f"ami-{self._next():017x}",
            "State": "pending",
            "BlockDeviceMappings": mappings,
            "Tags": _tags(p, "image"),
            **{
                k: p[k]
                for k in ("Name", "Architecture", "RootDeviceName", "BootMode", "EnaSupport", "Description")
                if k in p
            },
        }
        self.images[image["ImageId"]] = image
        return {"ImageId": image["ImageId"]}

    def DescribeImages(self, p: dict[str, Any]) -> dict[str, Any]:
        for missing in set(p.get("ImageIds", ())) - self.images.keys():
            raise AwsFault("InvalidAMIID.NotFound", f"The image id '[{missing}]' does not exist")
        names = [name for rule in p.get("Filters", ()) for name in rule["Values"]]
        found = [
            dict(image)
            for image in self.images.values()
            if image["ImageId"] in p.get("ImageIds", [image["ImageId"]]) and (not names or image["Name"] in names)
        ]
        for image in found:
            self.images[image["ImageId"]]["State"] = "available"
        return {"Images": found}

    def DeregisterImage(self, p: dict[str, Any]) -> dict[str, Any]:
        if self.images.pop(p["ImageId"], None) is None:
            raise AwsFault("InvalidAMIID.Unavailable", f"The image ID '{p['ImageId']}' is no longer available")
        return {"Return": True}

    # EC2: sizes, with moto's data of the real ones and AWS's paging, which moto leaves out.

    def DescribeInstanceTypes(self, p: dict[str, Any]) -> dict[str, Any]:
        limit = p.get("MaxResults", 100)
        if not 5 <= limit <= 100:
            raise AwsFault("InvalidParameterValue", "MaxResults is 5 to 100.")
        start = int(p.get("NextToken", "0"))
        rows = [dict(INSTANCE_TYPES[name]) for name in SIZES]
        more = {"NextToken": str(start + limit)} if start + limit < len(rows) else {}
        return {"InstanceTypes": rows[start : start + limit], **more}

    # For tests.

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        self.volumes[volume][index] = data.ljust(BLOCK, b"\0")

    def forget_tokens(self) -> None:
        """As time does: block tokens given so far are worth nothing any more."""
        self._generation += 1

    def _next(self) -> int:
        self._made += 1
        return self._made

    def _make(self, gib: int, tags: Tags, blocks: dict[int, bytes]) -> Disk:
        disk = Disk(f"snap-{self._next():017x}", gib, tags, blocks)
        self.snapshots[disk.id] = disk
        return disk

    def _settle(self, disk: Disk, operation: str) -> None:
        disk.looks = self.slow
        if operation in self.fail_next:
            self.fail_next.discard(operation)
            disk.ending = "error"

    def _start_answer(self, disk: Disk) -> dict[str, Any]:
        return {
            "SnapshotId": disk.id, "OwnerId": OWNER, "Status": disk.state, "VolumeSize": disk.gib, "BlockSize": BLOCK,
            "StartTime": datetime(2026, 1, 1, tzinfo=UTC), "Tags": disk.tags,
        }  # fmt: skip

    def _snapshot_of_ebs(self, id: str) -> Disk:
        if id not in self.snapshots:
            raise AwsFault(
                "ResourceNotFoundException", f"The snapshot '{id}' does not exist.", 404, "SNAPSHOT_NOT_FOUND"
            )
        return self.snapshots[id]

    def _pending(self, id: str) -> Disk:
        disk = self._snapshot_of_ebs(id)
        if disk.state != "pending" or disk.looks:
            raise self._invalid("INVALID_SNAPSHOT_ID", "The snapshot is not pending.")
        return disk

    def _complete(self, id: str) -> Disk:
        disk = self._snapshot_of_ebs(id)
        if disk.state != "completed":
            raise self._invalid("INVALID_SNAPSHOT_ID", "The snapshot is not completed.")
        return disk

    def _token(self, disk: Disk, index: int) -> str:
        """Other ones with each list, as AWS does: a kept token is a bug."""
        return base64.b64encode(f"{self._generation}/{disk.id}/{index}".encode()).decode()

    def _page(self, p: dict[str, Any], key: str, rows: list[dict[str, Any]], disk: Disk) -> dict[str, Any]:
        start = p.get("StartingBlockIndex", 0)
        if "NextToken" in p:
            start = int(base64.b64decode(p["NextToken"]))
        rows = [row for row in rows if row["BlockIndex"] >= start]
        limit = p.get("MaxResults", 10_000)
        answer = {
            key: rows[:limit], "VolumeSize": disk.gib, "BlockSize": BLOCK,
            "ExpiryTime": datetime.now(UTC) + timedelta(hours=1),
        }  # fmt: skip
        if len(rows) > limit:
            answer["NextToken"] = base64.b64encode(str(rows[limit]["BlockIndex"]).encode()).decode()
        return answer

    def _invalid(self, reason: str, message: str) -> AwsFault:
        return AwsFault("ValidationException", message, 400, reason)


def _tags(p: dict[str, Any], kind: str) -> Tags:
    return [tag for spec in p.get("TagSpecifications", ()) if spec["ResourceType"] == kind for tag in spec["Tags"]]
