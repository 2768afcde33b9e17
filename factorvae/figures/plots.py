"""Pictures of a trained model: arrays in, a matplotlib figure (or an animation's frames) out.

Every function works on its own, in a notebook too; `style.save_figure` writes what they return.
Image arrays are [.., C, H, W] in [0, 1] with one or three channels, numpy or torch. They
are brought to about CELL pixels by an integer zoom (or an integer mean, where they are larger), and
never interpolated. All pictures order the latents in the same way: largest KL to the prior first,
dead latents last and marked.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.utils import make_grid

from factorvae.config import DEAD_KL
from factorvae.errors import printable
from factorvae.figures.style import (
    FAINT,
    HEADER,
    INK,
    MARGIN,
    FigureLayout,
    chunks,
    factor_value,
    line_styles,
    overlaid_styles,
    scale_by_log,
    signed,
    styled,
)
from factorvae.methods import METHODS, TOLD_BY_GAMMA
from factorvae.setting import Setting, setting_value, told_fields

CELL = 64  # pixels
GAP = 2  # pixels between image cells, in a grey that shows beside black and white alike
GAP_GREY = 0.75
MARK_HEIGHT = 8  # pixels below a row, for the mark of a code
VALUES_HEIGHT = 20  # pixels above rows, for what their latent takes
DEAD_GAP = 10  # pixels between live rows and dead ones
MAX_ROWS = 16  # latents below each other; more than that stand in several columns
MEAN_OF = 100  # rows of a log, of which a running mean takes in one to either side
NAMED_DEAD = 8  # latents that one line of text names
LABEL_WIDTH = 66  # pixels at the left of a row, for a latent's name and KL
PANEL = 120  # pixels, a heat map's sides and the height of a panel of curves
PANEL_GAP = 24  # pixels between panels
TICKS_WIDTH = 34  # pixels at the left of a panel, for the numbers of its axis
TITLED = ("method", "beta", "gamma", "capacity", "steps")  # in the title of every setting


def run_title(
    dataset: str,
    step: int,
    beta: float,
    gamma: float,
    method: str = "factorvae",
    penalty: str | None = None,
) -> str:
    """The line under every heading: 'FactorVAE on dsprites, step 20,000, β = 1, γ = 6.4'.

    penalty: the name of one that a notebook gave in place of the method's.
    """
    if penalty is not None:
        model = f"VAE with {printable(str(penalty))}"
    elif gamma > 0:
        model = METHODS[method].title.replace("beta", "β")
    else:
        model = "VAE" if beta == 1 else "β-VAE"
    if len(dataset) > 32:
        dataset = "…" + dataset[-31:]  # the end of a folder's path says most
    return f"{model} on {dataset}, step {step:,}, β = {beta:g}, γ = {gamma:g}"


def setting_title(setting: Setting, others: Sequence[str] = ()) -> str:
    """What runs that differ by their seed share: 'β-TCVAE, β = 1, γ = 5, lr 0.001, 20,000 steps'.

    others: the fields that are told besides those of TITLED.
    """
    method = setting["method"]
    parts = [] if method in TOLD_BY_GAMMA else [METHODS[method].title.replace("beta", "β")]
    signs = {"beta": "β", "gamma": "γ"}
    if "capacity" in METHODS[method].settings:
        signs["capacity"] = "C"
    parts += [f"{sign} = {setting_value(setting[name])}" for name, sign in signs.items()]
    return ", ".join([*parts, *told_fields(setting, others), f"{setting['steps']:,} steps"])


def latent_order(kl: ArrayLike) -> np.ndarray:
    """Latent indices [latent_dim] by falling KL to the prior, so that dead ones come last."""
    return np.argsort(-np.asarray(kl, dtype=np.float64), kind="stable")


def dead_latents(kl: ArrayLike) -> np.ndarray:
    """Bool [latent_dim]: the latents whose KL to the prior (nats) is not above DEAD_KL."""
    return ~(np.asarray(kl, dtype=np.float64) > DEAD_KL)


def fit_cells(images: Tensor) -> Tensor:
    """Images [N, C, H, W] near CELL pixels: each pixel repeated, or means over whole blocks."""
    side = images.shape[-1]
    if side < CELL:
        zoom = CELL // side
        return images.repeat_interleave(zoom, dim=-2).repeat_interleave(zoom, dim=-1)
    shrink = side // CELL
    return torch.nn.functional.avg_pool2d(images, shrink) if shrink > 1 else images


# --- pictures made of images ---------------------------------------------------------------------


@styled
def traversals(
    images: ArrayLike | Tensor,
    kl: ArrayLike,
    values: ArrayLike,
    *,
    base_images: ArrayLike | Tensor | None = None,
    decoded: ArrayLike | Tensor | None = None,
    codes: ArrayLike | None = None,
    base_names: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """A row per latent, a column per value: what the decoder draws while one latent moves.

    Args:
        images: decoded, [B, latent_dim, V, C, H, W], latents in the model's order (they are sorted
            here). The B base images stand side by side; below each other where there are so many
            latents that these fill several columns.
        kl: KL to the prior of each latent in nats, [latent_dim].
        values: what a latent takes, [V], rising.
        base_images, decoded: the images that were encoded and their reconstructions, [B, C, H, W],
            shown in a column beside the rows.
        codes: the images' own codes, [B, latent_dim], each marked below its row: by a triangle at
            its value, which at an end points outwards where the value lies beyond.
        base_names: a caption for each image.
        title: the run, from `run_title`.
    """
    rows = _TraversalRows(images, kl, values, codes)
    num_bases, parts = len(rows.images), chunks(latent_order(kl), MAX_ROWS)
    column = {"image": base_images, "decoded": decoded}
    column = {name: fit_cells(_tensor(x)) for name, x in column.items() if x is not None}
    name_height, panel_gap = 22 * bool(column), 22
    column_width = (rows.cell + 16) * bool(column)
    tall = max(rows.height(len(parts[0])), VALUES_HEIGHT + len(column) * (rows.cell + 18))
    line_height = name_height + tall + panel_gap
    if len(parts) == 1:  # the base images of a line share the labels at its left
        step = column_width + rows.width + panel_gap
        per_line = min(num_bases, max(1, 1700 // step))
        width = 2 * MARGIN + LABEL_WIDTH + per_line * step - panel_gap
    else:  # a line per base image, its latents in several columns
        per_line = len(parts)
        step = LABEL_WIDTH + rows.width + panel_gap
        width = 2 * MARGIN + column_width + per_line * step - panel_gap
    panels = [(base, part) for base in range(num_bases) for part in range(len(parts))]
    num_lines = -(-len(panels) // per_line)
    height = HEADER + num_lines * line_height - panel_gap + MARGIN
    layout = FigureLayout(width, height, "Latent traversals", title)

    for place, (base, part) in enumerate(panels):
        line, panel = divmod(place, per_line)
        labelled = panel == 0 or len(parts) > 1
        left = MARGIN + LABEL_WIDTH + column_width + panel * step
        top = HEADER + line * line_height
        if column and part == 0:
            start = MARGIN if labelled else left - column_width
            name = base_names[base] if base < len(base_names) else f"base image {base + 1}"
            layout.text(start, top + 10, name)
            shown = {word: pixels[base : base + 1] for word, pixels in column.items()}
            _draw_base(layout, start, top + name_height + VALUES_HEIGHT, shown, f"base {base}")
        rows.draw(layout, left, top + name_height, base, parts[part], labelled)
    return layout.figure


class _TraversalRows:
    """The rows of `traversals`, whose arguments these are: their size in pixels, their drawing."""

    def __init__(
        self, images: ArrayLike | Tensor, kl: ArrayLike, values: ArrayLike, codes: ArrayLike | None
    ) -> None:
        self.images, self.values = _tensor(images), np.asarray(values, dtype=np.float64)
        self.kl, self.dead = np.asarray(kl, dtype=np.float64), dead_latents(kl)
        self.codes = None if codes is None else np.asarray(codes)
        self.cell = fit_cells(self.images[0, 0, :1]).shape[-1]
        self.pitch = self.cell + GAP
        self.row_pitch = self.pitch + GAP + (MARK_HEIGHT if codes is not None else 0)
        self.width = self.images.shape[2] * self.pitch + GAP

    def height(self, count: int) -> int:
        """Of so many rows and the values above them."""
        return VALUES_HEIGHT + count * self.row_pitch + DEAD_GAP

    def draw(
        self,
        layout: FigureLayout,
        left: int,
        top: int,
        base: int,
        latents: np.ndarray,
        labelled: bool,
    ) -> None:
        """The values, and below them a row of a base image for each of these latents."""
        for index, value in enumerate(self.values):
            x = left + GAP + index * self.pitch + self.cell / 2
            layout.text(x, top + 15, signed(value), ha="center", size=7.5, color=FAINT)
        top += VALUES_HEIGHT
        num_live = int((~self.dead[latents]).sum())
        for row, latent in enumerate(latents):
            # Dead rows stand a little apart, below a dashed line.
            y = top + row * self.row_pitch + (DEAD_GAP if 0 < num_live <= row else 0)
            self._draw_row(layout, left, y, base, latent)
            if labelled:
                _label_latent(layout, left, y + GAP + self.cell / 2, latent, self.kl)
        if 0 < num_live < len(latents):
            start = left - (LABEL_WIDTH if labelled else 0)
            y = top + num_live * self.row_pitch + DEAD_GAP / 2 - GAP / 2
            layout.rule(start, left + self.width, y)

    def _draw_row(self, layout: FigureLayout, left: int, top: int, base: int, latent: int) -> None:
        """A cell per value, and the mark of the base image's own code."""
        images = fit_cells(self.images[base, latent])  # [V, C, H, W]
        layout.image(left, top, _grid(images, len(images)), label=f"base {base}: z{latent}")
        if self.codes is not None:
            x, sign = _code_mark(float(self.codes[base, latent]), self.values, self.pitch)
            place = left + GAP + self.cell / 2 + x, top + self.pitch + GAP + MARK_HEIGHT / 2
            layout.mark(*place, sign, label=f"base {base}: code of z{latent}")


def _draw_base(
    layout: FigureLayout, left: int, top: int, shown: Mapping[str, Tensor], label: str
) -> None:
    """The image that was encoded and its reconstruction, [1, C, H, W] each, below each other."""
    for index, (word, image) in enumerate(shown.items()):
        cell = image.shape[-1]
        y = top + index * (cell + 18)
        layout.text(left + cell / 2, y - 5, word, ha="center", size=7.5, color=FAINT)
        layout.image(left, y + GAP, _grid(image, 1, gap=0), label=f"{label}: {word}")


def _code_mark(code: float, values: np.ndarray, pitch: int) -> tuple[float, str]:
    """Where a code lies in a row, in pixels from the centre of its first cell, and its marker."""
    last = len(values) - 1
    if last == 0:
        return 0.0, "^"
    x = (code - values[0]) / (values[-1] - values[0]) * last * pitch
    start, end = -pitch / 2 + 4, (last + 0.5) * pitch - 4
    return (start, "<") if x < start else (end, ">") if x > end else (x, "^")


@styled
def traversal_frames(
    images: ArrayLike | Tensor,
    kl: ArrayLike,
    values: ArrayLike,
    *,
    base_images: ArrayLike | Tensor | None = None,
    base_names: Sequence[str] = (),
    title: str = "",
) -> list[Image.Image]:
    """The frames of an animation in which every latent moves, each alone in its own cell.

    Args:
        images: decoded, [B, latent_dim, T, C, H, W]: a column per latent (in several lines where
            there are many), below each other for the B base images.
        kl: KL to the prior of each latent in nats, [latent_dim].
        values: what the moved latent is in each frame, [T]; a closed loop such as
            `traversal.cosine_sweep` makes the animation seamless.
        base_images: the images that were encoded, [B, C, H, W], shown at the left of their rows.
        base_names: a caption for each of them, of which each part before a comma has a line.
        title: the run, from `run_title`.

    Returns:
        T RGB pictures of one size, for `gif.encode_gif`.
    """
    images = _tensor(images)
    kl, values = np.asarray(kl, dtype=np.float64), np.asarray(values, dtype=np.float64)
    lines = chunks(latent_order(kl), MAX_ROWS)
    cell = fit_cells(images[0, 0, :1]).shape[-1]
    pitch = cell + GAP
    names = [name.split(", ") for name in base_names]
    longest = max((len(part) for name in names for part in name), default=0)
    names_width = 10 + 7 * longest if names else 0
    column_width = names_width + (0 if base_images is None else cell + 16)
    label_height, slider_height = 32, 40
    line_height = label_height + len(images) * pitch + GAP + 6
    start = MARGIN + column_width
    width = start + len(lines[0]) * pitch + GAP + MARGIN
    heading = "Latent traversals"
    layout = FigureLayout(width, HEADER + len(lines) * line_height + slider_height, heading, title)
    for line, latents in enumerate(lines):
        top = HEADER + line * line_height
        for column, latent in enumerate(latents):
            _head_latent(layout, start + GAP + column * pitch + cell / 2, top, latent, kl)
        if base_images is not None:
            left = MARGIN + names_width
            layout.text(left + cell / 2, top + 25, "image", ha="center", size=7.5, color=FAINT)
            shown = _grid(fit_cells(_tensor(base_images)), 1)
            layout.image(left - GAP, top + label_height, shown, label=f"base images {line}")
        for base, parts in enumerate(names):
            middle = top + label_height + GAP + base * pitch + cell / 2
            _write_beside(layout, MARGIN + names_width - 10, middle, parts)

    slider = _Slider(start + 30, start + 230, layout.height - slider_height // 2, values)
    slider.draw(layout)
    paper = _drawn(layout.figure)

    frames = []
    for index, value in enumerate(values):
        picture = paper.copy()
        for line, latents in enumerate(lines):
            pixels = _grid(fit_cells(images[:, latents, index].flatten(0, 1)), len(latents))
            top = HEADER + line * line_height + label_height
            picture[top : top + pixels.shape[0], start : start + pixels.shape[1]] = pixels
        frame = Image.fromarray(picture)
        slider.set_to(value, frame)
        frames.append(frame)
    return frames


def _head_latent(
    layout: FigureLayout, middle: float, top: int, latent: int, kl: np.ndarray
) -> None:
    """'z3' over 'KL 2.41', or over 'dead', at the head of a column."""
    is_dead = dead_latents(kl)[latent]
    note, color = ("dead", FAINT) if is_dead else (f"KL {kl[latent]:.2f}", INK)
    layout.text(middle, top + 11, f"z{latent}", ha="center", color=color)
    layout.text(middle, top + 25, note, ha="center", size=7.5, color=FAINT)


def _write_beside(layout: FigureLayout, right: float, middle: float, lines: Sequence[str]) -> None:
    """Small lines of text that end at `right`, around the height of `middle`."""
    first = middle - 6 * (len(lines) - 1)
    for index, line in enumerate(lines):
        y = first + 12 * index
        layout.text(right, y, line, ha="right", va="center_baseline", size=7.5)


def _drawn(figure: Figure) -> np.ndarray:
    """The figure's pixels, uint8 [height, width, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


class _Slider:
    """Shows what the moved latents are at the moment: a rule, and a knob in each frame.

    Args:
        left, right, y: the rule's place in pixels.
        values: all that it will show; it goes as far as the largest to either side.
    """

    def __init__(self, left: int, right: int, y: int, values: np.ndarray) -> None:
        self.left, self.right, self.y = left, right, y
        self.limit = max(np.abs(values).max(), 1e-9)

    def draw(self, layout: FigureLayout) -> None:
        ends = {"va": "center_baseline", "size": 7.5}
        layout.rule(self.left, self.right, self.y, linestyle="-")
        layout.text(self.left - 10, self.y, signed(-self.limit), ha="right", **ends)
        layout.text(self.right + 10, self.y, signed(self.limit), ha="left", **ends)

    def set_to(self, value: float, frame: Image.Image) -> None:
        """Draw the knob into a frame."""
        share = (value + self.limit) / (2 * self.limit)
        x, y = round(self.left + share * (self.right - self.left)), self.y
        ImageDraw.Draw(frame).ellipse((x - 4, y - 4, x + 4, y + 4), fill=(26, 26, 26))


@styled
def reconstructions(
    images: ArrayLike | Tensor,
    decoded: ArrayLike | Tensor,
    losses: ArrayLike,
    *,
    title: str = "",
    per_line: int = 12,
) -> Figure:
    """Originals over their reconstructions, with the loss of each image below.

    Args:
        images: originals, [N, C, H, W].
        decoded: the same, decoded from their posterior means, [N, C, H, W].
        losses: reconstruction loss of each, summed over pixels and channels, in nats, [N].
        title: the run, from `run_title`.
        per_line: how many stand side by side.
    """
    images, decoded = fit_cells(_tensor(images)), fit_cells(_tensor(decoded))
    losses = np.asarray(losses, dtype=np.float64)
    lines = chunks(np.arange(len(images)), per_line)
    pitch = images.shape[-1] + GAP
    line_height = 2 * pitch + GAP + 34
    width = 2 * MARGIN + LABEL_WIDTH + len(lines[0]) * pitch + GAP
    layout = FigureLayout(width, HEADER + len(lines) * line_height, "Reconstructions", title)
    left = MARGIN + LABEL_WIDTH
    for line, members in enumerate(lines):
        top = HEADER + line * line_height
        pairs = torch.cat([images[members], decoded[members]])
        layout.image(left, top, _grid(pairs, len(members)), label=f"images {members}")
        for row, name in enumerate(("image", "decoded")):
            y = top + (row + 0.5) * pitch
            layout.text(left - 10, y, name, ha="right", va="center_baseline")
        y = top + 2 * pitch + GAP + 13
        layout.text(left - 10, y, "loss / nats", ha="right", size=7.5, color=FAINT)
        for column, loss in enumerate(losses[members]):
            x = left + (column + 0.5) * pitch
            layout.text(
                x, y, f"{loss:.1f}" if loss < 1000 else f"{loss:.0f}", ha="center", size=7.5
            )
    return layout.figure


@styled
def samples(images: ArrayLike | Tensor, *, title: str = "", per_line: int = 12) -> Figure:
    """Images decoded from draws of the prior, [N, C, H, W]."""
    images = fit_cells(_tensor(images))
    pixels = _grid(images, min(per_line, len(images)))
    height, width = pixels.shape[:2]
    layout = FigureLayout(
        width + 2 * MARGIN, HEADER + height + MARGIN, "Samples from the prior", title
    )
    layout.image(MARGIN, HEADER, pixels, label="samples")
    return layout.figure


# --- pictures made of numbers --------------------------------------------------------------------


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
            _label_latent(layout, start, y + PANEL / 2, latent, kl)
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


def factor_matrix(
    mutual_information: ArrayLike,
    factor_entropy: ArrayLike,
    factor_names: Sequence[str],
    kl: ArrayLike,
    *,
    title: str = "",
) -> Figure:
    """What each latent knows about each factor, and the gap between the best two that MIG is.

    A `latent_matrix` of I(latent; factor) / H(factor).

    Args:
        mutual_information: in nats, [latent_dim, F].
        factor_entropy: in nats, [F].
        factor_names: [F].
        kl: KL to the prior of each latent in nats, [latent_dim].
        title: the run, from `run_title`.
    """
    entropy = np.asarray(factor_entropy, dtype=np.float64)
    shares = np.asarray(mutual_information, dtype=np.float64)
    # A factor with a single value has no entropy: nothing is to be known about it.
    shares = np.divide(shares, entropy, out=np.zeros_like(shares), where=entropy > 0)
    gaps = gap_of_best(shares)
    mean = gaps[entropy > 0].mean() if (entropy > 0).any() else 0.0
    return latent_matrix(
        shares,
        factor_names,
        kl,
        bars=gaps,
        heading="Mutual information of latents and factors",
        told="I(latent; factor) / H(factor)",
        bars_told="gap of the best two",
        mean=("MIG", mean),
        title=title,
    )


def gap_of_best(scores: np.ndarray) -> np.ndarray:
    """By how much the best latent exceeds the second, for each factor of `scores` [D, F]: [F]."""
    ranked = -np.sort(-scores, axis=0)
    return ranked[0] - (ranked[1] if len(ranked) > 1 else 0)


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
    panels = [
        ("recon", "Reconstruction loss / nats, log scale"),
        ("kl", "KL to the prior / nats"),
        ("elbo", "ELBO / nats"),
    ]
    if "penalty" in log:
        panels += [("penalty", "Penalty, before γ")]
    else:
        panels += [
            ("tc", "Total correlation, estimated / nats"),
            ("disc_accuracy", "Discriminator accuracy; dashed: chance"),
        ]
    log["elbo"] = -log["recon"] - log["kl"]
    for index, (column, heading) in enumerate(panels):
        line, place = divmod(index, 3)
        x, y = left + place * pitch_x, top + line * pitch_y
        axes = layout.axes(x, y, width, height, label=column)
        axes.set_title(heading)
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


# --- helpers -------------------------------------------------------------------------------------


def _tensor(array: ArrayLike | Tensor) -> Tensor:
    """Float images on the CPU."""
    return torch.as_tensor(array).detach().float().cpu()


def _grid(images: Tensor, per_line: int, gap: int = GAP) -> np.ndarray:
    """Images [N, C, H, W] side by side, `per_line` in a line: uint8 [height, width, 3]."""
    grid = make_grid(images, nrow=per_line, padding=gap, pad_value=GAP_GREY)  # [3, height, width]
    if len(images) == 1:  # which make_grid hands back as it is
        grid = torch.nn.functional.pad(grid, (gap, gap, gap, gap), value=GAP_GREY)
    return (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _label_latent(
    layout: FigureLayout, right: float, middle: float, latent: int, kl: np.ndarray
) -> None:
    """'z3' over 'KL 2.41', or over 'dead', at the left of a row."""
    is_dead = dead_latents(kl)[latent]
    color = FAINT if is_dead else INK
    layout.text(right - 10, middle - 2, f"z{latent}", ha="right", color=color, size=10)
    note = f"dead, {kl[latent]:.3f}" if is_dead else f"KL {kl[latent]:.2f}"
    layout.text(right - 10, middle + 12, note, ha="right", color=FAINT, size=7.5)
