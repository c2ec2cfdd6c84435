"""An initramfs made in memory: the `newc` form of cpio, the only one that the kernel takes."""

from __future__ import annotations

import stat
from collections.abc import Mapping

_TRAILER = "TRAILER!!!"


def archive(files: Mapping[str, bytes], programs: frozenset[str] = frozenset()) -> bytes:
    """By path without the first slash; folders are made for them. `programs` may be executed."""
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    entries = [(path, stat.S_IFDIR | 0o755, b"") for path in sorted(folders)]
    entries += [(path, stat.S_IFREG | (0o755 if path in programs else 0o644), files[path]) for path in sorted(files)]
    entries.append((_TRAILER, 0, b""))
    made = bytearray()
    for inode, (path, mode, data) in enumerate(entries, start=1):
        name = path.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        made += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        made += bytes(-len(made) % 4) + data
        made += bytes(-len(made) % 4)
    return bytes(made)
