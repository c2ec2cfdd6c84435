"""The control worker of a site: `python -m workers.control --settings FILE`. Runs workflows, and activities that need
no host. Any number may run; each workflow is durable and moves on to another worker when one dies.
"""

from __future__ import annotations

import os
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from activities.control import ControlActivities
from activities.fleet import FleetControlActivities
from activities.leases import LeaseActivities
from activities.opening import OpeningActivities
from activities.shares import SharesActivities
from models import queues
from models.host import SiteSettings
from workers import runtime
from workflows import WORKFLOWS

STICKY_TIMEOUT = timedelta(seconds=2)
"""How long a workflow waits for the worker that has it in memory before any other may take it: what the death of a
control worker costs. The SDK's default is 10 s; less than 2 s would reload workflows under mere load."""


def build(settings: SiteSettings, client: Client) -> Worker:
    control = ControlActivities(settings, client)
    fleet = FleetControlActivities(settings, client)
    shares = SharesActivities(settings, client)
    leases = LeaseActivities(settings, client)
    return Worker(
        client,
        task_queue=queues.control(settings.site),
        identity=f"control@{os.getpid()}",
        workflows=WORKFLOWS,
        activities=[
            control.list_hosts,
            control.agents_polling,
            fleet.host_gate,
            fleet.in_maintenance,
            fleet.await_moves,
            shares.join_shares,
            shares.leave_shares,
            leases.take_lease,
            leases.renew_lease,
            leases.hand_over_lease,
            leases.release_lease,
            leases.list_leases,
            leases.dead_runs,
            OpeningActivities().next_opening,
        ],
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        graceful_shutdown_timeout=runtime.GRACE,
    )


if __name__ == "__main__":
    runtime.main("control", SiteSettings, build)
