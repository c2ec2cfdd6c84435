"""The long step with libvirt and the data path played by a few lines each: attach, obey, survive, tell the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.exceptions import ApplicationError, CancelledError

from activities import move as module
from activities.folder import Folder
from activities.heartbeat import Stop
from activities.move import Move, Surroundings
from clouds.kvm import errors as kvm
from clouds.kvm.decision import Call
from clouds.kvm.migration import Completed, Departure, MigrateCall, Sight
from clouds.kvm.progress import JobSample
from clouds.kvm.switch import State, Switch
from dwcp.errors import ControlFailed, NotRunning
from models.datapath import DataPathStatus, FlowStatus
from models.decisions import Decision
from models.migration import MigrationPolicy, MoveMode, MoveResult, MoveVm, Progress, VmRef

RUNNING = Sight("running")
MOVING = Sight("running", job="migration", sample=JobSample(total=1000, remaining=250, iteration=1))
SWITCHING = Sight("paused", reason=2, job="migration")
GONE = Sight(None)
FIGURES = Completed(downtime_ms=42, memory_total=1000, iterations=3, seconds=9.0)
CONNECTED = DataPathStatus(role="source", migration_id="m1", pid=1, state="connected", raw_out=99)
LOST = CONNECTED.model_copy(update={"state": "link-lost", "error": "lane 0 lost"})
FAILED = CONNECTED.model_copy(update={"state": "failed", "error": "peer host-b has the wrong certificate"})

Turn = Callable[["Scene"], Sight | Exception]


class PlayedCall:
    """libvirt's migrate call: waits until the scene says how it ended."""

    def __init__(self) -> None:
        self.state: Call = "waiting"
        self.error = ""
        self.on_end: Callable[[], None] = lambda: None
        self.begun = False

    def start(self) -> None:
        self.begun = True

    def end(self, error: str = "") -> None:
        self.state, self.error = ("failed", error) if error else ("succeeded", "")


class PlayedDeparture:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.completed: Completed | None = None
        self.on_completed: Callable[[], None] = lambda: None
        self.on_pass: Callable[[], None] = lambda: None
        self.on_suspended: Callable[[], None] = lambda: None
        self.on_resumed: Callable[[], None] = lambda: None
        self.aborts = 0
        self.switches = 0
        self.objections: list[str] = []
        self.told: list[tuple[str, int]] = []
        """Everything else that libvirt was told."""

    def set_downtime(self, milliseconds: int) -> str:
        self.told.append(("downtime", milliseconds))
        return ""

    def set_bandwidth(self, mib: int) -> str:
        self.told.append(("bandwidth", mib))
        return ""

    def throttle(self, percent: int) -> str:
        self.told.append(("throttle", percent))
        return ""

    def unthrottle(self) -> str:
        self.told.append(("throttle", 0))
        return ""

    def pause(self) -> str:
        self.told.append(("pause", 0))
        return ""

    def look(self, held: bool = False) -> Sight:
        self._scene.turn += 1
        self._scene.time += 1
        seen = self._scene.plot(self._scene)
        if isinstance(seen, Exception):
            raise seen
        return seen

    def abort(self) -> str:
        self.aborts += 1
        return ""

    def start_post_copy(self) -> str:
        self.switches += 1
        return self.objections.pop(0) if self.objections else ""


class PlayedSwitch:
    """What lets the VM run at its destination."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.state: State = "runs"

    def start(self) -> None:
        self.told.append("start")

    def near(self) -> None:
        self.told.append("near")

    def gone(self) -> None:
        self.told.append("gone")

    def stop(self) -> None:
        self.told.append("stop")

    def wait(self, seconds: float) -> State:
        return self.state


class Scene:
    """A move whose world is one function of the turn; time is the number of turns, in seconds."""

    def __init__(self, folder: Path, plot: Turn) -> None:
        self.plot = plot
        self.turn = 0
        self.time = 1000.0
        self.stop: Stop | None = None
        self.path: DataPathStatus | Exception = CONNECTED
        self.call = PlayedCall()
        self.departure = PlayedDeparture(self)
        self.switch = PlayedSwitch()
        self.folder = Folder(folder)
        self.reports: list[Progress] = []
        self.cuts = 0
        self.limits: list[int] = []
        self.decided: list[Decision] = []

    def cut(self) -> None:
        self.cuts += 1
        self.path = NotRunning("it was closed")

    def limit(self, rate: int) -> None:
        self.limits.append(rate)

    def status(self) -> DataPathStatus:
        if isinstance(self.path, Exception):
            raise self.path
        return self.path

    def run(
        self,
        finish_within: float = 3600,
        own_call: bool = False,
        so_far: Progress | None = None,
        mode: MoveMode = "pre-copy",
        resume: bool = False,
        **goals: Any,
    ) -> MoveResult:
        order = MoveVm(
            migration_id="m1",
            vm=VmRef(vm="web"),
            source="host-a",
            destination="host-b",
            policy=MigrationPolicy(finish_within=finish_within, mode=mode, **goals),
            started=5,
            resume=resume,
        )
        around = Surroundings(
            stop=lambda: self.stop,
            report=self.reports.append,
            status=self.status,
            cut=self.cut,
            limit=self.limit,
            decided=self.decided.append,
            now=lambda: self.time,
            clock=lambda: self.time,
        )
        call = cast(MigrateCall, self.call)
        departure = cast(Departure, self.departure)
        switch = cast(Switch, self.switch)
        own = call if own_call else None
        return Move(order, self.folder, departure, own, lambda: call, around, so_far, lambda: switch).run()

    def complete(self) -> Sight:
        self.departure.completed = FIGURES
        self.departure.on_completed()
        return GONE


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN", 0.0)
    monkeypatch.setattr(module, "FIGURES_WITHIN", 0.0)


def script(*sights: Sight | Exception) -> Turn:
    """One sight a turn; the last one stays."""
    return lambda scene: sights[min(scene.turn, len(sights)) - 1]


def test_a_move_is_started_watched_and_reported(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: [RUNNING, MOVING, SWITCHING][s.turn - 1] if s.turn < 4 else s.complete())
    result = scene.run()
    assert scene.call.begun
    assert (result.downtime_ms, result.memory_total, result.iterations) == (42, 1000, 3)
    assert not result.attached
    assert not result.cancel_came_too_late
    assert [report.percent for report in scene.reports][1] == 75.0
    assert scene.reports[0].elapsed == 5


def test_the_switch_is_ready_before_libvirt_is_called_and_hears_what_comes(tmp_path: Path) -> None:
    def plot(scene: Scene) -> Sight:
        if scene.turn == 2:
            scene.departure.on_suspended()
        return RUNNING if scene.turn == 1 else MOVING if scene.turn == 2 else scene.complete()

    scene = Scene(tmp_path, plot)
    begin = scene.call.start

    def start() -> None:
        assert scene.switch.told == ["start"]
        begin()

    scene.call.start = start  # type: ignore[method-assign]  # look at that very moment
    scene.run()
    assert scene.switch.told == ["start", "near", "gone"]


def test_an_attempt_that_finds_the_move_half_way_makes_the_switch_ready_too(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: SWITCHING if s.turn == 1 else GONE)
    scene.folder.mark_started(1000.0)
    scene.run()
    assert scene.switch.told == ["start", "near", "gone"]


def test_a_guest_that_runs_again_at_its_source_ends_the_switch(tmp_path: Path) -> None:
    def plot(scene: Scene) -> Sight:
        if scene.turn == 3:
            scene.departure.on_resumed()
            assert scene.switch.told[-1] == "stop"
            scene.call.end("the connection broke")
        return RUNNING if scene.turn in (1, 3) else SWITCHING

    scene = Scene(tmp_path, plot)
    with pytest.raises(kvm.MoveFailed):
        scene.run()
    assert "gone" not in scene.switch.told


@pytest.mark.parametrize("mode", ["hybrid", "post-copy"])
def test_a_move_that_may_switch_to_post_copy_leaves_the_start_to_libvirt(tmp_path: Path, mode: MoveMode) -> None:
    scene = Scene(tmp_path, lambda s: [RUNNING, MOVING][s.turn - 1] if s.turn < 3 else s.complete())
    scene.run(mode=mode)
    assert scene.switch.told == []


def test_the_marker_is_on_disk_before_libvirt_is_called(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: RUNNING if s.turn == 1 else s.complete())
    begin = scene.call.start

    def start() -> None:
        assert json.loads((tmp_path / "started").read_text())["at"] > 0
        begin()

    scene.call.start = start  # type: ignore[method-assign]  # look at the disk at that very moment
    scene.run()
    assert scene.call.begun


def test_a_second_attempt_attaches_to_the_running_job(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: MOVING if s.turn < 3 else s.complete())
    scene.folder.mark_started(900)
    result = scene.run(so_far=Progress(percent=80, memory_total=1000))
    assert not scene.call.begun
    assert result.attached
    assert result.seconds == scene.time - 900
    assert [report.percent for report in scene.reports] == sorted(report.percent for report in scene.reports)
    assert scene.reports[0].percent == 80
    assert scene.reports[0].elapsed > 100


def test_an_attempt_that_comes_after_the_end_tells_what_the_last_heartbeat_knew(tmp_path: Path) -> None:
    scene = Scene(tmp_path, script(GONE))
    scene.folder.mark_started(900)
    result = scene.run(so_far=Progress(percent=99, memory_total=1000, iteration=4))
    assert (result.attached, result.memory_total, result.iterations, result.downtime_ms) == (True, 1000, 4, 0)


def test_a_cancel_aborts_the_job_and_waits_for_its_real_end(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            s.stop = "cancel"
        if s.departure.aborts == 2:
            s.call.end("operation aborted")
            return RUNNING
        return RUNNING if s.turn == 1 else MOVING

    scene = Scene(tmp_path, plot)
    with pytest.raises(CancelledError):
        scene.run()
    assert scene.departure.aborts == 2


def test_a_cancel_over_a_lost_link_closes_the_data_path_so_that_libvirt_can_end_its_job(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            s.stop, s.path = "cancel", LOST
        if s.cuts:
            s.call.end("Cannot recv data: Input/output error")
            return RUNNING
        return RUNNING if s.turn == 1 else MOVING

    scene = Scene(tmp_path, plot)
    with pytest.raises(CancelledError):
        scene.run()
    assert (scene.cuts, scene.departure.aborts > 1) == (1, True)


def test_a_vm_paused_for_the_switch_keeps_its_data_path_over_a_lost_link(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            s.stop, s.path = "cancel", LOST
        if s.turn == 40:
            return s.complete()
        return RUNNING if s.turn == 1 else SWITCHING

    scene = Scene(tmp_path, plot)
    assert scene.run().cancel_came_too_late
    assert scene.cuts == 0


def test_a_cancel_before_the_start_starts_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, script(RUNNING))
    scene.stop = "cancel"
    with pytest.raises(CancelledError):
        scene.run()
    assert not scene.call.begun
    assert scene.folder.started() is None


def test_a_cancel_that_comes_too_late_is_told_with_the_result(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 2:
            s.stop = "cancel"
        return RUNNING if s.turn == 1 else SWITCHING if s.turn < 4 else s.complete()

    scene = Scene(tmp_path, plot)
    assert scene.run().cancel_came_too_late


def test_a_stopping_worker_leaves_the_job_alone(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        s.stop = "detach" if s.turn == 3 else None
        return RUNNING if s.turn == 1 else MOVING

    scene = Scene(tmp_path, plot)
    with pytest.raises(ApplicationError, match="goes on") as raised:
        scene.run()
    assert not raised.value.non_retryable
    assert scene.departure.aborts == 0


def test_a_move_that_takes_too_long_is_aborted_also_when_a_retry_watches_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: MOVING if not s.departure.aborts else RUNNING)
    scene.folder.mark_started(900)
    with pytest.raises(kvm.MoveFailed, match="finish_within = 50 s"):
        scene.run(finish_within=50)
    assert scene.departure.aborts == 1


def test_finish_by_is_a_moment_and_what_was_prepared_before_the_move_has_used_up_its_share(tmp_path: Path) -> None:
    """At the check there were 100 s; then preparing took 70 s."""

    def plot(scene: Scene) -> Sight:
        if scene.departure.aborts:
            scene.call.end("canceled by client")
        return MOVING if scene.call.begun and not scene.departure.aborts else RUNNING

    scene = Scene(tmp_path, plot)
    by = datetime.fromtimestamp(scene.time + 30, UTC)
    with pytest.raises(kvm.MoveFailed, match="by finish_by = 1970"):
        scene.run(finish_within=100, finish_by=by)
    assert scene.call.begun
    assert scene.departure.aborts
    assert scene.time == pytest.approx(1030, abs=5)


def test_a_move_whose_finish_by_is_past_when_all_is_prepared_starts_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda _: RUNNING)
    with pytest.raises(kvm.MoveFailed, match="by finish_by = 1970"):
        scene.run(finish_within=100, finish_by=datetime.fromtimestamp(scene.time - 1, UTC))
    assert not scene.call.begun


def test_a_failed_data_path_ends_the_move_with_its_own_words(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            s.path = FAILED
        if s.departure.aborts:
            s.call.end("Unable to write to socket")
            return RUNNING
        return RUNNING if s.turn == 1 else MOVING

    scene = Scene(tmp_path, plot)
    with pytest.raises(ApplicationError, match=r"wrong certificate.*Unable to write") as raised:
        scene.run()
    assert (raised.value.type, raised.value.non_retryable) == ("DataPathFailed", True)


def test_a_data_path_that_died_before_the_start_starts_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, script(RUNNING))
    scene.path = NotRunning("no data path")
    with pytest.raises(ApplicationError, match="has ended"):
        scene.run()
    assert not scene.call.begun


def test_a_data_path_that_is_too_busy_to_answer_is_not_dead(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        s.path = ControlFailed("busy") if s.turn == 2 else CONNECTED
        return RUNNING if s.turn == 1 else MOVING if s.turn < 4 else s.complete()

    assert Scene(tmp_path, plot).run().memory_total == 1000


def test_libvirt_failing_the_job_is_told_in_its_words_and_the_flows(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            s.call.end("unexpectedly failed")
            s.path = CONNECTED.model_copy(update={"flows": (FlowStatus(service="ram", ordinal=1, error="reset"),)})
        return RUNNING if s.turn in (1, 3) else MOVING

    with pytest.raises(kvm.MoveFailed, match=r"libvirt: unexpectedly failed; ram: reset"):
        Scene(tmp_path, plot).run()


def test_a_libvirtd_that_restarts_is_asked_until_it_answers(tmp_path: Path) -> None:
    away = kvm.HostUnavailable("no answer", "wait")

    def plot(s: Scene) -> Sight | Exception:
        story: list[Sight | Exception] = [RUNNING, MOVING, away, away, MOVING]
        return story[s.turn - 1] if s.turn < 6 else s.complete()

    scene = Scene(tmp_path, plot)
    assert scene.run().downtime_ms == 42
    assert any("does not answer" in report.note for report in scene.reports)


def test_a_libvirtd_that_stays_away_ends_the_attempt_and_nothing_else(tmp_path: Path) -> None:
    away = kvm.HostUnavailable("no answer", "wait")
    scene = Scene(tmp_path, script(RUNNING, MOVING, away))
    with pytest.raises(kvm.HostUnavailable):
        scene.run()
    assert scene.departure.aborts == 0


def test_a_job_that_will_not_end_is_left_for_people(tmp_path: Path) -> None:
    scene = Scene(tmp_path, script(RUNNING, MOVING))
    scene.stop = None

    def plot(s: Scene) -> Sight:
        s.stop = "cancel" if s.turn > 2 else None
        return RUNNING if s.turn == 1 else MOVING

    scene.plot = plot
    with pytest.raises(kvm.Ambiguous, match="has not ended"):
        scene.run()


@pytest.mark.parametrize(
    ("sight", "started", "error"),
    [
        (GONE, False, kvm.NotFound),
        (Sight("shutoff"), False, kvm.Refused),
        (MOVING, False, kvm.Refused),
        (Sight("shutoff", reason=1), True, kvm.MoveFailed),
        (Sight("paused", reason=2), True, kvm.Ambiguous),
    ],
)
def test_what_must_not_be_started_is_refused_by_kind(
    tmp_path: Path, sight: Sight, started: bool, error: type[Exception]
) -> None:
    scene = Scene(tmp_path, script(sight))
    if started:
        scene.folder.mark_started(900)
    with pytest.raises(error):
        scene.run()
    assert not scene.call.begun


# post-copy

SECOND_PASS = Sight("running", job="migration", sample=JobSample(total=1000, remaining=600, iteration=2))
POST_COPY = Sight("paused", reason=12, job="migration", sample=JobSample(total=1000, remaining=300, iteration=2))
BROKE_OFF = Sight("paused", reason=13, job="migration")


def test_a_post_copy_move_switches_after_its_first_pass_and_asks_again_while_libvirt_objects(tmp_path: Path) -> None:
    story = [RUNNING, MOVING, SECOND_PASS, SECOND_PASS, POST_COPY]
    scene = Scene(tmp_path, lambda s: story[s.turn - 1] if s.turn < 6 else s.complete())
    scene.departure.objections = ["not yet"]
    result = scene.run(mode="post-copy")
    assert result.post_copy
    assert scene.departure.switches == 2
    assert [report.phase for report in scene.reports] == ["moving"] * 4 + ["post-copy"] * 2
    assert "runs on host-b" in scene.reports[4].note


def test_a_pre_copy_move_never_switches(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: RUNNING if s.turn == 1 else SECOND_PASS if s.turn < 9 else s.complete())
    assert not scene.run().post_copy
    assert scene.departure.switches == 0


@pytest.mark.parametrize("trouble", ["cancel", "late", "no path", "path failed"])
def test_nothing_ends_a_move_in_post_copy(tmp_path: Path, trouble: str) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 4:
            s.stop = "cancel" if trouble == "cancel" else None
            s.time += 10_000 if trouble == "late" else 0
            s.path = NotRunning("gone") if trouble == "no path" else FAILED if trouble == "path failed" else CONNECTED
        return [RUNNING, SECOND_PASS, POST_COPY][min(s.turn, 3) - 1] if s.turn < 50 else s.complete()

    scene = Scene(tmp_path, plot)
    result = scene.run(mode="post-copy")
    assert result.post_copy
    assert result.cancel_came_too_late == (trouble == "cancel")
    assert (scene.departure.aborts, scene.cuts) == (0, 0)


def test_a_cancel_that_meets_the_switch_to_post_copy_ends_nothing_any_more(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        s.stop = "cancel" if s.turn >= 2 else None
        return [RUNNING, MOVING, POST_COPY][min(s.turn, 3) - 1] if s.turn < 20 else s.complete()

    scene = Scene(tmp_path, plot)
    assert scene.run(mode="hybrid").cancel_came_too_late
    assert scene.departure.aborts == 1


def test_a_post_copy_that_broke_off_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    scene = Scene(tmp_path, script(RUNNING, SECOND_PASS, POST_COPY, BROKE_OFF))
    with pytest.raises(kvm.Ambiguous, match="Destroy neither half"):
        scene.run(mode="post-copy")
    assert (scene.departure.aborts, scene.cuts) == (0, 0)


def test_a_post_copy_that_broke_off_is_gone_on_with_over_a_new_path(tmp_path: Path) -> None:
    story = [BROKE_OFF, BROKE_OFF, POST_COPY]
    scene = Scene(tmp_path, lambda s: story[s.turn - 1] if s.turn < 4 else s.complete())
    result = scene.run(mode="post-copy", resume=True)
    assert scene.call.begun
    assert result.post_copy
    assert {report.phase for report in scene.reports} == {"post-copy"}


def test_a_destination_that_does_not_take_up_the_new_path_is_named_and_the_call_comes_to_an_end(tmp_path: Path) -> None:
    scene = Scene(tmp_path, script(BROKE_OFF))
    cut = scene.cut

    def cut_ends_the_call() -> None:
        cut()
        scene.call.end("client socket is closed")

    scene.cut = cut_ends_the_call  # type: ignore[method-assign]  # as libvirt does when its connection goes
    with pytest.raises(kvm.Ambiguous, match=r"host-b did not take up the new path within 60 s.*Destroy neither"):
        scene.run(mode="post-copy", resume=True)
    assert (scene.departure.aborts, scene.cuts) == (0, 1)
    assert scene.turn > module.GONE_ON_WITHIN


def test_a_later_attempt_attaches_to_a_post_copy_and_knows_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: POST_COPY if s.turn < 3 else s.complete())
    scene.folder.mark_started(900)
    scene.stop = None
    assert scene.run(mode="hybrid", so_far=Progress(phase="post-copy", percent=90)).post_copy
    assert not scene.call.begun


def test_an_earlier_attempt_in_this_process_lends_its_call(tmp_path: Path) -> None:
    scene = Scene(tmp_path, script(RUNNING))
    scene.folder.mark_started(900)
    scene.call.end("its last words")
    with pytest.raises(kvm.MoveFailed, match="its last words"):
        scene.run(own_call=True)
