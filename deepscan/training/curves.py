"""Draws a run's log: losses, validation and speed."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from deepscan.errors import DataError
from deepscan.files import part_file
from deepscan.shapes import Float

Series = Float[np.ndarray, " rows"]  # nan where the log's cell is empty
Measured = Float[np.ndarray, " measured"]
Log = dict[str, Series]

# Okabe and Ito's colours, told apart with any colour vision: M. Okabe and K. Ito, "Color Universal
# Design", 2008.
BLUE, ORANGE, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#222222"

LOSSES = {
    "loss": ("total, weighted", BLACK),
    "classification": ("classification", BLUE),
    "contrast": ("contrast (FLCL or MACL)", ORANGE),
    "alignment": ("alignment (RAAL)", GREEN),
    "validation_loss": ("validation", PURPLE),
}
AUCS = {"validation_video_auc": ("video", BLUE), "validation_frame_auc": ("frame", ORANGE)}

WIDTH, PANEL_HEIGHT, DPI = 1200, 420, 100  # pixels, two panels in a row
SMOOTHED_OVER = 50  # a running mean over the last fiftieth of the run shows the trend


def draw(log: Path, target: Path) -> None:
    """Write the curves of a run's log.csv to `target`, a PNG 1200 pixels wide.

    A panel for each of losses, validation AUC, SNR and speed that the log has values of.

    Raises:
        DataError: the log cannot be read, or holds nothing to draw.
        OutputError: `target` cannot be written.
    """
    values = read_log(log)
    shown = panels(values)
    if not shown:
        raise DataError(
            f"{log}: contains no measured value; the run has written none yet, or is not a run of deepscan"
        )
    rows = math.ceil(len(shown) / 2)
    columns = min(2, len(shown))
    figure = Figure(
        (WIDTH / DPI, rows * PANEL_HEIGHT / DPI),
        dpi=DPI,
        layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1),
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, shown, strict=False):
        panel.draw(axis, values)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    with part_file(target) as part:
        figure.savefig(part, format="png")


def read_log(path: Path) -> Log:
    """The log's columns of numbers by name, nan where a cell is empty; columns of words are left out.

    Raises:
        DataError: it cannot be read, has no row or no `step`, or a row of another length.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable log ({error})") from error
    if "step" not in names:
        raise DataError(f"{path}: no column `step`; is it the log.csv of a run?")
    if not rows:
        raise DataError(f"{path}: no step is logged yet; try again after the first step")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise DataError(f"{path}: row {number} has {len(row)} cells, not {len(names)}")
    log: Log = {}
    for name, cells in zip(names, zip(*rows, strict=True), strict=True):
        try:
            log[name] = np.array([float(cell) if cell.strip() else np.nan for cell in cells])
        except ValueError:
            if name == "step":
                raise DataError(
                    f"{path}: column `step` contains something other than numbers"
                ) from None
    if not np.isfinite(log["step"]).all():
        raise DataError(f"{path}: column `step` has an empty cell; each row must be one step")
    return log


# --- panels ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing of some columns; it appears where the log has a value in any of them."""

    columns: tuple[str, ...]
    draw: Callable[[Axes, Log], None]


def panels(log: Log) -> list[Panel]:
    """The panels that this log has something for, in the order drawn."""
    return [panel for panel in PANELS if any(_measured(log, name) for name in panel.columns)]


def _measured(log: Log, name: str) -> bool:
    return name in log and bool(np.isfinite(log[name]).any())


def _points(log: Log, name: str, over: str = "step") -> tuple[Measured, Measured]:
    """Where a column was measured, and its values."""
    there = np.isfinite(log[name]) & np.isfinite(log[over])
    return log[over][there], log[name][there]


def running_mean(values: Measured, span: int) -> Measured:
    """Mean of each value and up to `span` - 1 before it."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - span, 0)
    return (total[end] - total[start]) / (end - start)


def _trend(axis: Axes, log: Log, name: str, label: str, colour: str) -> None:
    """Each value faintly and their running mean."""
    steps, values = _points(log, name)
    span = max(1, len(values) // SMOOTHED_OVER)
    if span > 1:
        axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
    mark = "o" if len(values) == 1 else None
    axis.plot(
        steps, running_mean(values, span), color=colour, linewidth=1.8, label=label, marker=mark
    )


def _draw_losses(axis: Axes, log: Log) -> None:
    for name, (label, colour) in LOSSES.items():
        if not _measured(log, name):
            continue
        if name == "validation_loss":
            axis.plot(*_points(log, name), "o--", color=colour, markersize=4, label=label)
        else:
            _trend(axis, log, name, label, colour)
    axis.set(
        title="Losses (faint: each step)",
        xlabel="optimizer step",
        ylabel="loss (nats; l1 and l2: no unit)",
    )
    axis.legend(frameon=False, fontsize=9)


def _draw_auc(axis: Axes, log: Log) -> None:
    over, label = ("epoch", "epoch") if _measured(log, "epoch") else ("step", "optimizer step")
    for name, (kind, colour) in AUCS.items():
        if not _measured(log, name):
            continue
        at, values = _points(log, name, over)
        axis.plot(at, values, "o-", color=colour, markersize=4, linewidth=1.8, label=kind)
        best = int(np.argmax(values))
        axis.plot(
            at[best : best + 1],
            values[best : best + 1],
            "*",
            color=colour,
            markersize=15,
            markeredgecolor="white",
            label=f"best {kind}: {values[best]:.4f} ({over} {at[best]:g})",
        )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(title="Validation", xlabel=label, ylabel="AUC")
    axis.legend(frameon=False, fontsize=9, loc="lower right")


def _draw_snr(axis: Axes, log: Log) -> None:
    _trend(axis, log, "snr", "SNR", BLUE)
    axis.axhline(1, color=ORANGE, linestyle="--", linewidth=1.5)
    axis.annotate(
        "below 1 the weights mean nothing",
        (0.99, 1),
        (0, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=ORANGE,
        fontsize=9,
    )
    axis.set_ylim(bottom=0)
    axis.set(
        title="Signal to noise of the fake-likelihood",
        xlabel="optimizer step",
        ylabel="|µ real − µ fake| / std δ",
    )


def _draw_speed(axis: Axes, log: Log) -> None:
    _trend(axis, log, "images_per_second", "speed", GREEN)
    axis.set_ylim(bottom=0)
    axis.set(title="Speed", xlabel="optimizer step", ylabel="images per second")


PANELS = (
    Panel(tuple(LOSSES), _draw_losses),
    Panel(tuple(AUCS), _draw_auc),
    Panel(("snr",), _draw_snr),
    Panel(("images_per_second",), _draw_speed),
)
