"""What all activities of a host stand on: its settings, its libvirt, and the fence that turns old orders away."""

from __future__ import annotations

from collections.abc import Callable

from activities.fence import Fence
from clouds.kvm import inventory
from clouds.kvm.connection import Connection, Session
from models.host import HostSettings, VmSighting
from models.migration import VmRef


class OnHost:
    def __init__(
        self, settings: HostSettings, fence: Fence | None = None, opener: Callable[[str], Connection] | None = None
    ) -> None:
        """`opener` replaces libvirt's open() in tests."""
        self._settings = settings
        self._fence = fence or Fence(settings)
        self._opener = opener

    def _session(self, on_open: Callable[[Connection], None] | None = None) -> Session:
        return Session(self._settings.libvirt_socket, on_open, self._opener)

    def _sighting(self, vm: VmRef) -> VmSighting:
        """Is the VM here, in what state, and which token was seen for it last?"""
        with self._session() as session:
            seen = inventory.look_for(session, self._settings.host, vm)
        return seen.model_copy(update={"token": self._fence.known(vm)})
