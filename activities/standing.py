"""What a host says of itself for any move: its clock, its certificate, its room. Asked on both sides."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from temporalio import activity
from temporalio.common import MetricMeter

from activities.meters import show
from clouds.kvm.connection import Session
from clouds.kvm.inventory import version
from dwcp.security.certificate import Validity, validity
from models import metrics
from models.host import HostSettings, HostStanding


def standing(session: Session, settings: HostSettings) -> HostStanding:
    """Run in an activity: this host's clock is compared with the moment at which Temporal handed that out."""
    ahead = (datetime.now(UTC) - activity.info().started_time).total_seconds()
    proof = certificate(settings, activity.metric_meter())
    return HostStanding(
        host=settings.host,
        libvirt_version=session.call("ask libvirt's version", lambda connection: version(connection.getLibVersion())),
        clock_ahead=round(ahead, 3),
        certificate_error=proof.error[:4000],
        certificate_expires=proof.expires,
        state_free_mib=free_mib(settings.state_dir),
        store_free_mib=free_mib(settings.store.folder) if settings.store.limit_mib else None,
        store_leaves_mib=settings.store.leave_free_mib,
    )


def certificate(settings: HostSettings, meter: MetricMeter) -> Validity:
    """Of the data path; what it is worth is shown as a figure too."""
    proof = validity(settings.tls, settings.host)
    show(meter, metrics.CERTIFICATE_EXPIRES, proof.expires.timestamp() if proof.expires else 0, host=settings.host)
    return proof


def free_mib(folder: str) -> int:
    """Room on the file system that holds this folder, or would hold it."""
    path = Path(folder)
    while not path.exists():
        path = path.parent
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize >> 20
