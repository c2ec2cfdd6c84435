"""Activities of one host, run by its worker on the host's own queue. Each says what it does to the host and no more.

All are plain functions in the worker's threads, since libvirt blocks. All may be run again at any time, also after an
attempt that died half-way: they find what is there and go on from that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from temporalio import activity
from temporalio.client import Client

from activities import path
from activities.errors import translated
from activities.fence import Fence
from activities.folder import Folder, living
from activities.gauges import Gauges, Watched
from activities.heartbeat import why_stop
from activities.move import Move, Surroundings
from activities.move_slots import MoveSlots
from activities.on_host import OnHost
from activities.signals import Signals
from activities.standing import standing
from activities.switching import remember_how_it_ends
from clouds.kvm import admission, disks, errors, facts, inventory, leftover, sheet
from clouds.kvm.connection import Connection, Session
from clouds.kvm.controller import first_downtime
from clouds.kvm.migration import Departing, Departure, MigrateCall
from clouds.kvm.switch import Source, Switch
from dwcp import control
from models.disks import DisksReport, PrepareDisks, SettleDisks
from models.host import Findings, HostReport, HostSettings, VmSheet, VmSighting
from models.migration import (
    ClosePath,
    Endpoint,
    LimitPath,
    MoveResult,
    MoveVm,
    OpenPath,
    PathLimit,
    PathReport,
    Progress,
    VmRef,
)


class HostActivities(OnHost):
    """Make it on the event loop of `client`: progress is signalled from threads through that loop."""

    def __init__(
        self,
        settings: HostSettings,
        client: Client | None = None,
        opener: Callable[[str], Connection] | None = None,
        fence: Fence | None = None,
    ) -> None:
        super().__init__(settings, fence, opener)
        self._slots = MoveSlots(settings.host, settings.slots)
        self._client = client
        self._loop = asyncio.get_running_loop() if client is not None else None
        self._gauges = Gauges(settings.host)
        self._calls: dict[str, MigrateCall] = {}
        """libvirt calls this process made, by migration, so that a later attempt hears how they end."""
        self._lock = threading.Lock()

    @activity.defn(name="novacron.describe_host", no_thread_cancel_exception=True)
    @translated
    def describe_host(self) -> HostReport:
        """The host and its VMs."""
        with self._session() as session:
            return inventory.host_report(session, self._settings, living(self._settings), self._fence.welcomed())

    @activity.defn(name="novacron.inspect_vm", no_thread_cancel_exception=True)
    @translated
    def inspect_vm(self, vm: VmRef) -> VmSheet:
        """What a destination has to know of the VM."""
        with self._session() as session:
            found = sheet.vm_sheet(session, self._settings.host, vm, self._settings.trusted_network)
            here = standing(session, self._settings)
        known = self._fence.known(VmRef(vm=found.vm.name, uuid=found.vm.uuid))
        return found.model_copy(update={"standing": here, "token": known})

    @activity.defn(name="novacron.admit_vm", no_thread_cancel_exception=True)
    @translated
    def admit_vm(self, vm: VmSheet) -> Findings:
        """Run on the destination: what speaks against taking the VM."""
        with self._session() as session:
            here = standing(session, self._settings)
            found = admission.examine(vm, facts.host_facts(session, self._settings, vm, here))
        return found.model_copy(update={"items": (*self._fence.findings(), *found.items), "standing": here})

    @activity.defn(name="novacron.look_for_vm", no_thread_cancel_exception=True)
    @translated
    def look_for_vm(self, vm: VmRef) -> VmSighting:
        """Is the VM here, and in what state?"""
        return self._sighting(vm)

    @activity.defn(name="novacron.discard_incoming", no_thread_cancel_exception=True)
    @translated
    def discard_incoming(self, vm: VmRef) -> VmSighting:
        """Run on the destination after a failed move: remove its paused leftover, if that is what it is."""
        self._fence.check(vm, "remove a leftover")
        with self._session() as session:
            leftover.discard_incoming(session, vm)
            return inventory.look_for(session, self._settings.host, vm)

    @activity.defn(name="novacron.open_path", no_thread_cancel_exception=True)
    @translated
    def open_path(self, order: OpenPath) -> Endpoint:
        """Start or find this host's end of the data path; ready when it returns."""
        self._fence.check(order.vm, "open a data path")
        if order.endpoint is not None:
            return path.open_end(self._settings, order)
        with self._session() as session:
            group = inventory.qemu_group(session)
        return path.open_end(self._settings, order, group)

    @activity.defn(name="novacron.prepare_disks", no_thread_cancel_exception=True)
    @translated
    def prepare_disks(self, order: PrepareDisks) -> DisksReport:
        """Run on the destination: make empty images for the disks that are copied."""
        self._fence.check(order.vm, "make disk images")
        with self._session() as session:
            owner = inventory.qemu_owner(session)
        return DisksReport(paths=disks.make(order.disks, order.migration_id, owner))

    @activity.defn(name="novacron.settle_disks", no_thread_cancel_exception=True)
    @translated
    def settle_disks(self, order: SettleDisks) -> DisksReport:
        """Run on the destination when the move has ended: keep the copied images, or remove them."""
        self._fence.check(order.vm, "settle disk images")
        settle = disks.keep if order.keep else disks.remove
        return DisksReport(paths=settle(order.disks, order.migration_id))

    @activity.defn(name="novacron.start_post_copy", no_thread_cancel_exception=True)
    @translated
    def start_post_copy(self, vm: VmRef) -> VmSighting:
        """Run on the source: let the VM switch now. Fails while libvirt is not far enough; asked again, it is no error
        that the VM has switched already."""
        self._fence.check(vm, "switch to post-copy")
        with Departure(lambda listen: self._session(listen), vm) as departure:
            seen = departure.look()
            if not seen.post_copy and (objection := departure.start_post_copy()):
                raise errors.HostUnavailable(
                    f"libvirt does not switch {vm.vm} to post-copy yet: {objection}", "It is asked again."
                )
        with self._session() as session:
            return inventory.look_for(session, self._settings.host, vm)

    @activity.defn(name="novacron.limit_path", no_thread_cancel_exception=True)
    @translated
    def limit_path(self, order: LimitPath) -> PathLimit:
        """Change what this host's end of a data path may put on the link."""
        self._fence.check(order.vm, "bound the link")
        return path.limit(self._settings, order)

    @activity.defn(name="novacron.close_path", no_thread_cancel_exception=True)
    @translated
    def close_path(self, order: ClosePath) -> PathReport:
        """Stop this host's end of the data path and remove its folder, if there is any. No token is asked for:
        who opened a path may close it."""
        status = path.close_end(self._settings, order.migration_id)
        with self._lock:
            self._calls.pop(order.migration_id, None)
        return PathReport(status=status)

    @activity.defn(name="novacron.move_vm", no_thread_cancel_exception=True)
    @translated
    def move_vm(self, order: MoveVm) -> MoveResult:
        """Run on the source: start the move, or attach to it, and watch it to its end."""
        self._fence.check(order.vm, "move the VM")
        folder = Folder.of(self._settings, order.migration_id)
        signals = Signals(self._client, self._loop)
        with (
            self._slots.taken(order.migration_id),
            self._gauges.of(order) as watched,
            Departure(lambda listen: self._session(listen), order.vm) as departure,
        ):
            around = Surroundings(
                stop=lambda: why_stop() or ("detach" if self._fence.outdated(order.vm) else None),
                report=lambda progress: _report(progress, signals, watched),
                status=lambda: watched.status(control.status(folder.path)),
                cut=lambda: path.stop(folder),
                limit=lambda rate: control.limit(folder.path, rate),
                decided=signals.decided,
            )
            return Move(
                order,
                folder,
                departure,
                self._calls.get(order.migration_id),
                lambda: self._call(order, folder.path),
                around,
                _so_far(),
                lambda: self._switch(order, folder),
            ).run()

    def _call(self, order: MoveVm, folder: Path) -> MigrateCall:
        self._fence.check(order.vm, "hand the VM to libvirt")  # this thread may have been asleep since it last asked
        remember_how_it_ends(self._settings, order)
        first = first_downtime(order.policy.max_downtime_ms)
        wanted = Departing(order.vm, folder, order.policy, order.copies, order.resume, first)
        call = MigrateCall(self._session(), wanted)
        with self._lock:
            self._calls[order.migration_id] = call
        return call

    def _switch(self, order: MoveVm, folder: Folder) -> Switch:
        """Its way to the destination's libvirt is the one that the source's libvirt takes."""
        there = Session(folder.socket("virt"), None, self._opener)
        source = Source.find(self._settings.libvirt_socket, order.vm)
        return Switch(order.vm, there, source, lambda: self._goes_on(order, folder))

    def _goes_on(self, order: MoveVm, folder: Folder) -> bool:
        return folder.path.is_dir() and not self._fence.outdated(order.vm)


def _report(progress: Progress, signals: Signals, watched: Watched) -> None:
    activity.heartbeat(progress)
    signals(progress.elapsed, progress)
    watched.report(progress)


def _so_far() -> Progress | None:
    """The last report of an attempt before this one, from its heartbeat; a dict, as Temporal hands it out untyped."""
    details = activity.info().heartbeat_details
    if not details:
        return None
    return details[0] if isinstance(details[0], Progress) else Progress.model_validate(details[0])
