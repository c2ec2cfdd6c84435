"""Damaged inputs, and what becomes of them. Repeatable: the same seed and the same code give the same inputs in order.

An input starts from a real one and is changed a few times: bits, numbers that are borders, stretches cut, doubled,
moved or taken from another input. A case may *repair* it afterwards (length, checksum), so that changes get past the
gates in front. An input with an outcome that was not seen before (another answer, another refusal) becomes a start for
others; that is how the engine finds its way deeper without looking into the code.
"""

from __future__ import annotations

import random
import re
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Literal

from dwcp.errors import DwcpError, ProtocolError

MAX_INPUT: Final = 1 << 17
MAX_CORPUS: Final = 400
_BASES: Final = (1, 1 << 7, 1 << 8, 512, 4096, 1 << 15, 1 << 16, 1 << 22, 1 << 31, 1 << 32, 1 << 63, 1 << 64)
BORDERS: Final = tuple(sorted({base + near for base in _BASES for near in (-1, 0, 1)}))
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+|b'.*?'|b\".*?\"")


class Wrong(AssertionError):
    """A decoder did not do what it promises, without raising anything."""


@dataclass(frozen=True)
class Case:
    """One decoder. `run` returns what distinguishes outcomes, and raises one of `refusals`; all else is a finding."""

    seeds: list[bytes]
    run: Callable[[bytes], Hashable]
    refusals: tuple[type[Exception], ...] = (ProtocolError,)
    repair: Callable[[bytes, random.Random], bytes] | None = None
    """Make the gates in front hold again."""
    weight: float = 1.0
    """Its share of the time."""


@dataclass
class Finding:
    data: bytes
    what: str
    """The last line of it."""
    trace: str
    place: str
    """Where it was raised: findings of one place are one."""


@dataclass
class Tally:
    executions: int = 0
    seconds: float = 0.0
    outcomes: set[Hashable] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


def _bit(data: bytearray, dice: random.Random) -> None:
    data[_place(data, dice)] ^= 1 << dice.randrange(8)


def _byte(data: bytearray, dice: random.Random) -> None:
    data[_place(data, dice)] = dice.randrange(256)


def _number(data: bytearray, dice: random.Random) -> None:
    width = dice.choice((1, 2, 4, 4, 8))
    place = _place(data, dice)
    if place + width > len(data):
        return
    order: Literal["big", "little"] = "big" if dice.random() < 0.5 else "little"
    old = int.from_bytes(data[place : place + width], order)
    value = dice.choice((dice.choice(BORDERS), old + dice.randint(-9, 9), old * 2, old // 2, len(data) - place))
    data[place : place + width] = (value % (1 << 8 * width)).to_bytes(width, order)


def _cut(data: bytearray, dice: random.Random) -> None:
    place, size = _stretch(data, dice)
    del data[place : place + size]


def _end(data: bytearray, dice: random.Random) -> None:
    del data[_place(data, dice) :]


def _double(data: bytearray, dice: random.Random) -> None:
    place, size = _stretch(data, dice)
    data[place:place] = data[place : place + size] * dice.choice((1, 1, 2, 10))


def _move(data: bytearray, dice: random.Random) -> None:
    place, size = _stretch(data, dice)
    part = data[place : place + size]
    del data[place : place + size]
    to = dice.randint(0, len(data))
    data[to:to] = part


def _fill(data: bytearray, dice: random.Random) -> None:
    place, size = _stretch(data, dice)
    data[place : place + size] = dice.choice((b"\0", b"\xff", dice.randbytes(1))) * size


def _grow(data: bytearray, dice: random.Random) -> None:
    place = dice.choice((len(data), dice.randint(0, len(data))))
    data[place:place] = dice.choice((dice.randbytes, bytes))(dice.choice((1, 2, 4, 8, 31, 4096)))


_CHANGES: Final = (_bit, _bit, _byte, _byte, _number, _number, _number, _cut, _end, _double, _move, _fill, _grow)


def _place(data: bytearray, dice: random.Random) -> int:
    """Heads are where the numbers are."""
    return dice.randrange(min(len(data), dice.choice((16, 64, 1 << 20, 1 << 20))))


def _stretch(data: bytearray, dice: random.Random) -> tuple[int, int]:
    place = _place(data, dice)
    return place, min(dice.choice((1, 2, 4, 8, 12, 32, 300, 4096)), len(data) - place)


class Inputs:
    """An endless row of damaged inputs."""

    def __init__(self, case: Case, seed: int) -> None:
        self._dice = random.Random(seed)
        self._case = case
        self._corpus = list(case.seeds)
        self._fresh = list(reversed(case.seeds))

    def next(self) -> bytes:
        dice = self._dice
        if self._fresh:
            return self._fresh.pop()
        data = bytearray(dice.choice(self._corpus))
        if dice.random() < 0.15:
            other = dice.choice(self._corpus)
            data[dice.randint(0, len(data)) :] = other[dice.randint(0, len(other)) :]
        for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
            if data:
                dice.choice(_CHANGES)(data, dice)
            else:
                _grow(data, dice)
        del data[MAX_INPUT:]
        changed = bytes(data)
        return self._case.repair(changed, dice) if self._case.repair and dice.random() < 0.8 else changed

    def keep(self, data: bytes) -> None:
        if len(self._corpus) < MAX_CORPUS:
            self._corpus.append(data)


def outcome(case: Case, data: bytes) -> Hashable:
    """What became of one input. Raises what is a finding."""
    try:
        return case.run(data)
    except case.refusals as error:
        words = str(error) if isinstance(error, DwcpError) else ""
        return type(error).__name__, _NUMBERS.sub("#", words)


def fuzz(
    case: Case,
    seed: int,
    *,
    seconds: float = float("inf"),
    executions: int = 1 << 62,
    before: Callable[[bytes], None] | None = None,
    most_findings: int = 5,
) -> Tally:
    """Run until a budget is used up. `before` sees each input first: what it keeps survives a crash."""
    inputs, tally = Inputs(case, seed), Tally()
    places: set[str] = set()
    begun = time.process_time()
    while tally.executions < executions and len(places) < most_findings:
        if tally.executions % 16 == 0 and time.process_time() - begun > seconds:
            break
        data = inputs.next()
        if before:
            before(data)
        tally.executions += 1
        try:
            found = outcome(case, data)
        except Exception as error:  # whatever it is, it is a finding
            finding = _finding(data, error)
            if finding.place not in places:
                places.add(finding.place)
                tally.findings.append(finding)
            continue
        if found not in tally.outcomes:
            tally.outcomes.add(found)
            inputs.keep(data)
    tally.seconds = time.process_time() - begun
    return tally


def _finding(data: bytes, error: Exception) -> Finding:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = traceback.format_exception_only(error)[-1].strip()
    trace = "".join(traceback.format_exception(error))
    return Finding(data, what, trace, f"{frame.filename}:{frame.lineno}:{type(error).__name__}")
