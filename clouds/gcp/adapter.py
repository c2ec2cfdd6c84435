"""The Google Cloud adapter, put together."""

from __future__ import annotations

from clouds.capabilities import Adapter
from clouds.gcp.catalogue import GcpCatalogue
from clouds.gcp.images import GcpImages
from clouds.gcp.instances import GcpInstances
from clouds.gcp.session import GcpSession
from models.clouds import GcpSettings


def connect(settings: GcpSettings) -> Adapter:
    """Connects to nothing yet."""
    session = GcpSession(settings)
    images = GcpImages(session)
    return Adapter(
        cloud="gcp",
        instances=GcpInstances(session, images),
        image_import=images,
        catalogue=GcpCatalogue(session),
    )
