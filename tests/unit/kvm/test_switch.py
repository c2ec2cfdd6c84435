"""The end of a move that arrives paused: who may let the VM run, what may go, and what each of that takes as proof."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clouds.kvm import arrival, handover, leftover, parting
from clouds.kvm.connection import Session
from clouds.kvm.errors import HostUnavailable, NotFound, Refused
from clouds.kvm.inventory import vm_report
from clouds.kvm.switch import Source, Switch
from models.migration import VmRef

WEB = VmRef(vm="web")
WHOLE, COMING, RUNNING, HANDED_OVER = [3, 1], [3, 2], [1, 1], [3, 2]
OUT = {"type": 2, "operation": 5}


@pytest.fixture
def session(connection: Any) -> Session:
    return Session("/socket", None, lambda _: connection)


class PlayedSource:
    """The QEMU process at the source."""

    def __init__(self) -> None:
        self.over = False
        self.asked = threading.Event()
        self.closed = False

    def ended(self) -> bool:
        self.asked.set()
        return self.over

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def source() -> PlayedSource:
    return PlayedSource()


@pytest.fixture
def begun(session: Session, source: Any) -> Iterator[Callable[..., Switch]]:
    """Starts a switch; it is ended with the test."""
    made: list[Switch] = []

    def begin(allowed: Callable[[], bool] = lambda: True, seen: bool = True) -> Switch:
        made.append(Switch(WEB, session, source if seen else None, allowed))
        made[-1].start()
        return made[-1]

    yield begin
    for each in made:
        each.stop()
        each.wait(10)


def asked_again(source: PlayedSource) -> None:
    for _ in range(3):
        source.asked.clear()
        assert source.asked.wait(10)


def test_the_vm_runs_at_its_destination_when_its_source_has_ended_and_not_before(
    begun: Callable[..., Switch], source: PlayedSource, domain: Any
) -> None:
    domain.now = WHOLE
    switch = begun()
    switch.near()
    asked_again(source)
    assert domain.calls == []
    source.over = True
    assert switch.wait(10) == "runs"
    assert domain.calls == [("resume",)]
    assert source.closed


def test_where_the_process_cannot_be_watched_libvirts_word_counts(begun: Callable[..., Switch], domain: Any) -> None:
    domain.now = WHOLE
    switch = begun(seen=False)
    switch.gone()
    assert switch.wait(10) == "runs"


def test_one_that_runs_already_is_let_be(begun: Callable[..., Switch], source: PlayedSource, domain: Any) -> None:
    domain.now, source.over = RUNNING, True
    assert begun().wait(10) == "runs"
    assert domain.calls == []


def test_it_is_asked_again_until_it_has_arrived(
    begun: Callable[..., Switch], source: PlayedSource, domain: Any
) -> None:
    domain.now, source.over = COMING, True
    switch = begun()
    assert switch.wait(0.3) == "waiting"
    domain.now = WHOLE
    assert switch.wait(10) == "runs"


def test_a_guest_that_ran_on_at_its_source_is_never_let_run_elsewhere(
    begun: Callable[..., Switch], source: PlayedSource, domain: Any
) -> None:
    domain.now = WHOLE
    switch = begun()
    switch.near()
    asked_again(source)
    switch.stop()
    source.over = True
    assert switch.wait(10) == "over"
    assert domain.calls == []


def test_a_later_operation_ends_it(begun: Callable[..., Switch], source: PlayedSource, domain: Any) -> None:
    domain.now, source.over = WHOLE, True
    assert begun(allowed=lambda: False).wait(10) == "over"
    assert domain.calls == []


def test_a_lost_connection_is_made_again(
    begun: Callable[..., Switch], source: PlayedSource, domain: Any, failure: Any
) -> None:
    domain.now, domain.fails["state"] = WHOLE, failure(38, 7, "socket closed")
    source.over = True
    switch = begun()
    assert switch.wait(0.3) == "waiting"
    del domain.fails["state"]
    assert switch.wait(10) == "runs"


# the process at the source


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60", "60"]) as started:
        while not Path(f"/proc/{started.pid}/cmdline").read_bytes().startswith(b"sleep"):
            pass  # the new program has its arguments a moment after Popen returns
        yield started
        started.kill()


def noted(folder: Path, pid: int) -> str:
    (folder / "qemu").mkdir()
    (folder / "qemu" / "web.pid").write_text(f"{pid}\n")
    return str(folder / "libvirt-sock")


def test_the_process_is_found_by_libvirts_note_and_its_end_is_seen(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    source = Source.find(noted(tmp_path, process.pid), VmRef(vm="web").model_copy(update={"uuid": "60"}))
    assert source is not None
    assert not source.ended()
    process.kill()
    deadline = time.monotonic() + 10
    while not source.ended():
        assert time.monotonic() < deadline
    process.wait()
    assert source.ended()
    source.close()


def test_a_process_of_another_vm_is_not_taken_for_this_one(tmp_path: Path) -> None:
    assert Source.find(noted(tmp_path, os.getpid()), VmRef(vm="web", uuid="0" * 36)) is None
    assert Source.find(str(tmp_path / "elsewhere" / "sock"), VmRef(vm="web", uuid="0" * 36)) is None


# what has arrived


class Qemu:
    """What QEMU answers."""

    def __init__(self, status: str = "paused", came_in: str | None = "completed", used_ms: float = 0.8) -> None:
        self.status, self.came_in, self.used_ms = status, came_in, used_ms

    def __call__(self, _domain: Any, command: str) -> str:
        answers: dict[str, Any] = {
            "query-status": {"status": self.status},
            "query-migrate": {"status": self.came_in} if self.came_in else {},
            "query-cpus-fast": [{"thread-id": 1}, {"thread-id": 2}],
        }
        return json.dumps({"return": answers[json.loads(command)["execute"]]})

    def used(self, thread: int) -> float:
        return self.used_ms if thread == 2 else 0.1


def played(monkeypatch: pytest.MonkeyPatch, qemu: Qemu) -> None:
    monkeypatch.setattr(arrival, "ask_qemu", qemu)
    monkeypatch.setattr(leftover, "ask_qemu", qemu)
    monkeypatch.setattr(arrival, "cpu_ms", qemu.used)


def test_a_vm_that_arrived_whole_is_let_run_once(
    session: Session, domain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, Qemu())
    domain.now = WHOLE
    arrival.prove(session, WEB)
    assert domain.calls == []
    arrival.let_run(session, WEB)
    arrival.let_run(session, WEB)
    assert domain.calls == [("resume",)]


@pytest.mark.parametrize(
    ("now", "stats", "qemu", "why"),
    [
        (COMING, {"type": 0}, Qemu(), "reason 2"),
        ([5, 1], {"type": 0}, Qemu(), "shutoff"),
        (WHOLE, OUT, Qemu(), "job 5"),
        (WHOLE, {"type": 0}, Qemu("inmigrate"), "inmigrate"),
        (WHOLE, {"type": 0}, Qemu("postmigrate"), "postmigrate"),
        (WHOLE, {"type": 0}, Qemu("prelaunch"), "prelaunch"),
        (WHOLE, {"type": 0}, Qemu(came_in=None), "did not come here by a migration"),
        (WHOLE, {"type": 0}, Qemu(used_ms=9.9), "may have run: a vCPU has used 9.9 ms"),
    ],
)
def test_what_is_not_certain_to_be_whole_and_unused_is_not_let_run_and_not_removed(
    session: Session,
    domain: Any,
    monkeypatch: pytest.MonkeyPatch,
    now: list[int],
    stats: dict[str, Any],
    qemu: Qemu,
    why: str,
) -> None:
    played(monkeypatch, qemu)
    domain.now, domain.stats = now, stats
    with pytest.raises(Refused, match=why):
        arrival.let_run(session, WEB)
    with pytest.raises(Refused, match=why):
        arrival.prove(session, WEB)
    if now == WHOLE:
        with pytest.raises(Refused, match=why):
            leftover.discard_incoming(session, WEB)
    assert domain.calls == []


def test_one_that_is_not_there_is_told(session: Session, connection: Any) -> None:
    connection.domains.clear()
    with pytest.raises(NotFound):
        arrival.let_run(session, WEB)


@pytest.mark.parametrize(("persistent", "calls"), [(0, [("destroy",)]), (1, [("undefine", 8), ("destroy",)])])
def test_a_whole_copy_that_never_ran_goes_with_the_definition_that_came_with_it(
    session: Session, domain: Any, monkeypatch: pytest.MonkeyPatch, persistent: int, calls: list[Any]
) -> None:
    played(monkeypatch, Qemu())
    domain.now, domain.persistent = WHOLE, persistent
    leftover.discard_incoming(session, WEB)
    assert domain.calls == calls


def test_the_cpu_time_of_a_thread_is_the_kernels() -> None:
    before = arrival.cpu_ms(threading.get_native_id())
    until = time.thread_time() + 0.02
    while time.thread_time() < until:
        pass
    assert 15 < arrival.cpu_ms(threading.get_native_id()) - before < 1000


# what was handed over


def test_what_was_handed_over_goes_and_the_note_of_it_comes_first(
    session: Session, domain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, Qemu("postmigrate"))
    domain.now = HANDED_OVER
    handover.remove_handed_over(session, WEB, lambda: domain.calls.append("noted"))
    assert domain.calls == ["noted", ("destroy",)]
    handover.remove_handed_over(session, WEB, lambda: domain.calls.append("noted again"))
    assert "noted again" not in domain.calls


@pytest.mark.parametrize(("now", "goes"), [([5, 2], True), (RUNNING, False), (HANDED_OVER, False)])
def test_a_definition_goes_only_when_the_vm_is_shut_off(
    session: Session, domain: Any, now: list[int], goes: bool
) -> None:
    domain.now, domain.persistent = now, 1
    leftover.undefine(session, WEB)
    assert domain.calls == ([("undefine", leftover.KEEP_NVRAM)] if goes else [])


@pytest.mark.parametrize(
    ("now", "stats", "status", "why"),
    [
        (RUNNING, {"type": 0}, "running", "its state is running"),
        (HANDED_OVER, OUT, "postmigrate", "job 5"),
        (HANDED_OVER, {"type": 0}, "finish-migrate", "finish-migrate"),
        (WHOLE, {"type": 0}, "paused", "paused"),
    ],
)
def test_a_source_that_may_still_run_its_guest_is_not_touched(
    session: Session,
    domain: Any,
    monkeypatch: pytest.MonkeyPatch,
    now: list[int],
    stats: dict[str, Any],
    status: str,
    why: str,
) -> None:
    played(monkeypatch, Qemu(status))
    domain.now, domain.stats = now, stats
    with pytest.raises(Refused, match=why):
        handover.remove_handed_over(session, WEB)
    assert domain.calls == []


def test_one_that_does_not_go_is_tried_again_later(
    session: Session, domain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, Qemu("postmigrate"))
    domain.now, domain.connection = HANDED_OVER, None
    with pytest.raises(HostUnavailable, match="still here"):
        handover.remove_handed_over(session, WEB, within=0)


def test_what_was_handed_over_in_vain_is_taken_back_if_nobody_can_have_run_it(
    session: Session, domain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, Qemu("postmigrate"))
    domain.now = HANDED_OVER
    with pytest.raises(Refused, match="may have run it"):
        handover.take_back(session, WEB, ends_paused=False)
    assert domain.calls == []
    handover.take_back(session, WEB, ends_paused=True)
    handover.take_back(session, WEB, ends_paused=True)
    assert domain.calls == [("resume",)]


def test_a_vm_that_people_paused_is_not_taken_back(
    session: Session, domain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, Qemu("paused"))
    domain.now = WHOLE
    with pytest.raises(Refused, match="QEMU says it is paused"):
        handover.take_back(session, WEB, ends_paused=True)
    assert domain.calls == []


# how it left

STARTED = "2026-11-23 16:00:0{}.000+0000: starting up libvirt version: 9.0.0, qemu version: 7.2\nLC_ALL=C \\\n"
ENDED = "2026-11-23 16:05:00.000+0000: shutting down, reason={}\n"


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (STARTED.format(1) + ENDED.format("migrated"), ""),
        (STARTED.format(1) + ENDED.format("crashed") + STARTED.format(2) + ENDED.format("migrated"), ""),
        (STARTED.format(1) + ENDED.format("migrated") + STARTED.format(2), "does not tell"),
        (STARTED.format(1) + ENDED.format("shutdown"), "ended here: shutdown"),
        (STARTED.format(1) + ENDED.format("crashed"), "ended here: crashed"),
        (STARTED.format(1) + ENDED.format("destroyed"), "ended here: destroyed"),
        (None, "does not tell"),
    ],
)
def test_only_a_vm_that_libvirt_saw_migrate_has_left(tmp_path: Path, log: str | None, why: str) -> None:
    if log is not None:
        (tmp_path / "web.log").write_text(log)
    found = parting.why_not_left("web", tmp_path / "note", tmp_path)
    assert why in found
    assert bool(found) == bool(why)


def test_one_that_was_removed_as_handed_over_has_left_until_it_is_started_again(tmp_path: Path) -> None:
    log, note = tmp_path / "web.log", tmp_path / "notes" / "web"
    log.write_text(STARTED.format(1))
    parting.remember("web", note, tmp_path)
    log.write_text(STARTED.format(1) + ENDED.format("destroyed"))
    assert parting.why_not_left("web", note, tmp_path) == ""
    log.write_text(log.read_text() + STARTED.format(2) + ENDED.format("destroyed"))
    assert "destroyed" in parting.why_not_left("web", note, tmp_path)


def test_a_vm_is_let_start_with_its_new_host(session: Session, domain: Any) -> None:
    arrival.start_with_host(session, WEB)
    assert domain.calls == [("autostart", 1)]


@pytest.mark.parametrize(("persistent", "auto", "starts"), [(1, 1, True), (1, 0, False), (0, 1, False)])
def test_only_a_defined_vm_can_start_with_its_host(domain: Any, persistent: int, auto: int, starts: bool) -> None:
    known = type(domain)("web", uuid=str(uuid.UUID(int=1)))
    known.persistent, known.auto = persistent, auto
    assert vm_report(known).autostart is starts
