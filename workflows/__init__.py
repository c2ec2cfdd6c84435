"""Floor 3: durable, deterministic decisions. No I/O; a workflow file reads like the story of the operation."""

from workflows.evacuate_host import EvacuateHost
from workflows.inventory import Inventory
from workflows.migrate_vm import MigrateVm
from workflows.move_many import MoveMany
from workflows.survey import SurveySite

WORKFLOWS: list[type] = [MigrateVm, Inventory, EvacuateHost, MoveMany, SurveySite]
"""Every workflow a control worker runs."""
