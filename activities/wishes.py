"""What people want of a running move, handed to its long step through files in the migration's folder.

One writer each way: an order to steer writes the wish, the move step, which alone acts on libvirt and the data path,
writes the answer. So a wish holds for later attempts of that step too, and nobody acts on a move behind its back.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from activities.folder import Folder
from models.base import Model
from models.steering import Steered, SteerMove

M = TypeVar("M", bound=Model)


def wish(folder: Folder) -> SteerMove | None:
    """The newest wish."""
    return _read(folder.path / "wish.json", SteerMove)


def put_wish(folder: Folder, order: SteerMove) -> None:
    """An older one than is there changes nothing: it was asked for again by a retry that came late."""
    known = wish(folder)
    if known is None or known.number < order.number:
        _write(folder.path / "wish.json", order)


def answer(folder: Folder) -> Steered | None:
    """The answer to the newest wish that has one."""
    return _read(folder.path / "answer.json", Steered)


def put_answer(folder: Folder, steered: Steered) -> None:
    _write(folder.path / "answer.json", steered)


def _read(path: Path, model: type[M]) -> M | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None


def _write(path: Path, value: Model) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(value.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
