"""The regional cache: disks that stay in a region after their move, so that the next VM of the same base sends only
what differs.

`entry` says what is known of one, `choose` decides (which base, what is kept, what goes), `index` keeps it in objects
of the region. Nothing of it is a proof: a base is used when its own tag has the content hash of its list of blocks,
and what is made from it is compared with the VM's disk as any other.
"""

from __future__ import annotations

TAG = "novacron-cache"
"""On a disk that is kept: the content hash of all of it."""
OBJECT_LIMIT = 512 << 20
"""Bytes of the largest object: the list of a disk of 8 TiB."""
