"""The table and the plot of measured rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.plan import METHODS, RETURN, WORKLOADS
from bench.results import Line

HEADER = (
    "link Mbit/s", "workload", "method", "seconds", "vs plain", "gap s", "link MB", "of plain", "link used",
    "CPU s", "of it guest", "converged", "downtime ms", "rounds", "load",
)  # fmt: skip
TITLES = {
    "plain": "QEMU plain",
    "xbzrle": "QEMU xbzrle",
    "multifd-zstd": "QEMU multifd+zstd",
    "novacron": "NovaCron",
    "novacron-image": "NovaCron, disk image known",
    "novacron-cut": "NovaCron, link cut 10 s",
}
COLOURS = {
    "plain": "#9aa5b1",
    "xbzrle": "#6b7c93",
    "multifd-zstd": "#3f6ea8",
    "novacron": "#e4572e",
    "novacron-image": "#f2a93b",
    "novacron-cut": "#b9a3d0",
}


def cells_of(line: Line) -> tuple[str, ...]:
    """The texts of one table line."""
    head = (str(line.link_mbit), line.workload, TITLES.get(line.method, line.method))
    faster = "-" if line.faster is None else f"{'>' if line.bound else ''}{line.faster:.2f}x"
    done = line.converged == line.repeats
    converged = ("yes" if done else "NO") if line.repeats == 1 else f"{line.converged} of {line.repeats}"
    return (
        *head,
        f"{line.seconds:.1f}" + (f" ±{50 * line.spread:.0f} %" if line.repeats > 1 else ""),
        faster,
        f"{line.gap_seconds:.2f}",
        f"{line.link_bytes / 1e6:.0f}",
        "-" if line.bytes_share is None else f"{100 * line.bytes_share:.0f} %",
        "-" if line.link_share is None else f"{100 * line.link_share:.0f} %",
        f"{line.cpu_seconds:.1f}",
        f"{line.guest_cpu_seconds:.1f}",
        converged,
        "-" if line.downtime_ms is None else f"{line.downtime_ms:.0f}",
        f"{line.rounds:.0f}",
        f"{line.load:.1f}",
    )


def table(lines: Sequence[Line]) -> str:
    """A Markdown table of these lines."""
    return aligned([HEADER, *(cells_of(line) for line in lines)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row its header, with columns aligned so that it reads in a terminal too."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    texts = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def _bars(
    axes: Any, lines: Sequence[Line], value: Any, label: Any, workloads: Sequence[str], methods: Sequence[str]
) -> None:
    """Bars of one panel: groups are workloads, colours are methods. A move that was given up is hatched."""
    width = 0.8 / max(sum(line.workload == workload for line in lines) for workload in workloads)
    for x, workload in enumerate(workloads):
        here = sorted(
            (line for line in lines if line.workload == workload), key=lambda line: methods.index(line.method)
        )
        for i, line in enumerate(here):
            left = line.converged < line.repeats
            bar = axes.bar(
                x + (i - (len(here) - 1) / 2) * width, value(line), width * 0.9, color=COLOURS[line.method],
                hatch="///" if left else "", edgecolor="white", linewidth=0.5, alpha=0.55 if left else 1,
            )  # fmt: skip
            axes.bar_label(bar, [label(line)], fontsize=8, padding=2, color="#333333")


def plot(lines: Sequence[Line], path: Path, note: str) -> None:
    """Time (above) and bytes (below) per method; one column of panels per link rate. Writes a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    links = sorted({line.link_mbit for line in lines})
    workloads = [name for name in WORKLOADS if any(line.workload == name for line in lines)]
    methods = [name for name in METHODS if any(line.method == name for line in lines)]
    figure, panels = pyplot.subplots(
        2, len(links), figsize=(max(7.0, 6.2 * len(links)), 7.6), squeeze=False, layout="constrained"
    )
    for column, link in enumerate(links):
        here = [line for line in lines if line.link_mbit == link]
        local = [name for name in workloads if any(line.workload == name for line in here)]
        time, size = panels[0][column], panels[1][column]
        _bars(
            time, here, lambda line: line.seconds,
            lambda line: f"{line.seconds:.1f}" if line.converged == line.repeats else f">{line.seconds:.0f}",
            local, methods,
        )  # fmt: skip
        _bars(
            size,
            here,
            lambda line: line.link_bytes / 1e6,
            lambda line: f"{line.link_bytes / 1e6:.0f}",
            local,
            methods,
        )
        time.set_title(f"{link} Mbit/s" if link < 1000 else f"{link / 1000:g} Gbit/s", fontsize=12, weight="bold")
        time.set_ylabel("seconds to move the guest")
        size.set_ylabel("MB on the link")
        for axes in (time, size):
            axes.set_xticks(range(len(local)), [_workload(name) for name in local])
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.25)
            axes.set_axisbelow(True)
            axes.margins(y=0.12)
    swatches = [Patch(facecolor=COLOURS[method], label=TITLES[method]) for method in methods]
    if any(line.converged < line.repeats for line in lines):
        swatches.append(Patch(facecolor="white", edgecolor="#888888", hatch="///", label="given up"))
    figure.legend(handles=swatches, loc="outside upper center", ncols=len(swatches), frameon=False)
    figure.supxlabel(note, fontsize=8, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _workload(name: str) -> str:
    rate = WORKLOADS[name]
    if name == RETURN:
        return f"{name}\nback after minutes of d{rate}"
    return f"{name}\n" + (f"dirties {rate} MiB/s" if rate else "dirties nothing")
