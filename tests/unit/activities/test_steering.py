"""The long step does what the controller advises and what people want, keeps why, and later attempts go on from it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import move as module
from activities import steering, wishes
from activities.folder import Folder
from activities.journal import Journal
from activities.move import HELD, HELD_DOWNTIME_MS
from activities.steering import SteeringActivities
from clouds.kvm import errors as kvm
from clouds.kvm.controller import Step
from clouds.kvm.migration import Sight
from clouds.kvm.progress import JobSample
from dwcp.errors import ControlFailed
from models.datapath import DataPathStatus
from models.decisions import Decision
from models.host import HostSettings
from models.migration import MigrationPolicy, Progress, VmRef
from models.steering import Steered, SteerMove
from tests.unit.activities.test_move import CONNECTED, GONE, LOST, RUNNING, SWITCHING, Scene
from tests.unit.activities.test_small_parts import SETTINGS

MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN", 0.0)
    monkeypatch.setattr(module, "FIGURES_WITHIN", 0.0)


def busy(turn: int) -> Sight:
    """A guest that writes as fast as the link carries: a pass of ten seconds brings nothing."""
    sample = JobSample(
        total=400 * MIB,
        remaining=(100 - 10 * (turn % 10)) * MIB,
        iteration=1 + turn // 10,
        dirty_rate=10 * MIB,
        bandwidth=10 * MIB,
    )
    return Sight("running", job="migration", sample=sample)


def wish(number: int = 1, held_until: float = 0, **policy: object) -> SteerMove:
    return SteerMove(
        migration_id="m1", number=number, held_until=held_until, policy=MigrationPolicy.model_validate(policy)
    )


def actions(scene: Scene) -> list[str]:
    return [decision.action for decision in scene.decided]


def test_a_busy_guest_is_given_more_pause_then_slowed_down_and_every_step_is_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: RUNNING if s.turn == 1 else busy(s.turn) if s.turn < 150 else s.complete())
    result = scene.run(max_slowdown=40)
    downtimes = [value for what, value in scene.departure.told if what == "downtime"]
    throttles = [value for what, value in scene.departure.told if what == "throttle"]
    assert downtimes == [150, 225, 300]
    assert throttles == [20, 40, 0], "this guest does not react: it must get its CPU time back"
    assert list(result.decisions) == scene.decided
    assert [decision.number for decision in scene.decided] == [1, 2, 3, 4, 5, 6]
    assert all(decision.reason and decision.inputs["bandwidth"] for decision in scene.decided)


def test_where_post_copy_is_allowed_a_guest_that_does_not_converge_switches(tmp_path: Path) -> None:
    post_copy = Sight(
        "paused", reason=12, job="migration", sample=JobSample(total=400 * MIB, remaining=MIB, iteration=9)
    )

    def plot(s: Scene) -> Sight:
        if s.turn == 1:
            return RUNNING
        return busy(s.turn) if not s.departure.switches else post_copy if s.turn < 300 else s.complete()

    scene = Scene(tmp_path, plot)
    assert scene.run(finish_within=100, allow_post_copy=True).post_copy
    assert actions(scene)[-1] == "post-copy"
    assert scene.decided[-1].at < 100


def test_a_later_attempt_repeats_nothing_and_tells_again_what_was_decided(tmp_path: Path) -> None:
    def die(s: Scene) -> Sight:
        s.stop = "detach" if s.turn == 60 else None
        return RUNNING if s.turn == 1 else busy(s.turn)

    first = Scene(tmp_path, die)
    with pytest.raises(ApplicationError, match="goes on"):
        first.run(max_slowdown=40)
    told = list(first.decided)
    assert told
    second = Scene(tmp_path, lambda s: busy(s.turn + 60) if s.turn < 100 else s.complete())
    second.time = first.time
    result = second.run(max_slowdown=40, so_far=Progress(percent=50))
    assert second.decided[: len(told)] == told
    values = [(decision.action, decision.value) for decision in result.decisions]
    assert len(values) == len(set(values)), f"done twice: {values}"
    assert [value for action, value in values if action == "downtime"] == [150, 225, 300]
    assert [value for action, value in values if action == "throttle"] == [20, 40, 0]


def test_a_move_that_was_given_up_stays_given_up_for_a_later_attempt(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.mark_started(990)
    Journal(folder, lambda _: None).add(Step("give up", "the deadline has come"), 5)
    scene = Scene(tmp_path, lambda s: busy(s.turn) if not s.departure.aborts else RUNNING)
    with pytest.raises(kvm.MoveFailed, match="the deadline has come"):
        scene.run()


def test_at_its_deadline_the_move_says_why_it_did_not_get_across(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.departure.aborts:
            s.call.end("aborted")
            return RUNNING
        return RUNNING if s.turn == 1 else busy(s.turn)

    scene = Scene(tmp_path, plot)
    with pytest.raises(kvm.MoveFailed, match=r"within finish_within = 100 s.*allow_post_copy"):
        scene.run(finish_within=100)
    assert actions(scene)[-1] == "give up"


def test_a_pause_by_people_holds_the_link_until_they_resume_and_changes_no_goal(tmp_path: Path) -> None:
    answers: list[Steered | None] = []

    def plot(s: Scene) -> Sight:
        if s.turn == 5:
            wishes.put_wish(s.folder, wish(1, held_until=s.time + 1000, wire_mib=3))
        if s.turn == 9:
            answers.append(wishes.answer(s.folder))
            wishes.put_wish(s.folder, wish(2, wire_mib=3))
        return RUNNING if s.turn == 1 else busy(1) if s.turn < 15 else s.complete()

    scene = Scene(tmp_path, plot)
    scene.run()
    assert actions(scene) == ["hold", "release"]
    assert scene.limits == [HELD, 3 * MIB]
    assert scene.departure.told == [("downtime", HELD_DOWNTIME_MS), ("downtime", 75)]
    assert answers == [Steered(number=1, answer="nothing crosses the link")]
    assert wishes.answer(scene.folder) == Steered(number=2, answer="the move goes on")
    assert any("paused by people" in report.note for report in scene.reports)


def test_a_pause_runs_out_by_itself(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            wishes.put_wish(s.folder, wish(1, held_until=s.time + 10))
        return RUNNING if s.turn == 1 else busy(1) if s.turn < 30 else s.complete()

    scene = Scene(tmp_path, plot)
    scene.run()
    hold, release = scene.decided
    assert (hold.action, release.action) == ("hold", "release")
    assert release.at - hold.at == pytest.approx(10, abs=2)


def test_a_pause_that_meets_the_switch_is_refused(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            wishes.put_wish(s.folder, wish(1, held_until=s.time + 10))
        return RUNNING if s.turn == 1 else SWITCHING if s.turn < 9 else s.complete()

    scene = Scene(tmp_path, plot)
    scene.run()
    assert scene.limits == []
    found = wishes.answer(scene.folder)
    assert found is not None
    assert found.refused


@pytest.mark.parametrize("path", [CONNECTED, LOST])
def test_a_cancel_lets_a_paused_move_go_first_so_that_its_job_can_end(tmp_path: Path, path: DataPathStatus) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            wishes.put_wish(s.folder, wish(1, held_until=s.time + 1000))
        if s.turn == 6:
            s.stop, s.path = "cancel", path
        if s.departure.aborts > 1:
            s.call.end("aborted")
            return RUNNING
        return RUNNING if s.turn == 1 else busy(1)

    scene = Scene(tmp_path, plot)
    with pytest.raises(Exception, match="cancelled"):
        scene.run()
    assert scene.limits == [HELD, 0]


def test_new_goals_are_taken_up_while_it_runs(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if s.turn == 5:
            wishes.put_wish(s.folder, wish(1, bandwidth_mib=7, max_downtime_ms=40))
        return RUNNING if s.turn == 1 else busy(1) if s.turn < 15 else s.complete()

    scene = Scene(tmp_path, plot)
    scene.run()
    assert [(decision.action, decision.value) for decision in scene.decided] == [("bandwidth", 7), ("downtime", 40)]
    assert scene.departure.told == [("bandwidth", 7), ("downtime", 40)]


def test_what_the_data_path_refuses_is_tried_again_and_told_only_when_it_holds(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: RUNNING)
    failures = [ControlFailed("busy")]

    def limit(rate: int) -> None:
        if failures:
            raise failures.pop()
        scene.limits.append(rate)

    def plot(s: Scene) -> Sight:
        if s.turn == 3:
            wishes.put_wish(s.folder, wish(1, held_until=s.time + 1000))
        return RUNNING if s.turn == 1 else busy(1) if s.turn < 9 else s.complete()

    scene.plot = plot
    scene.limit = limit  # type: ignore[method-assign]  # a data path that is busy once
    scene.run()
    assert scene.limits == [HELD]
    assert actions(scene) == ["hold"]


def test_a_guest_paused_for_its_move_is_said_to_stand_still(tmp_path: Path) -> None:
    def plot(s: Scene) -> Sight:
        if ("pause", 0) in s.departure.told:
            return Sight("paused", reason=2, job="migration", sample=busy(3).sample) if s.turn < 400 else s.complete()
        return RUNNING if s.turn == 1 else busy(s.turn)

    scene = Scene(tmp_path, plot)
    scene.run(finish_within=200, allow_pause=True)
    assert actions(scene)[-1] in ("pause", "give up")
    assert "pause" in actions(scene)
    assert any("stands still" in report.note for report in scene.reports)


def test_a_journal_that_a_crash_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    journal = Journal(Folder(tmp_path), lambda _: None)
    journal.add(Step("downtime", "why", 150), 3)
    journal.add(Step("downtime", "why", 225), 5)
    file = tmp_path / "decisions.jsonl"
    file.write_text(file.read_text()[:-30])
    told: list[Decision] = []
    again = Journal(Folder(tmp_path), told.append)
    assert [decision.value for decision in again.decisions] == [150]
    again.add(Step("downtime", "why", 225), 5)
    assert [decision.number for decision in told] == [1, 2]


def test_an_older_wish_never_undoes_a_newer_one(tmp_path: Path) -> None:
    wishes.put_wish(Folder(tmp_path), wish(2, wire_mib=2))
    wishes.put_wish(Folder(tmp_path), wish(1, wire_mib=1))
    found = wishes.wish(Folder(tmp_path))
    assert found is not None
    assert found.policy.wire_mib == 2


@pytest.fixture
def folder() -> Iterator[Folder]:
    """Of the migration m1; its path is short, as a host's must be."""
    with tempfile.TemporaryDirectory() as state:
        path = Path(state) / "migrations" / "m1"
        path.mkdir(parents=True)
        yield Folder(path)


def host(folder: Folder) -> SteeringActivities:
    state = str(folder.path.parent.parent)
    return SteeringActivities(HostSettings.model_validate({**SETTINGS, "state_dir": state}))


def test_steering_waits_for_the_move_step_and_gives_its_answer(folder: Folder) -> None:
    def obey() -> None:
        while wishes.wish(folder) is None:
            threading.Event().wait(0.01)
        wishes.put_answer(folder, Steered(number=1, answer="the move goes on"))

    step = threading.Thread(target=obey)
    step.start()
    assert ActivityEnvironment().run(host(folder).steer_move, wish(1)).answer == "the move goes on"
    step.join()


def test_an_operation_that_is_over_steers_nothing(folder: Folder) -> None:
    steering_of, old = host(folder), VmRef(vm="web", uuid=str(uuid4()), token=3)
    steering_of._fence.check(old.model_copy(update={"token": 4}), "move the VM")
    with pytest.raises(ApplicationError, match=r"owner token 3, .* has seen 4"):
        ActivityEnvironment().run(steering_of.steer_move, wish(1).model_copy(update={"vm": old}))
    assert wishes.wish(folder) is None


def test_steering_a_move_whose_step_does_not_run_is_asked_again_later(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "ANSWERED_WITHIN", 0.0)
    with pytest.raises(ApplicationError, match="has not taken up wish 1") as late:
        ActivityEnvironment().run(host(folder).steer_move, wish(1))
    assert not late.value.non_retryable


def test_steering_a_move_that_has_ended_is_refused(folder: Folder) -> None:
    folder.remove()
    with pytest.raises(ApplicationError, match="it has ended") as ended:
        ActivityEnvironment().run(host(folder).steer_move, wish(1))
    assert ended.value.type == "NotFound"


def test_the_vm_that_left_is_no_step_to_steer(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda s: GONE)
    scene.folder.mark_started(900)
    assert scene.run().decisions == ()
