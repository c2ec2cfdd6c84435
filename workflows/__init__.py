"""Floor 3: durable, deterministic decisions. No I/O; a workflow file reads like the story of the operation."""

from workflows.cloud.cloud_cache import CloudCache
from workflows.cloud.list_clouds import ListClouds
from workflows.cloud.move_between_clouds import MoveBetweenClouds
from workflows.cloud.move_from_cloud import MoveFromCloud
from workflows.cloud.move_to_cloud import MoveToCloud
from workflows.events.deliver_events import DeliverEvents
from workflows.fleet.evacuate_host import EvacuateHost
from workflows.fleet.move_many import MoveMany
from workflows.fleet.planned import Planned
from workflows.fleet.rebalance import Rebalance
from workflows.move.migrate_vm import MigrateVm
from workflows.plan.label_vm import LabelVm
from workflows.plan.plan_move import PlanMove
from workflows.recovery.reconcile import Reconcile
from workflows.recovery.recover_vm import RecoverVm
from workflows.sharing.bandwidth import Bandwidth
from workflows.sharing.site_slots import SiteSlots
from workflows.site.inventory import Inventory
from workflows.site.owners import Owners
from workflows.site.survey import SurveySite

WORKFLOWS: list[type] = [
    *(MigrateVm, PlanMove, LabelVm, Inventory, Owners, RecoverVm, Reconcile),
    *(EvacuateHost, MoveMany, Rebalance, Planned, SurveySite, Bandwidth, SiteSlots),
    *(MoveToCloud, MoveFromCloud, MoveBetweenClouds, ListClouds, CloudCache),
]
"""Every workflow a control worker runs."""

EVENT_WORKFLOWS: list[type] = [DeliverEvents]
"""What delivers events, on a queue of its own."""
