"""A fresh list of a place's prices from its provider, into the user's own file.

The new list replaces the old one as a whole and in one step, or not at all: one without sizes or storage is refused,
and a file that was there stays as it is.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from clouds import prices
from clouds.errors import Damaged, Final, Invalid, NotOffered
from models.clouds import CallSettings, Cloud, Region
from models.prices import EVERYWHERE, PriceList, PriceRow

ONLINE: tuple[Cloud, ...] = ("aws", "azure", "gcp", "oci")
FEWEST_SIZES = 3
"""Prices per hour that a region has at least: less is half an answer."""


@dataclass(frozen=True)
class Wishes:
    endpoints: dict[Cloud, str] = field(default_factory=dict)
    """Instead of the providers' own addresses."""
    calls: CallSettings = field(default_factory=lambda: CallSettings(attempts=5))


def refresh(cloud: Cloud, region: str, wishes: Wishes, today: date | None = None) -> Path:
    """The file that was written. Raises `clouds.errors`; then nothing was changed."""
    if cloud not in ONLINE:
        raise NotOffered(f"{cloud} has no list of prices", f"Places are of {', '.join(ONLINE)}.")
    try:
        TypeAdapter(Region).validate_python(region)
    except ValidationError:
        raise Invalid(f"{region!r} is no region", "Write CLOUD:REGION, such as aws:eu-west-1.") from None
    path = prices.own(cloud, region)
    if path is None:
        raise Invalid("this user has no home", f"Set {prices.FOLDER} to a folder for lists of prices.")
    online = importlib.import_module(f"clouds.prices.online.{cloud}")
    rows: tuple[PriceRow, ...] = online.ask(region, wishes.endpoints.get(cloud), wishes.calls)
    place = f"{cloud}:{region}"
    _must_be_whole(place, rows)
    try:
        told = PriceList(as_of=today or datetime.now(UTC).date(), source=online.SOURCE, regions={region: rows})
    except ValidationError as error:
        raise Damaged(
            f"the prices of {place} are not usable: {error.errors()[0]['msg']}", "Try again later."
        ) from error
    try:
        _write(path, told)
    except OSError as error:
        raise Final(f"cannot write {path}: {error}", f"Mend it, or set {prices.FOLDER} to another folder.") from error
    return path


def known_places() -> tuple[tuple[Cloud, str], ...]:
    """Those that a list is there of and that can be asked for: not a cloud as a whole."""
    return tuple((cloud, region) for cloud, region in prices.places() if region != EVERYWHERE and cloud in ONLINE)


def _must_be_whole(place: str, rows: tuple[PriceRow, ...]) -> None:
    sizes = sum(row.per == "hour" for row in rows)
    storage = sum(row.per == "gb-month" for row in rows)
    if sizes < FEWEST_SIZES or not storage:
        raise Damaged(
            f"the provider told {sizes} prices of sizes and {storage} of storage for {place}",
            "Check the region's name; if it is right, try again later.",
        )


def _write(path: Path, told: PriceList) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(told.model_dump(mode="json"), indent=1) + "\n"
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # the control worker may run as another user
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
