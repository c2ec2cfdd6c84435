"""What a guest's serial line tells of its life: beats, their longest silence, its self-checks.

A guest has one serial line; the hosts' log files are only where its bytes come out. So `Story` joins the
bytes of all hosts, in order of arrival, into one stream of lines: a line that began on one host and ended
on the next is read whole. Lines are described in guest/workload.c.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated

from pydantic import Field

from models.base import Model
from workers.lab.errors import LabError

_BEAT = re.compile(r"HB (\d+) ([0-9a-f-]{36}) pid (\d+) up [\d.]+")
_CHECK = re.compile(r"CHECK \d+ pages \d+ ok digest ([0-9a-f]{16})")
_BAD = re.compile(r"(CHECK BAD page \d+|FAILED .*|Kernel panic.*)")
_DIGEST = re.compile(r"DIGEST ([0-9a-f]{16})")
_POLL = 0.005


class GuestStory(Model):
    """What was heard of a guest, since listening began."""

    beats: int = 0
    first: int | None = None
    last: int | None = None
    hosts: tuple[str, ...] = ()
    """Hosts the beats came from, in order; a host appears again when the guest came back."""
    boot_ids: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    breaks: Annotated[tuple[tuple[int, int], ...], Field(max_length=1000)] = ()
    """Places where the counter did not go on by one: (last, next)."""
    longest_silence: float = 0.0
    """Seconds between two beats, the usual 0.1 s included."""
    silent_for: float = 0.0
    """Seconds since the last beat."""
    checks: int = 0
    """Walks that found every page as expected."""
    checks_by_host: dict[str, int] = Field(default_factory=dict)
    """The same by host, from zero each time the guest arrives there: the second began after its arrival."""
    digests: tuple[str, ...] = ()
    bad: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """Lines that tell of damage."""

    @property
    def unbroken(self) -> bool:
        """One boot, one process, no beat missing or twice, no damage, one digest throughout."""
        one = len(self.boot_ids) == 1 and len(self.pids) == 1 and len(self.digests) <= 1
        return self.beats > 0 and one and not self.breaks and not self.bad


class Story:
    """Builds a GuestStory from bytes, without I/O. `feed` takes them in order of arrival."""

    def __init__(self, from_start: bool = False) -> None:
        self._rest = b""
        self._whole = from_start
        """The next line is known to be whole: it did not begin before we listened."""
        self._host = ""
        self._heard: float | None = None
        self._beats = 0
        self._first: int | None = None
        self._last: int | None = None
        self._silence = 0.0
        self._checks = 0
        self._hosts: list[str] = []
        self._boot_ids: list[str] = []
        self._pids: list[int] = []
        self._digests: list[str] = []
        self._breaks: list[tuple[int, int]] = []
        self._bad: list[str] = []
        self._checks_by_host: dict[str, int] = {}

    def feed(self, host: str, data: bytes, at: float) -> None:
        """Bytes that came out at `host` at time `at` (any monotonic clock)."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._whole:
                self._line(host, line.decode(errors="replace").strip(), at)
            self._whole = True

    def _line(self, host: str, line: str, at: float) -> None:
        if beat := _BEAT.fullmatch(line):
            if self._heard is not None:
                self._silence = max(self._silence, at - self._heard)
            self._heard = at
            self._beat(host, int(beat[1]), beat[2], int(beat[3]))
        elif check := _CHECK.fullmatch(line):
            self._checks += 1
            self._checks_by_host[host] = self._checks_by_host.get(host, 0) + 1
            _note(self._digests, check[1])
        elif digest := _DIGEST.fullmatch(line):
            _note(self._digests, digest[1])
        elif bad := _BAD.search(line):
            self._bad = [*self._bad, bad[1]][:1000]

    def _beat(self, host: str, number: int, boot_id: str, pid: int) -> None:
        moved = bool(self._hosts) and self._hosts[-1] != host
        if not self._hosts or moved:
            self._hosts.append(host)
            self._checks_by_host[host] = 0
        if self._last is not None:
            # where it changes hosts, one line may have lost a byte to the switch
            allowed = {self._last + 1, self._last + 2} if moved else {self._last + 1}
            if number not in allowed:
                self._breaks = [*self._breaks, (self._last, number)][:1000]
        self._first = number if self._first is None else self._first
        self._last = number
        self._beats += 1
        _note(self._boot_ids, boot_id)
        _note(self._pids, pid)

    def told(self, now: float) -> GuestStory:
        return GuestStory(
            beats=self._beats,
            first=self._first,
            last=self._last,
            hosts=tuple(self._hosts),
            boot_ids=tuple(self._boot_ids),
            pids=tuple(self._pids),
            breaks=tuple(self._breaks),
            longest_silence=self._silence,
            silent_for=now - self._heard if self._heard is not None else 0.0,
            checks=self._checks,
            checks_by_host=dict(self._checks_by_host),
            digests=tuple(self._digests),
            bad=tuple(self._bad),
        )


class Heartbeats:
    """Listens to a guest on all hosts in a thread: `with Heartbeats(logs) as heard: ... heard.story()`.

    Only what comes after the start counts, unless `from_start`: then the logs' present content is read first,
    in the order of `logs` (right as long as the guest has not moved yet).
    """

    def __init__(self, logs: Mapping[str, Path], from_start: bool = False) -> None:
        self._logs = dict(logs)
        self._offsets = {host: 0 if from_start else _size(log) for host, log in self._logs.items()}
        self._story = Story(from_start)
        self._current = ""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, name="heartbeats", daemon=True)

    def __enter__(self) -> Heartbeats:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def story(self) -> GuestStory:
        with self._lock:
            return self._story.told(time.monotonic())

    def wait_for(self, seen: Callable[[GuestStory], bool], within: float, what: str) -> GuestStory:
        """The first story for which `seen` holds; LabError that names `what` and what was heard instead."""
        deadline = time.monotonic() + within
        while True:
            story = self.story()
            if seen(story):
                return story
            if time.monotonic() > deadline:
                raise LabError(f"no {what} within {within:g} s; heard: {story.model_dump_json()}")
            time.sleep(0.02)

    def _listen(self) -> None:
        while not self._stop.wait(_POLL):
            # the host that spoke last first: its last bytes are older than another's first
            for host in sorted(self._logs, key=lambda name: name != self._current):
                self._read(host)
        for host in self._logs:
            self._read(host)

    def _read(self, host: str) -> None:
        log, offset = self._logs[host], self._offsets[host]
        size = _size(log)
        if size < offset:  # a new guest of the same name
            offset = 0
        if size > offset:
            with log.open("rb") as file:
                file.seek(offset)
                data = file.read(size - offset)
            with self._lock:
                self._story.feed(host, data, time.monotonic())
            offset += len(data)
            self._current = host
        self._offsets[host] = offset


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def _note(values: list[str] | list[int], value: str | int) -> None:
    if value not in values:
        values.append(value)  # type: ignore[arg-type]  # callers pair the types; the list is one or the other
