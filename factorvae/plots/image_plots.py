"""Pictures of images that a model decodes: arrays in, a matplotlib figure or frames out.

Every function works on its own, in a notebook too; `style.save_figure` writes what they return.
Image arrays are [.., C, H, W] in [0, 1] with one or three channels, numpy or torch. They
are brought to about CELL pixels by an integer zoom (or an integer mean, where they are larger), and
never interpolated. All pictures order the latents in the same way: largest KL to the prior first,
dead latents last and marked.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.utils import make_grid

from factorvae.plots.latents import (
    LABEL_WIDTH,
    MAX_ROWS,
    dead_latents,
    label_latent,
    latent_order,
)
from factorvae.plots.style import FAINT, HEADER, INK, MARGIN, FigureLayout, chunks, signed, styled

CELL = 64  # pixels
GAP = 2  # pixels between image cells, in a grey that shows beside black and white alike
GAP_GREY = 0.75
MARK_HEIGHT = 8  # pixels below a row, for the mark of a code
VALUES_HEIGHT = 20  # pixels above rows, for what their latent takes
DEAD_GAP = 10  # pixels between live rows and dead ones


def fit_cells(images: Tensor) -> Tensor:
    """Images [N, C, H, W] near CELL pixels: each pixel repeated, or means over whole blocks."""
    side = images.shape[-1]
    if side < CELL:
        zoom = CELL // side
        return images.repeat_interleave(zoom, dim=-2).repeat_interleave(zoom, dim=-1)
    shrink = side // CELL
    return torch.nn.functional.avg_pool2d(images, shrink) if shrink > 1 else images


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
                label_latent(layout, left, y + GAP + self.cell / 2, latent, self.kl)
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


def _tensor(array: ArrayLike | Tensor) -> Tensor:
    """Float images on the CPU."""
    return torch.as_tensor(array).detach().float().cpu()


def _grid(images: Tensor, per_line: int, gap: int = GAP) -> np.ndarray:
    """Images [N, C, H, W] side by side, `per_line` in a line: uint8 [height, width, 3]."""
    grid = make_grid(images, nrow=per_line, padding=gap, pad_value=GAP_GREY)  # [3, height, width]
    if len(images) == 1:  # which make_grid hands back as it is
        grid = torch.nn.functional.pad(grid, (gap, gap, gap, gap), value=GAP_GREY)
    return (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
