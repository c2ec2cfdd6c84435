"""Who owns what: the port `LeaseStore` and its stores. Authority lives in one transactional store per site."""

from dwcp.consensus.port import Held, LeaseError, LeaseStore, Lost, StoreUnavailable
from dwcp.consensus.stores import open_store

__all__ = ["Held", "LeaseError", "LeaseStore", "Lost", "StoreUnavailable", "open_store"]
