import numpy as np
import pytest

from factorvae.datasets import FactorSpace
from factorvae.datasets.dsprites_drawing import DSPRITES
from factorvae.errors import UserError

SPACE = FactorSpace(("a", "b", "c"), (2, 3, 4))


def test_order_is_row_major_with_the_last_factor_fastest():
    assert len(SPACE) == 24
    assert SPACE.factors_of([0, 1, 4, 12, 23]).tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
        [1, 0, 0],
        [1, 2, 3],
    ]
    assert SPACE.index_of([1, 2, 3]) == 23
    everything = np.arange(24)
    assert np.array_equal(SPACE.index_of(SPACE.factors_of(everything)), everything)
    assert SPACE.factors_of(everything.reshape(4, 6)).shape == (4, 6, 3)


def test_dsprites_is_the_official_grid():
    assert DSPRITES.names == ("shape", "scale", "orientation", "posX", "posY")
    assert DSPRITES.sizes == (3, 6, 40, 32, 32)
    assert len(DSPRITES) == 737280
    # i = ((shape * 6 + scale) * 40 + orientation) * 1024 + posX * 32 + posY
    assert DSPRITES.index_of([2, 1, 7, 30, 5]) == ((2 * 6 + 1) * 40 + 7) * 1024 + 30 * 32 + 5
    shape, scale, orientation, pos_x, pos_y = DSPRITES.values
    assert shape == (1, 2, 3)
    assert scale == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert (orientation[0], orientation[39]) == (0, 2 * np.pi)
    assert orientation[1] == pytest.approx(2 * np.pi / 39)
    assert pos_x == pos_y and (pos_x[0], pos_x[31]) == (0, 1)


@pytest.mark.parametrize(
    ("factors", "complaint"),
    [([[0, 0, 4]], "c 4 .* 0 to 3"), ([[0, 0, 0], [-1, 0, 0]], "a -1 .* 0 to 1")],
)
def test_factors_out_of_range_are_named(factors, complaint):
    with pytest.raises(UserError, match=complaint):
        SPACE.index_of(factors)


@pytest.mark.parametrize("index", [24, -1])
def test_images_out_of_range_are_named(index):
    with pytest.raises(UserError, match=f"image {index} .* 0 to 23"):
        SPACE.factors_of([0, index])


def test_spaces_are_values():
    same = FactorSpace(["a", "b", "c"], np.array([2, 3, 4]), [range(2), range(3), np.arange(4)])
    assert same == SPACE and hash(same) == hash(SPACE)
    with pytest.raises(ValueError, match="disagree"):
        FactorSpace(("a",), (2,), ((0.0, 1.0, 2.0),))
    with pytest.raises(ValueError, match="3 names"):
        SPACE.index_of([[0, 0]])
