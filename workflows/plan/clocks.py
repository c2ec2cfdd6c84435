"""Do the clocks of two hosts differ? Only what is certain counts. Pure.

A host compares its clock with the moment at which Temporal handed the question out. How long it took from there to the
comparison nobody knows, but it was no longer than the workflow waited for the answer. So each host is ahead of Temporal
by no more than it says, and by no less than that minus the wait. A busy machine makes these intervals wide, and
nothing is said of clocks whose intervals come near each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.host import Finding, HostStanding

APART = 5.0
"""Seconds."""


@dataclass(frozen=True)
class Ahead:
    """Seconds by which a host's clock is ahead of Temporal's: between the two."""

    host: str
    least: float
    most: float


def ahead(standing: HostStanding | None, waited: float) -> Ahead | None:
    """`waited`: seconds from the question to its answer, by Temporal's clock. None: nobody compared."""
    if standing is None or standing.clock_ahead is None:
        return None
    return Ahead(standing.host, standing.clock_ahead - waited, standing.clock_ahead)


def compare(one: Ahead | None, other: Ahead | None) -> tuple[Finding, ...]:
    """A warning when they differ by more than APART for certain."""
    if one is None or other is None:
        return ()
    fast, slow = (one, other) if one.least > other.least else (other, one)
    certain = fast.least - slow.most
    if certain <= APART:
        return ()
    return (
        Finding(
            id="clock-skew",
            severity="warning",
            what=f"the clock of {fast.host} is ahead of that of {slow.host} by at least {certain:.1f} s",
            why="Certificates, deadlines and logs of the two hosts are judged by different times.",
            remedy="Have both hosts follow a time server (chrony, systemd-timesyncd).",
        ),
    )
