"""Activities of a control worker that bring disks from one cloud to another: bytes flow through it, and none stay.

`transfer_disk` is the long one. It goes on from the cursor in its heartbeat, and its token finds in the target what an
attempt without a heartbeat began. What the target has of a disk is in a ledger in the settings' folder: 32 bytes for
each block, by which the whole disk's hash is known after every round. A worker that does not find it reads the
snapshot before once more, and sends nothing of it.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from temporalio import activity
from temporalio.exceptions import CancelledError

from activities.accounts import Accounts
from activities.errors import translated
from activities.pulse import Pulse
from clouds.capabilities import Adapter
from clouds.disks.ledger import Ledger
from clouds.errors import BadDisk, CloudError, NotFound, SourceChanged
from clouds.relay import Leg
from models.cloud_move import DiskSent
from models.cloud_transfer import ForgetTransfer, TransferDisk
from models.clouds import DeltaOrder, DiskOrder
from models.host import SiteSettings

FORGOTTEN_AFTER = 60 * 86400.0
"""Seconds. A move that ended on another control worker leaves its ledgers here: moves do not last as long."""


class CloudTransferActivities:
    def __init__(self, settings: SiteSettings, accounts: Accounts | None = None) -> None:
        self._accounts = accounts or Accounts(settings.clouds, f"the control worker of {settings.site}")
        self._folder = Path(settings.transfers)

    @activity.defn(name="novacron.transfer_disk", no_thread_cancel_exception=True)
    @translated
    def transfer_disk(self, order: TransferDisk) -> DiskSent:
        """Bring a snapshot to the target, or what changed since the one before. Long: heartbeats a cursor."""
        began = time.monotonic()
        source, target = self._accounts.adapter(order.source), self._accounts.adapter(order.place)
        self._make_folder()
        pulse = Pulse(f"bringing {order.target} of {order.vm} to {order.place}", lambda: False)
        leg = Leg(source, target, order.snapshot, self._accounts.parallel(order.source), pulse.beat)
        with pulse.beating():
            try:
                ledger, proved = self._bring(leg, order, pulse)
            except (SourceChanged, CancelledError):
                pulse.drop(target)
                raise
        content = ledger.content()
        return DiskSent(
            target=order.target,
            disk=ledger.disk,
            size=ledger.size,
            content=content,
            source=content if proved else "",
            bytes=ledger.sent,
            seconds=round(time.monotonic() - began, 3),
        )

    @activity.defn(name="novacron.forget_transfer", no_thread_cancel_exception=True)
    @translated
    def forget_transfer(self, order: ForgetTransfer) -> None:
        """Its ledgers, and those of moves that are long over."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name.startswith(f"{order.move}-") or time.time() - path.stat().st_mtime > FORGOTTEN_AFTER:
                    path.unlink()

    def _bring(self, leg: Leg, order: TransferDisk, pulse: Pulse) -> tuple[Ledger, bool]:
        """(the ledger as it is then, on disk; whether the target was read back)."""
        path = self._folder / f"{order.move}-{order.target}"
        held = _known(path, order)
        if held is not None and held.token == order.token:
            return held, order.read_back  # the answer of an attempt was lost
        name = f"{order.vm}-{order.target}"[:63]
        if order.base:
            if held is None or held.disk != order.base:
                held = _read_again(leg, order)
            wish = DeltaOrder(name=name, token=order.token, base=order.base)
            ranges = leg.delta(wish, order.base_snapshot, held, pulse, pulse.resume)
            ledger = held
        else:
            ledger, ranges = leg.whole(DiskOrder(name=name, token=order.token), pulse, pulse.resume), None
        if order.read_back and ranges != ():
            try:
                leg.read_back(ledger, ranges)
            except SourceChanged:
                _drop(leg.target, ledger.disk)
                raise
        ledger.write(path, order.move)
        return ledger, order.read_back

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadDisk(
                f"{self._folder} cannot be made: {error.strerror}", "Name another (transfers) in the worker's settings."
            ) from error


def _known(path: Path, order: TransferDisk) -> Ledger | None:
    try:
        return Ledger.read(path, order.move)
    except SourceChanged:
        return None


def _read_again(leg: Leg, order: TransferDisk) -> Ledger:
    """Of the snapshot that the target has, by reading it: another worker has the ledger."""
    before = Leg(leg.source, leg.target, order.base_snapshot, leg.parallel, leg.beat)
    try:
        return before.survey()
    except NotFound as error:
        raise SourceChanged(f"{order.base_snapshot} is gone: {error.what}", "The disk is sent whole.") from error


def _drop(target: Adapter, disk: str) -> None:
    if target.image_import is not None:
        with contextlib.suppress(CloudError):  # it is of no use, and stays until somebody removes it
            target.image_import.delete_disk(disk)
