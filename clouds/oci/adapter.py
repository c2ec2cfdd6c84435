"""The Oracle Cloud adapter, put together."""

from __future__ import annotations

from clouds.capabilities import Adapter
from clouds.oci.catalogue import OciCatalogue
from clouds.oci.exports import OciExport
from clouds.oci.images import OciImages
from clouds.oci.instances import OciInstances
from clouds.oci.session import OciSession
from models.clouds import OciSettings


def connect(settings: OciSettings) -> Adapter:
    """Connects to nothing yet."""
    session = OciSession(settings)
    return Adapter(
        cloud="oci",
        instances=OciInstances(session),
        image_import=OciImages(session),
        image_export=OciExport(session),
        catalogue=OciCatalogue(session),
    )
