"""What every metric asks of its input, and the split into training and held-out points."""

from dataclasses import dataclass

import numpy as np

from factorvae.errors import UserError


def as_codes(codes: np.ndarray, name: str = "codes") -> np.ndarray:
    """`codes` as float64 [N, D]; UserError unless two-dimensional, finite and of two points up."""
    array = np.asarray(codes)
    if array.ndim != 2 or array.shape[1] == 0:
        raise UserError(f"{name} must be an array [num_points, latent_dim], not {array.shape}")
    if array.shape[0] < 2:
        raise UserError(f"{name} must hold at least 2 points, not {array.shape[0]}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"{name} must be finite, but {(~np.isfinite(array)).sum()} values are not")
    return array


def as_factors(factors: np.ndarray, name: str = "factors") -> np.ndarray:
    """`factors` as int64 [N, F]; UserError unless two-dimensional and of whole numbers."""
    array = np.asarray(factors)
    if array.ndim != 2 or array.shape[1] == 0:
        raise UserError(f"{name} must be an array [num_points, num_factors], not {array.shape}")
    if not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise UserError(f"{name} must be whole numbers (the index of each factor's value)")
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
    if num_train < 1 or num_test < 1:
        raise UserError(f"num_train and num_test must be positive: {num_train}, {num_test}")
    total = min(len(codes), num_train + num_test)
    train = min(max(round(total * num_train / (num_train + num_test)), 1), total - 1)
    order = np.random.default_rng(seed).permutation(len(codes))[:total]
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
