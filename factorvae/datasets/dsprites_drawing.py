"""dSprites drawn from its geometry: polygons, filled bit for bit as the published images are.

dSprites (Matthey, Higgins, Hassabis and Lerchner 2017, Apache-2.0) was made by a GPU whose output
these rules reproduce: of 64,834 published images compared, 64,825 are identical and 9 differ by
one pixel. Vertices are computed in float64 and snapped to 1/256 pixel; the rest is integers, so
the pixels do not depend on the machine.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from factorvae.datasets.factors import FactorSpace

SIZE = 64  # pixels a side; a row of an image is one 64-bit word
PACKED_BYTES = SIZE * SIZE // 8  # an image in numpy.packbits order
UNIT = 0.3 * SIZE  # pixels; a square of scale 1 has this side
SUBPIXELS = 256  # vertices lie on a grid this fine

DSPRITES = FactorSpace(
    names=("shape", "scale", "orientation", "posX", "posY"),
    sizes=(3, 6, 40, 32, 32),
    values=(
        (1, 2, 3),  # square, ellipse, heart
        np.linspace(0.5, 1, 6),
        np.linspace(0, 2 * np.pi, 40),  # radians; both ends, so the first and last coincide
        np.linspace(0, 1, 32),  # 0 is left
        np.linspace(0, 1, 32),  # 0 is top
    ),
)


def outline(shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices x [V], y [V] (pixels from the centre, y down) of a shape at scale 1 and angle 0.

    shape: its latent value: 1 square, 2 ellipse, 3 heart.
    """
    if shape == 1:
        x, y = np.array([-0.5, 0.5, 0.5, -0.5]), np.array([-0.5, -0.5, 0.5, 0.5])
    elif shape == 2:
        t = np.arange(100) * (2 * np.pi / 100)
        x, y = 0.5 * 1.33 * np.cos(t), 0.5 * np.sin(t) / 1.33
    elif shape == 3:
        t = np.arange(150) * (2 * np.pi / 150)
        x = 16 * np.sin(t) ** 3 / 32
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 29 - 0.075
    else:
        raise ValueError(f"shape {shape} is none of 1, 2, 3")
    return UNIT * x, UNIT * y


def draw(
    shape: int, scale: float, angle: float, pos_x: np.ndarray, pos_y: np.ndarray
) -> np.ndarray:
    """One shape, scale and angle at every pair of the positions pos_x [A] and pos_y [B].

    Arguments are latent values (see DSPRITES), not indices. Returns packed images uint8
    [A, B, 512], each as numpy.packbits would pack its 64 rows of 64 pixels.
    """
    x, y = outline(shape)
    right = scale * (x * np.cos(angle) + y * np.sin(angle))  # anticlockwise as seen
    down = scale * (y * np.cos(angle) - x * np.sin(angle))
    centre_x = SIZE / 4 + SIZE / 2 * np.asarray(pos_x)
    centre_y = SIZE / 4 + SIZE / 2 * np.asarray(pos_y)
    snapped_x = np.rint(SUBPIXELS * (right + centre_x[:, None])).astype(np.int64)  # [A, V]
    snapped_y = np.rint(SUBPIXELS * (down + centre_y[:, None])).astype(np.int64)  # [B, V]
    words = _fill(snapped_x, snapped_y)  # [A, B, 64]
    return words.astype(">u8").view(np.uint8).reshape(*words.shape[:2], PACKED_BYTES)


# Everything from column k on, k = 0..64, the leftmost pixel being the highest bit.
_FROM_COLUMN = np.array([(2**64 - 1) >> k for k in range(SIZE + 1)], dtype=np.uint64)
_ROW_CENTRES = SUBPIXELS * np.arange(SIZE) + SUBPIXELS // 2


def _fill(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Polygons with vertices (x [A, V], y [B, V]), in subpixels, as row words uint64 [A, B, 64].

    Even-odd rule at pixel centres: a row is the XOR of everything right of each of its crossings.
    """
    width, height = (np.roll(v, -1, axis=1) - v for v in (x, y))  # of the edge from each vertex
    top, bottom = y + np.minimum(height, 0), y + np.maximum(height, 0)
    centres = _ROW_CENTRES[:, None]
    crossed = (top[:, None] < centres) & (centres <= bottom[:, None])  # [B, 64, V]
    image, row, edge = np.nonzero(crossed)  # [n] each, sorted by image and row

    # The edge meets the row at x + depth * width / height, and the first column whose centre is
    # not left of that is its ceiling after half a pixel is taken off.
    height, depth = height[image, edge], _ROW_CENTRES[row] - y[image, edge]
    numerator = (x[:, edge] - SUBPIXELS // 2) * height + depth * width[:, edge]  # [A, n]
    column = -(numerator // -(SUBPIXELS * height))

    first = np.flatnonzero(np.diff(image * SIZE + row, prepend=-1))  # each row's first crossing
    words = np.zeros((len(x), len(y), SIZE), dtype=np.uint64)
    words[:, image[first], row[first]] = np.bitwise_xor.reduceat(
        _FROM_COLUMN[column], first, axis=1
    )
    return words


def render(space: FactorSpace = DSPRITES) -> Iterator[np.ndarray]:
    """All images of the space in its order, packed, one block of positions at a time.

    space: dSprites or a part of it: the same five factors, fewer values. Yields uint8 [P, 512]
    for each shape, scale and orientation, P being the number of positions.
    """
    shapes, scales, angles, pos_x, pos_y = space.values
    for shape, scale, angle in itertools.product(shapes, scales, angles):
        yield draw(int(shape), scale, angle, pos_x, pos_y).reshape(-1, PACKED_BYTES)
