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
    "chain7": (0.0050, 0.0412, 0.0744, 0.1362, 0.2096, 0.2477, 0.3448, 0.5359, 0.7667, 1.0000),
    "chain9": (0.0054, 0.0396, 0.0726, 0.1342, 0.2071, 0.2449, 0.3426, 0.5337, 0.7656, 1.0000),
}
"""Wire bytes per raw byte at each knot."""
NANOSECONDS: Final[dict[Rung, tuple[float, ...]]] = {
    "lz4": (0.14, 0.35, 0.66, 0.95, 1.37, 1.33, 1.44, 1.40, 0.78, 0.11),
    "zstd1": (0.25, 0.59, 1.07, 1.50, 2.17, 2.16, 2.27, 2.19, 1.25, 0.21),
    "zstd3": (0.30, 0.72, 1.36, 2.28, 3.82, 3.80, 4.53, 4.55, 2.62, 0.18),
    "zstd5": (1.07, 2.30, 3.55, 5.18, 8.74, 7.88, 9.25, 8.70, 4.64, 0.42),
    "zstd7": (2.26, 6.86, 8.44, 10.13, 15.02, 12.09, 13.59, 13.43, 7.00, 0.92),
    "chain7": (2.11, 7.47, 12.96, 17.77, 36.02, 19.68, 24.21, 26.66, 15.21, 2.82),
    "chain9": (1.95, 11.36, 16.69, 22.11, 36.97, 25.60, 30.48, 30.48, 17.07, 3.11),
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
