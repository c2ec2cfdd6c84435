"""Floor 3: durable, deterministic decisions. No I/O; a workflow file reads like the story of the operation."""

from workflows.bandwidth import Bandwidth
from workflows.evacuate_host import EvacuateHost
from workflows.inventory import Inventory
from workflows.migrate_vm import MigrateVm
from workflows.move_many import MoveMany
from workflows.planned import Planned
from workflows.rebalance import Rebalance
from workflows.survey import SurveySite

WORKFLOWS: list[type] = [MigrateVm, Inventory, EvacuateHost, MoveMany, Rebalance, Planned, SurveySite, Bandwidth]
"""Every workflow a control worker runs."""
