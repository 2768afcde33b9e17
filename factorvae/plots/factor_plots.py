"""Pictures of latents against factors: arrays in, a matplotlib figure out.

Latents are in the order of `latent_order`, as in all pictures.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from factorvae.config import DEAD_KL
from factorvae.errors import printable
from factorvae.plots.latents import (
    LABEL_WIDTH,
    MAX_ROWS,
    dead_latents,
    label_latent,
    latent_order,
)
from factorvae.plots.style import (
    FAINT,
    HEADER,
    INK,
    MARGIN,
    FigureLayout,
    chunks,
    factor_value,
    line_styles,
    overlaid_styles,
    signed,
    styled,
)

NAMED_DEAD = 8  # latents that one line of text names
PANEL = 120  # pixels, a heat map's sides and the height of a panel of curves
PANEL_GAP = 24  # pixels between panels
TICKS_WIDTH = 34  # pixels at the left of a panel, for the numbers of its axis


@styled
def latent_response(
    kl: ArrayLike,
    *,
    maps: Mapping[tuple[str, str], ArrayLike],
    curves: Mapping[str, ArrayLike],
    values: Mapping[str, Sequence[float] | Sequence[str]],
    line_names: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """A row per latent: its mean while each factor varies (as in Kim & Mnih 2018 and Burgess 2018).

    Args:
        kl: KL to the prior of each latent in nats, [latent_dim].
        maps: for a pair of factors (the first along x, the second along y, downwards) the mean
            code at each pair of their values, [X, Y, latent_dim]: a small heat map.
        curves: for a factor, the mean code at each of its V values, one line for each of G groups
            (the shapes, say), [G, V, latent_dim].
        values: what the V values of each factor in `curves` are, for its axis: numbers; or texts,
            for a category, whose values are points. Of factors in `maps`, numbers for their axes.
        line_names: what the G lines stand for; points of values that are these texts look as the
            lines do.
        title: the run, from `run_title`.
    """
    kl = np.asarray(kl, dtype=np.float64)
    order, dead = latent_order(kl), dead_latents(kl)
    live = order[~dead[order]] if not dead.all() else order[:1]  # dead ones are a line of text
    parts = chunks(live, MAX_ROWS)
    rows = _ResponseRows(maps, curves, values, line_names)
    row_gap, block_gap = 14, 36
    block_width = LABEL_WIDTH + rows.width
    width = 2 * MARGIN + len(parts) * (block_width + block_gap) - block_gap
    left = MARGIN + LABEL_WIDTH
    legend_columns = max(1, (width - left) // (66 + 7 * max(map(len, line_names), default=0)))
    legend_lines = -(-len(line_names) // legend_columns)
    top = HEADER + 18
    keys_height = rows.ticks_height + 22 + 40 * bool(maps) + 20 * bool(dead.any())
    keys_height += 18 * max(0, legend_lines - 1)
    height = top + len(parts[0]) * (PANEL + row_gap) + keys_height
    layout = FigureLayout(width, height, "Mean of each latent while one factor varies", title)
    for block, latents in enumerate(parts):
        start = left + block * (block_width + block_gap)
        for row, latent in enumerate(latents):
            y = top + row * (PANEL + row_gap)
            label_latent(layout, start, y + PANEL / 2, latent, kl)
            is_last = row == len(latents) - 1
            rows.draw(layout, start, y, latent, is_first=row == 0, is_last=is_last)

    y = height - keys_height + rows.ticks_height
    if dead.any():
        layout.text(MARGIN, y, _those_dead(order[dead[order]]), color=FAINT)
        y += 20
    if maps:
        _color_scale(layout, left, y, rows.limit)
        layout.text(left - 10, y + 8, "mean", ha="right", size=7.5)
        y += 40
    if len(line_names) > 1:
        _legend(layout, left, y + 9 * (legend_lines - 1), line_names, legend_columns)
    return layout.figure


class _ResponseRows:
    """The rows of `latent_response`, whose arguments these are: a row's size, and its drawing."""

    def __init__(
        self,
        maps: Mapping[tuple[str, str], ArrayLike],
        curves: Mapping[str, ArrayLike],
        values: Mapping[str, Sequence[float] | Sequence[str]],
        line_names: Sequence[str],
    ) -> None:
        self.maps = {pair: np.asarray(mean, dtype=np.float64) for pair, mean in maps.items()}
        self.curves = {name: np.asarray(mean, dtype=np.float64) for name, mean in curves.items()}
        self.values = values
        largest = max(np.abs(mean).max() for mean in (*self.maps.values(), *self.curves.values()))
        self.limit = max(1.0, np.ceil(2 * largest) / 2)  # one scale for every panel
        self.words = {  # of categories that no legend names
            factor: [_short(word) for word in values[factor]]
            for factor in curves
            if isinstance(values[factor][0], str) and tuple(values[factor]) != tuple(line_names)
        }
        longest = max((len(word) for words in self.words.values() for word in words), default=0)
        self.ticks_height = max(34, 7 * longest + 14)  # below the last row
        self.widths = {
            factor: 240 if mean.shape[1] > 8 else 150 for factor, mean in self.curves.items()
        }
        self.width = len(maps) * (TICKS_WIDTH + PANEL + PANEL_GAP) + TICKS_WIDTH
        self.width += sum(self.widths.values()) + PANEL_GAP * (len(curves) - 1)

    def draw(
        self,
        layout: FigureLayout,
        left: int,
        top: int,
        latent: int,
        *,
        is_first: bool,
        is_last: bool,
    ) -> None:
        """The latent's maps, then its curves; headings over the first row, ticks under the last."""
        x = left
        for pair, mean in self.maps.items():
            x += TICKS_WIDTH
            axes = layout.axes(x, top, PANEL, PANEL, label=f"z{latent}: {pair[0]}, {pair[1]}")
            _draw_map(axes, mean[:, :, latent], *map(self.values.get, pair), self.limit)
            axes.tick_params(labelbottom=is_last)
            middle = {"rotation": 90, "ha": "center", "va": "center"}
            layout.text(x - 26, top + PANEL / 2, pair[1], **middle)
            if is_first:
                layout.text(x, top - 7, f"{pair[0]} and {pair[1]}")
            if is_last:
                layout.text(x + PANEL / 2, top + PANEL + 16, pair[0], ha="center")
            x += PANEL + PANEL_GAP
        x += TICKS_WIDTH
        for factor, mean in self.curves.items():
            axes = layout.axes(x, top, self.widths[factor], PANEL, label=f"z{latent}: {factor}")
            _draw_curves(axes, mean[:, :, latent], self.values[factor], self.limit)
            axes.tick_params(labelleft=factor == next(iter(self.curves)), labelbottom=is_last)
            if is_last and factor in self.words:
                words = self.words[factor]
                axes.set_xticks(range(len(words)), list(map(printable, words)), rotation=90)
            if is_first:
                layout.text(x, top - 7, factor)
            x += self.widths[factor] + PANEL_GAP


def _those_dead(latents: Sequence[int]) -> str:
    """'dead (KL of 0.01 or less): z3, z1', of which a line has not all where there are many."""
    more = f" and {len(latents) - NAMED_DEAD} more" if len(latents) > NAMED_DEAD else ""
    names = ", ".join(f"z{latent}" for latent in latents[:NAMED_DEAD])
    return f"dead (KL of {DEAD_KL} or less): {names}{more}"


def _draw_map(
    axes: Axes,
    mean: np.ndarray,
    along_x: Sequence[float] | None,
    along_y: Sequence[float] | None,
    limit: float,
) -> None:
    """A heat map of `mean` [X, Y], with the ends of its two factors' values."""
    axes.imshow(mean.T, vmin=-limit, vmax=limit, aspect="auto")
    axes.spines[:].set_visible(True)
    _end_ticks(axes.xaxis, np.arange(len(mean)), along_x)
    _end_ticks(axes.yaxis, np.arange(mean.shape[1]), along_y)


def _short(word: str) -> str:
    return word if len(word) <= 16 else f"{word[:15]}…"


def _draw_curves(
    axes: Axes, mean: np.ndarray, values: Sequence[float] | Sequence[str], limit: float
) -> None:
    """A line per group of `mean` [G, V] over `values`; points where these are texts."""
    num_groups, num_values = mean.shape
    if isinstance(values[0], str):
        for index, style in enumerate(line_styles(num_values)):
            axes.plot(index, mean[0, index], **style | {"linestyle": "none"}, markersize=5)
        axes.set_xticks([])
        axes.set_xlim(-0.5, num_values - 0.5)
    else:
        x = np.asarray(values, dtype=np.float64)
        every = min(num_values, max(num_groups, num_values // 4))
        for group, style in enumerate(overlaid_styles(num_groups)):
            # no two lines have their markers at the same values
            axes.plot(x, mean[group], **style, markevery=(group * every // num_groups, every))
        _end_ticks(axes.xaxis, x, x)
    axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.set_ylim(-limit * 1.08, limit * 1.08)
    # Ticks away from the ends, where they would meet those of the next row.
    ticks = MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]).tick_values(-limit, limit)
    ticks = [tick for tick in ticks if abs(tick) <= 0.92 * limit]
    axes.set_yticks(ticks, [signed(tick) for tick in ticks])


def _end_ticks(axis: Axis, places: np.ndarray, values: Sequence[float] | None) -> None:
    """Ticks at the first and the last of `places`, named by the first and the last of `values`."""
    if values is None or len(places) == 0:
        axis.set_ticks([])
        return
    ends = sorted({0, len(places) - 1})
    axis.set_ticks([places[end] for end in ends], [factor_value(values[end]) for end in ends])


def _legend(layout: FigureLayout, left: int, y: int, names: Sequence[str], columns: int) -> None:
    """The lines of `overlaid_styles` and their names, `columns` side by side."""
    styles = zip(names, overlaid_styles(len(names)), strict=True)
    layout.figure.legend(
        handles=[Line2D([], [], label=printable(name), **style) for name, style in styles],
        loc="center left",
        bbox_to_anchor=(left / layout.width, 1 - y / layout.height),
        ncols=columns,
        handlelength=3.2,
        borderaxespad=0,
        borderpad=0,
        columnspacing=1.4,
    )


@styled
def latent_matrix(
    scores: ArrayLike,
    factor_names: Sequence[str],
    kl: ArrayLike,
    *,
    bars: ArrayLike,
    heading: str,
    told: str,
    bars_told: str,
    mean: tuple[str, float] | None = None,
    title: str = "",
) -> Figure:
    """A row per factor, a column per latent, and a bar at the right of each row.

    In each row the best latent has a solid frame, the second a dashed one. Colours go from 0 to the
    largest score, that small ones may differ.

    Args:
        scores: 0 or more, [latent_dim, F].
        factor_names: [F].
        kl: KL to the prior of each latent in nats, [latent_dim].
        bars: of each factor, 0 to 1, [F].
        heading: what the scores are. told: the same as a formula or in a few words.
        bars_told: what the bars are. mean: what their mean is called, and the mean.
        title: the run, from `run_title`.
    """
    bars = np.nan_to_num(np.asarray(bars, dtype=np.float64))
    kl, scores = np.asarray(kl, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    scores = np.nan_to_num(scores).T[:, latent_order(kl)]  # [F, latent_dim]
    num_factors, latent_dim = scores.shape
    is_wide, is_tall = latent_dim > MAX_ROWS, num_factors > MAX_ROWS
    cell_width, cell_height = 24 if is_wide else 46, 22 if is_tall else 30 if is_wide else 34
    left, top, bars_width = MARGIN + 8 + 7 * max(map(len, factor_names)), HEADER + 40, 150
    width, height = latent_dim * cell_width, num_factors * cell_height
    full_width = max(left + width + 24 + bars_width + 50, left + 560) + MARGIN
    layout = FigureLayout(full_width, top + height + 60, heading, title)

    axes = layout.axes(left, top, width, height, label="scores")
    largest = max(scores.max(), 1e-3)
    axes.imshow(scores, vmin=0, vmax=largest, aspect="auto")
    axes.set_yticks(range(num_factors), list(map(printable, factor_names)))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _name_columns(layout, left, top, cell_width, kl)
    _write_scores(axes, scores, largest, is_wide)

    x = left + width + 24
    beside = layout.axes(x, top, bars_width, height, label="bars")
    _draw_bars(beside, bars)
    layout.text(x, top - 20, bars_told)
    if mean is not None:
        beside.axvline(mean[1], color=INK, linestyle=(0, (4, 2)), linewidth=1)
        note = f"dashed: their mean ({mean[0]}) {mean[1]:.3f}"
        layout.text(x, top - 7, note, size=7, color=FAINT)
    y = top + height + 22
    _color_scale(layout, left, y, largest, low=0)
    key = (
        told,
        f"colours to the largest, {largest:.2f}",
        "the best latent framed, the second dashed",
    )
    for line, words in enumerate(key):
        layout.text(left + 150, y + 6 + 12 * line, words, size=7.5)
    return layout.figure


def _name_columns(
    layout: FigureLayout, left: int, top: int, cell_width: int, kl: np.ndarray
) -> None:
    """'z3' over its KL, or over 'dead', above each column; where they are many, an upright 'z3'."""
    dead, is_wide = dead_latents(kl), len(kl) > MAX_ROWS
    for column, latent in enumerate(latent_order(kl)):
        x, color = left + (column + 0.5) * cell_width, FAINT if dead[latent] else INK
        if is_wide:
            layout.text(x, top - 7, f"z{latent}", ha="center", color=color, rotation=90)
        else:
            note = "dead" if dead[latent] else f"{kl[latent]:.2f}"
            layout.text(x, top - 20, f"z{latent}", ha="center", color=color)
            layout.text(x, top - 7, note, ha="center", size=7, color=FAINT)
    if not is_wide:
        layout.text(left - 4, top - 7, "KL", ha="right", size=7, color=FAINT)


def _write_scores(axes: Axes, scores: np.ndarray, largest: float, is_wide: bool) -> None:
    """The numbers in the cells of `scores` [F, latent_dim], and frames around each row's best two.

    is_wide: there is room for the best two's only.
    """
    best_two = np.argsort(-scores, axis=1, kind="stable")[:, :2]
    for (row, column), score in np.ndenumerate(scores):
        color = "white" if score < largest / 2 else "black"
        rank = best_two[row].tolist().index(column) if column in best_two[row] else None
        if rank is not None or not is_wide:
            text = f"{score:.1f}" if is_wide else f"{score:.2f}"
            axes.text(column, row, text, ha="center", va="center", color=color, size=7.5)
        if rank is not None:
            dashes = "-" if rank == 0 else (0, (2, 1.5))
            corner, options = (column - 0.44, row - 0.44), {"linewidth": 1.4, "linestyle": dashes}
            axes.add_patch(Rectangle(corner, 0.88, 0.88, fill=False, edgecolor=color, **options))


def _draw_bars(axes: Axes, bars: np.ndarray) -> None:
    """A bar from 0 to 1 for each row, with its number."""
    axes.barh(range(len(bars)), bars, height=0.55, color="0.55")
    for row, bar in enumerate(bars):
        axes.text(1.06, row, f"{bar:.2f}", va="center", size=7.5)
    axes.set(xlim=(0, 1), ylim=(len(bars) - 0.5, -0.5), yticks=[])
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def _color_scale(
    layout: FigureLayout, left: int, top: int, high: float, low: float | None = None
) -> None:
    """What the colours of heat maps mean: a bar from `low` (otherwise -`high`) to `high`."""
    low = -high if low is None else low
    axes = layout.axes(left, top, 132, 8, label="scale")
    axes.imshow(np.linspace(0, 1, 256)[None], extent=(low, high, 0, 1), aspect="auto")
    axes.set_yticks([])
    middle = (low + high) / 2
    axes.set_xticks([low, middle, high], [signed(low), signed(middle), signed(high)])
