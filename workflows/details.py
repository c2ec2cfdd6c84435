"""How a move looks to people: units, a bar, and the Markdown that Temporal's UI and CLI show as current details.

Pure text from data; whatever a note holds, the table keeps its shape.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.migration import Progress

_BAR = 24


def size(count: float) -> str:
    """Bytes in binary units: 1536 -> '1.5 KiB'."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def rate(bytes_per_second: float) -> str:
    return f"{size(bytes_per_second)}/s"


def duration(seconds: float) -> str:
    """93.4 -> '1 min 33 s'; below ten seconds with one decimal."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def ratio(raw: float, wire: float) -> str:
    """How much smaller the stream is on the link: '3.4x'; '-' before anything was sent."""
    return f"{raw / wire:.1f}x" if raw > 0 and wire > 0 else "-"


def bar(percent: float) -> str:
    full = min(_BAR, int(percent / 100 * _BAR))
    return "█" * full + "░" * (_BAR - full)


def rows(progress: Progress) -> list[tuple[str, str]]:
    """The figures of a move, in reading order; those not known yet are left out."""
    found = [("phase", progress.phase), ("elapsed", duration(progress.elapsed))]
    if progress.eta is not None and progress.phase in ("moving", "post-copy"):
        found.append(("memory across in", duration(progress.eta)))
    if progress.memory_total:
        left, total = size(progress.memory_remaining), size(progress.memory_total)
        found.append(("memory left", f"{left} of {total}, pass {progress.iteration}"))
    if progress.disk_total:
        found.append(("disks left", f"{size(progress.disk_remaining)} of {size(progress.disk_total)}"))
    if progress.raw_bytes or progress.wire_bytes:
        found.append(("guest stream", f"{size(progress.raw_bytes)} at {rate(progress.raw_rate)}"))
        found.append(("on the link", f"{size(progress.wire_bytes)} at {rate(progress.wire_rate)}"))
        found.append(("ratio", ratio(progress.raw_bytes, progress.wire_bytes)))
    if progress.link or progress.lanes_alive:
        lanes = f"{progress.lanes_alive} alive, {progress.redials} re-dialled"
        found.append(("lanes", f"{progress.link}, {lanes}" if progress.link else lanes))
    if progress.note:
        found.append(("note", progress.note))
    return found


def markdown(title: str, progress: Progress, notes: Sequence[str] = ()) -> str:
    """The progress page: title, bar, table, notes."""
    lines = [f"### {cell(title)}", "", f"`{bar(progress.percent)}` {progress.percent:.1f} %", ""]
    lines += ["| | |", "|---|---|", *(f"| {cell(name)} | {cell(value)} |" for name, value in rows(progress))]
    if notes:
        lines += ["", *(f"- {cell(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """One line that cannot end its table cell."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
