"""HDE, hierarchical delta encoding: all of a session's encoding in one place, from the choice of codecs to the stores.

The source's end of a bulk flow asks for a packer, the destination's for an unpacker; lanes ask it to compress what the
packer left to them, and to decompress. What may be used is what both ends offer in HELLO.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final, Literal

from dwcp.buffers import BufferPool
from dwcp.encoding.bulk import Packer, Unpacker
from dwcp.encoding.chooser import Chooser, allowed_rungs
from dwcp.encoding.codec import Coder, Rung
from dwcp.encoding.messages import PAGE
from dwcp.encoding.pages import Decoder, Encoder, Grammar
from dwcp.errors import DwcpError, ProtocolError
from dwcp.known import Known
from dwcp.outbox import Batch, Outbox
from dwcp.talk import DestinationTalk, SourceTalk
from dwcp.transport.frames import CHAINED, Buffer, Codec, Data
from dwcp.transport.hello import ALL_FEATURES, Features
from models.datapath import DataPathConfig, PageCounts

log = logging.getLogger(__name__)

NOT_WORTH_PACKING: Final = 512
OBSERVED_FROM: Final = 32 << 10
"""Smaller batches say little about codec speed."""
_GRAMMARS: Final[dict[str, Grammar]] = {"ram": "ram", "nbd": "nbd"}


class Encoding:
    def __init__(self, config: DataPathConfig, outbox: Outbox, pool: BufferPool) -> None:
        self.known = Known(config)
        self.offers = self._offered(config)
        self.codec = ""
        """Of the newest batch."""
        self.talk: SourceTalk | DestinationTalk | None = None
        self._config = config
        self._outbox = outbox
        self._pool = pool
        self._coder = Coder()
        self._agreed = threading.Event()
        self._features = Features(0)
        self._lock = threading.Lock()
        self._chooser = self._new_chooser(self.offers)
        self._stages: list[Encoder | Decoder] = []
        self._resent = 0
        self._kept: threading.Thread | None = None

    def _offered(self, config: DataPathConfig) -> Features:
        offers = ALL_FEATURES
        if config.codec == "raw" or not self.known.looks_at_pages:
            offers &= ~(Features.PAGES | Features.STORE)
        if not self.known.store:
            offers &= ~Features.STORE
        return offers

    def _new_chooser(self, features: Features) -> Chooser:
        # Half of the processors: the virtual machine that is being moved needs the rest.
        cores = max(1, len(os.sched_getaffinity(0)) // 2)
        return Chooser(allowed_rungs(self._config.codec, features), cores)

    # --- the session's life ---

    def prepare(self) -> None:
        """Beside everything else, as the session begins: room for the pages to come."""
        if Features.PAGES in self.offers:
            threading.Thread(target=self.known.prepare, name="page memory", daemon=True).start()

    def agree(self, features: Features) -> None:
        """Both ends' features are known."""
        with self._lock:
            self._features = features
            self._chooser = self._new_chooser(features)
        self._agreed.set()

    def end(self) -> None:
        """The session is over: nobody waits here any more."""
        self._agreed.set()
        if self.talk:
            self.talk.close()

    def memory_is_over(self) -> None:
        """No more pages come, however it ended: keep them for the next time, beside everything else."""
        if not self._kept:
            self._kept = threading.Thread(target=self.known.keep, name="keep pages")
            self._kept.start()

    def close(self, *, whole: bool) -> None:
        """The process is about to end. `whole`: the memory stream is over, not broken off."""
        if self._kept:
            self._kept.join()
        self.known.close(whole=whole)

    @property
    def stores_talk(self) -> bool:
        return Features.STORE in self._features

    def start_talk(self) -> SourceTalk | DestinationTalk:
        """The stores' own flow is open: `far` of what is returned is its socket."""
        if self._config.role == "source":
            self.talk = SourceTalk(self.known, self._outbox.pages)
        else:
            self.talk = DestinationTalk(self.known)
        self.talk.start()
        return self.talk

    # --- flows ---

    def packer(self, service: str) -> Packer | None:
        """Source: for a new bulk flow; waits until both ends have agreed. None: its bytes go as they are."""
        self._agreed.wait()
        if self._config.codec == "raw" or not self._features:
            return None
        memory = self.known.memory(service) if Features.PAGES in self._features else None
        encoder = Encoder(memory, _GRAMMARS[service]) if memory else None
        if encoder:
            self._stages.append(encoder)
        return Packer(encoder, self, self._pool, self.known)

    def unpacker(self, number: int, service: str) -> Unpacker:
        """Destination: for a flow whose first batch needs it."""

        def decoder() -> Decoder:
            memory = self.known.memory(service) if Features.PAGES in self._features else None
            if memory is None:
                raise ProtocolError(f"page tokens of a further {service} stream; start the migration anew")
            made = Decoder(memory)
            self._stages.append(made)
            return made

        def supply(batch: int, stage: Decoder, tokens: Buffer) -> Buffer:
            return self._supply(number, batch, stage, tokens)

        return Unpacker(decoder, supply)

    def _supply(self, flow: int, batch: int, decoder: Decoder, tokens: Buffer) -> Buffer:
        """The pages that tokens refer to, in order, each verified; what the store lost comes from the source."""
        decoder.base = base = self.known.base
        refs = decoder.refs(tokens)
        if not len(refs):
            return b""
        pages = memoryview(bytearray(len(refs) * PAGE))
        lost = base.supply(refs.bases, pages) if base else []
        lost += self.known.supply(refs.have, pages)
        if lost:
            lost.sort()
            if not isinstance(self.talk, DestinationTalk):
                raise DwcpError("pages of the store are referred to, but no store has spoken")
            log.warning("batch %d: %d of %d pages are not what the store promised", batch, len(lost), len(refs))
            for place, page in zip(lost, self.talk.want(flow, batch, tuple(lost)), strict=True):
                pages[place * PAGE : (place + 1) * PAGE] = page
            self._resent += len(lost)
        return pages

    # --- codecs ---

    def rung(self, body: Buffer, *, urgent: bool) -> Rung:
        """The codec for the next batch of a bulk flow."""
        with self._lock:
            before = self._chooser.choice
            rung = self._chooser.next(time.monotonic(), body, urgent=urgent)
            if self._chooser.choice is not before:
                log.info("codec %s -> %s: %s", before.rung, self._chooser.choice.rung, self._chooser.choice.reason)
            return rung

    def observe(self, rung: Rung, raw: int, wire: int, cpu: float, wall: float) -> None:
        """A batch was compressed."""
        self.codec = rung
        if raw >= OBSERVED_FROM:
            with self._lock:
                self._chooser.observe(rung, raw, wire, cpu, wall)

    def link(self, delivered: int, limited: bool) -> None:
        """Wire bytes delivered since the start, and whether it is the link that holds us back."""
        with self._lock:
            self._chooser.delivered(time.monotonic(), delivered, limited)

    def compress(self, batch: Batch) -> tuple[Codec, Buffer]:
        """A lane's part: what the packer left to it, and the small batches of other flows."""
        size = len(batch.body)
        if batch.codec is not None or size < NOT_WORTH_PACKING or self._config.codec in ("raw", "none"):
            return batch.codec or Codec.NONE, batch.body
        if batch.rung is None:
            return self._coder.encode("lz4" if Features.LZ4 in self._features else "none", batch.body)
        begun, used = time.perf_counter(), time.thread_time()
        codec, body = self._coder.encode(batch.rung, batch.body)
        self.observe(batch.rung, size, len(body), time.thread_time() - used, time.perf_counter() - begun)
        return codec, body

    def decompress(self, data: Data) -> Buffer:
        """A lane's part. Chained bodies are left as they are: they are unpacked in order, by their flow."""
        return data.body if data.codec in CHAINED else self._coder.decode(data.codec, data.body, data.unpacked)

    # --- figures ---

    @property
    def stores(self) -> Literal["off", "talking", "ready"]:
        if not self.stores_talk:
            return "off"
        return "ready" if self.talk and self.talk.ready else "talking"

    def counts(self) -> PageCounts:
        """Over all flows that are looked at."""
        total = PageCounts(resent=self._resent)
        for stage in list(self._stages):
            counts = stage.counts
            sums = {
                name: getattr(total, name) + getattr(counts, name)
                for name in PageCounts.model_fields
                if name != "lost_sync"
            }
            total = PageCounts(**sums, lost_sync=total.lost_sync or counts.lost_sync)
        return total
