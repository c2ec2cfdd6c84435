"""The control worker of a site: `python -m workers.control --settings FILE`. Runs workflows, and activities that need
no host. Any number may run; each workflow is durable and moves on to another worker when one dies.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from activities.cloud import CloudActivities
from activities.cloud_cache import CloudCacheActivities
from activities.cloud_instances import CloudInstanceActivities
from activities.cloud_transfers import CloudTransferActivities
from activities.context import ContextInterceptor
from activities.control import ControlActivities
from activities.events import EventActivities
from activities.fleet import FleetControlActivities
from activities.leases import LeaseActivities
from activities.opening import OpeningActivities
from activities.shares import SharesActivities
from activities.signing import BadSecret, secrets_of
from activities.slots import SlotActivities
from activities.telling import TellActivities
from models import queues
from models.host import SiteSettings
from workers import runtime
from workflows import EVENT_WORKFLOWS, WORKFLOWS

STICKY_TIMEOUT = timedelta(seconds=2)
"""How long a workflow waits for the worker that has it in memory before any other may take it: what the death of a
control worker costs. The SDK's default is 10 s; less than 2 s would reload workflows under mere load."""

AT_ONCE = 100
"""Activities of one control worker; those that bring disks from cloud to cloud have a thread each."""

POSTS_AT_ONCE = 16
"""Attempts to deliver an event that may wait for their webhooks at the same time."""


def build(settings: SiteSettings, client: Client) -> list[Worker]:
    """Moves, and the delivery of events, which has slots of its own. Raises BadSettings for a secret that is wrong."""
    for webhook in settings.webhooks:
        try:
            secrets_of(webhook)
        except BadSecret as error:
            raise runtime.BadSettings(f"webhooks: {error}") from error
    return [_moves(settings, client), _events(settings, client)]


def _moves(settings: SiteSettings, client: Client) -> Worker:
    control = ControlActivities(settings, client)
    fleet = FleetControlActivities(settings, client)
    shares = SharesActivities(settings, client)
    slots = SlotActivities(settings, client)
    leases = LeaseActivities(settings, client)
    clouds = CloudActivities(settings)
    instances = CloudInstanceActivities(settings)
    transfers = CloudTransferActivities(settings)
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
            slots.ask_slot,
            slots.give_slot_back,
            slots.count_moves,
            leases.take_lease,
            leases.renew_lease,
            leases.hand_over_lease,
            leases.release_lease,
            leases.list_leases,
            leases.dead_runs,
            clouds.list_clouds,
            clouds.list_cloud_sizes,
            clouds.place_report,
            clouds.make_cloud_image,
            clouds.run_instance,
            clouds.check_instance,
            clouds.end_instance,
            clouds.remove_cloud_things,
            instances.find_instance,
            instances.look_at_instance,
            instances.snapshot_volume,
            instances.stop_instance,
            instances.start_instance,
            instances.check_arrival,
            CloudCacheActivities(settings).look_at_cache,
            transfers.transfer_disk,
            transfers.forget_transfer,
            OpeningActivities().next_opening,
            TellActivities(client).tell_events,
        ],
        activity_executor=ThreadPoolExecutor(AT_ONCE, thread_name_prefix="activity"),
        max_concurrent_activities=AT_ONCE,
        max_heartbeat_throttle_interval=runtime.HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=runtime.HEARTBEAT_THROTTLE,
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        graceful_shutdown_timeout=runtime.GRACE,
        interceptors=[ContextInterceptor()],
    )


def _events(settings: SiteSettings, client: Client) -> Worker:
    events = EventActivities(settings, client)
    return Worker(
        client,
        task_queue=queues.events(settings.site),
        identity=f"events@{os.getpid()}",
        workflows=EVENT_WORKFLOWS,
        activities=[events.list_webhooks, events.deliver_event, events.teller_runs],
        max_concurrent_activities=POSTS_AT_ONCE,
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        graceful_shutdown_timeout=runtime.GRACE,
        interceptors=[ContextInterceptor()],
    )


if __name__ == "__main__":
    runtime.main("control", SiteSettings, build)
