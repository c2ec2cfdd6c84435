"""Tables and the plot of what the data path costs and saves by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.datapath_plan import GROUPS, Cell
from bench.datapath_results import Figures
from bench.report import aligned
from bench.subjects import SUBJECTS


def _title(name: str) -> str:
    return SUBJECTS[name].title if name in SUBJECTS else name


def of(lines: Mapping[Cell, Figures], group: str) -> list[Figures]:
    """The lines of one group."""
    return [line for cell, line in lines.items() if cell.group == group]


def peer(lines: Mapping[Cell, Figures], line: Figures, subject: str) -> Figures | None:
    """The line of another subject on the same input, link and run."""
    found = lines.get(line.cell._replace(subject=subject))
    return found if found and found.run == line.run else None


def _cpu(lines: Mapping[Cell, Figures]) -> tuple[tuple[str, ...], ...]:
    rows = []
    for line in of(lines, "cpu"):
        zstd = peer(lines, line, "zstd-pipe")
        rows.append(
            (
                _title(line.subject),
                f"{line.near_cpu_seconds:.2f}",
                f"{line.far_cpu_seconds:.2f}",
                f"{line.ram_per_cpu / 1e6:.0f} ±{50 * line.spread:.0f} %",
                "-" if zstd is None else f"{line.ram_per_cpu / zstd.ram_per_cpu:.2f}x",
                f"{line.seconds:.2f}",
                f"{line.repeats}",
                f"{line.load:.1f}",
            )
        )
    head = (
        "subject",
        "sender CPU s",
        "receiver CPU s",
        "MB RAM per CPU s",
        "of zstd pipe",
        "seconds",
        "passes",
        "load",
    )
    return (head, *rows)


def _tail(lines: Mapping[Cell, Figures]) -> tuple[tuple[str, ...], ...]:
    rows = []
    for line in of(lines, "tail"):
        plain = peer(lines, line, "relay")
        over = "-" if plain is None else f"{1e3 * (line.tail_seconds - plain.tail_seconds):+.1f}"
        rows.append(
            (_title(line.subject), f"{1e3 * line.tail_seconds:.1f}", over, f"{line.repeats}", f"{line.load:.1f}")
        )
    return (("subject", "tail ms", "over the relay ms", "passes", "load"), *rows)


def _wire(lines: Mapping[Cell, Figures]) -> tuple[tuple[str, ...], ...]:
    head = ("memory of", "subject", "MB of RAM", "MB of stream", "MB on the link", "saved", "seconds", "passes", "load")
    rows = [
        (
            line.input,
            _title(line.subject),
            f"{line.ram_bytes / 1e6:.0f}",
            f"{line.stream_bytes / 1e6:.0f}",
            f"{line.wire_bytes / 1e6:.1f}",
            f"{100 * line.saved:.1f} %",
            f"{line.seconds:.1f}",
            f"{line.repeats}",
            f"{line.load:.1f}",
        )
        for line in of(lines, "wire")
    ]
    return (head, *rows)


def _random(lines: Mapping[Cell, Figures]) -> tuple[tuple[str, ...], ...]:
    rows = []
    for line in of(lines, "random"):
        raw = peer(lines, line, "raw-tls")
        rows.append(
            (
                f"{line.link_mbit}",
                _title(line.subject),
                f"{line.frame_bytes / 1e6:.3f}",
                "-" if raw is None else f"{100 * (line.frame_bytes / raw.frame_bytes - 1):+.3f} %",
                f"{line.seconds:.2f}",
                "-" if raw is None else f"{100 * (line.seconds / raw.seconds - 1):+.1f} %",
                f"{line.repeats}",
                f"{line.load:.1f}",
            )
        )
    return (("link Mbit/s", "subject", "MB of frames", "extra", "seconds", "extra", "passes", "load"), *rows)


_TABLES = {"cpu": _cpu, "tail": _tail, "wire": _wire, "random": _random}


def tables(lines: Mapping[Cell, Figures]) -> list[tuple[str, str]]:
    """Title and Markdown table of each group that has lines."""
    return [
        (f"{name}: {GROUPS[name].what}", aligned(make(lines)))
        for name, make in _TABLES.items()
        if any(cell.group == name for cell in lines)
    ]


def plot(lines: Mapping[Cell, Figures], path: Path, note: str) -> None:
    """RAM per CPU second, bytes on the link, tail latency: one panel each. Writes a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: list[tuple[str, Sequence[tuple[str, float, str]], str]] = [
        (
            "MB of guest RAM per CPU second of both ends",
            [(_title(x.subject), x.ram_per_cpu / 1e6, SUBJECTS[x.subject].colour) for x in of(lines, "cpu")],
            "{:.0f}",
        ),
        (
            "per cent of the stream's bytes saved at 100 Mbit/s",
            [(x.input, 100 * x.saved, SUBJECTS[x.subject].colour) for x in of(lines, "wire")],
            "{:.1f}",
        ),
        (
            "ms from last byte in to last byte out, at 60 MB/s",
            [(_title(x.subject), 1e3 * x.tail_seconds, SUBJECTS[x.subject].colour) for x in of(lines, "tail")],
            "{:.1f}",
        ),
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(8.5, 1 + sum(0.7 + 0.36 * len(bars) for _, bars, _ in panels)), squeeze=False,
        height_ratios=[len(bars) + 1 for _, bars, _ in panels], layout="constrained",
    )  # fmt: skip
    for area, (title, bars, label) in zip(axes[:, 0], panels, strict=True):
        drawn = area.barh(
            [name for name, _, _ in bars], [value for _, value, _ in bars], color=[colour for _, _, colour in bars]
        )
        area.bar_label(drawn, [label.format(value) for _, value, _ in bars], fontsize=8, padding=3, color="#333333")
        area.invert_yaxis()
        area.set_title(title, fontsize=10, loc="left", weight="bold")
        area.spines[["top", "right"]].set_visible(False)
        area.margins(x=0.1)
    figure.supxlabel(note, fontsize=7, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
