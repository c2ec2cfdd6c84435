"""The worker of one KVM host: `python -m workers.host --settings FILE`. Runs that host's activities, no workflows.

Its slots are fixed: they are the host's own limit on what may happen at once. Moves can take a part of them only, so a
host that is full can always be asked, steered and told to stop. It may be stopped, killed and started
again at any time; moves and data paths go on without it, and the next attempt of an activity finds them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from activities.cloud_arrivals import CloudArrivalActivities
from activities.cloud_bases import CloudBaseActivities
from activities.cloud_disks import CloudDiskActivities
from activities.context import ContextInterceptor
from activities.fence import Fence
from activities.fleet import FleetHostActivities
from activities.host import HostActivities
from activities.move_slots import FOR_OTHERS
from activities.planning import PlanningActivities
from activities.recovery import RecoveryActivities
from activities.standing import certificate
from activities.steering import SteeringActivities
from activities.switching import SwitchActivities
from models import queues
from models.host import HostSettings
from workers import images, runtime


def build(settings: HostSettings, client: Client) -> Worker:
    """Call it on the client's event loop."""
    images.keep_known(settings.store)
    certificate(settings, runtime.meter())
    fence = Fence(settings)
    planning = PlanningActivities(settings, fence)
    host = HostActivities(settings, client, fence=fence)
    recovery = RecoveryActivities(settings, fence)
    steering = SteeringActivities(settings, fence)
    switching = SwitchActivities(settings, fence)
    fleet = FleetHostActivities(settings, fence)
    at_once = settings.slots + FOR_OTHERS
    clouds = CloudDiskActivities(settings, fence)
    arrivals = CloudArrivalActivities(settings, fence)
    bases = CloudBaseActivities(settings, fence)
    return Worker(
        client,
        task_queue=queues.host(settings.site, settings.host),
        identity=f"{settings.host}@{os.getpid()}",
        activities=[
            host.describe_host,
            host.inspect_vm,
            host.admit_vm,
            host.look_for_vm,
            host.discard_incoming,
            host.prepare_disks,
            host.settle_disks,
            host.open_path,
            host.limit_path,
            host.close_path,
            host.move_vm,
            host.start_post_copy,
            fleet.stop_vm,
            planning.measure_dirtying,
            planning.probe_link,
            planning.label_vm,
            recovery.fence_vm,
            recovery.list_paths,
            recovery.abort_job,
            recovery.find_marks,
            recovery.welcome_host,
            steering.steer_move,
            steering.revive_vm,
            switching.prove_arrival,
            switching.prove_departure,
            switching.let_vm_run,
            switching.start_with_host,
            switching.remove_handed_over,
            switching.take_back,
            clouds.inspect_source,
            clouds.begin_round,
            clouds.send_disk,
            clouds.end_round,
            clouds.stop_source,
            clouds.start_source,
            clouds.settle_source,
            arrivals.inspect_arrival,
            arrivals.receive_disk,
            arrivals.define_arrival,
            arrivals.start_arrival,
            arrivals.end_arrival,
            arrivals.settle_arrival,
            bases.weigh_bases,
            bases.keep_bases,
        ],
        activity_executor=ThreadPoolExecutor(at_once, thread_name_prefix="activity"),
        max_concurrent_activities=at_once,
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(2),
        max_heartbeat_throttle_interval=runtime.HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=runtime.HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=runtime.GRACE,
        interceptors=[ContextInterceptor()],
    )


if __name__ == "__main__":
    runtime.main("host", HostSettings, build)
