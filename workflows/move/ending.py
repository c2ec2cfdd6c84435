"""How the end of a move is told. Of one that did not happen the type follows from what is known of the VM first, and of
the cause second.

| the VM | cause | type |
| --- | --- | --- |
| split, two copies, torn, stranded, arrived, handed over, unsettled, unknown | any | Ambiguous |
| lost | any | MigrationFailed |
| untouched, stayed, leftover | a cancel | Cancelled |
| untouched, stayed, leftover | a failed step | that step's type; MigrationFailed where it was in doubt |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from temporalio.exceptions import ApplicationError

from models import failures
from models.migration import MigrationOutcome, MoveResult
from workflows import errors
from workflows.move import evidence
from workflows.site.verdict import Verdict

_ADVICE = {
    "arrived": "It is complete there, and stays paused: `novacron recover` lets it run once that is safe",
    "handed over": "Start neither: `novacron recover` tells which of them is the VM, and ends the other",
    "split": "Destroy neither half. The recovery drill in docs/workflows/migrate-vm.md says how to go on",
    "torn": "Keep what is left for its disks' sake, then start the VM anew where they are",
}
_KNOWN = ("stayed", "leftover", "lost")


def failure(
    vm: str,
    error: BaseException | None,
    where: Verdict | None,
    stop: str | None,
    notes: Sequence[str],
) -> ApplicationError:
    """`where` is None while nothing had touched the VM; `stop` is the reason of a cancel that was asked for."""
    left = "".join(f" Note: {note}." for note in notes)
    place = where.reason if where else f"{vm} was not touched"
    if where and where.kind not in _KNOWN:
        advice = _ADVICE.get(where.kind) or "Look on both hosts with `virsh list --all` before you do anything else"
        return errors.final(failures.AMBIGUOUS, f"{vm}: {place}. {_cause(error, stop)} {advice}.{left}")
    if where and where.kind == "lost":
        advice = "If it did not shut itself down, look at QEMU's log of both hosts"
        return errors.final(failures.MIGRATION_FAILED, f"{vm}: {place}. {_cause(error, stop)} {advice}.{left}")
    if stop is not None and errors.cancelled(error):
        return errors.final(failures.CANCELLED, f"{_cause(error, stop)} {place}.{left}")
    kind = errors.explain(error)[0] if error else failures.MIGRATION_FAILED
    if where and kind == failures.AMBIGUOUS:  # the step could not tell; since then both hosts have
        kind = failures.MIGRATION_FAILED
    return errors.final(kind, f"{_cause(error, stop)} {place}.{left}")


def _cause(error: BaseException | None, stop: str | None) -> str:
    if error is None:
        return "The move step reported success."
    if stop is not None and errors.cancelled(error):
        return f"Cancelled: {stop.rstrip('.') or 'no reason given'}."
    return errors.explain(error)[1].rstrip(".") + "."


@dataclass(frozen=True)
class Way:
    """Of one move: where it went."""

    site: str
    source: str
    destination: str
    migration_id: str


def outcome(
    vm: str,
    way: Way,
    result: MoveResult,
    recoveries: int,
    seconds: float,
    proof: evidence.Evidence,
    notes: Sequence[str],
) -> MigrationOutcome:
    """What a move that arrived has to say; `seconds` until the VM was seen there."""
    return MigrationOutcome(
        vm=vm,
        site=way.site,
        source=way.source,
        destination=way.destination,
        migration_id=way.migration_id,
        seconds=seconds,
        downtime_ms=result.downtime_ms,
        memory_bytes=result.memory_total,
        disk_bytes=result.disk_total,
        post_copy=result.post_copy,
        recoveries=recoveries,
        iterations=result.iterations,
        raw_bytes=proof.raw_bytes,
        wire_bytes=proof.wire_bytes,
        redials=proof.redials,
        digest=proof.digest,
        digest_verified=proof.verified,
        notes=tuple(notes),
    )
