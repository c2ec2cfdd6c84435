"""The page stage: a guest's pages and disk blocks said in few bytes, by what both ends of a flow remember.

    raw bytes -> Encoder -> tokens -> Decoder -> the same raw bytes

Per page, cheapest first: zero; as this address was before; a small difference to that; as at the VM's last visit
(`base`), or a small difference to it; equal to another page sent before; known to the far store (`have`); whole. Format
and rules: docs/dwcp-pages.md. The work is done by the C extension where it is built, without the GIL, else by pure
Python (or with NOVACRON_PURE=1 in the environment); the two understand each other.

Both memories of a flow must have the same number of slots. One thread at a time may use a Memory and what uses it.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dwcp.encoding import pages_py
from dwcp.encoding.tokens import (
    KEY_BYTES,
    MAX_SLOTS,
    NONE,
    PAGE,
    PHASES,
    Contents,
    Counts,
    Grammar,
    Phase,
    bound,
)
from dwcp.errors import ProtocolError
from dwcp.transport.frames import MAX_BATCH, Buffer
from models.datapath import PageCounts

__all__ = [
    "ENGINE",
    "KEY_BYTES",
    "NONE",
    "PAGE",
    "PHASES",
    "Base",
    "Contents",
    "Decoder",
    "Encoded",
    "Encoder",
    "Grammar",
    "Have",
    "Memory",
    "Phase",
    "Refs",
    "bound",
    "page_keys",
]


MAX_REFS: Final = MAX_BATCH // PAGE
"""Pages that one batch can refer to."""


def _engine() -> Any:
    if os.environ.get("NOVACRON_PURE") != "1":
        try:
            import dwcp.encoding._pages as engine
        except ImportError:
            return pages_py
        return engine
    return pages_py


if TYPE_CHECKING:
    ENGINE = pages_py
else:
    ENGINE: Final = _engine()
    """The module that does the work: `_pages` or `pages_py`. Both have the same names."""


class Encoded(NamedTuple):
    consumed: int
    """Raw bytes that the tokens stand for."""
    size: int
    """Bytes of tokens; 0 when nothing was consumed."""
    refs: array[int]
    """Offsets in raw of the pages that the far store must supply, in order."""
    bases: array[int]
    """For each of them the slot of the base that is needed, or NONE where it is the page itself."""


class Refs(NamedTuple):
    """What must be supplied, in order: per page an index of the have-list or a slot of the base, the other NONE."""

    have: array[int]
    bases: array[int]

    def __len__(self) -> int:
        return len(self.have)


class Memory:
    """What one flow remembers at one end: `slots` pages, in `fd` (a file of slots * 4096 bytes) or in no file."""

    def __init__(self, slots: int, fd: int | None = None, *, engine: Any = ENGINE) -> None:
        if not 0 <= slots <= MAX_SLOTS:
            raise ValueError(f"{slots} slots are outside 0..{MAX_SLOTS}")
        self.engine = engine
        self.slots = slots
        size = slots * PAGE
        slab: mmap.mmap | bytearray
        if not size:
            slab = bytearray()
        elif fd is not None:
            slab = mmap.mmap(fd, size, mmap.MAP_SHARED)
        else:
            slab = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.slab: Final = slab
        self.core: pages_py.Memory = engine.Memory(slots, slab)

    def prefault(self) -> None:
        """Touches all of it now: the first touch costs more than hashing a page. Takes seconds for gigabytes."""
        self.core.prefault()

    @property
    def used(self) -> int:
        """Slots in use."""
        return self.core.used

    def contents(self) -> Contents:
        """Blocks and addresses, for a visit."""
        return self.core.contents()

    def keys(self) -> bytes:
        """16 bytes for each of the slots 0..contents().slots-1. Without the GIL, but the flow must rest meanwhile."""
        return self.core.keys()


class Base:
    """An earlier visit, read only: `pages` is its slab, as a file descriptor or mapped. The file must never shrink.

    Raises ValueError when the parts do not fit one another.
    """

    def __init__(
        self, pages: int | mmap.mmap | Buffer, contents: Contents, keys: bytes, *, engine: Any = ENGINE
    ) -> None:
        size = contents.slots * PAGE
        mapped: mmap.mmap | Buffer
        if not isinstance(pages, int):
            mapped = pages
        elif os.fstat(pages).st_size < size:
            raise ValueError(f"the visit's slab has {os.fstat(pages).st_size} bytes, its contents need {size}")
        else:
            mapped = mmap.mmap(pages, size, mmap.MAP_SHARED, mmap.PROT_READ) if size else b""
        if len(mapped) < size or len(keys) != contents.slots * KEY_BYTES or len(contents.places) % 12:
            raise ValueError(f"the visit's pages, keys and places do not fit {contents.slots} slots")
        numbers = array("I", contents.places)
        if numbers and (max(numbers[0::3]) >= len(contents.blocks) or max(numbers[2::3]) >= contents.slots):
            raise ValueError("the visit names a block or a slot that it does not have")
        self.contents = contents
        self.core: pages_py.Base = engine.Base(mapped, contents, keys)
        self.root = contents.root(keys)
        self._numbers = {name: number for number, name in enumerate(contents.blocks)}

    def slot(self, block: bytes, page: int) -> int:
        """Slot of a page, by its block's name and its number; NONE where the visit has none."""
        number = self._numbers.get(block)
        return NONE if number is None else self.core.slot(number, page)

    def supply(self, slots: array[int], into: bytearray | memoryview) -> list[int]:
        """Copies pages to their places in `into`, each checked against its key; slot NONE is passed over.

        Returns the places whose pages are damaged: those must come from elsewhere.
        """
        return _numbers(self.core.supply(slots.tobytes(), into))


class Have:
    """The have-list: 16-byte keys of pages that the destination can supply; the index is the position."""

    def __init__(self, keys: bytes, *, engine: Any = ENGINE) -> None:
        if len(keys) % KEY_BYTES:
            raise ValueError(f"a have-list of {len(keys)} bytes is no multiple of {KEY_BYTES}")
        self.core: pages_py.Have = engine.Have(keys)
        self._length = len(keys) // KEY_BYTES

    def __len__(self) -> int:
        return self._length

    def index(self, key: bytes) -> int:
        return self.core.index(key)

    def check(self, indices: array[int], pages: Buffer) -> list[int]:
        """Places of those of `pages` that are not what the list promises at `indices`; index NONE is passed over."""
        return _numbers(self.core.check(indices.tobytes(), pages))


class Encoder:
    """One flow, at its sending end. `base` and `have` may be set and changed between two calls."""

    def __init__(self, memory: Memory, grammar: Grammar) -> None:
        self.base: Base | None = None
        self.have: Have | None = None
        self._core: pages_py.Encoder = memory.engine.Encoder(memory.core, grammar)

    def encode(self, raw: Buffer, out: bytearray | memoryview, flush: bool) -> Encoded:
        """Tokens of as much of `raw` as ends with a whole record, or of all with `flush`. `out`: bound(len(raw))."""
        base = None if self.base is None else self.base.core
        have = None if self.have is None else self.have.core
        consumed, size, refs, bases = self._core.encode(raw, out, flush, base, have)
        return Encoded(consumed, size, array("I", refs), array("I", bases))

    @property
    def counts(self) -> PageCounts:
        return _counts(self._core.counts)

    @property
    def phase(self) -> Phase:
        """As seen in the stream: `final` is the last memory section of pre-copy, which the stopped guest waits for,
        `device` what follows it; `postcopy` stays until the end."""
        return self._core.phase


class Decoder:
    """One flow, at its receiving end."""

    def __init__(self, memory: Memory) -> None:
        self.base: Base | None = None
        self._core: pages_py.Decoder = memory.engine.Decoder(memory.core)

    def refs(self, tokens: Buffer) -> Refs:
        """What `decode` of these tokens needs to be supplied. All batches before must have been decoded."""
        try:
            have, bases = self._core.refs(tokens, None if self.base is None else self.base.core)
        except ValueError as error:
            raise _malformed(error) from error
        if len(have) > MAX_REFS * 4:
            raise ProtocolError(f"tokens refer to {len(have) // 4} pages, a batch has {MAX_REFS}; end the session")
        return Refs(array("I", have), array("I", bases))

    def decode(self, tokens: Buffer, supply: Buffer, out: memoryview | bytearray) -> int:
        """Bytes written to `out`. `supply`: a page for each of `refs`. Raises ProtocolError; the flow is then over."""
        try:
            return self._core.decode(tokens, supply, out, None if self.base is None else self.base.core)
        except ValueError as error:
            raise _malformed(error) from error

    @property
    def counts(self) -> PageCounts:
        return _counts(self._core.counts)


def page_keys(pages: Buffer, *, engine: Any = ENGINE) -> bytes:
    """The keys of n pages, n * 16 bytes; without the GIL."""
    keys: bytes = engine.page_keys(pages)
    return keys


def _malformed(error: ValueError) -> ProtocolError:
    return ProtocolError(f"page tokens do not decode: {error}; end the session")


def _numbers(raw: bytes) -> list[int]:
    return array("I", raw).tolist()


def _counts(counts: Sequence[int]) -> PageCounts:
    values = Counts(*counts)._asdict()
    return PageCounts(**{**values, "lost_sync": bool(values["lost_sync"])})
