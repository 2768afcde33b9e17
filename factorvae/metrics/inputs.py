"""What every metric asks of its input, and the split into training and held-out points."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch

from factorvae.errors import UserError

# Differences of codes up to here are still float32, which the trees compare. Far beyond, squares
# overflow and solvers do not return.
LARGEST_CODE = 1e38


def as_array(values: object, name: str) -> np.ndarray:
    """Real numbers as an array of their own shape: from arrays, nested lists or tensors.

    Tensors may be of any type, on any device and part of a graph. UserError, by `name`, for what
    is not numbers, is ragged, complex or masked.
    """
    if isinstance(values, torch.Tensor):  # exactly: numpy has no bfloat16
        values = (values.double() if values.is_floating_point() else values).numpy(force=True)
    if np.ma.is_masked(values):
        raise UserError(f"{name} must not hold masked values: leave their points out")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{name} must be an array of numbers: {reason}") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{name} must be real numbers, not of type {array.dtype}")
    return array


def whole_number(name: str, value: object, minimum: int, maximum: float = math.inf) -> int:
    """`value` as an int; UserError, by `name`, unless whole (20.0 is) and within the limits."""
    whole = isinstance(value, Integral) or (isinstance(value, Real) and value % 1 == 0)
    if not whole or not minimum <= value <= maximum:
        limits = f"{minimum} or more" if maximum == math.inf else f"{minimum} to {maximum}"
        raise UserError(f"{name} must be a whole number, {limits}, not {_short(value)}")
    return int(value)


def number(name: str, value: object, *, above: float | None = None, least: float = 0.0) -> float:
    """`value` as it is; UserError, by `name`, unless a number of `least` up, or above `above`."""
    if not isinstance(value, Real) or not (value >= least if above is None else value > above):
        limits = f"of {least:g} or more" if above is None else f"above {above:g}"
        raise UserError(f"{name} must be a number {limits}, not {_short(value)}")
    return value


def _short(value: object) -> str:
    if isinstance(value, Integral) and abs(value) >= 10**40:
        return "one of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def as_codes(codes: np.ndarray, name: str = "codes") -> np.ndarray:
    """`codes` as float64 [N, D]; UserError unless two-dimensional, finite and of two points up.

    Nor may a value be larger than `LARGEST_CODE`, either way.
    """
    array = as_array(codes, name)
    if array.ndim != 2 or array.shape[1] == 0:
        raise UserError(f"{name} must be an array [num_points, latent_dim], not {array.shape}")
    if array.shape[0] < 2:
        raise UserError(f"{name} must hold at least 2 points, not {array.shape[0]}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"{name} must be finite, but {(~np.isfinite(array)).sum()} values are not")
    largest = np.abs(array).max()
    if largest > LARGEST_CODE:
        raise UserError(f"{name} must be at most {LARGEST_CODE:g} in size, not {largest:.3g}")
    return array


def as_factors(factors: np.ndarray, name: str = "factors") -> np.ndarray:
    """`factors` as int64 [N, F]; UserError unless two-dimensional and of whole numbers."""
    array = as_array(factors, name)
    if array.ndim != 2 or array.size == 0:
        raise UserError(f"{name} must be an array [num_points, num_factors], not {array.shape}")
    if not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise UserError(f"{name} must be whole numbers (the index of each factor's value)")
    if not -(2**63) <= int(array.min()) <= int(array.max()) < 2**63:
        raise UserError(f"{name} must be whole numbers of 64 bits (the index of a factor's value)")
    return array.astype(np.int64)


def as_pair(codes: np.ndarray, factors: np.ndarray, suffix: str = "") -> tuple:
    """Codes [N, D] and factors [N, F] of the same points."""
    codes = as_codes(codes, f"codes{suffix}")
    factors = as_factors(factors, f"factors{suffix}")
    if len(codes) != len(factors):
        raise UserError(
            f"codes{suffix} and factors{suffix} must be of the same points: "
            f"{len(codes)} and {len(factors)} were given"
        )
    return codes, factors


def varying_factors(factors: np.ndarray) -> np.ndarray:
    """Mask [F] of the factors with two values or more; UserError where there is none.

    A factor with one value has no information to be found: the references divide by its zero
    entropy or variance. Here every metric leaves it out of its average.
    """
    varying = (factors != factors[0]).any(axis=0)
    if not varying.any():
        raise UserError("no factor takes more than one value: there is nothing to score")
    return varying


def labels_of(factors: np.ndarray) -> np.ndarray:
    """Each column's values renumbered 0, 1, ... in their order: int64 [N, F]."""
    columns = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    return np.stack(columns, axis=1).astype(np.int64)


@dataclass(frozen=True)
class Split:
    """Training and held-out points: codes [n, D] and factors [n, F] of each."""

    codes: np.ndarray
    factors: np.ndarray
    codes_test: np.ndarray
    factors_test: np.ndarray


def split_points(
    codes: np.ndarray,
    factors: np.ndarray,
    codes_test: np.ndarray | None,
    factors_test: np.ndarray | None,
    num_train: int,
    num_test: int,
    seed: int,
) -> Split:
    """The two sets as given, or a random split of one set.

    Given test points, all points of both sets are used and the two numbers are not. Without,
    `num_train` and `num_test` points are drawn; where there are fewer than both together, all
    are used and parted in the same ratio.
    """
    codes, factors = as_pair(codes, factors)
    if (codes_test is None) != (factors_test is None):
        raise UserError("codes_test and factors_test must be given together")
    if codes_test is not None:
        codes_test, factors_test = as_pair(codes_test, factors_test, "_test")
        if codes_test.shape[1] != codes.shape[1] or factors_test.shape[1] != factors.shape[1]:
            raise UserError("the test points must have as many latents and factors as the others")
        return Split(codes, factors, codes_test, factors_test)
    num_train = whole_number("num_train", num_train, 1)
    num_test = whole_number("num_test", num_test, 1)
    total = min(len(codes), num_train + num_test)
    train = min(max(round(total * num_train / (num_train + num_test)), 1), total - 1)
    order = np.random.default_rng(whole_number("seed", seed, 0)).permutation(len(codes))[:total]
    fit, held_out = order[:train], order[train:]
    return Split(codes[fit], factors[fit], codes[held_out], factors[held_out])


def standardize(train: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Zero mean and unit variance by `train`'s moments; a constant column becomes zeros."""
    mean, std = train.mean(axis=0), train.std(axis=0)
    # A column of equal values may have a deviation of rounding only, which must not be blown up.
    constant = std <= 1e-12 * np.abs(train).max(axis=0)
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, std))
    return tuple((array - mean) * scale for array in (train, *others))


def top_gap(scores: np.ndarray) -> np.ndarray:
    """For each column of `scores` [D, F], the largest less the second largest: [F].

    With a single latent the second is 0 (the references fail there).
    """
    ranked = np.sort(np.vstack([np.zeros(scores.shape[1]), scores]), axis=0)
    return ranked[-1] - ranked[-2]
