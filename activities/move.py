"""The long step: start the move or attach to it, watch it, report, obey, and tell how it ended.

Each turn looks at libvirt and at the data path, lets `clouds.kvm.decision` say where the move stands, and acts on that
and on nothing it remembers; so an attempt that finds the move half-way does just what the first one would do. How the
move is steered on its way (`clouds.kvm.controller`) follows from a journal on disk, and so do people's wishes.
A cancel, the deadline and a failed data path all end a move in one way: libvirt's job is aborted, again and again,
until libvirt says where the VM is. Nothing ends a post-copy: the VM runs at the destination, and needs what is here.
Losing touch with libvirtd ends nothing either: it is asked until it answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from temporalio.exceptions import CancelledError

from activities import errors, wishes
from activities.folder import Folder, Started
from activities.heartbeat import Stop, detached
from activities.journal import Journal
from clouds.kvm import errors as kvm
from clouds.kvm.controller import Controller, Goals, Reading, Step
from clouds.kvm.decision import PAUSED_POSTCOPY_FAILED, Call, Decision, Situation, decide
from clouds.kvm.migration import Departure, MigrateCall, Sight
from clouds.kvm.progress import JobSample, Tracker
from clouds.kvm.switch import Switch
from dwcp.errors import ControlFailed, NotRunning
from models import failures
from models.datapath import DataPathStatus
from models.decisions import Decision as Told
from models.migration import MoveResult, MoveVm, Phase, Progress, may_switch
from models.steering import Steered, SteerMove

logger = logging.getLogger(__name__)

TURN = 1.0
"""Seconds between looks; the end of libvirt's call, or one of its events, cuts a turn short."""
LIBVIRTD_BACK_WITHIN = 120.0
"""How long libvirtd may be away, restarting perhaps, before this attempt gives up asking."""
END_WITHIN = 120.0
"""How long after the first abort the job may take to end."""
CUT_AFTER = 5.0
"""How long after the first abort a lost link is waited for; then the data path is closed, so that the job ends."""
FIGURES_WITHIN = 3.0
"""How long to wait for libvirt's final figures after the VM has left."""
GONE_ON_WITHIN = 60.0
"""How long libvirt may take to go on with a post-copy that broke off; to go on took a tenth of a second where it could.
When the destination's QEMU itself waits for a page (docs/workflows/migrate-vm.md, Two halves), libvirt's call would
wait for ever."""
SWITCHED_WITHIN = 10.0
"""How long to wait for the destination to let it run; then the workflow sees to it."""

HELD = 1
"""Bytes a second of guest memory and disks on the link while people pause the move. The data path bounds bulk only, so
libvirt's keepalive and its own go on."""
HELD_DOWNTIME_MS = 1
"""What the final pause may be meanwhile: what is left must not fit into it."""

Ending = Literal["cancelled", "too long", "no data path"]


@dataclass(frozen=True)
class Surroundings:
    """What a move needs from the activity it runs in."""

    stop: Callable[[], Stop | None]
    report: Callable[[Progress], None]
    status: Callable[[], DataPathStatus]
    """Of the data path; raises NotRunning, or ControlFailed when it cannot be asked."""
    cut: Callable[[], object]
    """Close this end of the data path for good."""
    limit: Callable[[int], object]
    """Bound what this end puts on the link, in bytes a second; raises as `status` does."""
    decided: Callable[[Told], None]
    """Hears of each decision, perhaps more than once."""
    now: Callable[[], float] = time.monotonic
    clock: Callable[[], float] = time.time


class Move:
    def __init__(
        self,
        order: MoveVm,
        folder: Folder,
        departure: Departure,
        call: MigrateCall | None,
        new_call: Callable[[], MigrateCall],
        around: Surroundings,
        so_far: Progress | None = None,
        new_switch: Callable[[], Switch] | None = None,
    ) -> None:
        """`call`: this process's call for this very move, if an earlier attempt made it. `so_far`: its last report.
        `new_switch`: what lets the VM run at its destination."""
        self._order = order
        self._vm = order.vm.vm
        self._folder = folder
        self._departure = departure
        self._call = call
        self._new_call = new_call
        self._new_switch = new_switch
        self._switch: Switch | None = None
        self._around = around
        self._last = so_far or Progress()
        taken = max(0.0, around.clock() - started.at) if (started := folder.started()) else 0.0
        self._tracker = Tracker.resume(self._last, order.started + taken, order.memory_mib << 20)
        self._policy = order.policy
        self._wish: SteerMove | None = None
        self._journal = Journal(folder, around.decided)
        self._controller = Controller(Goals.of(order.policy, self._started().at), self._journal.decisions)
        self._post_copy = order.resume or self._last.phase == "post-copy"
        """The VM was seen to run at the destination before all of its memory was there."""
        self._wake = threading.Event()
        self._figures = threading.Event()
        self._path: DataPathStatus | None = None
        self._path_lives = True
        self._ending: Ending | None = None
        self._ending_since = 0.0
        self._answered = around.now()
        self._begun_here = False
        self._begun_at = 0.0
        self._stuck = False
        """The destination's QEMU did not take up the new path."""
        self._sight = Sight(None)

    def run(self) -> MoveResult:
        self._departure.on_completed = self._completed
        self._departure.on_suspended = self._suspended
        self._departure.on_resumed = self._resumed
        self._departure.on_pass = self._wake.set
        if self._call:
            self._call.on_end = self._wake.set
        while True:
            self._wake.clear()
            self._heed()
            decision = self._decision()
            if decision and decision.action == "start" and not self._give_up():
                self._begin(decision.reason)
            elif decision is None or decision.action == "watch":
                self._watch_the_switch()
                giving_up = self._give_up()
                if giving_up and decision:
                    self._abort()
                elif decision:
                    self._steer()
                self._mind_what_is_stuck()
                self._reply()
            else:
                return self._end(decision)
            self._wake.wait(TURN)

    def _watch_the_switch(self) -> None:
        """A move that cannot end in post-copy leaves the VM paused at its destination: made ready before it is needed,
        and by every attempt, as the one before may have died with its process."""
        if self._switch or not self._new_switch or may_switch(self._order.policy) or self._order.resume:
            return
        self._switch = self._new_switch()
        self._switch.start()
        if self._sight.state == "paused":
            self._switch.near()

    def _mind_what_is_stuck(self) -> None:
        """Only the end of the data path ends a call that libvirt waits in; both halves stay as they are."""
        halved = self._sight.state == "paused" and self._sight.reason == PAUSED_POSTCOPY_FAILED
        waited = self._around.now() - self._begun_at
        if not (self._order.resume and self._begun_here and halved) or self._stuck or waited < GONE_ON_WITHIN:
            return
        self._stuck = True
        logger.warning("%s: %s; closing the data path", self._vm, self._why_stuck())
        self._around.cut()

    def _why_stuck(self) -> str:
        there = self._order.destination
        return f"QEMU on {there} did not take up the new path within {GONE_ON_WITHIN:.0f} s: it waits for memory itself"

    def _suspended(self) -> None:
        if self._switch:
            self._switch.near()

    def _resumed(self) -> None:
        if self._switch:
            self._switch.stop()

    def _completed(self) -> None:
        self._figures.set()
        self._wake.set()

    def _decision(self) -> Decision | None:
        """Look, report, decide; None while libvirtd does not answer."""
        self._ask_data_path()
        try:
            sight = self._departure.look(self._controller.held)
        except kvm.HostUnavailable as error:
            self._report(None, f"libvirtd on {self._order.source} does not answer; the move may be going on")
            if self._around.now() - self._answered > LIBVIRTD_BACK_WITHIN:
                raise
            logger.warning("%s: %s", self._vm, error)
            return None
        self._answered = self._around.now()
        self._sight = sight
        self._post_copy = self._post_copy or sight.post_copy
        self._report(sight, self._note())
        return decide(self._situation(sight))

    def _situation(self, sight: Sight) -> Situation:
        return Situation(
            state=sight.state,
            reason=sight.reason,
            job=sight.job,
            started=self._folder.started() is not None,
            call=self._call_state(),
            completed=self._departure.completed is not None,
            path=self._path.state if self._path and self._path_lives else None,
            carried=self._path.raw_out > 0 if self._path else None,
            resume=self._order.resume,
        )

    def _call_state(self) -> Call:
        return self._call.state if self._call else "none"

    def _ask_data_path(self) -> None:
        try:
            self._path = self._around.status()
            self._path_lives = True
        except NotRunning:
            self._path_lives = False
        except ControlFailed as error:  # busy or just ending: what it said last stands until it answers
            logger.warning("%s: data path of %s: %s", self._vm, self._order.migration_id, error)

    def _begin(self, why: str) -> None:
        logger.info("%s: starting the move to %s: %s", self._vm, self._order.destination, why)
        self._folder.mark_started(self._started().at)
        self._call = self._new_call()
        self._call.on_end = self._wake.set
        self._watch_the_switch()
        self._call.start()
        self._begun_here, self._begun_at = True, self._around.now()

    def _started(self) -> Started:
        """When the move began, by the marker: a restart of the worker buys no time."""
        return self._folder.started() or Started(at=self._around.clock())

    def _elapsed(self) -> float:
        return self._around.clock() - self._started().at

    def _heed(self) -> None:
        """Take up what people want of the move since it began."""
        wish = wishes.wish(self._folder)
        if wish is None or wish == self._wish:
            return
        self._wish, self._policy = wish, wish.policy
        self._controller.change(Goals.of(wish.policy, self._started().at))

    def _hold_wanted(self) -> bool:
        """A pause of the move runs out by itself, also when nobody is there to end it."""
        return self._wish is not None and self._wish.held_until > self._around.clock()

    def _steer(self) -> None:
        """Do what the controller advises, and keep why. What libvirt objects to is advised again while it is right."""
        if self._post_copy or self._sight.job != "migration":
            return
        step = self._controller.advise(self._reading())
        if step is not None:
            self._take(step)

    def _reading(self) -> Reading:
        sight, path = self._sight, self._path
        sample = sight.sample or JobSample()
        return Reading(
            elapsed=self._elapsed(),
            iteration=sample.iteration,
            total=sample.total + sample.disk_total,
            remaining=sample.remaining + sample.disk_remaining,
            dirty_rate=sample.dirty_rate,
            throttle=sample.throttle,
            bandwidth=sample.bandwidth or (path.raw_rate if path else 0.0),
            ratio=path.wire_out / path.raw_out if path and path.raw_out else 1.0,
            link=self._path_lives and path is not None and path.state == "connected",
            hold=self._hold_wanted(),
            running=sight.state in ("running", "blocked"),
        )

    def _take(self, step: Step) -> None:
        try:
            objection = self._act(step)
        except (NotRunning, ControlFailed) as error:
            objection = f"the data path: {error}"
        if objection:
            logger.info("%s: %s (%s): refused: %s", self._vm, step.action, step.reason, objection)
            self._controller.refused(step, objection)
            return
        logger.info("%s: %s %g: %s", self._vm, step.action, step.value, step.reason)
        self._controller.done(step, self._elapsed())
        self._journal.add(step, self._elapsed())

    def _act(self, step: Step) -> str:
        """Objections, or nothing."""
        match step.action:
            case "downtime":
                return self._departure.set_downtime(int(step.value))
            case "throttle":
                return self._departure.throttle(int(step.value))
            case "bandwidth":
                return self._departure.set_bandwidth(int(step.value))
            case "post-copy":
                return self._departure.start_post_copy()
            case "pause":
                return self._departure.pause()
            case "hold":
                objection = self._departure.set_downtime(HELD_DOWNTIME_MS)
                if not objection:
                    self._around.limit(HELD)
                return objection
            case "release":
                self._around.limit(self._policy.wire_mib << 20)
                if self._sight.state == "running":  # at its switch QEMU would not hear it
                    return self._departure.set_downtime(self._controller.downtime_ms)
        return ""

    def _reply(self) -> None:
        """Answer people's newest wish once it holds, or never will."""
        wish, known = self._wish, wishes.answer(self._folder)
        if wish is None or (known is not None and known.number >= wish.number):
            return
        held, wanted = self._controller.held, wish.held_until > 0
        over = self._post_copy or self._ending is not None or self._sight.state == "paused"
        if wanted and over:
            where = "in post-copy" if self._post_copy else "at its end"
            reply = Steered(number=wish.number, answer=f"the move is {where}: it cannot wait any more", refused=True)
        elif held != (wanted and self._hold_wanted()):
            return  # it is on its way: the next turn answers
        else:
            reply = Steered(number=wish.number, answer="nothing crosses the link" if held else "the move goes on")
        wishes.put_answer(self._folder, reply)

    def _give_up(self) -> bool:
        """Find a reason to end the move, once; raise when this attempt alone is to end."""
        stop = self._around.stop()
        if stop == "detach":
            raise detached(f"the move of {self._vm}")
        if self._post_copy:
            return False
        if self._ending is None:
            if stop == "cancel":
                self._ending = "cancelled"
            elif self._controller.gave_up or self._elapsed() >= self._controller.goals.deadline:
                self._ending = "too long"
            elif not self._path_lives or (self._path and self._path.state == "failed"):
                self._ending = "no data path"
            if self._ending:
                self._ending_since = self._around.now()
                logger.warning("%s: giving the move up: %s", self._vm, self._ending)
                self._last_words()
        return self._ending is not None

    def _last_words(self) -> None:
        """Why it is given up is a decision too. What people held back must not keep libvirt's job from its end."""
        if self._ending == "too long" and (step := self._controller.advise(self._reading())):
            self._take(step)
        if self._controller.held:
            self._take(Step("release", "the move is being ended"))

    def _abort(self) -> None:
        objection = self._departure.abort()
        if objection:
            logger.info("%s: abort: %s", self._vm, objection)
        waited = self._around.now() - self._ending_since
        if waited > CUT_AFTER and self._cut_is_safe():
            logger.warning(
                "%s: the link is lost, and libvirt's job cannot end over it: closing the data path", self._vm
            )
            self._around.cut()
        patience = END_WITHIN if self._sight.state == "running" else END_WITHIN + self._order.policy.resume_within
        if waited > patience:  # paused for the switch, it may have to wait for the link
            raise kvm.Ambiguous(
                f"libvirt's migration of {self._vm} has not ended {END_WITHIN:.0f} s after it was aborted",
                f"Look at it on {self._order.source} with `virsh domjobinfo {self._vm}`.",
            )

    def _cut_is_safe(self) -> bool:
        """libvirt ends its job by talking to the other side, which a lost link keeps from it. While the VM runs here
        its last pages have not been sent, so the destination cannot run it; once it is paused for the switch,
        only the link's return tells."""
        lost = self._path is not None and self._path_lives and self._path.state == "link-lost"
        return lost and self._sight.state == "running"

    def _end(self, decision: Decision) -> MoveResult:
        logger.info("%s: %s: %s", self._vm, decision.action, decision.reason)
        if decision.action == "moved":
            return self._moved()
        if self._switch:
            self._switch.stop()
        self._ask_data_path()
        if self._policy.max_slowdown and decision.action == "stayed":
            self._departure.unthrottle()
        raise self._failure(decision)

    def _moved(self) -> MoveResult:
        if self._call:  # libvirt was ours to hear when it completed
            self._figures.wait(FIGURES_WITHIN)
        self._let_run()
        figures = self._departure.completed
        return MoveResult(
            seconds=max(0.0, self._around.clock() - self._started().at),
            downtime_ms=figures.downtime_ms if figures else 0,
            memory_total=figures.memory_total if figures else self._last.memory_total,
            iterations=figures.iterations if figures else self._last.iteration,
            attached=not self._begun_here,
            cancel_came_too_late=self._ending == "cancelled" or self._around.stop() == "cancel",
            post_copy=self._post_copy,
            disk_total=figures.disk_total if figures else self._last.disk_total,
            decisions=tuple(self._journal.decisions),
        )

    def _let_run(self) -> None:
        if self._switch is None:
            return
        self._switch.gone()
        if self._switch.wait(SWITCHED_WITHIN) != "runs":
            logger.warning("%s: not seen to run on %s: the workflow looks", self._vm, self._order.destination)

    def _failure(self, decision: Decision) -> Exception:
        """How this is told when the VM has not left, or nobody can say."""
        where = f"{self._vm} on {self._order.source}"
        match decision.action:
            case "refused":
                return kvm.Refused(f"{where}: {decision.reason}", "Wait until that has ended, or end it.")
            case "broken off":
                stuck = f". {self._why_stuck()}" if self._stuck else ""
                return kvm.Ambiguous(
                    f"{where}: {decision.reason}{stuck}{self._words()}",
                    "Destroy neither half: each holds memory that the other has not.",
                )
            case "in doubt":
                return kvm.Ambiguous(f"{where}: {decision.reason}", "Ask both hosts with `virsh domstate --reason`.")
            case "gone":
                if self._folder.started() is None:
                    return kvm.NotFound(f"{where}: {decision.reason}", "Look which host runs it.")
                return kvm.MoveFailed(f"{where}: {decision.reason}{self._words()}", "See QEMU's log of both hosts.")
        match self._ending:
            case "cancelled":
                return CancelledError(f"{where}: cancelled; {decision.reason}")
            case "too long":
                return kvm.MoveFailed(
                    f"{where}: not across {self._deadline()}; the move was aborted{self._why_given_up()}",
                    "Allow more time or downtime, or start it when the guest writes less.",
                )
        if trouble := self._trouble():
            return errors.final(
                failures.DATA_PATH_FAILED,
                f"{where}: the data path to {self._order.destination} failed: {trouble}{self._words()}. "
                f"Its log on this host: {self._folder.log}",
            )
        return kvm.MoveFailed(
            f"{where}: {decision.reason}{self._words()}", "See libvirtd's and QEMU's log of both hosts."
        )

    def _deadline(self) -> str:
        policy, deadline = self._policy, self._controller.goals.deadline
        if policy.finish_by is not None and deadline < policy.finish_within:
            return f"by finish_by = {policy.finish_by.isoformat()}"
        return f"within finish_within = {policy.finish_within:g} s"

    def _why_given_up(self) -> str:
        reasons = [told.reason for told in self._journal.decisions if told.action == "give up"]
        return f": {reasons[-1]}" if reasons else ""

    def _trouble(self) -> str:
        if not self._path_lives:
            return "its process on this host has ended"
        if self._path and self._path.state == "failed":
            return self._path.error or "it gave no reason"
        return ""

    def _words(self) -> str:
        """What libvirt said, and what single connections of the data path met."""
        said = [f"libvirt: {self._call.error}"] if self._call and self._call.error else []
        said += [f"{flow.service}: {flow.error}" for flow in (self._path.flows if self._path else ()) if flow.error]
        return f" ({'; '.join(said)})" if said else ""

    def _note(self) -> str:
        if self._post_copy:
            lost = self._path is None or not self._path_lives or self._path.state != "connected"
            runs = f"the VM runs on {self._order.destination}, its last memory follows"
            return f"{runs}; link lost: it waits where that memory is missing" if lost else runs
        if self._ending:
            return f"giving up ({self._ending}): waiting for libvirt to end its job"
        if self._controller.held:
            return "paused by people: nothing crosses the link, the guest runs on at its source"
        if self._controller.paused:
            return "the guest stands still until it has arrived"
        if self._path and self._path.state == "link-lost":
            return "link lost: the guest runs on at its source, the data path dials again"
        return ""

    def _report(self, sight: Sight | None, note: str) -> None:
        path = self._path if self._path_lives else None
        sample = sight.sample if sight and sight.job == "migration" else None
        phase: Phase = "post-copy" if self._post_copy else "moving"
        self._last = self._tracker.progress(self._around.now(), sample, path, phase, note)
        self._around.report(self._last)
