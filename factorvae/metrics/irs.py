"""Interventional robustness score (Suter et al. 2019, arXiv 1811.00007)."""

import numpy as np

from factorvae.errors import UserError
from factorvae.metrics.information import equal_width_bins
from factorvae.metrics.inputs import as_pair, varying_factors


def irs(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    quantile: float = 0.99,
    factor_bins: int | None = 20,
) -> dict:
    """How little a latent moves while one factor stands still and the others vary.

    For latent i and factor k, with the points grouped by v_k, the deviation is the mean over
    groups of the `quantile` of |z_i - mean of z_i in the group|, over the largest
    |z_i - mean of z_i| of all points. A latent's score is 1 - its smallest deviation; the
    result is the mean of the latents' scores weighted by their largest deviations.

    Args:
        codes: [N, D]; factors: [N, F]. The reference draws N = 10,000 points.
        quantile: .99 in disentanglement_lib, 1.0 in the paper.
        factor_bins: the reference also cuts each *factor* into 20 bins of equal width, so that
            neighbouring orientations and positions are one group; None groups by value.

    Normal noise does not score 0 but about .37 on dSprites' factors, since the quantile is less
    than the largest deviation; uniform noise, whose largest deviations are frequent, has .01. The
    weights make the score depend on each latent's scale, so that a dead latent with little noise
    counts for little. Small groups flatter: a group of one point does not deviate, so use thousands
    of points.

    Constant latents are left out, and codes that are all constant score 0 (the reference divides
    by zero where it does not drop them); a factor with one value is left out.

    Returns:
        `irs`; `per_latent` [D]; `parents` [D], the factor each latent is most robust under, -1
        for a constant latent; `robustness` [D, F], 0 where left out; `active` [D] (not constant).
    """
    codes, factors = as_pair(codes, factors)
    if not 0 < quantile <= 1:
        raise UserError(f"quantile must be above 0 and at most 1, not {quantile}")
    varying = varying_factors(factors)
    groups = factors if factor_bins is None else equal_width_bins(factors, factor_bins)
    active = np.ptp(codes, axis=0) > 0
    largest = np.abs(codes - codes.mean(axis=0)).max(axis=0)  # [D]
    robustness = np.zeros((codes.shape[1], factors.shape[1]))
    for k in np.flatnonzero(varying):
        deviation = _mean_deviation(codes[:, active], groups[:, k], quantile)
        robustness[active, k] = 1.0 - deviation / largest[active]
    allowed = np.where(varying, robustness, -np.inf)
    per_latent = np.where(active, allowed.max(axis=1), 0.0)
    weights = np.where(active, largest, 0.0)
    return {
        "irs": float(np.average(per_latent, weights=weights)) if active.any() else 0.0,
        "per_latent": per_latent,
        "parents": np.where(active, allowed.argmax(axis=1), -1),
        "robustness": robustness,
        "active": active,
    }


def _mean_deviation(codes: np.ndarray, group: np.ndarray, quantile: float) -> np.ndarray:
    """Mean over groups of the quantile of the distance from the group's mean: [D]."""
    deviations = []
    for value in np.unique(group):
        members = codes[group == value]
        distance = np.abs(members - members.mean(axis=0))
        deviations.append(np.quantile(distance, quantile, axis=0))
    return np.mean(deviations, axis=0)
