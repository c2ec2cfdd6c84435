"""How fast does a guest dirty its memory? QEMU compares a sample of its pages with themselves, some seconds apart.

Only the mode page-sampling is ever used: it reads memory beside the guest and touches no dirty log. (Mode dirty-bitmap
ended a QEMU 7.2 under TCG, here; and it writes to the log a migration lives on.) It is never started while libvirt
runs a job on the VM: sampling during a move disturbs the move.

What it gives is coarse, and the range says so: of n sampled pages k have changed, and k counts for what it is, a count.
QEMU leaves memory blocks below 128 MiB out, so a smaller guest has no figure at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from clouds.kvm.connection import Connection, Domain, Session, code_of, text_of
from clouds.kvm.errors import Refused
from clouds.kvm.inventory import STATES, job_operation
from models.migration import VmRef
from models.planning import Dirtying, Range

PAGE_SAMPLING = 0
STATS_BALLOON, STATS_DIRTY_RATE = 1 << 2, 1 << 9
MEASURING, MEASURED = 1, 2
SMALLEST_MIB = 128
SAMPLES_PER_GIB = 512
"""QEMU's defaults (migration/dirtyrate.h)."""
MIB = 1 << 20
LATE = 5.0
"""Seconds beyond its own that a measurement may take."""


def measure(
    session: Session, vm: VmRef, seconds: int, pause: Callable[[], None], now: Callable[[], float] = time.monotonic
) -> Dirtying:
    """Measure for `seconds`; `pause` waits a moment between looks, and may raise. A figure that cannot be had is none,
    with the reason. Raises NotFound, and Refused when a job runs on the VM."""
    domain = session.get(vm)
    if _busy(domain):
        raise Refused(f"{vm.vm}: libvirt runs a job on it, and dirtying is never measured then", "Wait for its end.")
    resident, memory_mib = _resident(session, domain), int(domain.info()[2]) // 1024
    if memory_mib < SMALLEST_MIB:
        return Dirtying(resident_bytes=resident, note=f"QEMU samples no guest of less than {SMALLEST_MIB} MiB")
    objection = _start(session, domain, seconds)
    if objection:
        return Dirtying(resident_bytes=resident, note=f"libvirt cannot measure it: {objection}")
    deadline = now() + seconds + LATE
    while (figures := _figures(session, domain)).get("dirtyrate.calc_status") != MEASURED:
        if now() > deadline:
            return Dirtying(resident_bytes=resident, note="QEMU did not end its measurement in time")
        pause()
    if _busy(domain):
        return Dirtying(resident_bytes=resident, note="a job began on the VM meanwhile, so the figure is worth nothing")
    period = int(figures.get("dirtyrate.calc_period", seconds)) or seconds
    rate = int(figures.get("dirtyrate.megabytes_per_second", 0))
    return Dirtying(
        bytes_per_second=spread(rate, memory_mib, period),
        resident_bytes=resident,
        seconds=period,
        note=f"page-sampling, {samples(memory_mib)} pages",
    )


def samples(memory_mib: int) -> int:
    return max(1, memory_mib * SAMPLES_PER_GIB // 1024)


def spread(rate_mib: int, memory_mib: int, seconds: int) -> Range:
    """What the true rate may be, in bytes a second, when sampling said `rate_mib`.

    Each sampled page that changed stands for memory / samples. Counts of k spread by about the square root of k; two of
    that, and three for the case that none was seen (the rule of three), make an honest 95 %.
    """
    each = memory_mib / samples(memory_mib) / seconds
    count = rate_mib / each
    low, high = max(0.0, count - 2 * math.sqrt(count)), count + 2 * math.sqrt(count) + 3
    most = memory_mib / seconds
    likely = min(float(rate_mib), most)
    return Range(low=min(low * each, likely) * MIB, likely=likely * MIB, high=max(likely, min(high * each, most)) * MIB)


def _busy(domain: Domain) -> bool:
    number = domain.state()[0]
    return job_operation(domain, STATES[number] if number < len(STATES) else "unknown") != 0


def _start(session: Session, domain: Domain, seconds: int) -> str:
    """libvirt's objection, or nothing. One that runs already, of an attempt that died, serves as well."""
    if _figures(session, domain).get("dirtyrate.calc_status") == MEASURING:
        return ""

    def start(connection: Connection) -> str:
        try:
            domain.startDirtyRateCalc(seconds, PAGE_SAMPLING)
        except Exception as error:
            if code_of(error) and connection.isAlive():
                return text_of(error)
            raise
        return ""

    return session.call("measure dirtying", start)


def _figures(session: Session, domain: Domain) -> dict[str, int]:
    return _stats(session, domain, STATS_DIRTY_RATE)


def _resident(session: Session, domain: Domain) -> int:
    return int(_stats(session, domain, STATS_BALLOON).get("balloon.rss", 0)) * 1024


def _stats(session: Session, domain: Domain, which: int) -> dict[str, int]:
    found = session.call("read the VM's statistics", lambda connection: connection.domainListGetStats([domain], which))
    return found[0][1] if found else {}
