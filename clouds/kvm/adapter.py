"""The KVM adapter, put together: one host of your own as a cloud."""

from __future__ import annotations

from collections.abc import Callable

from clouds.capabilities import Adapter
from clouds.kvm.connection import Connection
from clouds.kvm.place.catalogue import KvmCatalogue
from clouds.kvm.place.disks import KvmDisks
from clouds.kvm.place.images import KvmImages
from clouds.kvm.place.instances import KvmInstances
from clouds.kvm.place.session import Libvirt
from clouds.kvm.place.snapshots import KvmSnapshots
from clouds.kvm.place.store import Store
from models.clouds import KvmSettings


class KvmDisksAndImages(KvmDisks, KvmImages, KvmSnapshots):
    """ImageImport, ImageExport and BlockDelta."""

    def __init__(self, libvirt: Libvirt, store: Store) -> None:
        KvmDisks.__init__(self, store, libvirt.settings.calls)
        KvmImages.__init__(self, store)
        KvmSnapshots.__init__(self, libvirt, store, self)


def connect(settings: KvmSettings) -> Adapter:
    """Connects to nothing yet."""
    return assemble(settings, Store(settings.folder))


def assemble(settings: KvmSettings, store: Store, opener: Callable[[str], Connection] | None = None) -> Adapter:
    """As `connect`, with the caller's way to the folder and to libvirt: tests look on."""
    libvirt = Libvirt(settings, opener)
    disks = KvmDisksAndImages(libvirt, store)
    return Adapter(
        cloud="kvm",
        instances=KvmInstances(libvirt, store, disks),
        image_import=disks,
        image_export=disks,
        block_delta=disks,
        catalogue=KvmCatalogue(libvirt),
    )
