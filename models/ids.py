"""Workflow ids: one module, so that two starts of the same operation always collide."""

from __future__ import annotations


def migrate_vm(site: str, vm: str) -> str:
    """Id of the one operation that may move this VM: it is the lock. `vm/<site>/<vm>`"""
    return f"vm/{site}/{vm}"


def parse_migrate_vm(workflow_id: str) -> tuple[str, str] | None:
    """(site, vm) of an id made by `migrate_vm`, or None."""
    parts = workflow_id.split("/")
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == "vm" and all(parts) else None


def reconcile(site: str) -> str:
    """Id of the workflow that compares a site with its owner records; a schedule appends the time."""
    return f"reconcile/{site}"


def owners(site: str, unique: str) -> str:
    return f"owners/{site}/{unique}"


def inventory(site: str, unique: str) -> str:
    return f"inventory/{site}/{unique}"


def plan(site: str, unique: str) -> str:
    return f"plan/{site}/{unique}"


def label(site: str, vm: str) -> str:
    """One change of a VM's labels at a time."""
    return f"label/{site}/{vm}"


def events(teller: str, run_id: str) -> str:
    """Delivery of what one run tells."""
    return f"events/{teller}/{run_id}"
