"""Weights that change over a run."""

import pytest
import torch

from factorvae.schedule import geometric


def test_a_weight_falls_geometrically_between_two_steps():
    weights = [float(geometric(100.0, 1.0, done, 2, 6)) for done in range(8)]
    # of steps 1 to 8: the start in steps 1 and 2, the end from step 6 on
    expected = [100, 100, 100**0.75, 10, 100**0.25, 1, 1, 1]
    assert weights == pytest.approx(expected)


def test_a_weight_without_a_start_or_with_the_end_zero_is_constant():
    assert [float(geometric(None, 6.5, done, 2, 6)) for done in (0, 3, 9)] == [6.5] * 3
    assert [float(geometric(50.0, 0.0, done, 2, 6)) for done in (0, 3, 9)] == [0.0] * 3


def test_a_weight_may_jump():
    assert [float(geometric(4.0, 1.0, done, 3, 3)) for done in range(4)] == [4.0, 4.0, 4.0, 1.0]


def test_the_step_may_be_a_tensor_of_its_device():
    step = torch.tensor(3)
    assert geometric(100.0, 1.0, step, 2, 6).dtype == torch.float32
    assert float(geometric(100.0, 1.0, step, 2, 6)) == pytest.approx(10)
