"""The Azure adapter, put together."""

from __future__ import annotations

from clouds.azure.blocks import AzureBlocks
from clouds.azure.cache import AzureCacheStore
from clouds.azure.catalogue import AzureCatalogue
from clouds.azure.images import AzureImages
from clouds.azure.instances import AzureInstances
from clouds.azure.session import AzureSession
from clouds.capabilities import Adapter
from models.clouds import AzureSettings


class AzureImport(AzureBlocks, AzureImages):
    """ImageImport: blocks become managed disks, disks become versions of an image."""

    def __init__(self, session: AzureSession) -> None:
        AzureBlocks.__init__(self, session)
        AzureImages.__init__(self, session)


def connect(settings: AzureSettings) -> Adapter:
    """Connects to nothing yet."""
    session = AzureSession(settings)
    disks = AzureImport(session)
    return Adapter(
        cloud="azure",
        instances=AzureInstances(session),
        image_import=disks,
        image_export=disks,
        block_delta=disks,
        catalogue=AzureCatalogue(session),
        cache=AzureCacheStore(session),
    )
