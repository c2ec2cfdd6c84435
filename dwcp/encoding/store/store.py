"""The store as the data path sees it: whatever a disk may do is logged, and the move goes on without.

Cheap to make, any number of processes and threads on one folder. What is read is verified, or not returned.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dwcp.encoding.store import check, images, indexing, space, visit
from dwcp.encoding.store.check import Verified
from dwcp.encoding.store.draft import Draft
from dwcp.encoding.store.folder import Folder, log
from dwcp.encoding.store.images import Image, ImageInfo
from dwcp.encoding.store.indexing import Indexed, Tell, silent
from dwcp.encoding.store.reading import PAGE, Buffer
from dwcp.encoding.store.visit import Visit, VisitInfo
from dwcp.errors import StoreFailed
from models.store import StoreSettings, StoreStats, StoreUse

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Pruned:
    removed: int
    """Visits, indexes and drafts."""
    freed: int
    """Bytes."""
    used: int
    """Bytes that are left; more than was asked where the rest is in use."""


class Store:
    def __init__(self, settings: StoreSettings, *, strict: bool = False) -> None:
        """`strict`: raise StoreFailed or OSError instead, for people who asked for something."""
        self.settings = settings
        self._strict = strict
        self._folder = Folder(Path(settings.folder))
        self._open: dict[bytes, Image] = {}
        self._lock = threading.Lock()

    def trouble(self) -> str:
        """Why the store cannot be used, for people; empty when it can, or is not there yet."""
        try:
            self._wanted()
            self._folder.check()
        except (OSError, StoreFailed) as error:
            return str(error)
        return ""

    def visits(self, use: StoreUse) -> list[VisitInfo]:
        """Visits that may serve this move, newest first."""
        with self._degrading("visits cannot be listed"):
            if self._there():
                found = map(visit.info, self._folder.entries("visits"))
                return [one for one in found if one is not None and allowed(one, use)]
        return []

    def open(self, root: bytes, use: StoreUse | None = None) -> Visit | None:
        """The newest visit of that root, locked until it is closed; counts as a use. With `use`: only what is allowed.

        None when there is none that is whole; single damaged pages show when they are read.
        """
        with self._degrading(f"visit {root.hex()} cannot be opened"):
            for entry in self._folder.entries("visits") if self._there() else ():
                if entry.root != root:
                    continue
                about = visit.info(entry)
                if about is None or (use is not None and not allowed(about, use)):
                    continue
                if (found := Visit.open(entry)) is not None:
                    found.use()
                    return found
        return None

    def begin(self, use: StoreUse, slots: int) -> Draft | None:
        """A new visit of this VM under way, with its slab allocated; None when there is no room or no store.

        Open what this move may build on first: it is then safe from being removed to make room.
        """
        with self._degrading(f"no visit of {use.vm} is kept"):
            self._wanted()
            return Draft.begin(self._folder, self.settings, use, slots)
        return None

    def images(self) -> list[ImageInfo]:
        """Indexed images that are unchanged and meant: named by the settings, or indexed by hand."""
        found: dict[str, ImageInfo] = {}
        with self._degrading("images cannot be listed"):
            meant = set(indexing.find(self.settings.images, []))
            for entry in self._folder.entries("images") if self._there() else ():
                head = images.header(entry)
                if head is None or not head.blocks or head.path in found or not images.unchanged(head):
                    continue
                if head.by_hand or head.path in meant:
                    found[head.path] = ImageInfo(entry.root, Path(head.path), head.blocks, entry.uses, entry.size)
        return list(found.values())

    def index_images(self, progress: Tell = silent, paths: Sequence[str] | None = None) -> Indexed:
        """Index what the settings name and has changed; or `paths`, by hand."""
        with self._degrading("images are not indexed"):
            self._wanted()
            return indexing.run(self._folder, self.settings, paths, progress)
        return Indexed()

    def forget_images(self, paths: Sequence[str]) -> list[str]:
        """Drop the indexes of these images; those that were there and not in use."""
        with self._degrading("no index is dropped"):
            return indexing.drop(self._folder, paths) if self._there() else []
        return []

    def image_keys(self, root: bytes) -> bytes:
        """Keys of an image's blocks, in the order of their numbers; empty when it cannot be had any more."""
        with self._degrading(f"image {root.hex()} cannot be opened"):
            image = self._image(root)
            return image.keys if image is not None else b""
        return b""

    def read_image(self, root: bytes, index: int) -> bytes | None:
        """The block, verified; None when it is not what was indexed."""
        block = bytearray(PAGE)
        return None if self.supply(root, [index], block) else bytes(block)

    def supply(self, root: bytes, indices: Sequence[int], into: Buffer) -> list[int]:
        """Read blocks of an image into `into`, verified; the positions that failed (zeroed)."""
        with self._degrading(f"image {root.hex()} cannot be read"):
            image = self._image(root)
            if image is not None:
                failed = image.supply(indices, into)
                if len(failed) < len(indices):
                    image.use()
                return failed
        memoryview(into).cast("B")[: len(indices) * PAGE] = bytes(len(indices) * PAGE)
        return list(range(len(indices)))

    def stats(self) -> StoreStats:
        """What is there, damaged or not."""
        settings, folder = self.settings, self._folder
        nothing = StoreStats(folder=settings.folder, limit_bytes=settings.limit_mib * MIB)
        with self._degrading("the store cannot be counted"):
            if not folder.is_store():
                return nothing
            visits, indexes = folder.entries("visits"), folder.entries("images")
            heads = [head for head in map(images.header, indexes) if head is not None]
            return nothing.model_copy(
                update={
                    "used_bytes": folder.used(),
                    "visits": len(visits),
                    "visit_pages": sum(one.pages for one in map(visit.info, visits) if one is not None),
                    "drafts": folder.drafts(),
                    "images": len(indexes),
                    "image_blocks": sum(head.blocks for head in heads),
                    "damaged": sum(map(check.damaged_pages, visits + indexes)),
                    "uses": sum(one.uses for one in visits + indexes),
                }
            )
        return nothing

    def verify(self, progress: Tell = silent) -> Verified:
        """Read everything once; what differs from its key is marked and never used again."""
        with self._degrading("the store cannot be verified"):
            return check.run(self._folder, progress)
        return Verified()

    def prune(self, limit: int | None = None) -> Pruned:
        """Remove what is of no use, then the least valuable until `limit` bytes are left (default: the settings')."""
        with self._degrading("the store cannot be pruned"):
            if self._folder.is_store():
                target = self.settings.limit_mib * MIB if limit is None else limit
                return Pruned(*space.prune(self._folder, self.settings, target))
        return Pruned(0, 0, 0)

    def close(self) -> None:
        """Let go of the images that were read."""
        with self._lock:
            opened, self._open = list(self._open.values()), {}
        for image in opened:
            image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _there(self) -> bool:
        return bool(self.settings.limit_mib) and self._folder.is_store()

    def _wanted(self) -> None:
        if not self.settings.limit_mib:
            raise StoreFailed("the store is switched off: limit_mib is 0")

    def _image(self, root: bytes) -> Image | None:
        """One that is open already, or the first of that root that can be opened."""
        with self._lock:
            if (image := self._open.get(root)) is not None:
                return image
            paths = {one.path for one in self.images() if one.root == root}
            for entry in self._folder.entries("images") if paths else ():
                if entry.root == root and (image := Image.open(entry)) is not None:
                    if image.path in paths:
                        self._open[root] = image
                        return image
                    image.close()
        return None

    @contextlib.contextmanager
    def _degrading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, StoreFailed) as error:
            if self._strict:
                raise
            log.warning("%s: %s", what, error)


def allowed(about: VisitInfo, use: StoreUse) -> bool:
    """Whether a visit may serve this VM."""
    match use.scope:
        case "site":
            return True
        case "tenant":
            return about.vm == use.vm or about.tenant == use.tenant
        case _:
            return about.vm == use.vm
