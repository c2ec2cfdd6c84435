"""What every rung makes of every batch of a corpus, measured once and kept beside the corpora.

`python -m bench.measured [CORPUS]` prints it. A batch is what the page stage leaves to the codecs: 1 MiB of
the corpus's pages without zero pages and repeats.
Sizes are exact; CPU seconds are of the coding thread, the least of two passes, since other work on the machine only
ever adds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3

from bench.corpora import corpus
from bench.corpora.pages import PAGE, ZERO
from dwcp.encoding.chain import WINDOW_LOG, ChainPacker
from dwcp.encoding.codec import CHAIN_LEVELS, LEVELS, RUNGS, Coder, Rung

BATCH: Final = 1 << 20
PASSES: Final = 2
HOW: Final = f"{RUNGS} {LEVELS} {CHAIN_LEVELS} {WINDOW_LOG}"
"""A table is measured again when this has changed."""


@dataclass(frozen=True)
class Packing:
    """One rung over all batches of a corpus."""

    wire: list[int]
    cpu: list[float]


@dataclass(frozen=True)
class Table:
    raw: list[int]
    packings: dict[Rung, Packing]

    def share(self, rung: Rung) -> float:
        """Wire bytes per raw byte."""
        return sum(self.packings[rung].wire) / sum(self.raw)

    def speed(self, rung: Rung) -> float:
        """Raw bytes a second of CPU."""
        spent = sum(self.packings[rung].cpu)
        return sum(self.raw) / spent if spent else float("inf")


def batches(path: Path) -> Iterator[bytes]:
    """The pages that go to a codec, in batches: neither zero nor seen before."""
    seen: set[bytes] = set()
    batch = bytearray()
    with path.open("rb") as file:
        while page := file.read(PAGE):
            key = blake3(page).digest(16)
            if page == ZERO or key in seen:
                continue
            seen.add(key)
            batch += page
            if len(batch) == BATCH:
                yield bytes(batch)
                batch.clear()
    if batch:
        yield bytes(batch)


def packer(rung: Rung) -> Callable[[bytes], int]:
    """Bytes on the wire for the next batch."""
    if rung in CHAIN_LEVELS:
        chain = ChainPacker(CHAIN_LEVELS[rung])
        return lambda raw: len(chain.pack(raw))
    coder = Coder()
    return lambda raw: len(coder.encode(rung, raw)[1])


def table(name: str) -> Table:
    """The table of a corpus, measured if it is not there."""
    path = corpus(name)
    kept = path.with_suffix(".measured.json")
    if kept.exists() and kept.stat().st_mtime >= path.stat().st_mtime:
        stored = json.loads(kept.read_text())
        if stored["how"] == HOW:
            return Table(stored["raw"], {rung: Packing(**some) for rung, some in stored["packings"].items()})
    raws = list(batches(path))
    found = Table([len(raw) for raw in raws], {rung: _measure(rung, raws) for rung in RUNGS})
    kept.write_text(json.dumps({"how": HOW, **asdict(found)}))
    return found


def _measure(rung: Rung, raws: list[bytes]) -> Packing:
    cpu = [float("inf")] * len(raws)
    wire = [0] * len(raws)
    for _ in range(1 if rung in CHAIN_LEVELS else PASSES):
        pack = packer(rung)
        for i, raw in enumerate(raws):
            begun = time.thread_time()
            wire[i] = pack(raw)
            cpu[i] = min(cpu[i], time.thread_time() - begun)
    return Packing(wire, [0.0] * len(raws) if rung == "none" else cpu)


if __name__ == "__main__":
    shown = table(sys.argv[1] if len(sys.argv) > 1 else "guest")
    print(f"{sum(shown.raw) / 1e6:.0f} MB")
    for each in RUNGS:
        print(f"{each:8} {shown.share(each) * sum(shown.raw) / 1e6:6.1f} MB {shown.speed(each) / 1e6:6.0f} MB/s")
