"""Pictures of several runs: scores against reconstruction, and losses with bands over seeds."""

import functools
import itertools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from factorvae.errors import printable
from factorvae.plots.latents import dead_latents
from factorvae.plots.style import HEADER, MARGIN, FigureLayout, line_styles, scale_by_log, styled
from factorvae.plots.titles import COLUMN_TITLES

Log = Mapping[str, np.ndarray]
PANELS = {
    "recon": f"{COLUMN_TITLES['recon']}, log scale",
    "kl": COLUMN_TITLES["kl"],
    "tc": COLUMN_TITLES["tc"],
    "live": "Live latents",
}
LEGEND_PITCH = 18  # pixels of a line
LONGEST_LINE = 100  # characters of a legend below the panels; beside them 60


@styled
def scores_against_reconstruction(
    settings: Mapping[str, np.ndarray],
    *,
    scores: Sequence[str] = ("FactorVAE score",),
    title: str = "",
) -> Figure:
    """A small point per run and a large one at the mean of each setting (Fig. 3 to 5 of the paper).

    Args:
        settings: by name, reconstruction loss in nats and S scores of each run, [runs, 1 + S].
        scores: what they are, a panel each.
        title: what the runs have in common.
    """
    width, height, pitch, left, top = 420, 320, 490, MARGIN + 50, HEADER + 20
    labels = [_wrapped(f"{name} ({len(points)})", 60) for name, points in settings.items()]
    longest = max(len(line) for lines in labels for line in lines)
    num_lines = 1 + sum(map(len, labels))
    layout = FigureLayout(
        left + pitch * (len(scores) - 1) + width + 40 + 7 * longest + MARGIN,
        top + max(height + 56, LEGEND_PITCH * num_lines + MARGIN),
        f"{', '.join(scores)} and reconstruction",
        title,
    )
    styles = line_styles(len(settings))
    for place, score in enumerate(scores):
        label = f"{printable(score)} of runs"
        axes = layout.axes(left + pitch * place, top, width, height, label=label)
        for points, lines, style in zip(settings.values(), labels, styles, strict=True):
            points = np.asarray(points, dtype=np.float64)[:, [0, 1 + place]]
            of_setting = {"linestyle": "none", "color": style["color"], "marker": style["marker"]}
            axes.plot(*points.T, markersize=4, alpha=0.5, **of_setting)
            axes.plot(*points.mean(axis=0), markersize=10, label="\n".join(lines), **of_setting)
        axes.set_xlabel(COLUMN_TITLES["recon"])
        axes.set_ylabel(printable(score))
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), title="mean (runs)")
    return layout.figure


@styled
def sweep_curves(settings: Mapping[str, Sequence[Log]], *, title: str = "") -> Figure:
    """Losses over the steps: the mean over the runs of each setting, within one deviation.

    Args:
        settings: by name, the log of each run, whose columns are [rows].
        title: what the runs have in common.
    """
    width, height, pitch_x, pitch_y = 330, 190, 410, 262
    left, top = MARGIN + 50, HEADER + 26
    legend = _legend_lines(settings, "mean of {} runs, band of one deviation", "one run")
    tall = top + 2 * pitch_y + LEGEND_PITCH * sum(map(len, legend))
    layout = FigureLayout(left + pitch_x + width + MARGIN, tall, "Training of a sweep", title)
    styles = [
        style if len(_common_steps(logs)) == 1 else style | {"marker": None}  # a point has no line
        for logs, style in zip(settings.values(), line_styles(len(settings)), strict=True)
    ]
    for place, (column, heading) in enumerate(PANELS.items()):
        line, column_place = divmod(place, 2)
        x, y = left + column_place * pitch_x, top + line * pitch_y
        axes = layout.axes(x, y, width, height, label=column)
        axes.set_title(heading)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=4)
        for logs, style in zip(settings.values(), styles, strict=True):
            step, values = _over_runs(logs, column)
            if not np.isfinite(values).any():
                continue
            mean = np.nanmean(values, axis=0)
            axes.plot(step, mean, **style)
            several = np.isfinite(values).sum(axis=0) > 1
            if not several.any():
                continue
            deviation = np.nanstd(values[:, several], axis=0, ddof=1)
            bounds = mean[several] - deviation, mean[several] + deviation
            if column in ("kl", "live"):  # which have no values below 0
                bounds = np.maximum(bounds, 0)
            axes.fill_between(step[several], *bounds, color=style["color"], alpha=0.2, linewidth=0)
        if column == "recon":
            scale_by_log(axes.yaxis)
        if line == 1:
            axes.set_xlabel("step")
    _legend_below(layout, left, top + 2 * pitch_y - 20, width, legend, styles)
    return layout.figure


@styled
def scores_over_training(
    settings: Mapping[str, Sequence[np.ndarray]], *, title: str = "votes as in the paper: 800"
) -> Figure:
    """Score and reconstruction of runs on their way, over the steps and over the minutes.

    Args:
        settings: by name, the steps, minutes, score and reconstruction loss of each run,
            [points, 4].
        title: how the score was made.
    """
    width, height, pitch_x, pitch_y = 330, 200, 410, 262
    left, top = MARGIN + 50, HEADER + 26
    legend = _legend_lines(settings, "means of the small points of {} runs", "one run")
    tall = top + 2 * pitch_y + LEGEND_PITCH * sum(map(len, legend))
    layout = FigureLayout(
        left + pitch_x + width + MARGIN, tall, "Scores in the course of training", title
    )
    styles = line_styles(len(settings))
    xs = ("step", "minutes on one core")
    ys = ("FactorVAE score", COLUMN_TITLES["recon"])
    for x, y in itertools.product(range(2), range(2)):
        place = left + x * pitch_x, top + y * pitch_y
        axes = layout.axes(*place, width, height, label=f"{ys[y]} over {xs[x]}")
        for runs, style in zip(settings.values(), styles, strict=True):
            steps = sorted({int(step) for run in runs for step in run[:, 0]})
            at = [[row for run in runs for row in run if row[0] == step] for step in steps]
            mean = np.stack([np.mean(rows, axis=0) for rows in at])  # [points, 4]
            thin = {"linestyle": "none", "marker": style["marker"], "markersize": 4, "alpha": 0.4}
            for run in runs:
                axes.plot(run[:, x], run[:, 2 + y], color=style["color"], **thin)
            axes.plot(mean[:, x], mean[:, 2 + y], markersize=7, **style)
        scale_by_log(axes.xaxis)
        axes.set_title(ys[y])
        if y == 1:
            axes.set_xlabel(xs[x])
    _legend_below(layout, left, top + 2 * pitch_y - 10, width, legend, styles)
    return layout.figure


def _wrapped(text: str, longest: int) -> list[str]:
    return textwrap.wrap(printable(text), longest)


def _legend_lines(
    settings: Mapping[str, Sequence[object]], of_several: str, of_one: str
) -> list[list[str]]:
    """What the legend says of each setting; `of_several` takes how many runs it has."""
    return [
        _wrapped(
            f"{name}: {of_one if len(runs) == 1 else of_several.format(len(runs))}", LONGEST_LINE
        )
        for name, runs in settings.items()
    ]


def _legend_below(
    layout: FigureLayout,
    left: int,
    top: int,
    width: int,
    legend: Sequence[Sequence[str]],
    styles: Sequence[Mapping[str, object]],
) -> None:
    """Below the panels, the style of each setting and the lines of text about it."""
    num_lines = sum(map(len, legend))
    axes = layout.axes(left, top, width, LEGEND_PITCH * num_lines, "legend")
    axes.set_axis_off()
    done = 0
    for lines, style in zip(legend, styles, strict=True):
        y = 1 - (done + 0.5) / num_lines
        axes.plot([0, 0.04, 0.08], [y] * 3, transform=axes.transAxes, markevery=[1], **style)
        for line in lines:
            axes.text(
                0.1, 1 - (done + 0.5) / num_lines, line, va="center", transform=axes.transAxes
            )
            done += 1


def _common_steps(logs: Sequence[Log]) -> np.ndarray:
    """Steps [rows] that all the logs have."""
    return functools.reduce(np.intersect1d, [log["step"] for log in logs])


def _over_runs(logs: Sequence[Log], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [rows] that all the logs have, and the column there, [runs, rows]; nan where absent."""
    steps = _common_steps(logs)
    rows = [_column(log, column)[np.isin(log["step"], steps)] for log in logs]
    return steps, np.stack(rows)


def _column(log: Log, column: str) -> np.ndarray:
    if column == "live":
        names = [name for name in log if name.startswith("kl_")]
        return (~dead_latents(np.stack([log[name] for name in names]))).sum(axis=0).astype(float)
    return np.asarray(log.get(column, np.full(len(log["step"]), np.nan)), dtype=np.float64)
