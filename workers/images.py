"""Keeps a host's store informed of the host's disk images, in the background and at the lowest priority."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final

from dwcp.encoding.store import Store
from models.store import StoreSettings

logger = logging.getLogger(__name__)

EVERY: Final = 600.0
"""Seconds between looks. An image that has not changed since costs one stat."""


def keep_known(settings: StoreSettings) -> threading.Event | None:
    """Start the thread; set what is returned to end it. None: the settings name no images."""
    if not (settings.images and settings.limit_mib):
        return None
    stop = threading.Event()

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # of this thread alone
        with Store(settings) as store:
            while not stop.is_set():
                logger.info("disk images: %s", store.index_images())
                stop.wait(EVERY)

    threading.Thread(target=work, name="images", daemon=True).start()
    return stop
