"""Silence and continuity of the guest's heartbeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.heartbeat import Console, beats, broken, longest_silence

BOOT = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"


def serial(first: int, last: int, boot: str = BOOT) -> bytes:
    return b"".join(f"HB {n} {boot} pid 61 up {n / 10:.2f}\r\n".encode() for n in range(first, last + 1))


def test_silence_is_the_longest_time_between_beats_within_the_move() -> None:
    assert longest_silence([0.0, 0.1, 0.2, 0.9, 1.0], 0.15, 1.0) == pytest.approx(0.7)


def test_silence_before_the_move_does_not_count() -> None:
    assert longest_silence([0.0, 5.0, 5.1, 5.3], 5.05, 5.3) == pytest.approx(0.2)


def test_silence_that_begins_before_the_move_counts_from_its_beat() -> None:
    assert longest_silence([1.0, 2.0], 1.5, 2.1) == pytest.approx(1.0)


def test_silence_that_has_not_ended_counts_up_to_the_end() -> None:
    assert longest_silence([1.0], 1.0, 4.0) == pytest.approx(3.0)
    assert longest_silence([], 1.0, 4.0) == pytest.approx(3.0)


def test_a_guest_that_went_on_is_not_broken() -> None:
    assert broken(serial(0, 20), serial(21, 30)) == ""


@pytest.mark.parametrize("cut", range(1, len(serial(21, 21))))
def test_a_line_that_was_cut_by_the_move_counts_as_one_beat(cut: int) -> None:
    whole = serial(0, 24)
    at = len(serial(0, 20)) + cut
    assert broken(whole[:at], whole[at:]) == ""


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        (serial(22, 30), "20 was followed by 22"),
        (serial(20, 30), "20 was followed by 20"),
        (serial(21, 30, OTHER), "booted anew"),
        (b"", "no heartbeat was read at the destination"),
    ],
)
def test_a_guest_that_lost_something_is_broken_and_it_is_said_how(destination: bytes, reason: str) -> None:
    assert reason in broken(serial(0, 20), destination)


async def test_a_console_keeps_bytes_and_the_time_of_each_beat(tmp_path: Path) -> None:
    import asyncio

    console = Console()
    await console.listen(tmp_path / "serial.sock")
    try:
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "serial.sock"))
        for number in range(3):
            writer.write(serial(number, number))
            await writer.drain()
            await console.wait(number + 1, 5, "guest")
        assert [beat.number for beat in beats(bytes(console.text))] == [0, 1, 2]
        assert len(console.arrivals) == 3
        writer.close()
        with pytest.raises(TimeoutError, match="4 heartbeats did not come"):
            await console.wait(4, 0, "guest")
    finally:
        await console.close()
