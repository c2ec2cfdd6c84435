"""Floor 3: durable, deterministic decisions. No I/O; a workflow file reads like the story of the operation."""

from workflows.inventory import Inventory
from workflows.migrate_vm import MigrateVm

WORKFLOWS: list[type] = [MigrateVm, Inventory]
"""Every workflow a control worker runs."""
