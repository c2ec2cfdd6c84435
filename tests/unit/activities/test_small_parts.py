"""Signals that are sparse, stops that mean what they say, a marker that lasts, pollers that are there."""

from __future__ import annotations

import errno
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from activities import errors
from activities.control import ControlActivities, polled
from activities.folder import Folder, living
from activities.heartbeat import Stop, wait, why_stop
from activities.signals import MOST, Sparse
from clouds.kvm import errors as kvm
from dwcp import errors as dwcp
from models.host import HostSettings, SiteSettings
from models.migration import Progress

SETTINGS = {
    "site": "lab",
    "host": "host-a",
    "migration_address": "10.0.0.1",
    "tls": {"certificate": "/c", "key": "/k", "authority": "/a"},
}


def test_a_day_of_progress_is_fewer_signals_than_the_limit() -> None:
    sparse = Sparse()
    sent = sum(sparse.worth(second, Progress(phase="moving", percent=100 * second / 86400)) for second in range(86400))
    assert 20 < sent <= MOST


def test_even_a_link_that_flaps_all_day_stays_below_the_limit() -> None:
    sparse = Sparse()
    sent = sum(sparse.worth(n, Progress(phase="moving", link=("connected", "link-lost")[n % 2])) for n in range(10000))
    assert sent == MOST


def test_news_are_signalled_at_once_and_old_hat_is_not() -> None:
    sparse = Sparse()
    assert sparse.worth(0, Progress(phase="moving"))
    assert not sparse.worth(1, Progress(phase="moving", percent=1))
    assert sparse.worth(1, Progress(phase="moving", percent=6))
    assert sparse.worth(1.1, Progress(phase="moving", percent=6, link="link-lost"))
    assert not sparse.worth(2, Progress(phase="moving", percent=6, link="link-lost"))
    assert sparse.worth(4, Progress(phase="moving", percent=6, link="link-lost"))


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (ActivityCancellationDetails(cancel_requested=True), "cancel"),
        (ActivityCancellationDetails(worker_shutdown=True), "detach"),
        (ActivityCancellationDetails(timed_out=True), "detach"),
        (ActivityCancellationDetails(not_found=True), "detach"),
        (ActivityCancellationDetails(paused=True), "detach"),
        (ActivityCancellationDetails(reset=True), "detach"),
    ],
)
def test_only_a_cancel_that_was_asked_for_undoes_anything(details: ActivityCancellationDetails, expected: Stop) -> None:
    environment = ActivityEnvironment()
    environment.cancel(details)
    assert environment.run(_why) == expected


def _why() -> Stop | None:
    """Its own thread state, so that the environment's exception is not raised into the test."""
    from temporalio import activity

    with activity.shield_thread_cancel_exception():
        return why_stop()


def test_a_stopping_worker_detaches() -> None:
    environment = ActivityEnvironment()

    def act() -> Stop | None:
        environment.worker_shutdown()
        return why_stop()

    assert environment.run(act) == "detach"
    assert ActivityEnvironment().run(why_stop) is None


def test_waiting_beats_until_there_is_an_answer() -> None:
    environment = ActivityEnvironment()
    beats = []
    environment.on_heartbeat = lambda *details: beats.append(details)
    answers = iter([None, None, "ready"])
    assert environment.run(wait, "opening", lambda: next(answers), 10, lambda: AssertionError("late")) == "ready"
    assert len(beats) == 2


def test_waiting_ends_at_its_deadline_with_the_error_that_says_why() -> None:
    with pytest.raises(TimeoutError, match="the port is closed"):
        ActivityEnvironment().run(wait, "opening", lambda: None, 0, lambda: TimeoutError("the port is closed"))


def test_waiting_ends_with_a_cancel() -> None:
    environment = ActivityEnvironment()

    def look() -> None:
        threading.Thread(target=environment.cancel).run()

    with pytest.raises(CancelledError):
        environment.run(wait, "opening", look, 10, lambda: AssertionError("late"))


def test_the_marker_survives_and_keeps_its_time(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "m1")
    folder.make()
    assert folder.started() is None
    folder.mark_started(12.5)
    started = Folder(tmp_path / "m1").started()
    assert started is not None
    assert started.at == 12.5


def test_a_destinations_folder_can_be_written_by_qemu_and_not_listed_or_robbed(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "migrations" / "m1")
    folder.make(os.getgid())
    folder.make(os.getgid())
    assert folder.path.stat().st_mode & 0o7777 == 0o1730
    assert folder.path.stat().st_gid == os.getgid()


def test_a_folder_can_be_made_and_removed_twice_and_is_open_to_qemu_by_name_only(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "migrations" / "m1")
    folder.make()
    folder.make()
    assert folder.path.stat().st_mode & 0o777 == 0o711
    settings = HostSettings.model_validate({**SETTINGS, "state_dir": "/nowhere"})
    assert living(settings) == ()
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def poller(age: float) -> PollerInfo:
    info = PollerInfo(identity="host-a@1")
    info.last_access_time.FromDatetime(NOW - timedelta(seconds=age))
    return info


def test_a_worker_in_the_middle_of_a_long_poll_is_there_and_one_silent_for_two_polls_is_not() -> None:
    assert polled([poller(61)], NOW)
    assert polled([poller(300), poller(1)], NOW)
    assert not polled([poller(120)], NOW)
    assert not polled([], NOW)


async def test_the_control_worker_knows_its_site() -> None:
    settings = SiteSettings(site="lab", hosts=("host-a", "host-b"))
    control = ControlActivities(settings, None)
    assert await ActivityEnvironment().run(control.list_hosts) == settings


@pytest.mark.parametrize(
    ("below", "kind", "final"),
    [
        (kvm.NotFound("no VM", "look"), "NotFound", True),
        (kvm.Refused("no", "wait"), "Refused", True),
        (kvm.Final("no binding", "install"), "Refused", True),
        (kvm.MoveFailed("no", "look"), "MigrationFailed", True),
        (kvm.Ambiguous("two", "look"), "Ambiguous", True),
        (kvm.HostUnavailable("away", "wait"), "HostUnavailable", False),
        (dwcp.StartFailed("port"), "DataPathFailed", False),
        (dwcp.NotRunning("gone"), "DataPathFailed", False),
        (dwcp.Refused("certificate"), "DataPathFailed", True),
        (OSError(errno.ENOSPC, "No space left on device"), "HostUnavailable", False),
    ],
)
def test_every_error_below_has_its_type_here(below: Exception, kind: str, final: bool) -> None:
    @errors.translated
    def act() -> None:
        raise below

    with pytest.raises(ApplicationError) as raised:
        act()
    assert (raised.value.type, raised.value.non_retryable) == (kind, final)
    assert str(below) in raised.value.message


def test_a_bug_stays_a_bug() -> None:
    @errors.translated
    def act() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        act()
