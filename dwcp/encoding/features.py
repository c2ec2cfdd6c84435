"""What a glance at a batch tells about each codec: how small it will get, and how long that takes. Pure.

The glance is a sample, packed with lz4: sixteen pieces spread over the batch, 25 us. Its share (packed over plain
bytes) sees repetition as well as uneven bytes, which the entropy of a histogram does not. What it means for each codec
is a curve through KNOTS, measured on real memory (`python -m bench.regret --curves`).
"""

from __future__ import annotations

from typing import Final

import lz4.block

from dwcp.encoding.codec import Rung
from dwcp.transport.frames import Buffer

PIECES: Final = 16
PIECE_BYTES: Final = 512
STEPS: Final = 64
"""Curves are read at so many places."""
KNOTS: Final = (0.0, 0.15, 0.25, 0.35, 0.45, 0.55, 0.7, 0.85, 0.95, 1.0)
"""Shares of the sample."""
SHARE: Final[dict[Rung, tuple[float, ...]]] = {
    "lz4": (0.0050, 0.0900, 0.1784, 0.2605, 0.3787, 0.4015, 0.5054, 0.7028, 0.8512, 1.0000),
    "zstd1": (0.0050, 0.0479, 0.0973, 0.1660, 0.2379, 0.3103, 0.4193, 0.6161, 0.8078, 1.0000),
    "zstd3": (0.0054, 0.0461, 0.0848, 0.1535, 0.2302, 0.2847, 0.3846, 0.5719, 0.7835, 0.9999),
    "zstd5": (0.0051, 0.0449, 0.0821, 0.1494, 0.2285, 0.2782, 0.3749, 0.5599, 0.7774, 0.9999),
    "zstd7": (0.0056, 0.0420, 0.0765, 0.1427, 0.2159, 0.2701, 0.3686, 0.5529, 0.7736, 0.9999),
    "chain7": (0.0050, 0.0412, 0.0744, 0.1353, 0.2087, 0.2431, 0.3399, 0.5348, 0.7660, 1.0000),
    "chain9": (0.0054, 0.0396, 0.0726, 0.1336, 0.2064, 0.2399, 0.3375, 0.5324, 0.7647, 1.0000),
}
"""Wire bytes per raw byte at each knot."""
NANOSECONDS: Final[dict[Rung, tuple[float, ...]]] = {
    "lz4": (0.17, 0.39, 0.77, 1.03, 1.61, 1.32, 1.42, 1.48, 0.80, 0.13),
    "zstd1": (0.27, 0.65, 1.01, 1.45, 2.13, 2.13, 2.23, 2.17, 1.22, 0.20),
    "zstd3": (0.19, 0.74, 1.37, 2.15, 3.26, 2.93, 3.62, 3.84, 2.18, 0.24),
    "zstd5": (1.10, 2.42, 3.49, 4.88, 9.03, 6.91, 7.83, 8.42, 4.80, 0.66),
    "zstd7": (1.45, 5.90, 8.59, 9.94, 14.88, 11.08, 12.34, 13.77, 7.48, 1.35),
    "chain7": (3.78, 10.58, 15.80, 22.13, 39.06, 21.70, 28.37, 32.93, 17.79, 4.04),
    "chain9": (3.28, 12.39, 20.26, 28.38, 42.27, 26.28, 30.41, 36.75, 20.82, 3.69),
}
"""CPU time per raw byte at each knot; one core of an EPYC of the Zen 3 kind."""


def sample_share(raw: Buffer) -> float:
    """Packed over plain bytes of a sample of the batch, 0 to 1."""
    view = memoryview(raw)
    step = (len(view) - PIECE_BYTES) // (PIECES - 1)
    if step < PIECE_BYTES:
        sample = bytes(view[: PIECES * PIECE_BYTES])
    else:
        sample = b"".join([view[at : at + PIECE_BYTES] for at in range(0, step * PIECES, step)])
    if not sample:
        return 1.0
    return min(1.0, len(lz4.block.compress(sample, store_size=False)) / len(sample))


def curve(values: tuple[float, ...]) -> list[float]:
    """The values between the knots, at 0/STEPS, 1/STEPS ... 1."""
    found = []
    for place in (i / STEPS for i in range(STEPS + 1)):
        right = next(i for i, knot in enumerate(KNOTS) if place <= knot)
        left = max(0, right - 1)
        part = (place - KNOTS[left]) / (KNOTS[right] - KNOTS[left]) if right else 0.0
        found.append(values[left] + part * (values[right] - values[left]))
    return found
