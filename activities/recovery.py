"""Activities of one host for setting things right after an operation that died. Run by the host's worker.

Who calls them holds the VM's lock, so whatever is found of the VM belongs to nobody any more.
"""

from __future__ import annotations

import logging
import time

from pydantic import ValidationError
from temporalio import activity

from activities import path
from activities.errors import translated
from activities.folder import Folder, living
from activities.on_host import OnHost
from clouds.kvm import disks
from clouds.kvm.errors import HostUnavailable, Refused
from clouds.kvm.migration import Departure
from models.datapath import DataPathConfig
from models.host import VmSighting
from models.migration import VmRef
from models.recovery import FindMarks, MarksReport, PathSeen, PathsReport, Welcome, Welcomed

logger = logging.getLogger(__name__)

END_WITHIN = 40.0
"""How long after the abort libvirt's job may take to end."""
CUT_AFTER = 5.0
"""How long a job may take before the data paths of the VM are closed, over which it may be waiting."""


class RecoveryActivities(OnHost):
    @activity.defn(name="novacron.fence_vm", no_thread_cancel_exception=True)
    @translated
    def fence_vm(self, vm: VmRef) -> VmSighting:
        """From now on nobody with an older token is obeyed; and then: is the VM here?"""
        self._fence.check(vm, "raise the token")
        return self._sighting(vm)

    @activity.defn(name="novacron.list_paths", no_thread_cancel_exception=True)
    @translated
    def list_paths(self) -> PathsReport:
        """Data paths that live on this host, and whose they are."""
        return PathsReport(paths=tuple(self._path(migration) for migration in living(self._settings)[:256]))

    @activity.defn(name="novacron.abort_job", no_thread_cancel_exception=True)
    @translated
    def abort_job(self, vm: VmRef) -> VmSighting:
        """Run on the source: end libvirt's migration of the VM, which then stays here. It may have left just before."""
        self._fence.check(vm, "abort the migration")
        begun = time.monotonic()
        with Departure(lambda listen: self._session(listen), vm) as departure:
            while (seen := departure.look()).job != "none":
                if seen.post_copy or seen.job != "migration":
                    what = "it is in post-copy" if seen.post_copy else "the job is no migration"
                    raise Refused(f"{vm.vm}: libvirt's job was left alone: {what}", "See `virsh domjobinfo`.")
                logger.info("%s: aborting its migration: %s", vm.vm, departure.abort() or "asked")
                waited = time.monotonic() - begun
                if waited > CUT_AFTER and seen.state == "running":  # only then has the guest not left for certain
                    self._cut(vm)
                if waited > END_WITHIN:
                    raise HostUnavailable(f"libvirt's migration of {vm.vm} has not ended yet", "It is tried again.")
                activity.heartbeat()
                time.sleep(0.3)
        return self._sighting(vm)

    @activity.defn(name="novacron.find_marks", no_thread_cancel_exception=True)
    @translated
    def find_marks(self, wanted: FindMarks) -> MarksReport:
        """Which of these images were made here for a migration, and never settled?"""
        found = {image.path: mark for image in wanted.disks if (mark := disks.marked(image))}
        return MarksReport(marks=found)

    @activity.defn(name="novacron.welcome_host", no_thread_cancel_exception=True)
    @translated
    def welcome_host(self, order: Welcome) -> Welcomed:
        """The host was compared with the site's records: it may take VMs."""
        return Welcomed(floor=self._fence.welcome(order.floor))

    def _path(self, migration: str) -> PathSeen:
        try:
            text = Folder.of(self._settings, migration).config.read_bytes()
            config = DataPathConfig.model_validate_json(text)
        except (OSError, ValidationError):  # made a moment ago, or by another release
            return PathSeen(migration_id=migration)
        return PathSeen(migration_id=migration, role=config.role, vm=config.vm, token=config.owner_token)

    def _cut(self, vm: VmRef) -> None:
        for seen in map(self._path, living(self._settings)):
            if vm.uuid and seen.vm == vm.uuid:
                logger.warning("%s: closing data path %s, so that libvirt's job can end", vm.vm, seen.migration_id)
                path.stop(Folder.of(self._settings, seen.migration_id))
