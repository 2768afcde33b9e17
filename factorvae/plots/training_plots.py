"""Pictures of a run's log: its columns in, a matplotlib figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from factorvae.plots.latents import dead_latents, latent_order
from factorvae.plots.style import (
    FAINT,
    HEADER,
    INK,
    MARGIN,
    FigureLayout,
    line_styles,
    scale_by_log,
    styled,
)
from factorvae.plots.titles import COLUMN_TITLES

TITLE_NOTES = {"recon": ", log scale", "disc_accuracy": "; dashed: chance"}
MEAN_OF = 100  # rows of a log, of which a running mean takes in one to either side


@styled
def training_curves(log: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Reconstruction loss, KL, ELBO, TC, discriminator accuracy and each latent's KL over steps.

    Args:
        log: columns of a run's log, each [rows]: `step`, `recon`, `kl`, `tc`, `disc_accuracy`, and
            `kl_0`, `kl_1`, ... for the latents. Missing values are nan. A column `penalty` is drawn
            in place of `tc` and `disc_accuracy`.
        title: the run, from `run_title`.
    """
    log = {name: np.asarray(column, dtype=np.float64) for name, column in log.items()}
    width, height, pitch_x, pitch_y = 270, 170, 340, 232
    left, top = MARGIN + 44, HEADER + 26
    tall = height + pitch_y + 50
    layout = FigureLayout(2 * pitch_x + width + left + 90, top + tall, "Training", title)
    of_method = ("penalty",) if "penalty" in log else ("tc", "disc_accuracy")
    log["elbo"] = -log["recon"] - log["kl"]
    for index, column in enumerate(("recon", "kl", "elbo", *of_method)):
        line, place = divmod(index, 3)
        x, y = left + place * pitch_x, top + line * pitch_y
        axes = layout.axes(x, y, width, height, label=column)
        axes.set_title(COLUMN_TITLES[column] + TITLE_NOTES.get(column, ""))
        _draw_history(axes, log["step"], log.get(column, np.full(len(log["step"]), np.nan)))
        if column == "recon":
            scale_by_log(axes.yaxis)
        if column == "disc_accuracy" and axes.lines:
            _mark_chance(axes)
        if line == 1:
            axes.set_xlabel("step")
    latent_dim = sum(name.startswith("kl_") for name in log)
    by_latent = np.stack([log[f"kl_{latent}"] for latent in range(latent_dim)])
    axes = layout.axes(left + 2 * pitch_x, top + pitch_y, width, height, label="kl by latent")
    axes.set_title("KL of each latent / nats")
    axes.set_xlabel("step")
    _draw_latent_histories(axes, log["step"], by_latent)
    return layout.figure


def _mark_chance(axes: Axes) -> None:
    """A dashed line where a discriminator that knows nothing is, in view with all rows."""
    lowest = min(line.get_ydata().min() for line in axes.lines)
    axes.set_ylim(min(0.4, lowest - 0.02), 1)
    axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (4, 2)))


def _draw_history(axes: Axes, step: np.ndarray, column: np.ndarray) -> None:
    """A column of the log, under its running mean where there are rows enough for one."""
    known = np.isfinite(column)
    step, column = step[known], column[known]
    if len(column) == 0:
        _note_absence(axes)
        return
    _step_axis(axes, step)
    if has_means(step):
        axes.plot(step, column, color="0.75", linewidth=0.7)
        axes.plot(step, _running_mean(column), color=INK)
    else:
        axes.plot(step, column, color=INK, marker="o" if len(column) == 1 else None)
    low, high = np.percentile(column[len(column) // 5 :], [0.5, 99.5])
    # The scale is that of the settled run, and half as much again for what came before it.
    span = high - low
    low, high = max(column.min(), low - span / 2), min(column.max(), high + span / 2)
    if high > low:
        axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _draw_latent_histories(axes: Axes, step: np.ndarray, by_latent: np.ndarray) -> None:
    """A line per latent of `by_latent` [latent_dim, rows], named at its right end."""
    if len(step) == 0:
        _note_absence(axes)
        return
    _step_axis(axes, step)
    last = by_latent[:, -1]
    order, dead = latent_order(last), dead_latents(last)
    live = [latent for latent in order if not dead[latent]]
    for latent in order[len(live) :]:
        axes.plot(step, by_latent[latent], color="0.75", linewidth=0.8)
    for latent, style in zip(live, line_styles(len(live)), strict=True):
        column = _running_mean(by_latent[latent])
        axes.plot(step, column, **style, markevery=(len(step) // 8, max(1, len(step) // 4)))
    settled = by_latent[:, len(step) // 5 :]  # an early spike leaves the scale to what follows
    axes.set_ylim(0, max(1e-3, np.nanmax(settled)) * 1.04)
    ends = [_running_mean(by_latent[latent])[-1] for latent in live]
    colors = [style["color"] for style in line_styles(len(live))]
    names = [(end, f"z{latent}", c) for end, latent, c in zip(ends, live, colors, strict=True)]
    names.sort(key=lambda name: -name[0])
    if dead.any():
        names.append((0.0, f"{dead.sum()} dead", "0.75"))
    height = axes.bbox.height
    low, high = axes.get_xlim()
    last_step = (step[-1] - low) / (high - low)
    heights = [axes.transData.transform((0, end))[1] - axes.bbox.y0 for end, *_ in names]
    for at, y, (_, name, color) in zip(heights, _spread(heights, 11, height), names, strict=False):
        # from the line's end to its name, which may have had to make room
        ends = [min(at, height) / height, y / height]
        places = [last_step, 1.05]
        leader = Line2D(places, ends, transform=axes.transAxes, color=color, linewidth=0.8)
        axes.figure.add_artist(leader)
        axes.text(1.06, y / height, name, va="center", size=7.5, transform=axes.transAxes)


def _note_absence(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, "not recorded", ha="center", color=FAINT, transform=axes.transAxes)


def _step_axis(axes: Axes, step: np.ndarray) -> None:
    """Distinct ticks, of which the last is the last step."""
    first, last = float(step[0]), float(step[-1])
    ticks = [tick for tick in MaxNLocator(3, integer=True).tick_values(first, last)]
    near = (last - first) / 5
    ticks = [tick for tick in ticks if first <= tick < last - near]
    axes.set_xticks([*ticks, last], [f"{tick:,.0f}" for tick in (*ticks, last)])


def has_means(step: np.ndarray) -> bool:
    """Whether a running mean over the rows at `step` [rows] is over more than one each."""
    return len(step) >= MEAN_OF


def _running_mean(column: np.ndarray) -> np.ndarray:
    """Means over a fiftieth of `column` [rows], centred; shorter at its ends."""
    half = len(column) // MEAN_OF
    sums = np.concatenate([[0.0], np.cumsum(column)])
    rows = np.arange(len(column))
    start, stop = np.maximum(rows - half, 0), np.minimum(rows + half + 1, len(column))
    return (sums[stop] - sums[start]) / (stop - start)


def _spread(heights: Sequence[float], apart: float, room: float) -> list[float]:
    """Falling `heights` moved as little as needed to be `apart`, and all between 0 and `room`.

    Those for which there is no room are left out.
    """
    heights = list(heights)[: int(room // apart) + 1]
    for index in range(len(heights) - 1, -1, -1):  # from the lowest up
        floor = heights[index + 1] + apart if index + 1 < len(heights) else 0.0
        heights[index] = max(heights[index], floor)
    ceiling = room
    for index, height in enumerate(heights):
        heights[index] = min(height, ceiling)
        ceiling = heights[index] - apart
    return heights
