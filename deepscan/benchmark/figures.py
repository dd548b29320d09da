"""The paper's figures, drawn from predictions and recorded attention, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from deepscan.benchmark.evaluation import Estimate
from deepscan.benchmark.looks import Looks
from deepscan.files import part_file
from deepscan.records import Pixels
from deepscan.report import heatmap
from deepscan.shapes import Float

# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222", "#999999")
MARKERS = "osD^vPX*"
WIDTH = 7.0  # inches, a page's text
PRINT: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "svg.hashsalt": "deepscan",  # the same figure gives the same file
}
DPI = 200
GREY = 128  # under a map whose crop is not to be shown


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG; return their paths.

    Raises:
        OutputError: one cannot be written.
    """
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        with part_file(path) as part, matplotlib.rc_context(PRINT):
            kind = path.suffix[1:]
            plain = {"Date": None} if kind == "svg" else None
            figure.savefig(part, format=kind, dpi=DPI, metadata=plain)
    return paths


def _figure(height: float) -> Figure:
    figure = Figure((WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


# --- curves ----------------------------------------------------------------------------------------


def curves(
    series: Mapping[str, Mapping[str, Estimate]], label: str, default: str, note: str = ""
) -> Figure:
    """AUC against a setting (Figures 2 and 3): a line for each set, the average thicker, with intervals.

    Args:
        series: {set: {value of the setting: estimate}}.
        default: the value that the method takes.
    """
    with matplotlib.rc_context(PRINT):
        figure = _figure(3.4)
        axes = figure.add_subplot()
        values = list(dict.fromkeys(value for line in series.values() for value in line))
        at = {value: i for i, value in enumerate(sorted(values, key=float))}
        for i, (name, line) in enumerate(series.items()):
            average = name == "avg"
            colour = "#222222" if average else COLOURS[i % len(COLOURS)]
            shift = 0.06 * (i - (len(series) - 1) / 2)  # intervals beside, not over each other
            x = [at[value] + shift for value in sorted(line, key=float)]
            listed = [line[value] for value in sorted(line, key=float)]
            axes.errorbar(
                x,
                [e.value for e in listed],
                [[e.value - e.low for e in listed], [e.high - e.value for e in listed]],
                label=name,
                color=colour,
                marker=MARKERS[i % len(MARKERS)],
                markersize=4,
                linewidth=2.2 if average else 1.2,
                elinewidth=0.7,
                capsize=2,
            )
        if default in at:
            axes.axvline(at[default], color="#999999", linewidth=0.8, linestyle=":", zorder=0)
        axes.set_xticks(list(at.values()), list(at))
        axes.set(xlabel=f"{label} (dotted: the method's)", ylabel="video AUC")
        axes.legend(ncols=min(4, len(series)), loc="lower right", bbox_to_anchor=(1, 1))
        if note:
            axes.set_title(note, fontsize=7, loc="left")
    return figure


def robustness(series: Mapping[str, Mapping[str, Estimate]], clean: Estimate, title: str) -> Figure:
    """AUC against strength, a panel for each kind of distortion; the line is the AUC without any.

    Args:
        series: {kind: {level: estimate}}, weakest first.
    """
    with matplotlib.rc_context(PRINT):
        columns = min(3, len(series))
        rows = -(-len(series) // columns)
        figure = _figure(1.7 * rows + 0.4)
        panels: Any = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, (kind, line) in zip(panels, series.items(), strict=False):
            listed, x = list(line.values()), range(len(line))
            axes.axhline(clean.value, color="#999999", linewidth=0.8, linestyle=":")
            axes.fill_between(
                x,
                [e.low for e in listed],
                [e.high for e in listed],
                color=COLOURS[0],
                alpha=0.2,
                linewidth=0,
            )
            axes.plot(x, [e.value for e in listed], color=COLOURS[0], marker="o", markersize=3)
            axes.set_xticks(list(x), list(line), fontsize=6)
            axes.set_title(kind)
        for axes in panels[len(series) :]:
            axes.set_axis_off()
        figure.supylabel("video AUC", fontsize=8)
        figure.suptitle(title, fontsize=9)
    return figure


# --- attention -------------------------------------------------------------------------------------


def attention(
    columns: Mapping[str, tuple[Looks, str]], shown: int = 4, faces: bool = True
) -> Figure:
    """Figure 1: (a) maps of the first real crops of several videos, (b) how attention is distributed.

    Args:
        columns: {title: (kept attention, "queries" or "cls")}, all of the same crops.
        faces: whether the crops are shown; else maps lie on plain grey.
    """
    with matplotlib.rc_context(PRINT):
        first = next(iter(columns.values()))[0]
        real = first.shown(0, shown)
        figure = _figure(1.25 * len(real) + 2.6)
        halves: Any = figure.subfigures(2, 1, height_ratios=[1.25 * len(real), 2.3])
        upper, lower = halves
        grid = upper.subplots(len(real), faces + len(columns), squeeze=False)
        for row, i in enumerate(real):
            if faces:
                _picture(grid[row, 0], first.pictures[i], "crop" if row == 0 else "")
            for column, (title, (looks, which)) in enumerate(columns.items(), int(faces)):
                values = heatmap.relative(looks.mean_attention(which)[i])
                ground = _ground(first.pictures[i], faces)
                _map(grid[row, column], ground, values, title if row == 0 else "")
        _scale(upper, grid)
        axes = lower.subplots()
        edges = np.geomspace(1e-3, 1e2, 101)
        for (title, (looks, which)), colour in zip(columns.items(), COLOURS, strict=False):
            values = (looks.attention(which)[looks.labels == 0] * looks.patches).ravel()
            counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
            axes.stairs(counts / values.size, edges, label=title, color=colour, linewidth=1.4)
        axes.set(
            xscale="log",
            xlabel="attention of a patch, times the number of patches (1 = evenly spread)",
            ylabel="share of patches",
            title=f"Attention on {int((first.labels == 0).sum())} real crops",
        )
        axes.legend()
    return figure


def maps(rows: Mapping[str, Looks], each: int = 5, faces: bool = True) -> Figure:
    """Figure 4: real and manipulated crops, `each` of them, with the map of every method below.

    Without `faces` the maps lie on plain grey.
    """
    with matplotlib.rc_context(PRINT):
        first = next(iter(rows.values()))
        chosen = first.shown(0, each) + first.shown(1, each)
        real = len(first.shown(0, each))
        figure = _figure(WIDTH / (len(chosen) + 1.4) * (len(rows) + faces) + 0.5)
        grid = figure.subplots(len(rows) + faces, len(chosen), squeeze=False)
        for column, i in enumerate(chosen):
            if faces:
                _picture(grid[0, column], first.pictures[i], "")
            for row, (name, looks) in enumerate(rows.items(), int(faces)):
                values = heatmap.relative(looks.mean_attention("best")[i])
                _map(grid[row, column], _ground(first.pictures[i], faces), values, "")
                if column == 0:
                    grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        for column, title in {0: "real", real: "manipulated"}.items():  # over the first of each
            if column < len(chosen):
                grid[0, column].set_title(title, fontsize=7)
        _scale(figure, grid)
    return figure


def _scale(figure: Any, grid: Any) -> None:
    """The colour bar that all maps share."""
    colours = ScalarMappable(Normalize(0, heatmap.ATTENTION.top), heatmap.COLOUR_MAP)
    bar = figure.colorbar(colours, ax=grid, shrink=0.6, aspect=30, pad=0.01)
    bar.set_label("attention, times uniform", fontsize=7)
    bar.ax.tick_params(labelsize=6)


def _ground(crop: Pixels, faces: bool) -> Pixels:
    """The picture under a map."""
    return crop if faces else np.full_like(crop, GREY)


def _picture(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels)
    axes.set_title(title, fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _map(
    axes: Axes, pixels: np.ndarray, values: Float[np.ndarray, "side side"], title: str
) -> None:
    """Attention over a crop, on the scale that all of deepscan's heatmaps share."""
    heat = heatmap.smooth(values, len(pixels))
    _picture(axes, heatmap.blend(pixels, heat, heatmap.ATTENTION), title)
