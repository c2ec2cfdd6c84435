"""Activities on the host that a VM leaves for a cloud: it reads the disks, so it sends them.

`send_disk` is the long one. It goes on from the cursor in its heartbeat, and its token finds in the cloud what an
attempt without a heartbeat began. What the cloud has is in a ledger beside the image (clouds.disks.ledger), so a round
sends exactly the blocks that differ, and of a VM that is off the step proves that the cloud has all of its disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from activities import errors, first_send
from activities.accounts import Accounts
from activities.errors import translated
from activities.fence import Fence
from activities.heartbeat import beat, wait
from activities.on_host import OnHost
from activities.pulse import Beating, Pulse
from clouds.capabilities import Adapter
from clouds.disks.content import BLOCK, Reader
from clouds.disks.images import open_image
from clouds.disks.ledger import SUFFIX, Ledger, Recorded
from clouds.errors import SourceChanged
from clouds.kvm import backup, leaving, sheet
from clouds.kvm.connection import Connection, Session
from clouds.kvm.inventory import qemu_group
from models import failures
from models.cloud_move import (
    DiskSent,
    RoundBegun,
    RoundOrder,
    SendDisk,
    SettleSource,
    SourceFacts,
    SourceSettled,
    SourceStopped,
    StartSource,
    StopSource,
)
from models.clouds import DeltaOrder, DiskFormat
from models.disks import DiskImage
from models.host import HostSettings, VmSighting
from models.migration import VmRef

LOOK_EVERY = 0.5
FORMATS: dict[str, DiskFormat] = {"raw": "raw", "qcow2": "qcow2"}


class CloudDiskActivities(OnHost):
    def __init__(
        self,
        settings: HostSettings,
        fence: Fence | None = None,
        opener: Callable[[str], Connection] | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        super().__init__(settings, fence, opener)
        self._accounts = accounts or Accounts(settings.clouds, f"the worker of {settings.host}")

    @activity.defn(name="novacron.inspect_source", no_thread_cancel_exception=True)
    @translated
    def inspect_source(self, vm: VmRef) -> SourceFacts:
        """What a cloud has to know of the VM."""
        with self._session() as session:
            found = sheet.vm_sheet(session, self._settings.host, vm)
            domain = session.get(vm)
            text = session.call("read the VM's definition", lambda _: domain.XMLDesc(0))
        disks, obstacles = copied(found.disks)
        return SourceFacts(
            host=self._settings.host,
            vm=VmRef(vm=found.vm.name, uuid=found.vm.uuid, token=self._fence.known(vm)),
            persistent=found.vm.persistent,
            running=found.vm.state not in leaving.OFF,
            autostart=found.vm.autostart,
            vcpus=found.vm.vcpus,
            memory_mib=found.vm.memory_mib,
            architecture=found.arch,
            firmware=leaving.firmware(text),
            host_kernel=leaving.kernel_from_host(text),
            disks=disks,
            obstacles=(*obstacles, *(f"{device} is a device of the host" for device in found.host_devices)),
            accounts=self._accounts.places,
        )

    @activity.defn(name="novacron.begin_round", no_thread_cancel_exception=True)
    @translated
    def begin_round(self, order: RoundOrder) -> RoundBegun:
        """Hold the disks of a running VM as they are now, to be read while it writes on."""
        self._fence.check(order.vm, "look at its disks")
        with self._session() as session:
            self._make_folder(session, order.move)
            return RoundBegun(telling=backup.begin(session, order.vm, self._round(order)))

    @activity.defn(name="novacron.send_disk", no_thread_cancel_exception=True)
    @translated
    def send_disk(self, order: SendDisk) -> DiskSent:
        """Bring a disk to the cloud, or what differs from what is there. Long: heartbeats a cursor."""
        self._fence.check(order.vm, "send a disk")
        pulse = Pulse(f"sending {order.disk.target} of {order.vm.vm}", lambda: self._fence.outdated(order.vm))
        began = time.monotonic()
        adapter, path = self._accounts.adapter(order.place), Path(f"{order.disk.path}{SUFFIX}")
        with pulse.beating(), self._source(order, pulse) as (source, changed):
            try:
                ledger, content, said = _bring(adapter, order, path, source, changed, pulse)
            except SourceChanged:
                pulse.drop(adapter)
                raise
            except CancelledError:
                pulse.drop(adapter)
                first_send.release(adapter, order.move, order.disk.target, path)
                raise
        if order.round is None and content != ledger.content():
            raise SourceChanged(f"{order.disk.path} and what {order.place} was given of it differ", "It is sent again.")
        return DiskSent(
            target=order.disk.target,
            disk=ledger.disk,
            size=ledger.size,
            content=ledger.content(),
            source=content if order.round is None else "",
            bytes=ledger.sent,
            seconds=round(time.monotonic() - began, 3),
            origin=ledger.origin,
            saved=ledger.saved,
            cache=said[:4000],
        )

    @activity.defn(name="novacron.end_round", no_thread_cancel_exception=True)
    @translated
    def end_round(self, order: RoundOrder) -> VmSighting:
        """Let go of the moment; its bitmap goes on, so that the next round tells what changed since."""
        self._fence.check(order.vm, "end a look at its disks")
        with self._session() as session:
            backup.end(session, order.vm, self._round(order))
        return self._sighting(order.vm)

    @activity.defn(name="novacron.stop_source", no_thread_cancel_exception=True)
    @translated
    def stop_source(self, order: StopSource) -> SourceStopped:
        """Shut the VM down so that nothing here starts it again. One that does not follow runs on, unless the order
        says that its power may be cut."""
        self._fence.check(order.vm, "stop it")
        began = time.monotonic()
        with self._session() as session:
            leaving.hold(session, order.vm)
            stopped = leaving.ask_to_stop(session, order.vm)
            late = errors.final(failures.REFUSED, f"{order.vm.vm} did not shut down within {order.within:.0f} s")
            try:
                if not stopped:
                    wait(f"the shutdown of {order.vm.vm}", self._off(session, order.vm), order.within, lambda: late)
            except ApplicationError as error:
                if error is not late:
                    raise
                if not order.cut_power:
                    return SourceStopped(stopped=False, why=f"{late.message}; it runs on")
                leaving.cut_power(session, order.vm)
        return SourceStopped(stopped=True, seconds=round(time.monotonic() - began, 3))

    @activity.defn(name="novacron.start_source", no_thread_cancel_exception=True)
    @translated
    def start_source(self, order: StartSource) -> VmSighting:
        """Let the VM run here again, when it is certain that it runs nowhere else."""
        self._fence.check(order.vm, "start it again")
        with self._session() as session:
            until = time.monotonic() + order.watch
            leaving.start_again(session, order.vm, order.autostart, order.run)
            while order.run and time.monotonic() < until:
                beat(f"watching that {order.vm.vm} runs on")
                if leaving.is_off(session, order.vm):
                    leaving.start_again(session, order.vm, order.autostart)
                    break
                time.sleep(LOOK_EVERY)
        return self._sighting(order.vm)

    @activity.defn(name="novacron.settle_source", no_thread_cancel_exception=True)
    @translated
    def settle_source(self, order: SettleSource) -> SourceSettled:
        """Forget what the move kept here; with `remove` the VM, which is off, and its images too."""
        self._fence.check(order.vm, "settle what is left of it")
        kept = Path(self._settings.state_dir) / "clouds" / order.move
        self._let_bases_go(order)
        with self._session() as session:
            backup.forget(session, order.vm, backup.Round(order.move, 0, order.disks, kept.parent))
            if order.remove:
                leaving.remove(session, order.vm, tuple(disk.path for disk in order.disks))
        for disk in order.disks:
            Path(f"{disk.path}{SUFFIX}").unlink(missing_ok=True)
        if kept.is_dir():
            for left in kept.iterdir():
                left.unlink(missing_ok=True)
            kept.rmdir()
        return SourceSettled(removed=tuple(disk.path for disk in order.disks) if order.remove else ())

    def _let_bases_go(self, order: SettleSource) -> None:
        """Of disks that never came to the cloud."""
        if order.place in self._accounts.places:
            for disk in order.disks:
                path = Path(f"{disk.path}{SUFFIX}")
                first_send.release(self._accounts.adapter(order.place), order.move, disk.target, path)

    def _off(self, session: Session, vm: VmRef) -> Callable[[], bool | None]:
        return lambda: leaving.is_off(session, vm) or None

    def _round(self, order: RoundOrder) -> backup.Round:
        return backup.Round(
            order.move, order.number, order.disks, Path(self._settings.state_dir) / "clouds", order.base
        )

    def _make_folder(self, session: Session, move: str) -> None:
        """QEMU makes its socket there itself, as its own user."""
        folder = Path(self._settings.state_dir) / "clouds" / move
        folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.mkdir(mode=0o711, exist_ok=True)
        os.chown(folder, -1, qemu_group(session))
        folder.chmod(0o1730)

    @contextmanager
    def _source(self, order: SendDisk, pulse: Pulse) -> Iterator[tuple[Reader, tuple[tuple[int, int], ...] | None]]:
        """The disk, and where to look for changes; None: everywhere."""
        if order.round is not None:
            wanted = self._round(order.round)
            with self._session() as session:
                if not backup.is_open(session, order.vm, wanted):
                    raise SourceChanged(
                        f"round {wanted.number} of {order.vm.vm} is over: its QEMU has ended, or the backup job was "
                        f"aborted",
                        "A new round is begun.",
                    )
            with backup.snapshot(wanted, order.disk.target) as shown:
                yield Beating(shown, pulse), shown.changed() if order.telling else None
            return
        self._must_be_off(order.vm)
        with open_image(order.disk.path, FORMATS[order.disk.format]) as image:
            yield Beating(image, pulse), None
        self._must_be_off(order.vm)

    def _must_be_off(self, vm: VmRef) -> None:
        with self._session() as session:
            if not leaving.is_off(session, vm):
                raise errors.final(
                    failures.AMBIGUOUS, f"{vm.vm} runs on {self._settings.host}, where this move had stopped it"
                )


def copied(disks: Iterable[Any]) -> tuple[tuple[DiskImage, ...], tuple[str, ...]]:
    """(disks that are copied, why others cannot be) of a VM's sheet. Read-only ones, CDs for instance, stay behind."""
    reports = list(disks)
    based = {report.target.partition(".")[0] for report in reports if "." in report.target}
    found, obstacles = [], []
    for report in reports:
        what = f"{report.target} {report.path}"
        if "." in report.target or report.readonly:
            continue
        if report.image is None:
            obstacles.append(f"{what} is no image file: only those can be sent")
        elif report.image.format not in FORMATS:
            obstacles.append(f"{what} has format {report.image.format or 'unknown'}: only raw and qcow2 can be sent")
        elif report.target in based:
            obstacles.append(f"{what} is based on another image: flatten it first (virsh blockpull)")
        else:
            found.append(report.image)
    return tuple(found), tuple(obstacles)


def _bring(
    adapter: Adapter,
    order: SendDisk,
    path: Path,
    source: Reader,
    changed: tuple[tuple[int, int], ...] | None,
    pulse: Pulse,
) -> tuple[Ledger, str, str]:
    """(the ledger as it is then, on disk; the content hash of the source as far as it was read; the cache's words)."""
    done = _done(order, path)
    if done is not None:
        said = "as an earlier attempt was told" if order.cached and not order.base else ""
        return done, done.compare(source)[1] if order.round is None else "", said
    if not order.base:
        return first_send.send_first(adapter, order, path, source, pulse)
    adapter.require("BlockDelta")
    assert adapter.block_delta is not None
    ledger = Ledger.read(path, order.move)
    if ledger.disk != order.base:
        raise SourceChanged(f"{path} tells of {ledger.disk}, and not of {order.base}", "The disk is sent whole.")
    content = ""
    if order.round is None:
        differs, content = ledger.compare(source)
    else:
        differs = tuple(ledger.differences(source, changed))
    ledger.token, ledger.sent = order.token, 0
    if differs:
        wanted = DeltaOrder(name=order.name, token=order.token, base=order.base)
        moved = adapter.block_delta.import_delta(wanted, Recorded(source, ledger), differs, pulse, pulse.resume)
        ledger.disk, ledger.sent = moved.disk, moved.blocks * BLOCK
    ledger.write(path, order.move)
    return ledger, content, ""


def _done(order: SendDisk, path: Path) -> Ledger | None:
    """An attempt whose answer was lost has done this step."""
    try:
        ledger = Ledger.read(path, order.move)
    except SourceChanged:
        return None
    return ledger if ledger.token == order.token else None
