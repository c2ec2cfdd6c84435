"""What the cache decides, with the reason. Pure: figures in, a decision out.

Which base a disk starts from is guessed by a few blocks that are compared, then settled by all of them. A base is worth
its place by what it saved lately for what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clouds.cache.entry import LARGEST, Base
from models.clouds import CacheBounds

GIB = 1 << 30
DAY = 86400.0
LEAST_SHARE = 0.1
"""Of the blocks compared: a base that has less in common is not looked at closer."""
GAIN = 0.9
"""A start from a base that sends more than this part of the whole disk is not worth it."""
KEEP_BELOW = 0.8
"""A disk that had more than this part of it from a base is no new base itself."""
MOST_LOOKED_AT = 32
"""Bases whose blocks are compared."""


@dataclass(frozen=True)
class Choice:
    base: Base | None
    share: float
    """Of the blocks compared."""
    reason: str


@dataclass(frozen=True)
class Verdict:
    yes: bool
    reason: str


@dataclass(frozen=True)
class Worth:
    """What a base was good for, as far back as the index tells."""

    uses: int = 0
    saved: int = 0
    """Bytes that were not sent."""
    used: float = 0.0
    """Seconds since 1970 of the last use; 0: none."""
    open: int = 0
    """Moves that make a disk from it right now."""


@dataclass(frozen=True)
class Removal:
    base: Base
    reason: str


def candidates(bases: Sequence[Base], size: int) -> tuple[Base, ...]:
    """Worth comparing with a disk of `size` bytes, the newest first. Only of the same size: a larger base would show
    through behind the disk's end, and a cloud's disk does not grow while it is written."""
    fitting = [base for base in bases if base.size == size and base.probes]
    return tuple(sorted(fitting, key=lambda base: (-base.made, base.disk))[:MOST_LOOKED_AT])


def asked(bases: Sequence[Base]) -> tuple[int, ...]:
    """Blocks of the disk that `pick` needs the SHA-256 of."""
    return tuple(sorted({index for base in bases for index, _ in base.probes}))


def pick(bases: Sequence[Base], seen: Mapping[int, str]) -> Choice:
    """The base that has most in common with a disk, of which some blocks were `seen` (SHA-256 by index)."""
    if not bases:
        return Choice(None, 0.0, "no base of this size is kept")
    shares = [(sum(seen.get(at) == digest for at, digest in base.probes) / len(base.probes), base) for base in bases]
    share, best = max(shares, key=lambda each: (each[0] * each[1].blocks, each[1].made, each[1].disk))
    if share < LEAST_SHARE:
        return Choice(None, share, f"of {len(bases)} bases the nearest, {best.disk}, has {share:.0%} in common")
    return Choice(best, share, f"{best.disk} has {share:.0%} of the blocks compared")


def worth_it(whole: int, differing: int) -> Verdict:
    """Blocks: `whole` are sent without a base, `differing` with one, zero ones too where the base has data."""
    if whole and differing > GAIN * whole:
        return Verdict(False, f"{differing} blocks differ from it, and the whole disk has {whole}")
    return Verdict(True, f"{differing} blocks are sent instead of {whole}")


def keep(
    fresh: Base, saved: int, bases: Sequence[Base], worths: Mapping[str, Worth], bounds: CacheBounds, now: float
) -> Verdict:
    """Shall this disk stay as a base? `saved`: bytes that it had from a base itself."""
    if any(base.disk == fresh.disk for base in bases):
        return Verdict(True, "it is kept already")
    if not fresh.blocks:
        return Verdict(False, "it is empty")
    if fresh.size > LARGEST:
        return Verdict(False, f"it has more than {LARGEST // GIB} GiB: its list would be too long")
    if fresh.held > bounds.most_gib * GIB:
        return Verdict(False, f"it holds {fresh.held / GIB:.1f} GiB, and {bounds.most_gib} are kept at most")
    same = next((base for base in bases if base.content == fresh.content), None)
    if same is not None:
        return Verdict(False, f"{same.disk} holds the same")
    if saved > KEEP_BELOW * fresh.held:
        return Verdict(False, f"a base that is kept already has {saved / fresh.held:.0%} of it")
    gone, _ = evict([*bases, fresh], worths, bounds, now)
    if any(each.base == fresh for each in gone):
        return Verdict(False, f"{bounds.most_gib} GiB are kept at most, and what is there saved more for its size")
    return Verdict(True, "nothing like it is kept")


def evict(
    bases: Sequence[Base], worths: Mapping[str, Worth], bounds: CacheBounds, now: float
) -> tuple[tuple[Removal, ...], tuple[Base, ...]]:
    """(what goes, what stays). What a move in progress uses always stays."""
    gone: list[Removal] = []
    left = []
    for base in bases:
        worth = worths.get(base.disk, Worth())
        idle = (now - max(base.made, worth.used)) / DAY
        if idle > bounds.days and not worth.open:
            gone.append(Removal(base, f"of no use for {idle:.0f} days, {bounds.days} are the most"))
        else:
            left.append(base)
    left.sort(key=lambda base: (value(base, worths.get(base.disk, Worth()), now), base.made, base.disk))
    for base in tuple(left):
        if sum(each.held for each in left) <= bounds.most_gib * GIB:
            break
        if not worths.get(base.disk, Worth()).open:
            left.remove(base)
            gone.append(Removal(base, f"more than {bounds.most_gib} GiB are kept, and it saved least for its size"))
    return tuple(gone), tuple(left)


def value(base: Base, worth: Worth, now: float) -> float:
    """How often it saved its own size, one to begin with, less with every day without a use."""
    idle = max(0.0, now - max(base.made, worth.used)) / DAY
    return (1 + worth.saved / max(1, base.held)) / (1 + idle)
