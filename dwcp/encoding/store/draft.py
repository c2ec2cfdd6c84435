"""A visit under way: a slab that is there before it is needed, and one rename that makes it count."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from dwcp.encoding.store import space
from dwcp.encoding.store.folder import Folder, Held, log
from dwcp.encoding.store.reading import KEY, PAGE, Buffer
from dwcp.encoding.store.visit import HEADER_BYTES, MAX_SLOTS, VisitHeader, info, root_of
from dwcp.errors import StoreFailed
from models.store import StoreSettings, StoreUse

MAP_BYTES: Final = 32
"""Room set aside for each slot's key and place in the map."""


class Draft:
    """Not thread safe. Ends with `commit` or `abandon`; what a killed process leaves is swept by the next one."""

    def __init__(self, folder: Folder, settings: StoreSettings, use: StoreUse, held: Held, slots: int) -> None:
        self.slots = slots
        self.fd = -1
        """The slab: `slots` * 4096 bytes, allocated on the disk. Ours to close."""
        self._folder = folder
        self._settings = settings
        self._use = use
        self._held = held

    @classmethod
    def begin(cls, folder: Folder, settings: StoreSettings, use: StoreUse, slots: int) -> Draft:
        """Make room and the slab. Raises StoreFailed or OSError when that cannot be; then nothing is left."""
        if not 1 <= slots <= MAX_SLOTS:
            raise StoreFailed(f"a visit of {slots} pages is outside 1..{MAX_SLOTS}")
        with folder.locked():
            space.make_room(folder, settings, slots * (PAGE + MAP_BYTES) + 16 * PAGE, use.vm)
            draft = cls(folder, settings, use, folder.draft(), slots)
            with draft._or_nothing():
                draft.fd = draft._held.open("slab", os.O_RDWR | os.O_CREAT | os.O_EXCL)
                os.ftruncate(draft.fd, slots * PAGE)  # from here on it counts as used
        with draft._or_nothing():
            os.posix_fallocate(draft.fd, 0, slots * PAGE)
        return draft

    def commit(self, contents: Buffer, keys: Buffer, used_slots: int) -> bytes | None:
        """Keep the first `used_slots` slots as the VM's newest visit; its root. None when that cannot be (logged).

        The slab is cut to that length: nobody may touch a mapping of it beyond any more.
        """
        try:
            with self._or_nothing():
                return self._commit(bytes(contents), bytes(keys), used_slots)
        except (OSError, StoreFailed) as error:
            log.warning("the visit of %s is not kept: %s", self._use.vm, error)
            return None

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._held.fd < 0:
            return
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._folder.discard(self._held)
        self._held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _commit(self, contents: bytes, keys: bytes, used: int) -> bytes:
        if self._held.fd < 0:
            raise StoreFailed("it was committed or abandoned before")
        if not 1 <= used <= self.slots or len(keys) != used * KEY:
            raise StoreFailed(f"{used} of {self.slots} slots with {len(keys)} bytes of keys do not fit together")
        folder, held, use = self._folder, self._held, self._use
        os.ftruncate(self.fd, used * PAGE)
        size = HEADER_BYTES + len(contents) + len(keys)
        with folder.locked():
            space.make_room(folder, self._settings, size, use.vm)
            file = held.open("visit", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.ftruncate(file, size)
            finally:
                os.close(file)
        root = root_of(contents, keys)
        os.fsync(self.fd)
        earlier = [one for one in map(info, folder.entries("visits")) if one and one.vm == use.vm]
        head = VisitHeader(used, len(contents), root, use.vm, use.tenant)
        held.write("visit", head.pack(), contents, keys)
        held.append("uses", b"+" * min(255, max((one.uses for one in earlier), default=0)))
        with folder.locked():
            folder.publish(held, "visits", root)
            os.close(self.fd)
            self.fd = -1
            fcntl.flock(held.fd, fcntl.LOCK_UN)  # a copy of the descriptor elsewhere must not keep it locked
            held.release()
            try:
                space.drop_useless(folder, self._settings, "visits")
            except OSError as error:
                log.warning("earlier visits of %s could not be removed: %s", use.vm, error)
        return root

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abandon()
            raise
