"""The content store of a host: what VMs' memory was when they last came or left, and what its disk images hold.

A move uses it to send names of pages instead of pages. It is a cache: all of it may be lost at any moment, nothing in
it is believed unless it has its key, and no failure of it is a failure of the move. Format and rules: docs/store.md.
"""

from dwcp.encoding.store.check import Verified
from dwcp.encoding.store.draft import Draft
from dwcp.encoding.store.images import ImageInfo
from dwcp.encoding.store.indexing import Indexed
from dwcp.encoding.store.store import Pruned, Store
from dwcp.encoding.store.visit import Visit, VisitInfo

__all__ = ["Draft", "ImageInfo", "Indexed", "Pruned", "Store", "Verified", "Visit", "VisitInfo"]
