"""The choice of codecs, on generated content and a simulated pipeline."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import cache

import pytest

from bench.measured import Packing, Table
from bench.pipeline import Pipeline, Run
from dwcp.encoding.chooser import URGENT, Chooser, allowed_rungs
from dwcp.encoding.codec import CHAIN_LEVELS, RUNGS, Rung
from dwcp.encoding.features import KNOTS, NANOSECONDS, SHARE, curve, sample_share
from dwcp.transport.hello import ALL_FEATURES, Features

BATCH = 1 << 20
ALONE = tuple(rung for rung in RUNGS if rung not in CHAIN_LEVELS)
MBIT = 125e3


@cache
def content(random_part: float) -> bytes:
    """A batch of which that part, evenly spread, is random, and the rest is one byte."""
    draw = random.Random(int(random_part * 1000))
    size = int(64 * random_part)
    return b"".join(draw.randbytes(size) + bytes(64 - size) for _ in range(BATCH // 64))


def table(kinds: list[bytes], *, slow: float = 1.0) -> Table:
    """Batches of these contents, and what codecs that keep to the curves make of them, times `slow`."""

    def at(values: tuple[float, ...], raw: bytes) -> float:
        return curve(values)[int(sample_share(raw) * 64)]

    @cache
    def of(rung: Rung, raw: bytes) -> tuple[int, float]:
        if rung == "none":
            return BATCH, 0.0
        return int(BATCH * at(SHARE[rung], raw)), BATCH * at(NANOSECONDS[rung], raw) * 1e-9 * slow

    packings = {rung: Packing(*map(list, zip(*(of(rung, raw) for raw in kinds), strict=True))) for rung in RUNGS}
    return Table([BATCH] * len(kinds), packings)


def sent(
    kinds: list[bytes],
    rate: float | Callable[[float], float],
    *,
    rungs: tuple[Rung, ...] = ALONE,
    cores: int = 1,
    slow: float = 1.0,
) -> Run:
    """A flow of these batches over a link of that many bytes a second."""
    chooser = Chooser(rungs, cores)
    pipeline = Pipeline(table(kinds, slow=slow), rate if callable(rate) else lambda _now: rate, cores)
    return pipeline.run(lambda now, i: chooser.next(now, kinds[i]), chooser)


def alone(kinds: list[bytes], rate: float, rung: Rung, slow: float = 1.0) -> float:
    return Pipeline(table(kinds, slow=slow), lambda _now: rate, 1).run(lambda _now, _i: rung).seconds


PLAIN = [content(0.45)] * 800
NOISE = [content(1.0)] * 300


@pytest.mark.parametrize("mbit", [20, 100, 500, 1000, 2500, 10_000])
def test_the_mixture_is_about_as_fast_as_the_best_single_codec_or_faster(mbit: int) -> None:
    best = min(alone(PLAIN, mbit * MBIT, rung) for rung in ALONE)
    assert sent(PLAIN, mbit * MBIT).seconds < best * 1.05 + 0.15  # the link must be learnt


@pytest.mark.parametrize("mbit", [20, 100, 1000, 10_000])
@pytest.mark.parametrize("part", [0.05, 0.45, 0.9, 1.0])
def test_it_is_never_behind_no_compression(mbit: int, part: float) -> None:
    kinds = [content(part)] * 400
    assert sent(kinds, mbit * MBIT).seconds < alone(kinds, mbit * MBIT, "none") * 1.02


def test_a_slower_link_gets_a_smaller_codec() -> None:
    shares = [
        sum(SHARE[rung][4] * count for rung, count in sent(PLAIN, mbit * MBIT).used.items() if rung != "none")
        for mbit in (20, 400, 1500)
    ]
    assert shares == sorted(shares)
    assert sent(PLAIN, 2 * MBIT).used.get("zstd7", 0) > 780


def test_slow_processors_get_a_cheaper_codec_and_more_of_them_a_smaller_one() -> None:
    packings = table(PLAIN[:1]).packings

    def packed(**how: float) -> int:
        run = sent(PLAIN, 500 * MBIT, **how)  # type: ignore[arg-type]
        return sum(packings[rung].wire[0] for rung in run.rungs)

    assert packed(cores=4) < packed() < packed(slow=4.0)


def test_what_cannot_shrink_is_sent_as_it_is_from_the_first_batch_on() -> None:
    for mbit in (20, 1000, 10_000):
        assert sent(NOISE, mbit * MBIT, rungs=RUNGS).used == {"none": len(NOISE)}


def test_a_change_of_content_is_followed_with_the_next_batch() -> None:
    kinds = (PLAIN[:50] + NOISE[:50]) * 4
    run = sent(kinds, 50 * MBIT)
    assert all((rung == "none") == (kind is NOISE[0]) for rung, kind in zip(run.rungs, kinds, strict=True))


@pytest.mark.parametrize(("before", "after"), [(1000, 100), (100, 1000), (20, 2500), (2500, 20)])
def test_a_step_of_the_link_is_followed_within_two_seconds(before: int, after: int) -> None:
    step = 3.0
    kinds = [content(0.45)] * 4000
    run = sent(kinds, lambda now: (before if now < step else after) * MBIT)
    settled = [rung for rung, end in zip(run.rungs, run.ends, strict=True) if step + 2 < end < step + 4]
    straight = sent(kinds, after * MBIT)
    usual = {rung for rung, end in zip(straight.rungs, straight.ends, strict=True) if 2 < end < 4}
    places = [ALONE.index(rung) for rung in usual]
    assert settled
    assert all(min(places) - 1 <= ALONE.index(rung) <= max(places) + 1 for rung in settled)


@pytest.mark.parametrize("mbit", [20, 100, 400, 1000, 2500])
def test_on_even_content_and_link_few_codecs_are_mixed_and_the_choice_told_stands(mbit: int) -> None:
    chooser = Chooser(ALONE, 1)
    told: list[Rung] = []

    def choose(now: float, i: int) -> Rung:
        rung = chooser.next(now, PLAIN[i])
        told.append(chooser.choice.rung)
        return rung

    run = Pipeline(table(PLAIN), lambda _now: mbit * MBIT, 1).run(choose, chooser)
    half = len(told) // 2
    assert len(set(run.rungs[half:])) <= 3
    assert sum(one != two for one, two in itertools.pairwise(told[half:])) <= 2


def test_a_slow_link_gets_the_chain_and_keeps_it_but_for_a_batch_now_and_then() -> None:
    run = sent(PLAIN, 20 * MBIT, rungs=RUNGS)
    chained = [rung for rung in run.rungs[len(run.rungs) // 2 :] if rung in CHAIN_LEVELS]
    assert len(chained) > 0.95 * len(run.rungs) / 2
    assert sum(one != two for one, two in itertools.pairwise(chained)) <= 1


def test_a_chain_has_one_processor_so_a_fast_link_gets_none() -> None:
    assert not set(sent(PLAIN, 2500 * MBIT, rungs=RUNGS, cores=4).used) & set(CHAIN_LEVELS)


@pytest.mark.parametrize(("slow", "mbit"), [(2.0, 100), (3.0, 50), (4.0, 100), (6.0, 50)])
def test_a_chain_that_cannot_keep_up_is_left_for_a_lighter_one(slow: float, mbit: int) -> None:
    """On a processor so much slower than the one the curves were measured on."""
    kinds = PLAIN * 2
    run = sent(kinds, mbit * MBIT, rungs=RUNGS, slow=slow)
    levels = [CHAIN_LEVELS[rung] for rung in run.rungs if rung in CHAIN_LEVELS]
    assert levels[-1] < max(levels)
    assert run.seconds < 1.05 * min(alone(kinds, mbit * MBIT, rung, slow) for rung in RUNGS)


def test_what_is_urgent_never_goes_by_a_chain_or_a_slow_codec() -> None:
    chooser = Chooser(RUNGS, 1)
    for i in range(200):
        chooser.delivered(i * 0.05, int(i * 0.05 * 1e6), True)
        chooser.next(i * 0.05, PLAIN[0])
        assert chooser.next(i * 0.05, PLAIN[0], urgent=True) in URGENT
    assert chooser.next(10.0, PLAIN[0]) in CHAIN_LEVELS


def test_the_first_batches_on_an_unknown_link_are_compressed() -> None:
    assert Chooser(RUNGS, 1).next(0.0, PLAIN[0]) != "none"


def test_a_rate_that_the_link_did_not_limit_is_only_a_lower_bound() -> None:
    chooser = Chooser(RUNGS, 1)
    chooser.next(0.0, PLAIN[0])
    before = chooser.throughput("none")
    for i in range(20):  # next to nothing is sent, and nobody is busy
        chooser.delivered(i * 0.05, i * 1000, False)
    assert chooser.throughput("none") == before


def test_a_pause_in_what_a_full_link_delivers_is_not_a_rate_of_zero() -> None:
    chooser = Chooser(RUNGS, 1)
    for i in range(10):
        chooser.delivered(i * 0.1, i * 1_000_000, True)
    before = chooser.throughput("none")
    for i in range(10, 14):  # one long frame
        chooser.delivered(i * 0.1, 9_000_000, True)
    assert chooser.throughput("none") == before


@pytest.mark.parametrize("size", [0, 1, 511, 513, 8192, 8193, 20_000, BATCH])
def test_any_size_of_batch_has_a_sample(size: int) -> None:
    assert sample_share(random.Random(1).randbytes(size)) == 1.0
    assert size < 64 or sample_share(bytes(size)) < 0.5


def test_a_curve_goes_through_its_knots() -> None:
    through = curve(tuple(2 * knot for knot in KNOTS))
    assert [through[i] for i in (0, 32, 64)] == pytest.approx([0.0, 1.0, 2.0])


def test_configuration_and_peer_bound_the_choice() -> None:
    assert allowed_rungs("auto", ALL_FEATURES) == RUNGS
    assert allowed_rungs("auto", ALL_FEATURES & ~Features.CHAIN) == ALONE
    assert allowed_rungs("auto", Features.LZ4 | Features.CHAIN) == ("none", "lz4")
    assert allowed_rungs("lz4", ALL_FEATURES) == ("lz4",)
    assert allowed_rungs("zstd", ALL_FEATURES) == tuple(rung for rung in RUNGS if rung not in ("none", "lz4"))
    assert allowed_rungs("zstd", Features.LZ4) == ("none",)
    for codec in ("raw", "none"):
        assert allowed_rungs(codec, ALL_FEATURES) == ("none",)
        assert Chooser(allowed_rungs(codec, ALL_FEATURES), 2).next(0.0, PLAIN[0]) == "none"
