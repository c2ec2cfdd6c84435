"""Measuring for a plan, on the VM's host, before a move and never during one."""

from __future__ import annotations

import time

from temporalio import activity

from activities import errors
from activities.errors import translated
from activities.folder import Folder
from activities.heartbeat import beat
from activities.on_host import OnHost
from clouds.kvm import dirtying, inventory, labels
from clouds.kvm import errors as kvm
from dwcp import probe
from models import failures
from models.planning import Dirtying, LabelOrder, LabelReport, LinkSpeed, MeasureDirtying, ProbeLink, Range


class PlanningActivities(OnHost):
    @activity.defn(name="novacron.measure_dirtying", no_thread_cancel_exception=True)
    @translated
    def measure_dirtying(self, order: MeasureDirtying) -> Dirtying:
        """How fast the guest dirties its memory. Refused while a job runs on it."""
        with self._session() as session:
            return dirtying.measure(session, order.vm, order.seconds, lambda: _beat("measuring the dirty rate"))

    @activity.defn(name="novacron.probe_link", no_thread_cancel_exception=True)
    @translated
    def probe_link(self, order: ProbeLink) -> LinkSpeed:
        """Run on the source, over a data path that was opened as a probe: its rate and round trip."""
        folder = Folder.of(self._settings, order.migration_id)
        try:
            found = probe.measure(
                folder.path,
                folder.socket("probe"),
                order.seconds,
                order.most_bytes,
                lambda: _beat("probing the link", wait=0),
            )
        except OSError as error:
            raise errors.retryable(failures.DATA_PATH_FAILED, f"the probe's socket does not work: {error}") from error
        return link_speed(found)

    @activity.defn(name="novacron.label_vm", no_thread_cancel_exception=True)
    @translated
    def label_vm(self, order: LabelOrder) -> LabelReport:
        """Give the VM labels, take others off; all that it has then."""
        with self._session() as session:
            seen = inventory.look_for(session, self._settings.host, order.vm)
            if seen.vm is not None and seen.vm.job:
                raise kvm.Refused(
                    f"{order.vm.vm}: libvirt runs a job on it (a move), and lets nobody change it meanwhile",
                    "Label it when the job has ended.",
                )
            found = labels.change(session, order.vm, order.give, order.take)
        return LabelReport(vm=order.vm.vm, host=self._settings.host, labels=found)


def link_speed(found: probe.Measured) -> LinkSpeed:
    rates = probe.rates(found.samples)
    low, likely, high = rates or (None, None, None)
    return LinkSpeed(
        bytes_per_second=Range(low=low, likely=likely, high=high),
        round_trip=found.round_trip,
        sent_bytes=found.delivered,
        seconds=found.seconds,
        lanes=found.lanes,
        carrier=found.carrier[:300],
        note="" if rates else "nothing arrived in time",
    )


def _beat(what: str, wait: float = 0.1) -> None:
    beat(what)
    time.sleep(wait)
