"""The bytes behind a signed address: pages of 512 bytes in a page blob that ends with a VHD footer.

No conditions (If-Match) are sent: managed disks take none. Each write and read of a block carries its MD5, which Azure
checks on the way in and the SDK on the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clouds.azure.access import Leave
from clouds.capabilities import Range
from clouds.disks.vhd import FOOTER
from clouds.errors import CloudError

PIECE = 4 << 20
"""Bytes that one call writes, copies or reads at most."""
LISTED = 10_000
"""Ranges that an answer holds at most; one that is full may have been cut short."""
WINDOW = 256 << 30
"""Bytes whose changes are asked for at once, to begin with."""
PAGE = 512


class Pages:
    def __init__(self, leave: Leave, name: str) -> None:
        self._leave, self._name = leave, name

    def size(self) -> int:
        """Bytes of the disk, without the footer."""
        told = self._leave.do(f"look at {self._name}", lambda blob: blob.get_blob_properties())
        return int(told.size) - FOOTER

    def write(self, offset: int, data: bytes) -> None:
        self._leave.do(
            f"write {len(data)} bytes at {offset} of {self._name}",
            lambda blob: blob.upload_page(data, offset=offset, length=len(data), validate_content="md5"),
        )

    def copy(self, source: Leave, offset: int, length: int) -> None:
        """From another disk, inside Azure: no bytes go through here."""

        def ask(address: str) -> None:
            what = f"copy {length} bytes at {offset} to {self._name}"
            self._leave.do(what, lambda blob: blob.upload_pages_from_url(address, offset, length, offset))

        address = source.address
        try:
            ask(address)
        except CloudError as error:
            if error.code != "CannotVerifyCopySource":
                raise
            source.renew(address)  # it expired, or another transfer of the same disk took it back
            ask(source.address)

    def read(self, offset: int, length: int) -> bytes:
        def ask(blob: Any) -> bytes:
            stream = blob.download_blob(
                offset=offset, length=length, validate_content="md5", raw_response_hook=_untyped
            )
            return bytes(stream.readall())

        return self._leave.do(f"read {length} bytes at {offset} of {self._name}", ask)

    def ranges(self, size: int) -> list[Range]:
        """What was ever written and not cleared, without the footer."""

        def ask(blob: Any) -> list[Range]:
            return [(told.start, told.end + 1) for told in blob.list_page_ranges()]

        return _inside(self._leave.do(f"list the pages of {self._name}", ask), size)

    def changes(self, earlier: Leave, size: int) -> tuple[list[Range], list[Range]]:
        """(written, cleared) since the snapshot that `earlier` leads to.

        The SDK gives the first answer only, and does not tell when there is more: a window whose answer is full is
        asked for again in halves.
        """
        written, cleared = [], []
        for filled, emptied in self._windows(earlier, size):
            written += filled
            cleared += emptied
        return _inside(written, size), _inside(cleared, size)

    def _windows(self, earlier: Leave, size: int) -> Iterator[tuple[list[Range], list[Range]]]:
        offset, window = 0, WINDOW
        while offset < size:
            length = min(window, size - offset)
            told = self._leave.do(
                f"list what changed in {self._name}",
                lambda blob, at=offset, many=length: blob.get_page_range_diff_for_managed_disk(  # type: ignore[misc]
                    earlier.address, offset=at, length=many
                ),
            )
            if sum(map(len, told)) >= LISTED and length > PAGE:
                window = max(PAGE, length // 2 // PAGE * PAGE)
                continue
            filled, emptied = ([(item["start"], item["end"] + 1) for item in part] for part in told)
            yield filled, emptied
            offset += length


def _untyped(response: Any) -> None:
    """The SDK lists all pages of a page blob after each read of one, and has no use for the list when the read is whole
    already. It does not when it cannot tell what kind of blob it is."""
    response.http_response.headers.pop("x-ms-blob-type", None)


def _inside(spans: list[Range], size: int) -> list[Range]:
    """(start, end) as (offset, length), ascending, joined, cut at the disk's end."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted((start, min(end, size)) for start, end in spans if start < size):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return [(start, end - start) for start, end in joined]
