"""Both ends of the page stage in one place: what goes in comes out, whatever the borders; both remember the same."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest

from dwcp.encoding import pages, pages_py
from dwcp.encoding.pages import NONE, PAGE, Base, Decoder, Encoder, Grammar, Have, Memory

ENGINES: list[ModuleType] = [pages_py]
if pages.ENGINE is not pages_py:
    ENGINES.append(pages.ENGINE)
PAIRS = [
    pytest.param((near, far), id=f"{near.__name__.rpartition('.')[2]}-{far.__name__.rpartition('.')[2]}")
    for near in ENGINES
    for far in ENGINES
]
EACH = [pytest.param(engine, id=engine.__name__.rpartition(".")[2]) for engine in ENGINES]
Engines = tuple[Any, Any]


class Ends:
    """An encoder and its decoder. `library`: the pages behind the have-list."""

    def __init__(
        self, engines: Engines, slots: int = 4096, grammar: Grammar = "ram", *, library: list[bytes] | None = None
    ) -> None:
        near, far = engines
        self.near, self.far = Memory(slots, engine=near), Memory(slots, engine=far)
        self.encoder, self.decoder = Encoder(self.near, grammar), Decoder(self.far)
        self.tokens: list[bytes] = []
        self.received = bytearray()
        self._library = library or []
        self._rest = b""
        self._check = None
        if library:
            keys = pages.page_keys(b"".join(library), engine=near)
            self.encoder.have, self._check = Have(keys, engine=near), Have(keys, engine=far)

    def give(self, raw: bytes, *, flush: bool = False) -> int:
        """Encodes and decodes at once; bytes of tokens."""
        whole = self._rest + raw
        out = bytearray(pages.bound(len(whole)))
        done = self.encoder.encode(whole, out, flush)
        self._rest = whole[done.consumed :]
        assert not (flush and self._rest)
        assert len(self._rest) < PAGE + 400
        if not done.consumed:
            return 0
        assert done.size <= pages.bound(done.consumed)
        tokens = bytes(out[: done.size])
        self.tokens.append(tokens)
        refs = self.decoder.refs(tokens)
        assert refs.bases == done.bases
        supply = bytearray(PAGE * len(refs.have))
        if self.decoder.base:
            assert self.decoder.base.supply(refs.bases, supply) == []
        for place, index in enumerate(refs.have):
            if index != NONE:
                supply[place * PAGE : place * PAGE + PAGE] = self._library[index]
        if self._check:
            assert self._check.check(refs.have, supply) == []
        for place, (offset, base) in enumerate(zip(done.refs, done.bases, strict=True)):
            if base == NONE:
                assert supply[place * PAGE : place * PAGE + PAGE] == whole[offset : offset + PAGE]
        back = bytearray(done.consumed)
        assert self.decoder.decode(tokens, supply, back) == done.consumed
        assert back == whole[: done.consumed]
        self.received += back
        return done.size

    def carry(self, raw: bytes, seed: int | None = None) -> int:
        """All of `raw`, in pieces of any size and with flushes anywhere where there is a `seed`."""
        if seed is None:
            return self.give(raw, flush=True)
        chance, at, size = random.Random(seed), 0, 0
        while at < len(raw):
            step = chance.choice([1, 3, 9, 300, 4104, 20_000, 100_000, 100_000])
            size += self.give(raw[at : at + step], flush=chance.random() < 0.3)
            at += step
        return size + self.give(b"", flush=True)

    def agree(self) -> None:
        assert self.encoder.counts == self.decoder.counts
        assert self.near.contents() == self.far.contents()
        assert self.near.used == self.far.used
        assert self.near.keys() == self.far.keys()

    def visit(self, near: Any, far: Any) -> tuple[Base, Base]:
        """What both remember, as the base of the next move."""
        self.agree()
        bases = tuple(
            Base(memory.slab, memory.contents(), memory.keys(), engine=engine)
            for memory, engine in ((self.near, near), (self.far, far))
        )
        assert bases[0].root == bases[1].root
        return bases[0], bases[1]
