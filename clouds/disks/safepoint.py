"""A point to which a qcow2 image can be taken back, whatever its guest writes: one internal snapshot with our name.

Made before a VM runs on an image that came from a cloud. Clusters that the guest overwrites are copied first, until the
point is dropped; taking back costs nothing and needs no second copy. All of it is for an image that nobody has open;
clouds.kvm.arrived drops the point of a VM that runs.
"""

from __future__ import annotations

import json
from pathlib import Path

from clouds.disks.images import qemu_img

NAME = "novacron-arrival"


def there(path: str | Path) -> bool:
    told = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", str(path)))
    return any(each.get("name") == NAME for each in told.get("snapshots", ()))


def make(path: str | Path) -> None:
    """Once; a second call leaves the first one's."""
    if not there(path):
        _snapshot("-c", path)


def take_back(path: str | Path) -> None:
    """The image is as it was when the point was made; without one it is left alone."""
    if there(path):
        _snapshot("-a", path)
        _snapshot("-d", path)


def drop(path: str | Path) -> None:
    if there(path):
        _snapshot("-d", path)


def _snapshot(act: str, path: str | Path) -> None:
    """The format is told, never guessed; `snapshot` takes it in no other way."""
    name = str(path).replace(",", ",,")
    qemu_img("snapshot", "-q", act, NAME, "--image-opts", f"driver=qcow2,file.driver=file,file.filename={name}")
