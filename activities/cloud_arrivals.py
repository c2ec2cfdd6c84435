"""Activities on the host that a VM comes to from a cloud: it writes the disks, so it fetches them.

`receive_disk` is the long one. It goes on from the cursor in its heartbeat; without one it begins the same snapshot
again, which changes nothing that was right. What the cloud gave is in a ledger beside the image (clouds.disks.ledger),
and once the instance is stopped the image is read and compared with it before anything starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from temporalio import activity

from activities import errors
from activities.accounts import Accounts
from activities.errors import translated
from activities.fence import Fence
from activities.heartbeat import beat, wait
from activities.on_host import OnHost
from activities.pulse import Beating, Pulse
from clouds import errors as clouds
from clouds.capabilities import Adapter
from clouds.disks import safepoint
from clouds.disks.content import BLOCK, Disk
from clouds.disks.images import open_image
from clouds.disks.ledger import SUFFIX, Ledger, Noted
from clouds.errors import BadDisk, SourceChanged
from clouds.kvm import arrived, disks, inventory, leaving
from clouds.kvm.connection import Connection, Session
from models import failures
from models.cloud_bring import (
    ArrivalFacts,
    ArrivalQuery,
    ArrivalSettled,
    Checked,
    DefineArrival,
    EndArrival,
    ReceiveDisk,
    SettleArrival,
    StartArrival,
)
from models.cloud_move import DiskSent
from models.clouds import Cursor, DiskFormat, Transferred
from models.disks import DiskImage
from models.host import HostSettings, VmSighting
from models.migration import VmRef

FORMAT: DiskFormat = "qcow2"
KVM = Path("/dev/kvm")
LOOK_EVERY = 0.5


class CloudArrivalActivities(OnHost):
    def __init__(
        self,
        settings: HostSettings,
        fence: Fence | None = None,
        opener: Callable[[str], Connection] | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        super().__init__(settings, fence, opener)
        self._accounts = accounts or Accounts(settings.clouds, f"the worker of {settings.host}")

    @activity.defn(name="novacron.inspect_arrival", no_thread_cancel_exception=True)
    @translated
    def inspect_arrival(self, query: ArrivalQuery) -> ArrivalFacts:
        """What this host has of the VM, and what it would take it into."""
        with self._session() as session:
            domain = session.find(query.vm)
            text = arrived.definition(session, query.vm)
            alive = arrived.alive(session, query.vm)
        place = disks.Place.of(f"{query.folder}/new")
        uuid = domain.UUIDString() if domain is not None else query.vm.uuid
        vm = VmRef(vm=query.vm.vm, uuid=uuid)
        _, free = inventory.memory_mib(Path("/proc/meminfo").read_text(encoding="ascii"))
        return ArrivalFacts(
            host=self._settings.host,
            vm=vm.model_copy(update={"token": self._fence.known(vm)}),
            defined=domain is not None,
            alive=alive,
            disks=arrived.targets(text) if text else (),
            architecture="arm64" if os.uname().machine == "aarch64" else "x86_64",
            accelerated=KVM.exists(),
            memory_free_mib=max(0, free - self._settings.memory_reserve_mib),
            folder=place.folder,
            free=place.free,
            accounts=self._accounts.places,
            findings=self._fence.findings(),
        )

    @activity.defn(name="novacron.receive_disk", no_thread_cancel_exception=True)
    @translated
    def receive_disk(self, order: ReceiveDisk) -> DiskSent:
        """Bring a snapshot into its image, or what changed since the one it holds. Long: heartbeats a cursor."""
        self._fence.check(order.vm, "receive a disk")
        self._must_be_off(order.vm)
        pulse = self._pulse(f"receiving {order.target} of {order.vm.vm}", order.vm)
        began = time.monotonic()
        adapter = self._accounts.adapter(order.place)
        with pulse.beating():
            ledger = self._bring(adapter, order, pulse)
            proved = _prove(order, ledger, pulse) if order.prove else ""
        return DiskSent(
            target=order.target,
            disk=order.disk,
            size=ledger.size,
            content=ledger.content(),
            source=proved,
            bytes=ledger.sent,
            seconds=round(time.monotonic() - began, 3),
        )

    @activity.defn(name="novacron.define_arrival", no_thread_cancel_exception=True)
    @translated
    def define_arrival(self, order: DefineArrival) -> VmSighting:
        """The VM is known here, off, with the images that came."""
        self._fence.check(order.vm, "define it")
        arm = os.uname().machine == "aarch64"
        with self._session() as session:
            arrived.define(
                session,
                order.vm,
                order.disks,
                lambda: arrived.fresh(order.vm, order.disks, order.hardware, kvm=KVM.exists(), arm=arm),
            )
        return self._sighting(order.vm)

    @activity.defn(name="novacron.start_arrival", no_thread_cancel_exception=True)
    @translated
    def start_arrival(self, order: StartArrival) -> Checked:
        """Let it run, when it is certain that it runs nowhere else, and see that it goes on running."""
        self._fence.check(order.vm, "start it")
        with self._session() as session:
            with self._pulse(f"starting {order.vm.vm}", order.vm).beating():
                arrived.start(session, order.vm, order.disks, order.attempt)
            until = time.monotonic() + order.watch
            while True:
                beat(f"watching that {order.vm.vm} runs on")
                if arrived.is_off(session, order.vm):
                    return Checked(good=False, said=f"{order.vm.vm} stopped within {order.watch:.0f} s of its start")
                if time.monotonic() >= until:
                    return Checked(good=True, said=f"{order.vm.vm} runs on {self._settings.host}")
                time.sleep(LOOK_EVERY)

    @activity.defn(name="novacron.end_arrival", no_thread_cancel_exception=True)
    @translated
    def end_arrival(self, order: EndArrival) -> VmSighting:
        """It is off here when this returns, and nothing here starts it again."""
        self._fence.check(order.vm, "stop it")
        with self._session() as session:
            if order.within and session.find(order.vm) is not None:
                leaving.hold(session, order.vm)
                self._ask_to_stop(session, order)
            with self._pulse(f"ending {order.vm.vm}", order.vm).beating():
                arrived.end(session, order.vm, order.disks, order.attempt)
                for disk in order.disks if order.revert else ():
                    if Path(disk.path).exists():
                        safepoint.take_back(disk.path)
        return self._sighting(order.vm)

    @activity.defn(name="novacron.settle_arrival", no_thread_cancel_exception=True)
    @translated
    def settle_arrival(self, order: SettleArrival) -> ArrivalSettled:
        """Forget what the move kept here; unless the images are kept, they and the definition go too."""
        self._fence.check(order.vm, "settle what came of it")
        removed: tuple[str, ...] = ()
        with self._session() as session:
            if order.keep:
                arrived.accept(session, order.vm, order.disks, order.autostart)
                disks.keep(order.disks, order.move)
            else:
                arrived.undo(session, order.vm, order.disks)
                removed = disks.remove(order.disks, order.move)
        for disk in order.disks:
            for left in (SUFFIX, f"{SUFFIX}.new", arrived.ENDED):
                Path(f"{disk.path}{left}").unlink(missing_ok=True)
        return ArrivalSettled(removed=removed)

    def _pulse(self, what: str, vm: VmRef) -> Pulse:
        return Pulse(what, lambda: self._fence.outdated(vm))

    def _ask_to_stop(self, session: Session, order: EndArrival) -> None:
        """A guest that does not follow is ended all the same: people want the VM elsewhere."""
        late = errors.final(failures.REFUSED, "late")
        try:
            if not leaving.ask_to_stop(session, order.vm):
                wait(
                    f"the shutdown of {order.vm.vm}",
                    lambda: arrived.is_off(session, order.vm) or None,
                    order.within,
                    lambda: late,
                )
        except type(late) as error:
            if error is not late:
                raise

    def _bring(self, adapter: Adapter, order: ReceiveDisk, pulse: Pulse) -> Ledger:
        """The ledger, on disk, once the image holds the snapshot."""
        path = Path(f"{order.path}{SUFFIX}")
        held = _known(path, order)
        if held is not None and held.token == order.token and not held.toward:
            return held  # the answer of an attempt was lost
        if not order.base:
            return self._whole(adapter, order, path, pulse)
        if held is None or order.base != held.disk or not Path(order.path).exists():
            raise SourceChanged(f"{order.path} is not known to hold {order.base}", "The disk is brought whole.")
        adapter.require("BlockDelta")
        if held.toward and held.toward != order.disk:
            # Cut off half-way: what differs between the two has to come first, or some of it would be missed.
            _differences(adapter, order, held, held.toward, path, pulse)
        _differences(adapter, order, held, order.disk, path, pulse)
        held.token = order.token
        held.write(path, order.move)
        return held

    def _whole(self, adapter: Adapter, order: ReceiveDisk, path: Path, pulse: Pulse) -> Ledger:
        adapter.require("ImageExport")
        assert adapter.image_export is not None
        assert adapter.image_import is not None
        size = adapter.image_import.get_snapshot(order.disk).size
        image = DiskImage(target=order.target, path=order.path, format=FORMAT, capacity=size)
        resume = _resumed(pulse, order.disk)
        if resume is None or not (disks.is_ours(image, order.move) and Path(order.path).exists()):
            resume = None
            path.unlink(missing_ok=True)
            with self._session() as session:
                disks.make((image,), order.move, inventory.qemu_owner(session))
        ledger = Ledger(size)
        with _opened(order.path) as target:
            noted = Noted(target, ledger, pulse.beat)
            moved = adapter.image_export.export_disk(order.disk, noted, pulse, resume)
        _note(ledger, moved, order.disk)
        ledger.token = order.token
        ledger.write(path, order.move)
        return ledger

    def _must_be_off(self, vm: VmRef) -> None:
        """The images are new ones; but a VM that is alive here already is not to come."""
        with self._session() as session:
            if arrived.alive(session, vm):
                raise errors.final(
                    failures.AMBIGUOUS, f"{vm.vm} is alive on {self._settings.host}, where it only comes to"
                )


def _known(path: Path, order: ReceiveDisk) -> Ledger | None:
    try:
        return Ledger.read(path, order.move)
    except SourceChanged:
        return None


def _resumed(pulse: Pulse, disk: str) -> Cursor | None:
    return pulse.resume if pulse.resume is not None and pulse.resume.disk == disk else None


def _differences(adapter: Adapter, order: ReceiveDisk, held: Ledger, disk: str, path: Path, pulse: Pulse) -> None:
    """Turn an image that holds `held.disk` into `disk`. What it is on the way to is on disk before it begins."""
    assert adapter.block_delta is not None
    if held.toward != disk:
        held.toward = disk
        held.write(path, order.move)
    try:
        with _opened(order.path) as target:
            noted = Noted(target, held, pulse.beat)
            moved = adapter.block_delta.export_delta(held.disk, disk, noted, pulse, _resumed(pulse, disk))
    except clouds.NotFound as error:
        raise SourceChanged(f"{error}", "The disk is brought whole.") from error
    _note(held, moved, disk)
    held.write(path, order.move)


@contextmanager
def _opened(path: str) -> Iterator[Disk]:
    """The image, to be written. An attempt that was given up for dead may still have it open: that is waited for."""
    try:
        with open_image(path, FORMAT, writable=True) as target:
            yield target
    except BadDisk as error:
        if " lock" in str(error):
            raise errors.retryable(failures.HOST_UNAVAILABLE, f"{path} is open elsewhere: {error}") from error
        raise


def _note(ledger: Ledger, moved: Transferred, disk: str) -> None:
    ledger.disk, ledger.toward, ledger.sent = disk, "", moved.blocks * BLOCK


def _prove(order: ReceiveDisk, ledger: Ledger, pulse: Pulse) -> str:
    """The content hash of the image, read for this. Raises SourceChanged when it is not what the cloud gave."""
    with open_image(order.path, FORMAT) as image:
        differs, content = ledger.compare(Beating(image, pulse))
    if differs or content != ledger.content():
        raise SourceChanged(
            f"{order.path} does not hold what {order.place} gave: {len(differs)} blocks differ",
            "The disk is brought whole; look at the host's storage.",
        )
    return content
