"""Disks on their way out: an imported disk as it lies in the bucket, or a snapshot that is exported into it first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from clouds.capabilities import Note
from clouds.disks.content import Disk, Reader, read_block, touched
from clouds.disks.images import open_image
from clouds.errors import Conflict, NotFound
from clouds.oci.fetched import fetched
from clouds.oci.session import OciSession
from clouds.oci.snapshots import OciSnapshots, is_snapshot
from clouds.oci.uploads import OciUploads
from clouds.transfer import receive
from models.clouds import Cursor, Snapshot, Transferred


class _Shared:
    """A Reader for several threads."""

    def __init__(self, image: Reader) -> None:
        self.size = image.size
        self._image = image
        self._lock = Lock()

    def data(self) -> Iterable[tuple[int, int]]:
        return self._image.data()

    def read(self, offset: int, length: int) -> bytes:
        with self._lock:
            return self._image.read(offset, length)


class OciExport:
    """ImageExport."""

    def __init__(self, session: OciSession) -> None:
        self._oci = session
        self._uploads = OciUploads(session)
        self._snapshots = OciSnapshots(session, self._uploads)

    def create_snapshot(self, volume: str, token: str) -> Snapshot:
        """An image of the instance that boots from it. Raises Conflict unless that is stopped."""
        return self._snapshots.create(volume, token)

    def export_disk(self, disk: str, target: Disk, note: Note, resume: Cursor | None = None) -> Transferred:
        """Through a file in the settings' `spool`."""
        if resume is not None and resume.disk != disk:
            raise Conflict(f"the cursor is of {resume.disk}, not of {disk}", "Give the cursor of this disk.")
        cursor = resume or Cursor(disk=disk)
        with self._opened(disk, lambda: note(cursor)) as image:
            listed = ((index, None) for index in touched(image.size, image.data()))

            def read(item: tuple[int, None]) -> bytes:
                return read_block(image, item[0]).data

            return receive(disk, image.size, listed, read, target, note, resume, parallel=1, delta=False)

    @contextmanager
    def open_disk(self, disk: str) -> Iterator[Reader]:
        """Fetched and checked as a whole before the first block is read: Damaged is raised here."""
        with self._opened(disk, lambda: None) as image:
            yield _Shared(image)

    def volume_size(self, volume: str) -> int:
        return self._snapshots.volume_size(volume)

    @contextmanager
    def _opened(self, disk: str, beat: Callable[[], None]) -> Iterator[Reader]:
        if is_snapshot(disk):
            self._snapshots.export(disk, beat)
        elif self._uploads.size(disk) is None:
            raise NotFound(f"there is no disk {disk}", "Check the id and the bucket.")
        settings = self._oci.settings
        with (
            fetched(self._uploads, disk, Path(settings.spool), settings.calls.parallel, beat) as path,
            open_image(path, "qcow2") as image,
        ):
            yield image
