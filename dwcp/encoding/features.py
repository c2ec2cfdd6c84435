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
    "lz4": (0.0120, 0.0929, 0.1893, 0.2834, 0.4080, 0.4485, 0.5717, 0.8012, 0.9248, 0.9997),
    "zstd1": (0.0076, 0.0487, 0.0952, 0.1654, 0.2421, 0.3167, 0.4260, 0.6409, 0.8527, 0.9849),
    "zstd3": (0.0116, 0.0468, 0.0843, 0.1534, 0.2334, 0.2905, 0.3897, 0.5875, 0.8063, 0.9789),
    "zstd7": (0.0118, 0.0427, 0.0760, 0.1433, 0.2185, 0.2750, 0.3736, 0.5663, 0.8040, 0.9796),
    "chain1": (0.0070, 0.0489, 0.0956, 0.1612, 0.2294, 0.2654, 0.3948, 0.5707, 0.7541, 0.9756),
    "chain3": (0.0114, 0.0465, 0.0830, 0.1490, 0.2212, 0.2464, 0.3666, 0.5337, 0.7433, 0.9757),
    "chain6": (0.0102, 0.0458, 0.0817, 0.1451, 0.2102, 0.2320, 0.3502, 0.5116, 0.7373, 0.9753),
    "chain9": (0.0101, 0.0401, 0.0734, 0.1330, 0.2015, 0.2194, 0.3390, 0.4958, 0.7409, 0.9759),
}
"""Wire bytes per raw byte at each knot."""
NANOSECONDS: Final[dict[Rung, tuple[float, ...]]] = {
    "lz4": (0.13, 0.32, 0.65, 0.91, 1.12, 1.17, 1.14, 1.00, 0.37, 0.11),
    "zstd1": (0.25, 0.57, 1.07, 1.49, 2.08, 1.98, 2.05, 2.17, 0.93, 0.30),
    "zstd3": (0.30, 0.72, 1.30, 1.90, 3.11, 2.92, 3.40, 3.89, 1.77, 0.47),
    "zstd7": (1.69, 4.83, 6.65, 8.10, 12.50, 10.38, 11.14, 11.62, 4.26, 0.99),
    "chain1": (1.41, 2.07, 3.49, 4.20, 5.00, 3.50, 4.06, 3.86, 2.76, 2.38),
    "chain3": (2.24, 2.50, 4.05, 5.60, 8.78, 6.21, 7.52, 6.87, 4.41, 2.71),
    "chain6": (3.83, 6.85, 9.26, 12.30, 19.68, 12.35, 15.74, 14.89, 8.55, 5.48),
    "chain9": (2.80, 8.94, 13.03, 17.49, 36.12, 19.84, 26.39, 31.69, 14.49, 5.82),
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
