"""The matrix: every fault with the phases it is tried in. A combination is named `what:phase`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from models.migration import MigrationPolicy
from tests.chaos import faults
from tests.chaos.faults import Fault
from tests.chaos.phases import PHASES, PLAIN, POLICIES, Phase
from workers.lab.link import LinkSpec


@dataclass(frozen=True)
class Entry:
    make: Callable[[], Fault]
    phases: tuple[Phase, ...]
    policy: MigrationPolicy | None = None
    """Where the phase's own does not do."""
    needs: str = ""
    """A module without which there is nothing to break."""


@dataclass(frozen=True)
class Combination:
    what: str
    phase: Phase
    entry: Entry

    @property
    def name(self) -> str:
        return f"{self.what}:{self.phase}"

    @property
    def policy(self) -> MigrationPolicy:
        return self.entry.policy or POLICIES.get(self.phase, PLAIN)


_COPY = PLAIN.model_copy(update={"disks": "copy", "bandwidth_mib": 14})
_STORED = PLAIN.model_copy(update={"store": True, "bandwidth_mib": 14})
_UNDER_WAY: tuple[Phase, ...] = ("preparing", "middle", "switching", "post-copy", "confirming", "cleaning")
_IN_A_MOVE: tuple[Phase, ...] = ("checking", *_UNDER_WAY)

TABLE: dict[str, Entry] = {
    "source worker": Entry(lambda: faults.PartKilled("source worker"), PHASES),
    "destination worker": Entry(lambda: faults.PartKilled("destination worker"), _IN_A_MOVE),
    "control worker": Entry(
        lambda: faults.PartKilled("control.worker"),
        ("checking", "middle", "switching", "post-copy", "confirming", "cleaning"),
    ),
    "all workers": Entry(faults.AllWorkersKilled, ("middle",)),
    "source worker stalls": Entry(lambda: faults.WorkerStalled("source", 13), ("middle",)),
    "Temporal": Entry(lambda: faults.PartKilled("temporal"), _IN_A_MOVE),
    "source data path": Entry(lambda: faults.DataPathKilled("source"), _UNDER_WAY),
    "destination data path": Entry(
        lambda: faults.DataPathKilled("destination"), ("preparing", "middle", "switching", "post-copy")
    ),
    "source libvirtd": Entry(
        lambda: faults.PartKilled("source libvirtd"),
        ("checking", "middle", "switching", "post-copy", "idle"),
    ),
    "destination libvirtd": Entry(
        lambda: faults.PartKilled("destination libvirtd"),
        ("checking", "middle", "switching", "post-copy", "idle"),
    ),
    "source QEMU": Entry(lambda: faults.QemuKilled("source"), ("checking", "middle", "switching", "post-copy")),
    "destination QEMU": Entry(lambda: faults.QemuKilled("destination"), ("early", "middle", "switching", "post-copy")),
    "link cut": Entry(lambda: faults.LinkCut(1, 5), ("preparing", "middle", "switching", "post-copy", "confirming")),
    "link flaps": Entry(lambda: faults.LinkCut(4, 1), ("middle", "post-copy")),
    "link loses 5 %": Entry(
        lambda: faults.LinkWorse(LinkSpec.parse(rate="200mbit", loss="5%")), ("middle", "post-copy")
    ),
    "link of 1 Mbit/s": Entry(lambda: faults.LinkWorse(LinkSpec.parse(rate="1mbit")), ("middle", "post-copy")),
    "link of 300 ms": Entry(
        lambda: faults.LinkWorse(LinkSpec.parse(rate="200mbit", delay="300ms")), ("middle", "post-copy")
    ),
    "source state disk full": Entry(
        lambda: faults.DiskFull("source", faults.state_folder, at_start=True), ("checking",)
    ),
    "destination state disk full": Entry(
        lambda: faults.DiskFull("destination", faults.state_folder, at_start=True), ("checking",)
    ),
    "state disk fills": Entry(lambda: faults.DiskFull("source", faults.state_folder, at_start=False), ("middle",)),
    "store disk fills": Entry(
        lambda: faults.DiskFull("destination", faults.store_folder, at_start=False), ("middle",), _STORED
    ),
    "image disk fills": Entry(
        lambda: faults.DiskFull("destination", faults.image_folder, at_start=False, scratch=8), ("middle",), _COPY
    ),
    "source clock +1 h": Entry(lambda: faults.ClockJump("source worker", 3600), ("middle", "post-copy")),
    "source clock -1 h": Entry(lambda: faults.ClockJump("source worker", -3600), ("middle",)),
    "destination clock +1 h": Entry(lambda: faults.ClockJump("destination worker", 3600), ("middle",)),
    "control clock -1 h": Entry(lambda: faults.ClockJump("control.worker", -3600), ("middle",)),
    "source certificate expired": Entry(lambda: faults.CertificateExpired("source"), ("checking", "middle")),
    "destination certificate expired": Entry(lambda: faults.CertificateExpired("destination"), ("checking",)),
    "client gone": Entry(faults.ClientGone, ("middle", "post-copy")),
    "cancel": Entry(faults.Cancelled, (*_IN_A_MOVE, "early")),
    "Temporal's cancel": Entry(lambda: faults.Cancelled(by_temporal=True), ("middle", "post-copy")),
    "terminate": Entry(faults.Terminated, _IN_A_MOVE),
    "second start": Entry(faults.SecondStart, ("checking", "middle", "post-copy")),
    "lease store gone": Entry(
        faults.LeaseStoreGone, ("checking", "middle", "switching", "post-copy", "cleaning"), needs="models.lease"
    ),
    "two recoveries": Entry(lambda: faults.Terminated(recoveries=2), ("middle", "post-copy")),
}

MATRIX = tuple(
    Combination(what, phase, entry)
    for what, entry in TABLE.items()
    if not entry.needs or find_spec(entry.needs)
    for phase in entry.phases
)

QUICK = (
    "destination data path:switching",
    "destination libvirtd:switching",
    "destination QEMU:middle",
    "link flaps:post-copy",
    "cancel:confirming",
)
"""A part that is quick, for `make test`: what tests/integration does not break anyway."""


def pick(names: list[str]) -> list[Combination]:
    """By `what:phase`, or all phases of a `what`, or all faults of a `:phase`. ValueError names what there is not."""
    chosen: list[Combination] = []
    for name in names:
        what, _, phase = name.partition(":")
        found = [each for each in MATRIX if what in ("", each.what) and phase in ("", each.phase)]
        if not found:
            raise ValueError(f"only: there is no combination {name!r}: see --list")
        chosen += [each for each in found if each not in chosen]
    return chosen
