"""Prices as of a day: on-demand, Linux, US dollars, without taxes or discounts.

Two kinds of lists. NovaCron's own, `<cloud>.json` beside this file. And the user's, one file for each place, which
`novacron cloud prices --update` writes (`clouds.prices.refresh`); it wins for its place. Never asked for at run time: a
plan names day and source of every price it used.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from models.clouds import Cloud, Price
from models.prices import EVERYWHERE, PriceList, PriceRow

FOLDER = "NOVACRON_PRICES"
"""Environment variable: the folder of the user's lists. Default: novacron/prices in XDG_DATA_HOME, or ~/.local/share.
"""
LARGEST_FILE = 8 << 20
"""Bytes. Five thousand prices are a tenth of it."""


@dataclass(frozen=True)
class Known:
    """The list that holds for a place."""

    rows: tuple[PriceRow, ...]
    told: PriceList
    file: Path | None = None
    """None: NovaCron's own."""
    why: str = ""
    """Why the user's file, which is there, is not the one that is used."""

    @property
    def source(self) -> str:
        if self.file is not None:
            return f"{self.told.source}; {self.file}"
        return f"{self.told.source}; {self.why}" if self.why else self.told.source


def of(cloud: Cloud, region: str) -> tuple[Price, ...]:
    """All that is known for this region; empty when nothing is. Nothing is taken from a neighbouring region."""
    known = find(cloud, region)
    if known is None:
        return ()
    return tuple(
        Price(
            cloud=cloud,
            region=region,
            as_of=known.told.as_of,
            source=known.source,
            item=row.item,
            per=row.per,
            usd=row.usd,
        )
        for row in known.rows
    )


def find(cloud: Cloud, region: str) -> Known | None:
    """The user's list of this place where there is one that is whole, else NovaCron's."""
    path, why = own(cloud, region), ""
    if path is not None and path.exists():
        try:
            told = read(path)
            return Known(told.regions[region], told, path)
        except (OSError, ValueError, KeyError) as error:
            why = f"not {path}, which is no list of prices of {cloud}:{region} ({_short(error)})"
    told_here = shipped(cloud)
    if told_here is None:
        return None
    rows = told_here.regions.get(region) or told_here.regions.get(EVERYWHERE)
    return Known(rows, told_here, why=why) if rows else None


def places() -> tuple[tuple[Cloud, str], ...]:
    """(cloud, region) of all lists, the user's too; `*` for all regions of a cloud."""
    found = {(cloud, region) for cloud in get_args(Cloud) if (told := shipped(cloud)) for region in told.regions}
    folder = own_folder()
    for path in sorted(folder.glob("*.json")) if folder is not None else ():
        cloud, _, region = path.stem.partition("-")
        if cloud in get_args(Cloud) and region:
            found.add((cloud, region))
    return tuple(sorted(found))


def own(cloud: Cloud, region: str) -> Path | None:
    """Where the user's list of a place lies, or would."""
    folder = own_folder()
    return folder / f"{cloud}-{region}.json" if folder is not None else None


def own_folder() -> Path | None:
    """None for a user without a home, such as a service may run as."""
    if given := os.environ.get(FOLDER):
        return Path(given)
    try:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError:
        return None
    return Path(data) / "novacron" / "prices"


def read(path: Path) -> PriceList:
    """Raises OSError or ValueError."""
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"it has more than {LARGEST_FILE} bytes")
    return PriceList.model_validate_json(data)


@cache
def shipped(cloud: Cloud) -> PriceList | None:
    file = resources.files(__package__) / f"{cloud}.json"
    return PriceList.model_validate_json(file.read_bytes()) if file.is_file() else None


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"{error.error_count()} faults, the first: {error.errors()[0]['msg']}"
    return re.sub(r"\s+", " ", str(error))[:200]
