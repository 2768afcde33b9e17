"""Pictures of a world whose encoder and decoder are known: what they show can be asserted."""

import base64
import io
import re
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from factorvae.datasets import FactorSpace
from factorvae.metrics.inputs import top_gap
from factorvae.pages.gallery import last_losses
from factorvae.pages.page import PagePicture, PageTable, html_page
from factorvae.pages.traversal import (
    balanced_factors,
    cosine_sweep,
    factor_response,
    latent_traversal,
    mean_response,
    response_lines,
)
from factorvae.plots import factor_plots, image_plots, style, titles, training_plots
from factorvae.plots.gif import encode_gif
from factorvae.plots.style import DPI, STYLE, line_styles, png_bytes, save_figure
from factorvae.plots.sweep_plots import scores_against_reconstruction, sweep_curves

TITLE = titles.run_title("dsprites", 300_000, 1.0, 6.4)
SIDE = 64
VALUES = torch.linspace(-3, 3, 7)

# The hand-made world: a white square, whose place and size three of five latents say.
X, Y, SIZE, DEAD = 3, 0, 2, (1, 4)
LATENT_DIM = 5
# Largest first, this is the order of the rows: y, size, x, then the dead 4 and 1.
KL = np.array([3.0, 0.001, 2.0, 1.0, 0.004])
ROWS = [Y, SIZE, X, 4, 1]


def decode(z):
    """A square around (32 + 5 z_x, 32 + 5 z_y), 2 * (7 + z_size) pixels wide."""
    center_x, center_y = 32 + 5 * z[:, X], 32 + 5 * z[:, Y]
    half = 7 + z[:, SIZE]
    pixel = torch.arange(SIDE) + 0.5
    across = (pixel[None, :] - center_x[:, None]).abs() < half[:, None]
    down = (pixel[None, :] - center_y[:, None]).abs() < half[:, None]
    return (down[:, :, None] & across[:, None, :]).float()[:, None]


def encode(images):
    """The posterior means: what `decode` would be given to draw these squares."""
    measures = [measure(image) for image in images[:, 0].numpy()]
    codes = torch.zeros(len(images), LATENT_DIM)
    for code, (center_x, center_y, width, _) in zip(codes, measures, strict=True):
        code[X], code[Y], code[SIZE] = (center_x - 32) / 5, (center_y - 32) / 5, width / 2 - 7
    return codes


def measure(picture):
    """Centre x, centre y, width and height of what is white in [H, W]."""
    rows, columns = np.nonzero(picture > 0.5)
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    return columns.mean() + 0.5, rows.mean() + 0.5, width, height


def cells(axes, num_columns, cell=SIDE):
    """The images of a grid, [rows, columns, cell, cell, 3], its gaps cut away."""
    pixels = np.asarray(axes.images[0].get_array())
    pitch = cell + image_plots.GAP
    num_rows = pixels.shape[0] // pitch
    assert pixels.shape == (
        num_rows * pitch + image_plots.GAP,
        num_columns * pitch + image_plots.GAP,
        3,
    )
    rows = pixels[image_plots.GAP :].reshape(num_rows, pitch, -1, 3)[:, :cell]
    columns = rows[:, :, image_plots.GAP :].reshape(num_rows, cell, num_columns, pitch, 3)
    return columns[:, :, :, :cell].transpose(0, 2, 1, 3, 4)


def find(figure, label):
    """The only axes of this label."""
    (axes,) = [axes for axes in figure.axes if axes.get_label() == label]
    return axes


def text_artists(artist):
    """Every Text below; none of the x and y axis of an image, which are off and have no ticks yet.

    To ask them for their ticks would make some, in all images of a figure for longer than it takes
    to draw it.
    """
    if isinstance(artist, Text):
        yield artist
    off = {artist.xaxis, artist.yaxis} if isinstance(artist, Axes) and not artist.axison else ()
    for child in artist.get_children():
        if child not in off:
            yield from text_artists(child)


def texts(figure):
    return [text.get_text() for text in text_artists(figure) if text.get_text()]


def assert_readable(figure):
    """Every text lies within the figure, and on no other text."""
    figure.draw_without_rendering()
    renderer = matplotlib.backends.backend_agg.FigureCanvasAgg(figure).get_renderer()
    undrawn = set()  # the labels of ticks beyond an axis' ends
    shown_axes = [axes for axes in figure.axes if axes.axison]
    for axis in (axis for axes in shown_axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                undrawn |= {tick.label1, tick.label2}
    shown = [
        text
        for text in text_artists(figure)
        if text.get_text() and text.get_visible() and text not in undrawn
    ]
    boxes = [text.get_window_extent(renderer) for text in shown]
    low = np.array([[box.x0, box.y0] for box in boxes])
    high = np.array([[box.x1, box.y1] for box in boxes])
    names = [text.get_text() for text in shown]
    outside = (low < 0).any(axis=1) | (high > figure.bbox.size).any(axis=1)
    assert not outside.any(), [names[i] for i in np.flatnonzero(outside)]
    overlap = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # [texts, texts, 2]
    clash = (overlap > 1).all(axis=-1) & ~np.eye(len(names), dtype=bool)
    assert not clash.any(), [(names[i], names[j]) for i, j in np.argwhere(clash)]


@pytest.fixture(scope="module")
def base_images():
    mu = torch.zeros(2, LATENT_DIM)
    mu[1, X], mu[1, Y], mu[1, SIZE] = 1.0, -2.0, 2.0
    return decode(mu)


@pytest.fixture(scope="module")
def traversed(base_images):
    """Images [2, LATENT_DIM, 7, 1, 64, 64]."""
    rows = [
        latent_traversal(decode, mu, latent, VALUES)
        for mu in encode(base_images)
        for latent in range(LATENT_DIM)
    ]
    return torch.stack(rows).unflatten(0, (2, LATENT_DIM))


def test_a_grid_has_its_images_in_lines_and_grey_around_them():
    images = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 1, 2, 3)
    grey = round(255 * image_plots.GAP_GREY)
    grid = image_plots._grid(images, per_line=2, gap=1)
    assert grid.shape == (7, 9, 3) and grid.dtype == np.uint8
    assert (grid[[0, 3, 6]] == grey).all() and (grid[:, [0, 4, 8]] == grey).all()
    assert (grid[1:3, 1:4] == 0).all() and (grid[1:3, 5:8] == 128).all()
    assert (grid[4:6, 1:4] == 255).all() and (grid[4:6, 5:8] == grey).all()
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(1, 3, 2, 2)
    assert image_plots._grid(red, per_line=4, gap=1)[1, 1].tolist() == [255, 0, 0]


def test_latent_traversal_moves_one_latent_and_leaves_mu_alone():
    mu = torch.tensor([0.5, -1.0, 2.0])
    seen = latent_traversal(lambda z: z[:, :, None, None], mu, 1, torch.tensor([-3.0, 0.0, 3.0]))
    assert seen[:, :, 0, 0].tolist() == [[0.5, -3.0, 2.0], [0.5, 0.0, 2.0], [0.5, 3.0, 2.0]]
    assert mu.tolist() == [0.5, -1.0, 2.0]


def test_each_row_of_the_traversals_moves_what_its_latent_means_and_nothing_else(
    traversed, base_images
):
    figure = image_plots.traversals(
        traversed, KL, VALUES, base_images=base_images, decoded=1 - base_images, title=TITLE
    )
    for base, (x, y, width, _) in enumerate(measure(image[0]) for image in base_images.numpy()):
        rows = {latent: cells(find(figure, f"base {base}: z{latent}"), 7)[0] for latent in ROWS}
        found = {
            latent: np.array([measure(cell[..., 0] / 255) for cell in row])
            for latent, row in rows.items()
        }
        steps = VALUES.numpy()
        still = np.zeros(7)
        for latent, expected in {
            X: (32 + 5 * steps, y + still, width + still, width + still),
            Y: (x + still, 32 + 5 * steps, width + still, width + still),
            SIZE: (x + still, y + still, 14 + 2 * steps, 14 + 2 * steps),
            DEAD[0]: (x + still, y + still, width + still, width + still),
            DEAD[1]: (x + still, y + still, width + still, width + still),
        }.items():
            np.testing.assert_allclose(found[latent], np.stack(expected, axis=1))
        for word, expected in (("image", base_images[base]), ("decoded", 1 - base_images[base])):
            shown = np.asarray(find(figure, f"base {base}: {word}").images[0].get_array())
            assert shown.shape == (SIDE, SIDE, 3)
            np.testing.assert_array_equal(shown[..., 0], 255 * expected[0].numpy())


def test_an_image_s_own_code_is_marked_below_the_cells_that_it_lies_between(traversed):
    codes = np.zeros((2, LATENT_DIM))
    codes[0] = [-3, 0.5, 3, 40, -40]
    figure = image_plots.traversals(traversed, KL, VALUES, codes=codes, title=TITLE)
    marks = {line.get_label(): line for line in figure.artists if "code" in line.get_label()}
    assert len(marks) == 2 * LATENT_DIM
    pitch, signs = SIDE + image_plots.GAP, {3: ">", 4: "<"}
    for latent, code in enumerate(codes[0]):
        row = find(figure, f"base 0: z{latent}").bbox
        mark = marks[f"base 0: code of z{latent}"]
        x = mark.get_xdata()[0] * figure.bbox.width - row.x0
        y = mark.get_ydata()[0] * figure.bbox.height
        assert row.y0 - image_plots.MARK_HEIGHT < y < row.y0
        assert mark.get_marker() == signs.get(latent, "^")
        if abs(code) <= 3:  # in the middle of the cell that shows this value, or between two
            assert x == pytest.approx(image_plots.GAP + SIDE / 2 + (code + 3) * pitch)
        else:
            assert 0 < x < row.width


def test_rows_are_labelled_with_their_kl_and_dead_ones_are_marked_and_last(traversed):
    figure = image_plots.traversals(traversed, KL, VALUES, title=TITLE)
    labels = {t.get_text(): t.get_position()[1] for t in figure.texts}
    names = ["z0", "z2", "z3", "z4", "z1"]
    heights = [labels[name] for name in names]
    assert heights == sorted(heights, reverse=True)
    notes = ["KL 3.00", "KL 2.00", "KL 1.00", "dead, 0.004", "dead, 0.001"]
    assert [labels[note] for note in notes] == sorted([labels[note] for note in notes])[::-1]
    assert {"−3", "−2", "−1", "0", "1", "2", "3"} <= set(texts(figure))
    (rule,) = {
        line.get_ydata()[0] for line in figure.artists
    }  # no codes: at one height, for both images
    assert labels["KL 1.00"] > rule > labels["z4"]


def test_the_title_says_model_step_beta_and_gamma(traversed):
    assert TITLE == "FactorVAE on dsprites, step 300,000, β = 1, γ = 6.4"
    assert titles.run_title("rooms", 5, 4.0, 0.0) == "β-VAE on rooms, step 5, β = 4, γ = 0"
    assert titles.run_title("rooms", 5, 1.0, 0.0).startswith("VAE on rooms")
    assert len(titles.run_title("folder:" + "x" * 500, 5, 1.0, 0.0)) < 100
    assert TITLE in texts(image_plots.traversals(traversed, KL, VALUES, title=TITLE))


def test_saved_pixels_are_those_of_the_images(traversed):
    figure = image_plots.traversals(traversed, KL, VALUES, title=TITLE)
    page = np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("RGB"))
    assert page.shape[:2] == tuple(round(side * DPI) for side in figure.get_size_inches()[::-1])
    checked = 0
    for axes in figure.axes:
        pixels = np.asarray(axes.images[0].get_array())
        left, bottom, right, top = (round(edge) for edge in axes.bbox.extents)
        np.testing.assert_array_equal(
            page[page.shape[0] - top : page.shape[0] - bottom, left:right], pixels
        )
        checked += pixels.size
    assert checked > 2 * LATENT_DIM * 7 * SIDE * SIDE


@pytest.mark.parametrize(("side", "shown"), [(32, 64), (64, 64), (128, 64), (256, 64), (16, 64)])
def test_cells_are_zoomed_by_whole_numbers_only(side, shown):
    images = torch.rand(3, 1, side, side, generator=torch.Generator().manual_seed(0))
    pixels = cells(image_plots.samples(images).axes[0], 3, cell=shown)[0, :, :, :, 0] / 255
    if side < shown:
        zoom = shown // side
        expected = np.kron(images[:, 0].numpy(), np.ones((1, zoom, zoom)))
    else:
        blocks = images[:, 0].numpy().reshape(3, shown, side // shown, shown, side // shown)
        expected = blocks.mean(axis=(2, 4))
    np.testing.assert_allclose(pixels, expected, atol=0.5 / 255 + 1e-6)


def test_reconstructions_stand_below_their_images_with_their_losses():
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, SIDE, SIDE, generator=rng)
    decoded = torch.rand(5, 3, SIDE, SIDE, generator=rng)
    losses = [12.34, 56.78, 9.01, 2345.6, 7.77]
    figure = image_plots.reconstructions(images, decoded, losses, title=TITLE, per_line=3)
    first, second = figure.axes
    for axes, part in ((first, slice(0, 3)), (second, slice(3, 5))):
        grid = cells(axes, len(images[part])) / 255
        for row, expected in zip(grid, (images[part], decoded[part]), strict=True):
            np.testing.assert_allclose(row.transpose(0, 3, 1, 2), expected, atol=0.5 / 255 + 1e-6)
    assert {"12.3", "56.8", "9.0", "2346", "7.8"} <= set(texts(figure))


# --- the animation -------------------------------------------------------------------------------


def test_the_sweep_is_a_closed_smooth_loop():
    sweep = cosine_sweep(48).numpy()
    assert sweep.max() == 3 and sweep.min() == -3
    steps = np.abs(np.diff(np.append(sweep, sweep[0])))
    assert steps.max() <= 3 * 2 * np.pi / 48  # nowhere faster than the sine's slope
    np.testing.assert_allclose(sweep[1:], sweep[:0:-1], atol=1e-6)


@pytest.fixture(scope="module")
def frames(base_images):
    sweep = cosine_sweep(24)
    rows = [
        latent_traversal(decode, mu, latent, sweep)
        for mu in encode(base_images)
        for latent in range(LATENT_DIM)
    ]
    images = torch.stack(rows).unflatten(0, (2, LATENT_DIM))
    names = ["square, image 3", "image 44"]
    return image_plots.traversal_frames(
        images, KL, sweep, base_images=base_images, base_names=names, title=TITLE
    )


def test_every_latent_has_its_cell_in_every_frame(frames, base_images):
    pitch, top = SIDE + image_plots.GAP, style.HEADER + 32 + image_plots.GAP
    for frame, value in zip(frames, cosine_sweep(24).tolist(), strict=True):
        pixels = np.asarray(frame)
        for base, image in enumerate(base_images[:, 0].numpy()):
            x, y, width, _ = measure(image)
            y0 = top + base * pitch
            left = frame.width - style.MARGIN - LATENT_DIM * pitch
            own = left - 16 - image_plots.GAP - SIDE  # the image itself, beside its row
            shown = pixels[y0 : y0 + SIDE, own : own + SIDE, 0]
            np.testing.assert_array_equal(shown, 255 * image)
            for column, latent in enumerate(ROWS):
                x0 = left + column * pitch
                found = measure(pixels[y0 : y0 + SIDE, x0 : x0 + SIDE, 0] / 255)
                expected = [x, y, width]
                if latent in (X, Y):
                    expected[0 if latent == X else 1] = 32 + 5 * value
                    if abs(value) < 3:  # a square at the border is cut
                        np.testing.assert_allclose(found[:3], expected, atol=1)
                elif latent in DEAD:
                    np.testing.assert_allclose(found[:3], expected)


def test_the_gif_loops_for_ever_without_a_jump_and_shows_the_frames(frames):
    data = encode_gif(frames, seconds=2.4)
    gif = Image.open(io.BytesIO(data))
    assert gif.n_frames == 24 and gif.info["loop"] == 0 and len(data) < 100_000
    shown, durations = [], []
    for index in range(24):
        gif.seek(index)
        durations.append(gif.info["duration"])
        shown.append(np.asarray(gif.convert("RGB")).astype(int))
    assert sum(durations) == 2400
    for picture, frame in zip(shown, frames, strict=True):
        assert np.abs(picture - np.asarray(frame)).mean() < 1
    jumps = [np.abs(a - b).mean() for a, b in zip(shown, [*shown[1:], shown[0]], strict=True)]
    assert 0 < jumps[-1] <= max(jumps[:-1])


def test_a_gif_that_would_be_too_large_is_made_smaller():
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
    data = encode_gif([Image.fromarray(frame) for frame in noise], max_bytes=4_000)
    assert len(data) <= 4_000
    gif = Image.open(io.BytesIO(data))
    total = 0
    for index in range(gif.n_frames):
        gif.seek(index)
        total += gif.info["duration"]
    assert abs(total - 4000) <= 10 * gif.n_frames  # it keeps its pace
    with pytest.raises(ValueError, match="do not fit"):
        encode_gif([Image.fromarray(frame) for frame in noise], max_bytes=100)


# --- latents against factors ---------------------------------------------------------------------

FACTOR_SIZES = (3, 6, 8, 8)  # shape, scale, posX, posY


def represent(factors):
    """Latent 0 knows y, 2 knows the scale (the more so the higher the shape), 3 knows x."""
    codes = np.zeros((len(factors), LATENT_DIM))
    codes[:, X], codes[:, Y] = (factors[:, 2] - 3.5) / 2, (factors[:, 3] - 3.5) / 2
    codes[:, SIZE] = (factors[:, 1] - 2.5) * (1 + factors[:, 0]) / 4
    return codes


def test_balanced_factors_take_every_value_equally_often():
    factors = balanced_factors(FACTOR_SIZES, 24, np.random.default_rng(0))
    assert factors.shape == (24, 4) and factors.dtype == np.int64
    for column, size in zip(factors.T, FACTOR_SIZES, strict=True):
        assert np.bincount(column, minlength=size).tolist() == [24 // size] * size
    assert (factors != np.sort(factors, axis=0)).any(axis=0).all()


def test_factor_response_averages_the_factors_that_are_not_varied():
    settings = np.array([[0, 0, 0, 0], [2, 5, 7, 7]])
    response = factor_response(represent, FACTOR_SIZES, (0, 1), settings)
    assert response.shape == (3, 6, LATENT_DIM)
    shape, scale = np.indices((3, 6))
    np.testing.assert_allclose(response[..., SIZE], (scale - 2.5) * (1 + shape) / 4)
    np.testing.assert_allclose(response[..., X], 0)  # the mean of both settings


@pytest.mark.parametrize(
    ("sizes", "varied", "count"), [((3, 64, 64), (1, 2), 3), ((3, 6, 8), (0, 1), 24)]
)
def test_a_mean_response_is_over_as_many_settings_as_are_soon_encoded(sizes, varied, count):
    asked = []
    response = mean_response(lambda rows: asked.append(rows) or rows, sizes, varied, seed=5)
    cells = sizes[varied[0]] * sizes[varied[1]]
    (rows,) = asked
    assert len(rows) == cells * count
    (rest,) = {0, 1, 2} - {*varied}
    settings = rows[:count, rest]  # each value as often as the others
    assert np.ptp(np.bincount(settings, minlength=sizes[rest])) == 0
    np.testing.assert_allclose(response[..., rest], settings.mean())


@pytest.mark.parametrize(
    ("names", "words", "lines"),
    [
        (("shape", "scale", "posX", "posY"), {}, (1, 3, 3, 3)),
        (("shape", "scale", "posX", "posY"), {"scale": tuple("abcdef")}, (1, 1, 3, 3)),
        (("hue", "scale", "posX", "posY"), {}, (1, 1, 1, 1)),
    ],
)
def test_there_is_a_response_line_for_each_shape_but_of_categories(names, words, lines):
    space = FactorSpace(names, FACTOR_SIZES)
    dataset = SimpleNamespace(name="any", factor_space=space, value_words=words)
    for factor, count in enumerate(lines):
        response = response_lines(represent, dataset, factor, seed=0)
        assert response.shape == (count, FACTOR_SIZES[factor], LATENT_DIM)
    scale = response_lines(represent, dataset, 1, seed=0)[..., SIZE]
    slopes = (1 + np.arange(3))[:, None] if lines[1] == 3 else 2  # 2: the mean of the shapes
    np.testing.assert_allclose(scale, (np.arange(6) - 2.5)[None] * slopes / 4, atol=1e-12)


@pytest.fixture(scope="module")
def response_figure():
    settings = balanced_factors(FACTOR_SIZES, 24, np.random.default_rng(0))

    def response(*varied):
        return factor_response(represent, FACTOR_SIZES, varied, settings)

    return factor_plots.latent_response(
        KL,
        maps={("posX", "posY"): response(2, 3)},
        curves={"shape": response(0)[None], "scale": response(0, 1)},
        values={
            "shape": ("square", "ellipse", "heart"),
            "scale": np.linspace(0.5, 1, 6),
            "posX": np.linspace(0, 1, 8),
            "posY": np.linspace(0, 2 * np.pi, 8),
        },
        line_names=("square", "ellipse", "heart"),
        title=TITLE,
    )


def test_position_maps_show_x_across_and_y_down(response_figure):
    place = (np.arange(8) - 3.5) / 2
    shown = {
        latent: np.asarray(find(response_figure, f"z{latent}: posX, posY").images[0].get_array())
        for latent in (X, Y, SIZE)  # dead ones are folded into a line
    }
    np.testing.assert_allclose(shown[X], np.tile(place, (8, 1)))
    np.testing.assert_allclose(shown[Y], np.tile(place[:, None], (1, 8)))
    np.testing.assert_allclose(shown[SIZE], np.full((8, 8), shown[SIZE][0, 0]))


def test_no_line_hides_another_and_axes_are_named(response_figure):
    lines = [line for line in find(response_figure, "z2: scale").lines if line.get_zorder() > 0]
    lines = [line for line in lines if len(line.get_xdata()) == 6]
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3
    places = [set(range(*line.get_markevery()[:1], 6, line.get_markevery()[1])) for line in lines]
    assert all(places) and not set.intersection(*places[:2]) and not places[2] & places[0]
    axes = find(response_figure, "z3: posX, posY")  # the lowest of the live ones
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "2π"]
    assert texts(response_figure).count("posY") == 3 and texts(response_figure).count("posX") == 1


def test_large_limits_have_ticks_and_words_name_their_points():
    codes = 9.7 * np.linspace(-1, 1, 3)[None, :, None] * np.ones(LATENT_DIM)
    figure = factor_plots.latent_response(
        KL,
        maps={},
        curves={"hue": codes, "kind": codes},
        values={"hue": [1, 2, 3], "kind": ("oak", "a $word$ that is long", "ash")},
        title=TITLE,
    )
    ticks = find(figure, "z0: hue").get_yticks()
    np.testing.assert_allclose(ticks, [-7.5, -5, -2.5, 0, 2.5, 5, 7.5])
    words = [label.get_text() for label in find(figure, "z3: kind").get_xticklabels()]
    assert words == ["oak", "a $word$ that i…", "ash"]
    points = find(figure, "z3: kind").lines[:3]
    assert [line.get_xydata().tolist() for line in points] == [[[0, -9.7]], [[1, 0]], [[2, 9.7]]]
    assert_readable(figure)


def test_curves_show_each_shape_on_one_scale(response_figure):
    for latent in (X, Y, SIZE):
        axes = find(response_figure, f"z{latent}: scale")
        lines = [line for line in axes.lines if len(line.get_xdata()) == 6]
        assert len(lines) == 3
        for shape, line in enumerate(lines):
            np.testing.assert_allclose(line.get_xdata(), np.linspace(0.5, 1, 6))
            expected = (np.arange(6) - 2.5) * (1 + shape) / 4 if latent == SIZE else np.zeros(6)
            np.testing.assert_allclose(line.get_ydata(), expected, atol=1e-12)
        assert axes.get_ylim() == find(response_figure, f"z{X}: scale").get_ylim()
    points = [
        line for line in find(response_figure, "z2: shape").lines if line.get_marker() != "None"
    ]
    legend = response_figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["square", "ellipse", "heart"]
    for shown in (points, legend.get_lines()):  # as the lines of these shapes
        assert [line.get_marker() for line in shown] == [line.get_marker() for line in lines]
        colors = [[line.get_color() for line in each] for each in (shown, lines)]
        np.testing.assert_array_equal(*colors)
    assert_readable(response_figure)


def matrix(scores, names, kl=KL, title=TITLE):
    """A matrix of scores [latent_dim, F], with the gaps of the best two and 0.05 as their mean."""
    words = {"heading": "SAP", "told": "accuracy", "bars_told": "gap of the best two"}
    options = words | {"bars": top_gap(scores), "mean": ("SAP", 0.05)}
    return factor_plots.latent_matrix(scores, names, kl, **options, title=title)


SCORES = np.zeros((LATENT_DIM, 3))  # of scale nothing is known
SCORES[[X, Y], 0], SCORES[[SIZE, DEAD[0]], 2] = (0.5, 0.125), (0.75, 0.5)


@pytest.fixture(scope="module")
def small_matrix():
    return matrix(SCORES, ("shape", "scale", "posX"))


def test_a_matrix_shows_scores_bars_and_their_mean(small_matrix):
    axes, beside = find(small_matrix, "scores"), find(small_matrix, "bars")
    np.testing.assert_array_equal(axes.images[0].get_array(), SCORES[ROWS].T)
    assert [patch.get_width() for patch in beside.patches] == [0.375, 0, 0.25]
    assert [*beside.lines[0].get_xdata()] == [0.05, 0.05]
    assert "dashed: their mean (SAP) 0.050" in texts(small_matrix)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["shape", "scale", "posX"]
    assert_readable(small_matrix)


def test_a_matrix_names_the_latent_of_each_column_over_its_kl(small_matrix):
    above = sorted(
        (-text.get_position()[1], text.get_position()[0], text.get_text())
        for text in small_matrix.texts
        if text.get_ha() == "center"
    )
    words = [*(f"z{latent}" for latent in ROWS), "3.00", "2.00", "1.00", "dead", "dead"]
    assert [word for _, _, word in above] == words
    box = find(small_matrix, "scores").get_position()
    middles = box.x0 + box.width * (np.arange(LATENT_DIM) + 0.5) / LATENT_DIM
    np.testing.assert_allclose([x for _, x, _ in above], [*middles, *middles])


def test_a_matrix_s_numbers_stand_in_their_cells_and_its_bars_beside_their_rows(small_matrix):
    axes, beside = find(small_matrix, "scores"), find(small_matrix, "bars")
    shown = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert shown == {cell: f"{score:.2f}" for cell, score in np.ndenumerate(SCORES[ROWS].T)}
    bars = [(text.get_position()[1], text.get_text()) for text in beside.texts]
    assert bars == [(0, "0.38"), (1, "0.00"), (2, "0.25")]
    assert [patch.get_y() + patch.get_height() / 2 for patch in beside.patches] == [0, 1, 2]
    assert beside.get_ylim() == axes.get_ylim() and beside.get_xlim() == (0, 1)


def test_a_matrix_frames_the_best_latent_of_each_row_and_dashes_the_second(small_matrix):
    frames = {True: set(), False: set()}
    for frame in find(small_matrix, "scores").patches:
        cell = round(frame.get_y() + 0.44), ROWS[round(frame.get_x() + 0.44)]
        frames[frame.get_linestyle() in ("-", "solid")].add(cell)
    assert frames[True] == {(0, X), (1, ROWS[0]), (2, SIZE)}
    assert frames[False] == {(0, Y), (1, ROWS[1]), (2, DEAD[0])}


def test_a_colour_scale_rises_from_the_least_to_the_most_that_is_shown(
    small_matrix, response_figure
):
    for figure, panel in ((small_matrix, "scores"), (response_figure, f"z{X}: posX, posY")):
        scale = find(figure, "scale").images[0]
        assert tuple(scale.get_extent()) == (*find(figure, panel).images[0].get_clim(), 0, 1)
        assert (np.diff(scale.get_array()) > 0).all()


def test_a_matrix_of_many_attributes_goes_from_nought_to_its_largest_score():
    rng = np.random.default_rng(0)
    scores = 0.3 * rng.random((LATENT_DIM, 40))
    names = [f"attribute_{n}_$x$" for n in range(40)]
    figure = matrix(scores, names)
    shown = find(figure, "scores").images[0]
    np.testing.assert_allclose(shown.get_array(), scores.T[:, ROWS])
    assert shown.get_clim() == (0, scores.max())
    first, second = np.sort(scores[:, 7])[::-1][:2]
    assert find(figure, "bars").patches[7].get_width() == pytest.approx(first - second)
    assert {"accuracy", f"colours to the largest, {scores.max():.2f}"} <= set(texts(figure))
    assert_readable(figure)


@pytest.mark.parametrize("latents", [1, 4])
def test_a_matrix_of_few_latents_has_room_for_its_key(latents):
    told = "held-out accuracy of a linear machine that sees the latent alone"
    scores = np.eye(latents, 2)
    options = {"bars": [1, 0], "heading": "SAP", "told": told, "bars_told": "gap of the best two"}
    figure = factor_plots.latent_matrix(scores, ("a", "b"), np.ones(latents), **options)
    assert told in texts(figure)
    assert_readable(figure)


# --- the run's log -------------------------------------------------------------------------------


def test_few_rows_of_the_log_are_drawn_as_they_are_and_many_under_their_mean():
    for num_rows, lines in ((99, 1), (100, 2)):
        log = make_log(num_rows, 2)
        assert training_plots.has_means(log["step"]) == (lines == 2)
        assert len(find(training_plots.training_curves(log), "kl").lines) == lines


def make_log(num_rows, latent_dim, with_discriminator=True):
    rng = np.random.default_rng(0)
    step = 100 * (1 + np.arange(num_rows))
    missing = 0 if with_discriminator else np.nan
    log = {
        "step": step,
        "recon": 20 + 500 * np.exp(-step / 3000) + rng.random(num_rows),
        "kl": 16 + rng.random(num_rows),
        "tc": 0.5 + rng.standard_normal(num_rows) + missing,
        "disc_accuracy": 0.6 + 0.1 * rng.random(num_rows) + missing,
    }
    for latent in range(latent_dim):
        log[f"kl_{latent}"] = np.full(num_rows, 3.0 / (1 + latent) if latent % 3 else 0.001)
    return log


def test_training_curves_are_the_columns_of_the_log():
    log = make_log(300, 10)
    figure = training_plots.training_curves(log, title=TITLE)
    drawn = {name: log[name] for name in ("recon", "kl", "tc", "disc_accuracy")}
    for name, column in (drawn | {"elbo": -log["recon"] - log["kl"]}).items():
        raw, smooth = find(figure, name).lines[:2]
        np.testing.assert_array_equal(raw.get_xdata(), log["step"])
        np.testing.assert_array_equal(raw.get_ydata(), column)
        np.testing.assert_allclose(smooth.get_ydata()[150], column[147:154].mean())
    by_latent = find(figure, "kl by latent")
    last = sorted(line.get_ydata()[-1] for line in by_latent.lines)
    np.testing.assert_allclose(last, sorted(log[f"kl_{latent}"][-1] for latent in range(10)))
    names = [text.get_text() for text in by_latent.texts]
    assert names == ["z1", "z2", "z4", "z5", "z7", "z8", "4 dead"]
    leaders = [line for line in figure.artists if isinstance(line, Line2D)]
    low, high = by_latent.get_ylim()
    ends = [float(line.get_ydata()[0]) * (high - low) + low for line in leaders]
    live = [log[f"kl_{latent}"][-1] for latent in range(10) if latent % 3]
    np.testing.assert_allclose(ends, [*live, 0.0], atol=1e-6)  # each meets its line and its name
    heights = [text.get_position()[1] for text in by_latent.texts]
    assert [line.get_ydata()[1] for line in leaders] == heights == sorted(heights, reverse=True)
    lines = sorted(by_latent.lines, key=lambda line: -line.get_ydata()[-1])
    colors = [[line.get_color() for line in each[: len(live)]] for each in (leaders, lines)]
    np.testing.assert_array_equal(*colors)
    low, high = by_latent.get_xlim()
    starts = [float(line.get_xdata()[0]) * (high - low) + low for line in leaders]
    np.testing.assert_allclose(starts, log["step"][-1])
    assert_readable(figure)


def test_what_came_before_a_run_settled_does_not_squash_the_rest():
    log = make_log(300, 3)
    for column in ("kl", "kl_1"):
        log[column][:20] = 1000
    figure = training_plots.training_curves(log, title=TITLE)
    assert find(figure, "kl").get_ylim()[1] < 20
    assert find(figure, "kl by latent").get_ylim()[1] < 2
    for axes in (find(figure, "kl"), find(figure, "kl by latent")):
        ticks = axes.get_xticks()
        assert ticks[-1] == 30_000 and len(set(ticks)) == len(ticks)


@pytest.mark.parametrize("span", [1.1, 2.0, 7.0, 9.0, 1000.0])
def test_a_log_axis_has_ticks_however_little_it_spans(span):
    log = make_log(10, 3)
    log["recon"] = np.geomspace(50 * span, 50, 10)
    axes = find(training_plots.training_curves(log, title=TITLE), "recon")
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert 2 <= len(shown) <= 12


@pytest.mark.parametrize("lowest", [0.25, 0.6])
def test_every_accuracy_is_in_view_with_that_of_chance(lowest):
    log = make_log(10, 3)
    log["disc_accuracy"][3] = lowest
    figure = training_plots.training_curves(log, title=TITLE)
    axes = find(figure, "disc_accuracy")
    low, high = axes.get_ylim()
    assert low < min(lowest, 0.5) and high == 1
    assert [*axes.lines[-1].get_ydata()] == [0.5, 0.5] and axes.lines[-1].is_dashed()
    assert_readable(figure)


def test_columns_are_headed_alike_in_pictures_and_on_the_page():
    log = make_log(20, 2)
    (_, *rows, _) = last_losses(log).rows
    on_page = dict(zip(("recon", "kl", "elbo", "tc", "disc_accuracy"), rows, strict=True))
    curves, of_sweep = training_plots.training_curves(log), sweep_curves({"one": [log]})
    for name, (heading, _) in on_page.items():
        title = find(curves, name).get_title("left")
        assert title.startswith(heading)
        if name in ("recon", "kl", "tc"):
            assert find(of_sweep, name).get_title("left") == title


@pytest.mark.parametrize("num_rows", [0, 1, 2, 250])
def test_training_curves_of_runs_without_a_discriminator_or_hardly_begun(num_rows):
    figure = training_plots.training_curves(
        make_log(num_rows, 3, with_discriminator=False), title=TITLE
    )
    for column in ("tc", "disc_accuracy"):
        assert [text.get_text() for text in find(figure, column).texts] == ["not recorded"]
        assert not find(figure, column).lines
    absent = "not recorded" in [text.get_text() for text in find(figure, "recon").texts]
    assert absent == (num_rows == 0)
    assert_readable(figure)


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "latent_dim"),
    [
        *((1, 1), (1, 10), (3, 1), (3, 10)),
        *(pytest.param(channels, 64, marks=pytest.mark.slow) for channels in (1, 3)),
    ],
)
def test_nothing_overlaps_or_is_cut_off(channels, latent_dim):
    rng = np.random.default_rng(0)
    kl = rng.permutation(np.where(np.arange(latent_dim) % 2, 0.002, 1 + rng.random(latent_dim)))
    images = rng.random((2, latent_dim, 3, channels, 32, 32), dtype=np.float32)
    codes = rng.standard_normal((2, latent_dim))
    same = {"base_images": images[:, 0, 0], "decoded": images[:, 0, 1], "base_names": ("a", "b")}
    figure = image_plots.traversals(images, kl, [-3, 0, 3], **same, codes=codes, title=TITLE)
    assert_readable(figure)
    height, width = figure.bbox.height, figure.bbox.width
    assert height < 2700 and width < 2600
    base = {"base_images": images[:, 0, 0], "base_names": ("heart, image 700001", "b")}
    frames = image_plots.traversal_frames(images, kl, [-3, 0, 3], **base, title=TITLE)
    assert len(frames) == 3 and frames[0].width < 1400
    assert_readable(image_plots.samples(images[0, 0], title=TITLE))
    assert_readable(
        image_plots.reconstructions(images[0, 0], images[0, 0], [1, 22.2, 3333], title=TITLE)
    )
    assert_readable(matrix(rng.random((latent_dim, 2)), ("shape", "posX"), kl))
    if channels == 1:
        assert_readable(
            factor_plots.latent_response(
                kl,
                maps={("posX", "posY"): rng.standard_normal((4, 4, latent_dim))},
                curves={"hue": rng.standard_normal((1, 5, latent_dim))},
                values={"hue": range(5)},
                title=TITLE,
            )
        )
        assert_readable(training_plots.training_curves(make_log(50, latent_dim), title=TITLE))


def test_colour_images_keep_their_colours_and_grey_ones_are_grey():
    red = torch.zeros(1, 3, SIDE, SIDE)
    red[:, 0] = 1
    assert (cells(image_plots.samples(red).axes[0], 1)[0, 0] == [255, 0, 0]).all()
    grey = cells(image_plots.samples(torch.full((1, 1, SIDE, SIDE), 0.5)).axes[0], 1)[0, 0]
    assert (grey == 128).all()


def test_lines_and_heat_maps_survive_greyscale(response_figure):
    styles = line_styles(4)
    for key in ("linestyle", "marker"):
        assert len({str(style[key]) for style in styles}) == 4
    weights = [0.2126, 0.7152, 0.0722]
    lightness = [style["color"][:3] @ weights for style in styles]
    assert np.diff(lightness).min() > 0.1
    maps = [axes.images[0].get_cmap() for axes in response_figure.axes if axes.images]
    for cmap in maps:
        assert np.diff(cmap(np.linspace(0, 1, 64))[:, :3] @ weights).min() > 0


def test_the_style_is_the_figures_own_and_pyplot_is_not_asked(traversed):
    before = dict(matplotlib.rcParams)
    figure = image_plots.traversals(traversed, KL, VALUES, title=TITLE)
    assert dict(matplotlib.rcParams) == before
    assert figure.texts[0].get_fontfamily() == [STYLE["font.family"]]
    assert figure.canvas.manager is None  # pyplot keeps no window for it


HOSTILE = "$\\frac{$ \x1b[2J\n"


@pytest.mark.parametrize("format", ["png", "svg"])
def test_text_from_outside_is_plain_text_everywhere(format):
    """In titles, ticks, labels and legends."""
    names = (f"{HOSTILE}1", f"{HOSTILE}2")
    curve, log = np.zeros((2, 4, LATENT_DIM)), make_log(20, 2)
    figures = [
        image_plots.samples(torch.zeros(1, 1, SIDE, SIDE), title=HOSTILE),
        matrix(np.ones((LATENT_DIM, 2)), names, title=HOSTILE),
        factor_plots.latent_response(
            KL,
            maps={names: np.zeros((4, 4, LATENT_DIM))},
            curves={HOSTILE: curve},
            values={HOSTILE: (HOSTILE,) * 4},
            line_names=names,
            title=HOSTILE,
        ),
        training_plots.training_curves(log, title=HOSTILE),
        scores_against_reconstruction({HOSTILE: np.ones((2, 2))}, scores=(HOSTILE,), title=HOSTILE),
        sweep_curves({HOSTILE: [log, log]}, title=HOSTILE),
    ]
    for figure in figures:
        save_figure(figure, io.BytesIO(), format)
        shown = texts(figure)
        assert any("$\\frac{$" in text for text in shown)
        assert all(text.isprintable() for text in shown)


@pytest.mark.parametrize(
    ("format", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_figures_are_written_in_the_format_asked_for_and_the_same_each_time(
    tmp_path, traversed, format, start
):
    files = [tmp_path / f"{name}.{format}" for name in "ab"]
    for file in files:
        save_figure(image_plots.traversals(traversed[:1], KL, VALUES, title=TITLE), file, format)
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(start) and first == second


def test_the_page_holds_its_pictures_and_asks_for_nothing_else():
    picture = PagePicture("one", "One & only", "A <caption>.", "png", b"\x89PNG data", "one.pdf")
    scores = PageTable("scores", "Scores", "", [["score", "value"], ["MIG", "0.123"]])
    settings = {"folder": "<b>", "gamma": 6.4, "crop": None, "compile": False}
    page = html_page("Title <1>", [picture], settings, [scores])
    sources = re.findall(r'src="([^"]*)"', page)
    assert sources == ["data:image/png;base64," + base64.b64encode(b"\x89PNG data").decode()]
    assert "http" not in page and "<script" not in page and "<link" not in page
    assert "Title &lt;1&gt;" in page and "A &lt;caption&gt;." in page and "&lt;b&gt;" in page
    assert "<td>gamma</td><td>6.4</td>" in page and "<td>compile</td><td>no</td>" in page
    assert "None" not in page and "crop" not in page
    assert "<th>score</th><th>value</th>" in page and "<td>MIG</td><td>0.123</td>" in page
    assert re.findall(r'<a href="([^"]*)"', page) == ["#scores", "#one", "#settings", "one.pdf"]
