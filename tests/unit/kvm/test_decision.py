"""Attach or start, watch or end: the whole table of clouds.kvm.decision, row by row."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from clouds.kvm.decision import (
    OFF_MIGRATED,
    PAUSED_FOR_MIGRATION,
    PAUSED_POSTCOPY,
    PAUSED_POSTCOPY_FAILED,
    Action,
    Call,
    Job,
    Situation,
    decide,
    in_post_copy,
)
from models.datapath import PathState
from models.host import VmState

HERE = Situation(state="running")
HALF = Situation(state="paused", reason=PAUSED_POSTCOPY_FAILED, job="migration", started=True)
GONE = Situation(state=None)

ROWS: list[tuple[str, Situation, Action]] = [
    ("a running VM nothing moves is started", HERE, "start"),
    ("a VM paused by its user is started", replace(HERE, state="paused", reason=1), "start"),
    ("a lost link is still a data path to start over", replace(HERE, path="link-lost"), "start"),
    ("no data path, no start", replace(HERE, path=None), "stayed"),
    ("a failed data path, no start", replace(HERE, path="failed"), "stayed"),
    ("somebody else's migration is not ours to watch", replace(HERE, job="migration"), "refused"),
    ("a save or snapshot is not disturbed", replace(HERE, job="other"), "refused"),
    ("a VM that is off does not move live", Situation(state="shutoff"), "refused"),
    ("a VM that is not here and never started is gone", GONE, "gone"),
    ("a retry finds the job running", replace(HERE, started=True, job="migration"), "watch"),
    (
        "a retry finds the VM in its final pause",
        Situation(state="paused", reason=PAUSED_FOR_MIGRATION, started=True, job="migration"),
        "watch",
    ),
    (
        "the job is aborted over a dead path, but watched",
        replace(HERE, started=True, job="migration", path=None),
        "watch",
    ),
    ("libvirt has the call and no job yet", replace(HERE, started=True, call="waiting"), "watch"),
    ("libvirt ended the migration with an error", replace(HERE, started=True, call="failed"), "stayed"),
    ("success with the VM still here is not believed", replace(HERE, started=True, call="succeeded"), "in doubt"),
    ("a marker without a job starts again", replace(HERE, started=True), "start"),
    ("a marker without job or path is over", replace(HERE, started=True, path="failed"), "stayed"),
    ("another job after ours is over", replace(HERE, started=True, job="other"), "stayed"),
    (
        "paused for a migration that nobody runs",
        Situation(state="paused", reason=PAUSED_FOR_MIGRATION, started=True),
        "in doubt",
    ),
    (
        "paused for a migration before ours began",
        Situation(state="paused", reason=PAUSED_FOR_MIGRATION),
        "in doubt",
    ),
    ("post-copy goes on", replace(HALF, reason=PAUSED_POSTCOPY), "watch"),
    ("post-copy goes on, though the path is gone", replace(HALF, reason=PAUSED_POSTCOPY, path=None), "watch"),
    ("somebody else's post-copy", replace(HALF, reason=PAUSED_POSTCOPY, started=False), "refused"),
    (
        "post-copy that a later step attaches to",
        replace(HALF, reason=PAUSED_POSTCOPY, started=False, resume=True),
        "watch",
    ),
    ("post-copy without a job", replace(HALF, reason=PAUSED_POSTCOPY, job="none"), "in doubt"),
    ("post-copy broke off", HALF, "broken off"),
    ("post-copy broke off while the call waits to say so", replace(HALF, call="waiting"), "broken off"),
    ("a new path to go on with post-copy", replace(HALF, started=False, resume=True), "start"),
    ("no path to go on with post-copy", replace(HALF, started=False, resume=True, path=None), "broken off"),
    ("the call to go on is with libvirt", replace(HALF, resume=True, call="waiting"), "watch"),
    ("the call to go on failed", replace(HALF, resume=True, call="failed"), "broken off"),
    ("an earlier attempt may have called", replace(HALF, resume=True), "broken off"),
    ("a post-copy that was attached to has ended", replace(GONE, resume=True), "moved"),
    ("nothing to go on with", replace(HERE, resume=True), "stayed"),
    ("a state without a meaning", Situation(state="unknown"), "in doubt"),
    ("gone and libvirt said completed", replace(GONE, started=True, completed=True, call="waiting"), "moved"),
    ("gone and the call came back well", replace(GONE, started=True, call="succeeded"), "moved"),
    ("gone and the call has not come back", replace(GONE, started=True, call="waiting"), "watch"),
    ("gone and the call failed: the guest ended", replace(GONE, started=True, call="failed"), "gone"),
    ("gone unseen, with bytes carried", replace(GONE, started=True, carried=True), "moved"),
    ("gone unseen, with nothing to ask", replace(GONE, started=True, carried=None, path=None), "moved"),
    ("gone unseen, with not a byte carried", replace(GONE, started=True, carried=False), "gone"),
    ("off, and libvirt says migrated", Situation(state="shutoff", reason=OFF_MIGRATED, started=True), "moved"),
    ("off while the call still waits", Situation(state="shutoff", started=True, call="waiting"), "watch"),
    ("off for another reason", Situation(state="shutoff", reason=1, started=True), "gone"),
]


@pytest.mark.parametrize(("now", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_every_situation_has_its_answer(now: Situation, expected: Action) -> None:
    assert decide(now).action == expected


def everything() -> list[Situation]:
    return [
        Situation(state, reason, job, started, call, completed, path, carried, resume)
        for state, reason, job, started, call, completed, path, carried, resume in product(
            (None, *get_args(VmState)),
            (0, 1, 2, 4, 12, 13),
            get_args(Job),
            (False, True),
            get_args(Call),
            (False, True),
            (None, *get_args(PathState)),
            (None, False, True),
            (False, True),
        )
    ]


def test_a_move_is_started_only_for_a_vm_that_is_here_free_and_has_a_path() -> None:
    for now in everything():
        if decide(now).action == "start":
            assert now.state not in (None, "shutoff", "crashed", "unknown")
            assert now.job == "none" or (now.resume and now.reason == PAUSED_POSTCOPY_FAILED and not now.started)
            assert now.call == "none"
            assert now.path in ("connected", "link-lost")


def test_a_vm_is_called_moved_only_when_it_is_not_alive_here_and_the_move_had_started() -> None:
    for now in everything():
        if decide(now).action == "moved":
            assert now.started or now.resume
            assert now.state is None or (now.state == "shutoff" and now.reason == OFF_MIGRATED)


def test_a_vm_is_called_stayed_only_when_libvirt_has_it_alive() -> None:
    for now in everything():
        if decide(now).action == "stayed":
            assert now.state not in (None, "shutoff", "crashed")
            assert now.job != "migration"


def test_a_vm_in_post_copy_is_never_called_stayed_nor_started_from_the_beginning() -> None:
    for now in everything():
        if in_post_copy(now.state, now.reason):
            answer = decide(now).action
            assert (
                answer not in ("stayed", "gone", "moved") or now.call in ("failed", "succeeded") or now.job == "other"
            )
            assert answer != "start" or now.resume


def test_every_answer_gives_its_reason() -> None:
    assert all(decide(now).reason for now in everything())
