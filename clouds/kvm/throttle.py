"""Slows a guest down while it moves: QEMU's own throttle (auto-converge), bounded and released by us through QMP.

QEMU steals that share of its CPU time from each vCPU, whatever the accelerator. It applies a new percentage at the end
of every second pass in which the guest dirtied at least half of what was sent, and takes it off by itself when the
migration ends, however it ends: so no crash of ours or of libvirtd's leaves a guest slow. (A CPU quota in a cgroup acts
at once, but stays until somebody takes it off, and needs cgroups.)

libvirt 9 can only set how the throttle begins and grows, not where it stops. So before the move QEMU is told to stop at
one percent, libvirt starts the move with auto-converge, and the controller raises the bound. Sources: QEMU 7.2
qapi/migration.json and migration/ram.c (migration_trigger_throttle).
"""

from __future__ import annotations

import json
from collections.abc import Callable

from clouds.kvm.connection import Domain, ask_qemu, text_of

LEAST = 1
"""Percent: QEMU's lowest bound, in force until the controller raises it."""
AT_ONCE = 99
"""Percent by which QEMU raises it, up to the bound: the steps are the controller's."""
DEFAULTS = {"cpu-throttle-initial": 20, "cpu-throttle-increment": 10, "max-cpu-throttle": 99}
"""QEMU's own, for whoever migrates this VM next with auto-converge."""

Ask = Callable[[Domain, str], str]


def arm(domain: Domain, ask: Ask = ask_qemu) -> str:
    """Before the move: bound the throttle to LEAST; why that cannot be done, or nothing. Without it the move must not
    be started with auto-converge."""
    return _set(domain, _bounds(LEAST), ask)


def bound(domain: Domain, percent: int, ask: Ask = ask_qemu) -> str:
    """While it moves: let QEMU take up to `percent` of the guest's CPU time; why not, or nothing."""
    try:
        known = json.loads(ask(domain, json.dumps({"execute": "query-migrate-capabilities"})))["return"]
    except Exception as error:
        return _objection(error)
    if not any(each["capability"] == "auto-converge" and each["state"] for each in known):
        return "the move was not started with auto-converge"
    return _set(domain, _bounds(max(LEAST, percent)), ask)


def disarm(domain: Domain, ask: Ask = ask_qemu) -> str:
    """After a move that left the VM here: QEMU's own bounds again. The throttle itself is off by then."""
    return _set(domain, DEFAULTS, ask)


def _bounds(percent: int) -> dict[str, int]:
    return {"cpu-throttle-initial": percent, "cpu-throttle-increment": AT_ONCE, "max-cpu-throttle": percent}


def _set(domain: Domain, values: dict[str, int], ask: Ask) -> str:
    try:
        answer = json.loads(ask(domain, json.dumps({"execute": "migrate-set-parameters", "arguments": values})))
    except Exception as error:
        return _objection(error)
    return str(answer["error"].get("desc", answer["error"])) if "error" in answer else ""


def _objection(error: Exception) -> str:
    """Whatever it is, the move goes on without a throttle."""
    return text_of(error) or type(error).__name__
