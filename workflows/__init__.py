"""Floor 3: durable, deterministic decisions. No I/O; a workflow file reads like the story of the operation."""

from workflows.bandwidth import Bandwidth
from workflows.evacuate_host import EvacuateHost
from workflows.inventory import Inventory
from workflows.label_vm import LabelVm
from workflows.migrate_vm import MigrateVm
from workflows.move_many import MoveMany
from workflows.owners import Owners
from workflows.plan_move import PlanMove
from workflows.planned import Planned
from workflows.rebalance import Rebalance
from workflows.reconcile import Reconcile
from workflows.recover_vm import RecoverVm
from workflows.survey import SurveySite

WORKFLOWS: list[type] = [
    *(MigrateVm, PlanMove, LabelVm, Inventory, Owners, RecoverVm, Reconcile),
    *(EvacuateHost, MoveMany, Rebalance, Planned, SurveySite, Bandwidth),
]
"""Every workflow a control worker runs."""
