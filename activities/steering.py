"""Activities that steer a running move, run on its source's host: hand over what people want of it, and let a guest run
again that its move left paused."""

from __future__ import annotations

from temporalio import activity

from activities import errors, wishes
from activities.errors import translated
from activities.folder import Folder
from activities.heartbeat import wait
from activities.on_host import OnHost
from clouds.kvm import revival
from models import failures
from models.host import VmSighting
from models.migration import VmRef
from models.steering import Steered, SteerMove

ANSWERED_WITHIN = 15.0
"""Seconds for the move step to act on a wish: some of its turns, and libvirt's answers."""


class SteeringActivities(OnHost):
    @activity.defn(name="novacron.steer_move", no_thread_cancel_exception=True)
    @translated
    def steer_move(self, order: SteerMove) -> Steered:
        """Tell the move step what is wanted from now on; its answer. Asked again, it is the same wish."""
        self._fence.check(order.vm, "steer the move")
        folder = Folder.of(self._settings, order.migration_id)
        if not folder.path.is_dir():
            raise errors.final(
                failures.NOT_FOUND, f"no migration {order.migration_id} on {self._settings.host}: it has ended"
            )
        wishes.put_wish(folder, order)
        return wait(
            f"steering {order.migration_id}",
            lambda: _answer(folder, order.number),
            ANSWERED_WITHIN,
            lambda: _late(order),
        )

    @activity.defn(name="novacron.revive_vm", no_thread_cancel_exception=True)
    @translated
    def revive_vm(self, vm: VmRef) -> VmSighting:
        """Run on the source after a failed move, when the destination has answered that it has no copy: let a guest run
        again that a migration left paused here."""
        self._fence.check(vm, "let the VM run again")
        with self._session() as session:
            revival.revive(session, vm)
        return self._sighting(vm)


def _answer(folder: Folder, number: int) -> Steered | None:
    found = wishes.answer(folder)
    return found if found is not None and found.number >= number else None


def _late(order: SteerMove) -> Exception:
    return errors.retryable(
        failures.HOST_UNAVAILABLE,
        f"the move step of {order.migration_id} has not taken up wish {order.number} after {ANSWERED_WITHIN:.0f} s; it "
        f"stands, and is taken up as soon as that step goes on",
    )
