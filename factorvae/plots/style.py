"""The paper that pictures are drawn on: one style, and a figure laid out in whole pixels.

matplotlib places things by fractions of a figure and resamples images to fit; here a position is
a pixel, counted from the top left corner, and an image covers exactly as many pixels as it has, so
that nothing is blurred. No pyplot and no global state: figures made here work in a notebook, a
thread or on a machine without a display.
"""

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from factorvae.errors import printable
from factorvae.files import write_whole

DPI = 100  # figures are laid out in pixels of this size
MOST_DOTS = 40e6  # in a vector picture, for its size and the time it takes
MARGIN = 16  # left and right of everything
HEADER = 54  # height of the heading, the run's title and some air
TITLES = 42  # of it, the heading and the title
INK, FAINT = "0.1", "0.4"

STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is one
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "image.interpolation": "nearest",
    "image.cmap": "cividis",  # evenly lighter from end to end: safe in greyscale and for all eyes
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "factorvae",  # the same figure gives the same file
}

P = ParamSpec("P")
T = TypeVar("T")


def styled(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function under STYLE and leave matplotlib's own settings as they were."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(dict(STYLE)):
            return function(*args, **kwargs)

    return wrapper


@styled
def save_figure(figure: Figure, target: Path | io.BytesIO, format: str = "png") -> None:
    """Write a figure as png (pixel for pixel), or as pdf or svg (vector text and lines)."""
    # Vector formats hold each pixel of a sprite as several dots, lest a viewer smooth them.
    width, height = figure.get_size_inches() * DPI
    dots = 1 if format == "png" else max(1, min(4, int((MOST_DOTS / (width * height)) ** 0.5)))
    no_date = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[format]
    figure.savefig(target, format=format, dpi=dots * DPI, metadata=no_date)


def png_bytes(figure: Figure) -> bytes:
    """What `save_figure` would write as png."""
    return figure_bytes(figure, "png")


def figure_bytes(figure: Figure, format: str) -> bytes:
    """What `save_figure` would write."""
    stream = io.BytesIO()
    save_figure(figure, stream, format)
    return stream.getvalue()


def untitled(picture: Image.Image) -> Image.Image:
    """A picture of a `FigureLayout` without its heading and title, for a page that has them."""
    return picture.crop((0, TITLES, *picture.size))


def write_figure(figure: Figure, path: Path, format: str) -> bytes:
    """`save_figure`, whole or not at all; UserError where it cannot be written.

    Returns what a page shows of it: a png without its heading and title.
    """
    data = png_bytes(figure)
    write_whole(path, data if format == "png" else figure_bytes(figure, format))
    stream = io.BytesIO()
    untitled(Image.open(io.BytesIO(data))).save(stream, format="PNG")
    return stream.getvalue()


def signed(value: float, digits: int = 3) -> str:
    """A number for a label: at most `digits` significant ones, and a true minus sign."""
    return f"{value + 0.0:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def factor_value(value: float) -> str:
    """A factor's value for a label: a multiple of pi as such, another number as `signed` has it."""
    times = round(value / np.pi)
    if times == 0 or abs(value / np.pi - times) > 1e-6:
        return signed(value)
    factor = {1: "", -1: "-"}.get(times, str(times))
    return f"{factor}π".replace("-", "\N{MINUS SIGN}")


class FigureLayout:
    """A white figure of a given size in pixels, with a heading and the run's title."""

    def __init__(self, width: int, height: int, heading: str, title: str) -> None:
        # A narrow picture still has room for its title: 7 pixels a letter are enough.
        self.width = max(width, 2 * MARGIN + 7 * max(len(heading) + 4, len(title)))
        self.height = height
        self.figure = Figure(figsize=(self.width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.text(MARGIN, 20, heading, va="baseline", size=11, weight="bold")
        self.text(MARGIN, 37, title, va="baseline", color=FAINT)

    def text(self, x: float, y: float, text: str, **options: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, printable(text), **options)

    def rule(self, left: float, right: float, y: float, linestyle: str = (0, (4, 3))) -> None:
        """A thin horizontal line."""
        ends = ([left / self.width, right / self.width], [1 - y / self.height] * 2)
        self.figure.add_artist(Line2D(*ends, color=FAINT, linewidth=0.8, linestyle=linestyle))

    def mark(self, x: float, y: float, marker: str, label: str) -> None:
        """A small sign; `label` finds it again in `figure.artists`."""
        place = [x / self.width], [1 - y / self.height]
        options = {"color": INK, "marker": marker, "markersize": 4, "linestyle": "none"}
        self.figure.add_artist(Line2D(*place, label=label, **options))

    def axes(self, left: int, top: int, width: int, height: int, label: str) -> Axes:
        """Axes over a box of pixels; `label` finds them again in `figure.axes`."""
        box = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self.figure.add_axes(box, label=label)

    def image(self, left: int, top: int, pixels: np.ndarray, label: str) -> Axes:
        """An image, uint8 [height, width, 3], one pixel of it on one pixel of the figure."""
        axes = self.axes(left, top, pixels.shape[1], pixels.shape[0], label)
        axes.imshow(pixels, aspect="auto")
        axes.set_axis_off()
        return axes


def chunks(items: np.ndarray, most: int) -> list[np.ndarray]:
    """Consecutive parts of at most `most` items, all of one length but the last."""
    num_parts = -(-len(items) // most)
    length = -(-len(items) // num_parts)
    return [items[start : start + length] for start in range(0, len(items), length)]


NARROW = 8  # a log axis that spans less is ticked as a linear one


def scale_by_log(axis: Axis) -> None:
    """A log scale of what is drawn, its ticks plain numbers: at 1, 2 and 5, if these will do."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.axes.autoscale(axis=axis.axis_name)
    low, high = axis.get_view_interval()
    narrow = high < NARROW * low  # 1, 2 and 5 alone would leave it with a tick or none
    axis.set_major_locator(MaxNLocator(4) if narrow else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,.10g}")
    axis.set_minor_locator(NullLocator())


def line_styles(n: int) -> Sequence[dict[str, Any]]:
    """Keywords for n lines that differ in lightness, dash and marker, not in hue alone."""
    shades = matplotlib.colormaps["cividis"](np.linspace(0.0, 0.78, max(n, 2)))
    dashes = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
    markers = "os^Dv<>P"
    return [
        {
            "color": shades[index],
            "linestyle": dashes[index % len(dashes)],
            "marker": markers[index % len(markers)],
        }
        for index in range(n)
    ]


def overlaid_styles(n: int) -> Sequence[dict[str, Any]]:
    """`line_styles` of lines that may lie on each other: each is thinner than those below it."""
    finer = min(1.1, 5 / max(n - 1, 1))
    widths = [1.2 + finer * (n - 1 - index) for index in range(n)]
    return [
        style | {"linewidth": width, "markersize": width + 3}
        for style, width in zip(line_styles(n), widths, strict=True)
    ]
