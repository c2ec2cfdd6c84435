"""Floor 3: durable, deterministic decisions. No I/O; a workflow file reads like the story of the operation."""

from workflows.deliver_events import DeliverEvents
from workflows.inventory import Inventory
from workflows.label_vm import LabelVm
from workflows.migrate_vm import MigrateVm
from workflows.owners import Owners
from workflows.plan_move import PlanMove
from workflows.reconcile import Reconcile
from workflows.recover_vm import RecoverVm

WORKFLOWS: list[type] = [MigrateVm, PlanMove, LabelVm, Inventory, Owners, RecoverVm, Reconcile]
"""Every workflow a control worker runs."""

EVENT_WORKFLOWS: list[type] = [DeliverEvents]
"""What delivers events, on a queue of its own."""
