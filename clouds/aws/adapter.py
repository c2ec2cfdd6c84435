"""The AWS adapter, put together."""

from __future__ import annotations

from clouds.aws.blocks import AwsBlocks
from clouds.aws.cache import AwsCacheStore
from clouds.aws.catalogue import AwsCatalogue
from clouds.aws.images import AwsImages
from clouds.aws.instances import AwsInstances
from clouds.aws.session import AwsSession
from clouds.capabilities import Adapter
from models.clouds import AwsSettings


class AwsImport(AwsBlocks, AwsImages):
    """ImageImport: blocks become snapshots, snapshots become images."""

    def __init__(self, session: AwsSession) -> None:
        AwsBlocks.__init__(self, session)
        AwsImages.__init__(self, session)


def connect(settings: AwsSettings) -> Adapter:
    """Connects to nothing yet."""
    session = AwsSession(settings)
    disks = AwsImport(session)
    return Adapter(
        cloud="aws",
        instances=AwsInstances(session),
        image_import=disks,
        image_export=disks,
        block_delta=disks,
        catalogue=AwsCatalogue(session),
        cache=AwsCacheStore(session),
    )
