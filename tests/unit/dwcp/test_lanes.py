"""How many lanes: the decision on generated traces, and lanes that join and leave while bytes flow."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from itertools import pairwise

import pytest

from dwcp import control, outbox, session
from dwcp.transport.lanes import JOIN_WITHIN, SAMPLE_SECONDS, LaneCount, Sample, Wanted

from .harness import Pair, Server, Wire, until
from .test_losses import Transfer

Ends = Callable[..., Pair]
Network = Callable[[int, random.Random], Sample]


def trace(
    network: Network, seconds: float, count: LaneCount | None = None, *, start: float = 0.0, joins: bool = True
) -> list[Wanted]:
    """What is wanted at every half second; lanes join and leave within one."""
    count = count or LaneCount(2, 8)
    dice = random.Random(7)
    lanes, answers = count.wanted.lanes, []
    for step in range(int(seconds / SAMPLE_SECONDS)):
        seen = network(lanes, dice)
        values = {name: getattr(seen, name) for name in seen.__slots__}
        answers.append(count.add(Sample(**{**values, "now": start + step * SAMPLE_SECONDS})))
        if joins:
            lanes = count.wanted.lanes
    return answers


def link(
    whole: float,
    each: float = 1e12,
    *,
    noise: float = 0.05,
    pressed: float = 1.0,
    free_cpu: float = 0.5,
    round_trip: float = 0.0005,
    loss: float = 0.0,
    own_cpu: float = 0.1,
    paced: bool = False,
) -> Network:
    """A link of `whole` bytes a second on which no lane gets more than `each`."""

    def network(lanes: int, dice: random.Random) -> Sample:
        rate = min(whole, lanes * each) * dice.gauss(1, noise)
        return Sample(0.0, lanes, rate, pressed, free_cpu, round_trip, loss, own_cpu, paced)

    return network


def spent(answers: list[Wanted], lanes: int) -> float:
    return sum(answer.lanes == lanes for answer in answers) / len(answers)


def changes(answers: list[Wanted]) -> int:
    return sum(one.lanes != other.lanes for one, other in pairwise(answers))


def test_a_lan_that_two_lanes_fill_stays_at_two_but_for_short_trials() -> None:
    answers = trace(link(117e6), 600)
    assert answers[-1].lanes == 2
    assert spent(answers, 2) > 0.93
    assert changes(answers) <= 12
    assert max(answer.lanes for answer in answers) == 3


def test_a_loss_or_a_long_way_that_keeps_lanes_small_brings_more_soon() -> None:
    answers = trace(link(1e9, 8e6, round_trip=0.1, loss=0.005), 60, LaneCount(2, 16))
    assert answers[-1].lanes == 16
    assert changes(answers) < 12  # up, and not down again
    assert "loss 0.50 %" in next(answer.reason for answer in answers if answer.lanes == 3)


def test_a_rate_policed_for_each_connection_brings_lanes_until_the_link_is_full() -> None:
    answers = trace(link(60e6, 12e6), 300)
    assert answers[-1].lanes in (5, 6)
    assert spent(answers[120:], 5) > 0.8


def test_more_lanes_stay_while_they_are_needed_and_go_when_they_are_not() -> None:
    count = LaneCount(2, 8)
    assert trace(link(1e9, 12e6), 300, count)[-1].lanes == 8
    there = trace(link(1e9, 12e6), 300, count, start=300)
    assert spent(there, 8) > 0.9
    assert trace(link(1e9, pressed=0.0), 120, count, start=600)[-1].lanes == 2


def test_a_link_that_loses_its_per_connection_bound_gets_fewer_lanes_again() -> None:
    count = LaneCount(2, 8)
    trace(link(1e9, 12e6), 200, count)
    answers = trace(link(96e6, noise=0.02), 1200, count, start=200)
    assert answers[-1].lanes <= 3


@pytest.mark.parametrize(
    "network",
    [
        link(1e9, 12e6, pressed=0.1),
        link(1e9, 12e6, free_cpu=0.02, own_cpu=0.5),
        link(1e9, 12e6, paced=True),
    ],
    ids=["the program is the limit", "the processors are the limit", "the rate limit is the limit"],
)
def test_no_lane_is_tried_when_it_is_not_the_link_that_holds_back(network: Network) -> None:
    assert {answer.lanes for answer in trace(network, 300)} == {2}


def test_a_host_that_others_keep_busy_gets_its_lanes_all_the_same() -> None:
    assert trace(link(1e9, 12e6, free_cpu=0.0, own_cpu=0.05), 300)[-1].lanes == 8


def test_a_rate_that_swings_does_not_make_lanes_flap() -> None:
    answers = trace(link(117e6, noise=0.3), 600)
    assert changes(answers) < 24
    assert spent(answers, 2) + spent(answers, 3) > 0.5


def test_lanes_that_do_not_come_up_are_given_up() -> None:
    answers = trace(link(117e6), JOIN_WITHIN + 20, joins=False)
    assert max(answer.lanes for answer in answers) == 3
    assert answers[-1].lanes == 2
    assert "did not come up" in answers[-1].reason


def test_every_answer_says_why_and_keeps_within_its_bounds() -> None:
    for seed in range(20):
        dice = random.Random(seed)
        network = link(dice.uniform(1e6, 1e9), dice.uniform(1e6, 1e8), noise=0.2, loss=dice.choice((0, 0.01)))
        for answer in trace(network, 120, LaneCount(3, 6)):
            assert 3 <= answer.lanes <= 6
            assert answer.reason


def test_lanes_join_and_leave_while_bytes_flow_and_nothing_is_sent_twice(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = 2

    def add(count: LaneCount, _: Sample) -> Wanted:
        if count.wanted.lanes != wanted:
            count.wanted = Wanted(wanted, "the test says so")
        return count.wanted

    monkeypatch.setattr(LaneCount, "add", add)
    pair = ends()
    pair.start(both={"codec": "raw"})
    transfer = Transfer(pair, 30_000_000)

    def there() -> bool:
        return {end.lanes_alive for end in pair.status()} == {wanted + 1}

    for wanted in (6, 1, 8, 3):
        until(f"{wanted} lanes and the way back", there)
        assert pair.status()[0].lanes == wanted
    transfer.finish()
    near, far = pair.status()
    assert near.resent == far.resent == 0
    assert near.state == far.state == "connected"
    assert not near.error


def test_new_keys_cost_no_byte_sent_twice(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LANE_BYTES", 400_000)
    pair = ends()
    pair.start(both={"codec": "raw"})
    Transfer(pair, 6_000_000).finish()
    near, far = pair.status()
    assert near.redials > 3
    assert near.resent == far.resent == 0


def more_than(wire: Wire, connections: int) -> Callable[[], bool]:
    return lambda: wire.connections() > connections


def test_a_lane_that_is_cut_while_it_leaves_loses_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LANE_BYTES", 300_000)
    pair = ends()
    pair.start(wire=True, both={"codec": "raw"})
    assert pair.wire
    transfer = Transfer(pair, 6_000_000)
    for cuts in range(1, 6):
        until("a lane was dialled anew", more_than(pair.wire, 3 * cuts))
        pair.wire.cut()
    transfer.finish()


def test_after_a_cut_no_more_is_sent_again_than_was_on_its_way(ends: Ends) -> None:
    pair = ends()
    pair.start(wire=True, both={"codec": "raw"})
    assert pair.wire
    transfer = Transfer(pair, 40_000_000)
    until("bytes pass", lambda: pair.wire and pair.wire.carried > 8_000_000)
    pair.wire.lose()
    pair.wire.cut()
    until("every lane is lost", lambda: pair.status()[0].lanes_alive == 0)
    lost = control.status(pair.source)
    assert lost.resent == 0
    assert lost.unacked_bytes > 0
    pair.wire.heal()
    transfer.finish()
    assert pair.status()[0].resent <= lost.unacked_bytes


def test_what_the_peer_has_got_is_not_sent_again_once_it_can_say_so(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ends()
    got = bytearray()

    def read(_: int, sock: socket.socket) -> None:
        while part := sock.recv(1 << 20):
            got.extend(part)

    server = Server(pair.path("ram"), read)
    pair.start(wire=True, both={"codec": "raw"})
    assert pair.wire
    data = os.urandom(100_000)
    with pair.connect("ram") as sock:
        for place in (0, 1):
            sock.sendall(data[place : place + 1])
            until("it is acknowledged", lambda: len(got) > place and pair.status()[0].unacked_bytes == 0)  # noqa: B023
            monkeypatch.setattr(outbox, "ACK_EVERY", 3600.0)  # from the next acknowledgement on
        sock.sendall(data[2:])
        until("the rest arrives", lambda: got == data)
        assert pair.status()[0].unacked_bytes > 50_000
        pair.wire.cut()
        until("the rest is acknowledged", lambda: pair.status()[0].unacked_bytes == 0)
    assert pair.status()[0].resent == 0
    server.close()
