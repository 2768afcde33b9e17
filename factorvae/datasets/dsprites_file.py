"""The official dSprites file: an npz of 3 GB once unpacked, read a block at a time and checked."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from factorvae.datasets.dsprites_drawing import DSPRITES, SIZE, render
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.npz import UNREADABLE, expect_end, open_array, read_rows
from factorvae.errors import UserError

OFFICIAL_FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
# About one official image in 7,000 differs from the drawn one, by one pixel (dsprites_drawing.py).
LARGEST_SHARE_THAT_MAY_DIFFER = 0.01


def read_official(path: Path, space: FactorSpace = DSPRITES) -> Iterator[np.ndarray]:
    """The images of an official npz, packed, block by block: uint8 [P, 512] as `render` yields.

    Checked on the way: the arrays' shapes and types, that pixels are 0 or 1, that the factors are
    the grid of `space` in its order, and that each image is the drawn one, but for a stray pixel
    here and there. Pickled members are never opened. Raises UserError, naming the file and what
    was expected of it.
    """
    n, columns = len(space), len(space.sizes) + 1
    try:
        with zipfile.ZipFile(path) as archive:
            _check_latents(archive, space)
            yield from _packed_images(archive, space)
    except UNREADABLE as error:
        raise UserError(
            f"{path} is not the official dSprites file, or is damaged ({error or 'it ends early'}):"
            f" expected an npz with imgs uint8 {(n, SIZE, SIZE)} of 0 and 1, latents_classes and "
            f"latents_values {(n, columns)}; without this file the images are drawn"
        ) from error


def _check_latents(archive: zipfile.ZipFile, space: FactorSpace) -> None:
    """The first column is the colour, always white: class 0, value 1."""
    shape = (len(space), len(space.sizes) + 1)
    grid = space.factors_of(np.arange(len(space)))  # [N, 5]
    by_factor = zip(space.values, grid.T, strict=True)
    values = np.stack([np.asarray(v)[column] for v, column in by_factor], axis=1)
    for name, kinds, white, expected in (
        ("latents_classes", "iu", 0, grid),
        ("latents_values", "f", 1, values),
    ):
        file, dtype, _ = open_array(archive, name, [shape], kinds)
        with file:
            rows = read_rows(file, shape[0], dtype, shape[1:])
            expect_end(file, name)
        if not (np.all(rows[:, 0] == white) and np.allclose(rows[:, 1:], expected, atol=1e-6)):
            raise ValueError(f"{name} is not the grid of factors")


def _packed_images(archive: zipfile.ZipFile, space: FactorSpace) -> Iterator[np.ndarray]:
    differing = 0
    file, dtype, _ = open_array(archive, "imgs", [(len(space), SIZE, SIZE)], "u")
    with file:
        for drawn in render(space):  # uint8 [P, 512]
            pixels = read_rows(file, len(drawn), dtype, (SIZE * SIZE,))
            if pixels.max() > 1:
                raise ValueError("imgs has values other than 0 and 1")
            block = np.packbits(pixels, axis=1)
            differing += np.any(block != drawn, axis=1).sum()
            if differing > LARGEST_SHARE_THAT_MAY_DIFFER * len(space):
                raise ValueError("imgs are not dSprites in its order")
            yield block
        expect_end(file, "imgs")
