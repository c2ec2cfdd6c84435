"""Workflow ids: one module, so that two starts of the same operation always collide."""

from __future__ import annotations

import re

_START_TIME = re.compile(r"-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")


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


def evacuate_host(site: str, host: str) -> str:
    """Id of the workflow that holds a host in maintenance: as long as it runs, the host takes no VM."""
    return f"host/{site}/{host}"


def parse_evacuate_host(workflow_id: str) -> tuple[str, str] | None:
    """(site, host) of an id made by `evacuate_host`, or None."""
    parts = workflow_id.split("/")
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == "host" and all(parts) else None


def evacuation_plan(site: str, host: str, unique: str) -> str:
    """Id of a dry run, beside a maintenance that may be running."""
    return f"host-plan/{site}/{host}/{unique}"


def move_many(site: str, name: str) -> str:
    return f"many/{site}/{name}"


def rebalance(site: str) -> str:
    """One at a time per site."""
    return f"rebalance/{site}"


def survey(site: str, unique: str) -> str:
    return f"survey/{site}/{unique}"


def clouds(site: str, unique: str) -> str:
    return f"clouds/{site}/{unique}"


def schedule(site: str, name: str) -> str:
    return f"schedule/{site}/{name}"


def planned(site: str, name: str) -> str:
    """Id of a schedule's planner; Temporal appends the time of each start."""
    return f"planned/{site}/{name}"


def bandwidth(site: str) -> str:
    return f"bandwidth/{site}"


def slots(site: str) -> str:
    """Id of the one workflow that lets the moves of a site begin."""
    return f"slots/{site}"


def name_of_planned(workflow_id: str) -> str:
    """Name of the schedule that started a planner, without the time that Temporal appends to each start."""
    return _START_TIME.sub("", workflow_id.rpartition("/")[2]) or "planned"


def plan(site: str, unique: str) -> str:
    return f"plan/{site}/{unique}"


def label(site: str, vm: str) -> str:
    """One change of a VM's labels at a time."""
    return f"label/{site}/{vm}"


def events(teller: str, run_id: str) -> str:
    """Delivery of what one run tells."""
    return f"events/{teller}/{run_id}"
