"""When may a move start? Pure: windows and a moment in, the next opening out. Time zones come from the IANA database.

A window is a span on the clock of its zone, so days on which that clock is changed need rules:

| the clock | what happens |
| --- | --- |
| `since` or `until` does not exist (it is put forward) | it counts as that much later: 02:30 is 03:30 |
| `since` exists twice (it is put back) | the first one |
| `until` exists twice | the second one |

`until` not after `since` ends on the next day; equal times make 24 hours on the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

from models.migration import Weekday, Window

_DAYS: tuple[Weekday, ...] = get_args(Weekday)
"""By Python's date.weekday()."""


def next_opening(windows: Sequence[Window], at: datetime) -> datetime:
    """`at` itself while a window is open, or when there are none; else the moment the next one opens, in UTC.

    Raises ValueError for an unknown zone, or windows that never open.
    """
    if not windows:
        return at
    openings: list[datetime] = []
    for window in windows:
        zone = zone_of(window)
        today = at.astimezone(zone).date()
        for days in range(-1, 9):
            span = _span(window, zone, today + timedelta(days=days))
            if span is None:
                continue
            opens, closes = span
            if opens <= at < closes:
                return at
            if opens > at:
                openings.append(opens)
                break
    if not openings:
        raise ValueError("windows: none of them opens in the next week. Give spans that exist on their zone's clock")
    return min(openings)


def zone_of(window: Window) -> ZoneInfo:
    try:
        return ZoneInfo(window.zone)
    except (OSError, ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(
            f"windows.zone: no time zone {window.zone!r} is known. Give one of the IANA database, such as Europe/Berlin"
        ) from error


def _span(window: Window, zone: ZoneInfo, day: date) -> tuple[datetime, datetime] | None:
    """The window that opens on this day, in UTC; None when none does."""
    if _DAYS[day.weekday()] not in window.days:
        return None
    since, until = time.fromisoformat(window.since), time.fromisoformat(window.until)
    last = day if until > since else day + timedelta(days=1)
    opens = datetime.combine(day, since, zone).astimezone(UTC)
    closes = datetime.combine(last, until.replace(fold=1), zone)
    if not _exists(closes):
        closes = closes.replace(fold=0)  # fold 1 would take it for earlier
    closes = closes.astimezone(UTC)
    return (opens, closes) if opens < closes else None


def _exists(moment: datetime) -> bool:
    return moment.astimezone(UTC).astimezone(moment.tzinfo).replace(fold=0) == moment.replace(fold=0)
