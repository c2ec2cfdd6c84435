"""Floor 3: durable, deterministic decisions. No I/O; a workflow file reads like the story of the operation."""

from workflows.deliver_events import DeliverEvents
from workflows.inventory import Inventory
from workflows.label_vm import LabelVm
from workflows.migrate_vm import MigrateVm
from workflows.plan_move import PlanMove

WORKFLOWS: list[type] = [MigrateVm, Inventory, PlanMove, LabelVm]
"""Every workflow a control worker runs."""

EVENT_WORKFLOWS: list[type] = [DeliverEvents]
"""What delivers events, on a queue of its own."""
