"""An adapter from its settings. Each provider's package, and its SDK, is imported only when it is asked for."""

from __future__ import annotations

import importlib

from clouds.capabilities import Adapter
from models.clouds import CloudSettings


def connect(settings: CloudSettings) -> Adapter:
    """Raises MissingPackage at the first call when the provider's extra is not installed."""
    module = importlib.import_module(f"clouds.{settings.cloud}.adapter")
    adapter: Adapter = module.connect(settings)
    return adapter
