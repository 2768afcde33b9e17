"""The drawn pixels are the published ones."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from factorvae.datasets.dsprites_drawing import DSPRITES, draw, outline, render

REFERENCE = Path(__file__).parents[1] / "data" / "gif_frames.npz"


def draw_one(factors):
    """uint8 [64, 64] of 0 and 1."""
    shape, scale, angle, x, y = (v[i] for v, i in zip(DSPRITES.values, factors, strict=True))
    return np.unpackbits(draw(int(shape), scale, angle, [x], [y])).reshape(64, 64)


def test_all_reference_images_are_drawn_bit_for_bit():
    with np.load(REFERENCE) as reference:
        images, factors = reference["imgs"], reference["factors"]
    assert images.shape == (363, 64, 64)
    known = np.all(factors >= 0, axis=1)
    assert known.sum() == 358
    for image, f in zip(images[known], factors[known], strict=True):
        assert np.array_equal(draw_one(f), image), f
    # Five images belong to several factor vectors, which are not told: one of all must match.
    for image in images[~known]:
        assert is_drawn_somewhere(image)


def is_drawn_somewhere(image):
    """Whether the image is drawn at any shape, scale and angle, near its centre of mass."""
    rows, columns = np.nonzero(image)
    positions = np.array(DSPRITES.values[3])  # of both axes
    pos_x, pos_y = (
        positions[np.abs(16 + 32 * positions - 0.5 - pixels.mean()) < 2.5]
        for pixels in (columns, rows)
    )
    packed = np.packbits(image)
    return any(
        (draw(int(shape), scale, angle, pos_x, pos_y) == packed).all(axis=-1).any()
        for shape, scale, angle in itertools.product(*DSPRITES.values[:3])
    )


# of numpy.packbits of all 737,280 images, uint8 [737280, 512]
DSPRITES_SHA256 = "3a228f4037ef3d42a42588e0e01f1078aa2df13cfa17584e88c95ed9fb5672da"


@pytest.mark.slow
def test_the_whole_set_has_the_known_checksum_and_white_pixels():
    checksum, white, extent = hashlib.sha256(), [], np.zeros(512, np.uint8)
    for block in render():
        checksum.update(block)
        white.append(int(np.bitwise_count(block).sum()))
        extent |= np.bitwise_or.reduce(block, axis=0)
    assert checksum.hexdigest() == DSPRITES_SHA256
    assert np.reshape(white, (3, -1)).sum(axis=1).tolist() == [53612886, 42070950, 32645028]
    rows, columns = np.nonzero(np.unpackbits(extent).reshape(64, 64))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 61, 2, 61)


def test_a_sample_drawn_image_by_image_has_the_known_checksum():
    """Guards `draw` for single images, and that the order of `FactorSpace` is the one drawn."""
    sample = DSPRITES.factors_of(np.arange(3000) * 104729 % len(DSPRITES))  # a prime: all over
    assert (sample.max(axis=0) == np.array(DSPRITES.sizes) - 1).all()
    pixels = np.stack([draw_one(factors) for factors in sample])
    assert hashlib.sha256(np.packbits(pixels)).hexdigest() == SAMPLE_SHA256


def test_no_other_shape():
    with pytest.raises(ValueError, match="shape 4"):
        outline(4)


# Of the 3000 images above, taken by index from the whole set whose checksum is known.
SAMPLE_SHA256 = "407cc68af06a5bd1d0212d6ca2060e0d3fef3f6c7731e132961648c8779ee9c4"
