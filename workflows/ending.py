"""How a move that did not happen is told: the type follows from what is known of the VM first, and of the cause second.

| the VM | cause | type |
| --- | --- | --- |
| split, two copies, torn, stranded, unsettled, unknown | any | Ambiguous |
| lost | any | MigrationFailed |
| untouched, stayed, leftover | a cancel | Cancelled |
| untouched, stayed, leftover | a failed step | that step's type; MigrationFailed where it was in doubt |
"""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.exceptions import ApplicationError

from models import failures
from models.migration import MigrationOutcome, MoveResult
from workflows import errors
from workflows.evidence import Evidence
from workflows.verdict import Verdict

_ADVICE = {
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


def outcome(
    result: MoveResult, proof: Evidence, vm: str, site: str, between: tuple[str, str], migration_id: str
) -> MigrationOutcome:
    """What the source's libvirt and both ends of the data path said of a move that went well."""
    return MigrationOutcome(
        vm=vm,
        site=site,
        source=between[0],
        destination=between[1],
        migration_id=migration_id,
        seconds=result.seconds,
        downtime_ms=result.downtime_ms,
        memory_bytes=result.memory_total,
        disk_bytes=result.disk_total,
        post_copy=result.post_copy,
        iterations=result.iterations,
        raw_bytes=proof.raw_bytes,
        wire_bytes=proof.wire_bytes,
        redials=proof.redials,
        digest=proof.digest,
        digest_verified=proof.verified,
    )
