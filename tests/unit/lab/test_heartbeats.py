"""What is read out of a guest's serial line."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.lab.errors import LabError
from workers.lab.heartbeats import GuestStory, Heartbeats, Story

BOOT = "0f0a9801-2bc4-4599-ab45-8ffe3f0bc292"
OTHER_BOOT = "1afe9ed3-2eb6-4b0e-bcc9-24930bd029a7"
DIGEST = "553e28bf05bf2aac"


def beat(number: int, boot: str = BOOT, pid: int = 83) -> bytes:
    return f"HB {number} {boot} pid {pid} up {3 + number / 10:.2f}\r\n".encode()


def tell(*spoken: tuple[str, bytes]) -> GuestStory:
    """The story of these bytes, 0.1 s apart, heard from the start."""
    story = Story(from_start=True)
    for index, (host, data) in enumerate(spoken):
        story.feed(host, data, index / 10)
    return story.told(len(spoken) / 10)


def test_a_guest_that_stays_is_unbroken() -> None:
    story = tell(*(("host-a", beat(n)) for n in range(5)))
    assert story.unbroken
    assert (story.first, story.last, story.beats, story.hosts) == (0, 4, 5, ("host-a",))
    assert story.longest_silence == pytest.approx(0.1)


def test_a_line_split_between_two_hosts_is_read_whole() -> None:
    line = beat(2)
    for cut in range(1, len(line)):
        story = tell(("host-a", beat(1) + line[:cut]), ("host-b", line[cut:] + beat(3)))
        assert story.unbroken, f"cut at {cut}: {story}"
        assert (story.first, story.last, story.beats) == (1, 3, 3)


def test_one_line_may_be_lost_to_the_switch_of_hosts_and_no_more() -> None:
    assert tell(("host-a", beat(1)), ("host-b", beat(3))).unbroken
    assert tell(("host-a", beat(1)), ("host-b", beat(4))).breaks == ((1, 4),)
    assert tell(("host-a", beat(1)), ("host-a", beat(3))).breaks == ((1, 3),)


def test_two_running_copies_break_the_counter() -> None:
    story = tell(("host-a", beat(1)), ("host-b", beat(2)), ("host-a", beat(2)))
    assert story.breaks == ((2, 2),)
    assert not story.unbroken


def test_a_reboot_or_another_process_breaks_the_story() -> None:
    assert not tell(("host-a", beat(1)), ("host-b", beat(2, boot=OTHER_BOOT))).unbroken
    assert not tell(("host-a", beat(1)), ("host-b", beat(2, pid=84))).unbroken


def test_damage_and_a_changed_digest_break_the_story() -> None:
    check = f"CHECK 7 pages 2048 ok digest {DIGEST}\r\n".encode()
    sound = tell(("host-a", beat(1) + f"DIGEST {DIGEST}\n".encode() + check))
    assert sound.unbroken
    assert (sound.checks, sound.digests) == (1, (DIGEST,))
    assert tell(("host-a", beat(1) + b"CHECK BAD page 17\r\n")).bad == ("CHECK BAD page 17",)
    assert not tell(("host-a", beat(1) + check + check.replace(b"553e", b"0000"))).unbroken


def test_checks_are_counted_anew_where_the_guest_arrives() -> None:
    check = f"CHECK 7 pages 2048 ok digest {DIGEST}\n".encode()
    story = tell(("host-a", beat(1) + check), ("host-b", beat(2)), ("host-a", beat(3)), ("host-a", check))
    assert story.checks_by_host == {"host-a": 1, "host-b": 0}
    assert story.checks == 2


def test_the_longest_silence_is_that_of_the_beats() -> None:
    story = Story(from_start=True)
    story.feed("host-a", beat(1), 1.0)
    story.feed("host-a", b"CHECK BAD page 1\n", 1.5)
    story.feed("host-b", beat(2), 3.0)
    told = story.told(7.0)
    assert (told.longest_silence, told.silent_for) == (2.0, 4.0)


def test_the_first_line_counts_only_when_it_is_known_to_be_whole() -> None:
    story = Story()
    story.feed("host-a", beat(1) + beat(2), 0.0)
    assert story.told(0.0).first == 2


def test_listening_follows_the_guest_from_log_to_log(tmp_path: Path) -> None:
    logs = {host: tmp_path / f"{host}.log" for host in ("host-a", "host-b")}
    logs["host-a"].write_bytes(beat(1))
    with Heartbeats(logs) as heard:
        with logs["host-a"].open("ab") as log:
            log.write(beat(2) + beat(3) + beat(4)[:20])
        heard.wait_for(lambda story: story.last == 3, 10, "third beat")
        logs["host-b"].write_bytes(beat(4)[20:] + beat(5))
        story = heard.wait_for(lambda story: story.last == 5, 10, "fifth beat")
    assert story.unbroken
    assert story.hosts == ("host-a", "host-b")


def test_a_silent_guest_is_reported_with_what_was_heard(tmp_path: Path) -> None:
    log = tmp_path / "host-a.log"
    log.write_bytes(beat(8))
    with Heartbeats({"host-a": log}, from_start=True) as heard:
        heard.wait_for(lambda story: story.last == 8, 10, "beat")
        with pytest.raises(LabError, match=r'no ninth beat within 0 s.*"last":8'):
            heard.wait_for(lambda story: story.last == 9, 0, "ninth beat")
