"""What an adapter can do: six small interfaces, and the table of which cloud has which, with the reason where not.

All calls block and raise `clouds.errors` only. A call that changes something takes a token (clouds.tokens) or names the
one thing it acts on; made twice it has the effect of once. Long transfers tell `note` how far they came after every
block that is certain, and go on from a Cursor. `note` may raise: that is how a caller cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from clouds.disks.content import Disk, Reader
from clouds.errors import NotOffered
from models.clouds import (
    CacheBounds,
    Cloud,
    CloudId,
    CloudImage,
    Cursor,
    DeltaOrder,
    DiskOrder,
    ImageOrder,
    Instance,
    InstanceOrder,
    InstancePage,
    Price,
    Quota,
    SizePage,
    Snapshot,
    StoredObject,
    Transferred,
)

Note = Callable[[Cursor], None]
Range = tuple[int, int]
"""Offset and length in bytes."""


class Instances(Protocol):
    """Virtual machines. Changes return at once with the state as it is then; `get_instance` tells how they went."""

    def list_instances(self, page: str = "", limit: int = 100) -> InstancePage: ...
    def get_instance(self, instance: CloudId) -> Instance:
        """Raises NotFound, also for one that is long terminated."""

    def create_instance(self, order: InstanceOrder, token: str) -> Instance: ...
    def start_instance(self, instance: CloudId) -> Instance: ...
    def stop_instance(self, instance: CloudId) -> Instance: ...
    def reboot_instance(self, instance: CloudId, token: str) -> Instance:
        """A second call with the same token does not reboot again."""

    def terminate_instance(self, instance: CloudId) -> None:
        """Also when it is gone already."""


class ImageImport(Protocol):
    """Disks from here become disks and bootable images there."""

    def import_disk(self, order: DiskOrder, source: Reader, note: Note, resume: Cursor | None = None) -> Transferred:
        """The whole disk; all-zero blocks are not sent. Raises SourceChanged when `resume` is of other content."""

    def create_image(self, order: ImageOrder) -> CloudImage: ...
    def get_image(self, image: CloudId) -> CloudImage: ...
    def delete_image(self, image: CloudId) -> None:
        """The image, not its disks. Also when it is gone already."""

    def get_snapshot(self, disk: CloudId) -> Snapshot: ...
    def delete_disk(self, disk: CloudId) -> None:
        """An imported disk or snapshot, finished or half-way. Also when it is gone already."""

    def delete_disk_of(self, token: str) -> None:
        """As `delete_disk`, of what the step of this token began, should nobody have heard of it."""


class ImageExport(Protocol):
    """Disks there become content here."""

    def create_snapshot(self, volume: CloudId, token: str) -> Snapshot:
        """Crash-consistent, of a volume that may be in use. Pending at first: `get_snapshot` of ImageImport tells."""

    def export_disk(self, disk: CloudId, target: Disk, note: Note, resume: Cursor | None = None) -> Transferred:
        """All blocks of a snapshot into a `target` that reads as zeros, each verified. Raises Damaged."""

    def open_disk(self, disk: CloudId) -> AbstractContextManager[Reader]:
        """A snapshot or imported disk to be read as one likes, from several threads, each block verified. Raises
        NotFound, and Damaged from `read`."""

    def volume_size(self, volume: CloudId) -> int:
        """Bytes, of a volume that may be in use."""


class BlockDelta(Protocol):
    """Only what changed, in either direction."""

    def import_delta(
        self, order: DeltaOrder, source: Reader, changed: tuple[Range, ...], note: Note, resume: Cursor | None = None
    ) -> Transferred:
        """A new disk: `order.base` with the `changed` ranges as `source` has them, zeros too."""

    def export_delta(
        self, base: CloudId, disk: CloudId, target: Disk, note: Note, resume: Cursor | None = None
    ) -> Transferred:
        """Turns a `target` that holds `base` into `disk`."""

    def changed(self, base: CloudId, disk: CloudId) -> tuple[Range, ...]:
        """Where `disk` may differ from `base`, in whole blocks, ascending and apart. Reads none of them."""


class Catalogue(Protocol):
    """What there is to be had, and for how much."""

    def list_sizes(self, page: str = "", limit: int = 100) -> SizePage: ...
    def quotas(self) -> tuple[Quota, ...]: ...
    def prices(self) -> tuple[Price, ...]:
        """Of this region as of a day, from the user's own list or the repository's; empty when none has any."""


class RegionalCache(Protocol):
    """What stays in the region: an index of small objects, and disks that others are made from (clouds.cache). Needs
    BlockDelta. Calls raise NotOffered when the settings name no place for it."""

    @property
    def bounds(self) -> CacheBounds | None:
        """None: the settings say nothing of a cache."""

    def put_object(self, name: str, data: bytes) -> None:
        """Whole, or not at all; over one that is there."""

    def get_object(self, name: str) -> bytes:
        """Raises NotFound."""

    def list_objects(self, prefix: str) -> Iterator[StoredObject]: ...
    def delete_object(self, name: str) -> None:
        """Also when it is gone already."""

    def keep_disk(self, disk: CloudId, content: str) -> None:
        """Tag a finished disk with the content hash of all of it, so that it is known for a base (clouds.cache.TAG)."""


Capability = Literal["Instances", "ImageImport", "ImageExport", "BlockDelta", "Catalogue", "RegionalCache"]
CLOUDS: tuple[Cloud, ...] = get_args(Cloud)
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)


@dataclass(frozen=True)
class Offer:
    """One cell of the table. `not offered`: the cloud, or our way of using it, has none. `not built`: it could."""

    state: Literal["works", "not offered", "not built"]
    how: str


_WORKS: Literal["works"] = "works"
_NONE: Literal["not offered"] = "not offered"
_LATER: Literal["not built"] = "not built"
OFFERS: dict[Cloud, dict[Capability, Offer]] = {
    "aws": {
        "Instances": Offer(_WORKS, "EC2"),
        "ImageImport": Offer(_WORKS, "EBS direct: checked 512 KiB blocks into a snapshot, then RegisterImage"),
        "ImageExport": Offer(_WORKS, "EBS direct: ListSnapshotBlocks, every block's checksum verified"),
        "BlockDelta": Offer(_WORKS, "snapshots with a parent in, ListChangedBlocks out"),
        "Catalogue": Offer(_WORKS, "DescribeInstanceTypes, Service Quotas, price file"),
        "RegionalCache": Offer(_WORKS, "index in S3; finished snapshots stay as parents of the next VM's"),
    },
    "azure": {
        "Instances": Offer(_WORKS, "virtual machines of one resource group"),
        "ImageImport": Offer(_WORKS, "managed disk in Upload state, pages of a fixed VHD by SAS; compute gallery"),
        "ImageExport": Offer(_WORKS, "page ranges of a snapshot or unused disk, each block's MD5 verified"),
        "BlockDelta": Offer(_WORKS, "a new disk: base copied inside Azure, changes sent; out by snapshots' page diff"),
        "Catalogue": Offer(_WORKS, "resource SKUs, usages, price file"),
        "RegionalCache": Offer(_WORKS, "index in a blob container; finished disks stay, copied from inside Azure"),
    },
    "gcp": {
        "Instances": Offer(_WORKS, "Compute Engine"),
        "ImageImport": Offer(_WORKS, "tar.gz by a resumable upload to Cloud Storage, images.insert"),
        "ImageExport": Offer(
            _NONE, "no export call: Google's own tool boots a helper VM that copies the disk to Cloud Storage"
        ),
        "BlockDelta": Offer(_NONE, "no changed-block read and no page write on disks: needs a helper VM"),
        "Catalogue": Offer(_WORKS, "machine types, quotas of region and project, price file"),
        "RegionalCache": Offer(
            _LATER, "no disk starts from another with changes; archives could be composed of pieces in the bucket"
        ),
    },
    "oci": {
        "Instances": Offer(_WORKS, "Compute of oci.core"),
        "ImageImport": Offer(_WORKS, "QCOW2 by a multipart upload to Object Storage, create_image; boot disks only"),
        "ImageExport": Offer(
            _WORKS, "create_image of a stopped instance, export_image to Object Storage; boot disks only"
        ),
        "BlockDelta": Offer(_NONE, "no changed-block read and no block write on volumes: needs a helper VM"),
        "Catalogue": Offer(_WORKS, "shapes, limits, price file"),
        "RegionalCache": Offer(
            _LATER, "no disk starts from another with changes; part copies exist in the S3 compatible interface only"
        ),
    },
    "kvm": {
        "Instances": Offer(_WORKS, "libvirt's VMs: all are listed, those made here are handled"),
        "ImageImport": Offer(_WORKS, "sparse files in a folder of the host, read back and compared; images name them"),
        "ImageExport": Offer(_WORKS, "a copy of a VM's disk at one moment (libvirt's backup), checksums verified"),
        "BlockDelta": Offer(
            _WORKS, "in: a copy of the base with the changes; out: by checksums, copied by QEMU's bitmap"
        ),
        "Catalogue": Offer(_WORKS, "sizes of the settings, the host's memory, CPUs and storage; no prices"),
        "RegionalCache": Offer(_NONE, "disks are written on the host itself: there is no region between"),
    },
}


MOST_DISKS: dict[Cloud, int] = {"oci": 1}
"""Of an image, where it is fewer than an order may name."""


@dataclass(frozen=True)
class Adapter:
    """A cloud as it can be used. A capability that the table does not say `works` for is None."""

    cloud: Cloud
    instances: Instances | None = None
    image_import: ImageImport | None = None
    image_export: ImageExport | None = None
    block_delta: BlockDelta | None = None
    catalogue: Catalogue | None = None
    cache: RegionalCache | None = None

    def require(self, capability: Capability) -> None:
        """Raises NotOffered, with the table's reason."""
        offer = OFFERS[self.cloud][capability]
        if offer.state != "works":
            raise NotOffered(f"{self.cloud} has no {capability} ({offer.state}): {offer.how}", "Choose another way.")
