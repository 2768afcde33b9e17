"""Modularity and explicitness (Ridgeway & Mozer 2018, arXiv 1802.05312, section 2)."""

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from factorvae.config import DEAD_STD
from factorvae.errors import UserError
from factorvae.metrics.active import active_latents
from factorvae.metrics.information import equal_width_bins, mutual_information
from factorvae.metrics.inputs import (
    as_pair,
    labels_of,
    number,
    split_points,
    standardize,
    varying_factors,
    whole_number,
)
from factorvae.metrics.regression import fit_quietly


def modularity(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    bins: int = 20,
    average: str = "all",
    min_std: float = DEAD_STD,
) -> dict:
    """Mean over latents i of 1 - sum_{k not best} I(z_i; v_k)^2 / (I(z_i; v_best)^2 (F - 1)).

    Args:
        codes: [N, D]; factors: [N, F]. The reference draws N = 10,000 points.
        bins: of equal width per latent (20 in disentanglement_lib).
        average: over "all" latents, as in the reference, where one that knows nothing scores 0;
            or over the "active" ones, whose standard deviation is `min_std` or more.

    A latent that knows nothing does not score 0 unless it is constant: pure noise scores about .66
    on 10,000 points of dSprites' factors, by the chance in its estimated information, and so do
    dead latents with a little noise. Duplicated latents leave the score alone. With a single
    factor a latent that knows anything scores 1 (the reference: NaN).

    Returns:
        `modularity`; `per_latent` [D]; `mutual_information` [D, F] in nats, 0 for a factor with one
        value, which is left out of the score; `active` [D].
    """
    codes, factors = as_pair(codes, factors)
    varying = varying_factors(factors)
    information = np.zeros((codes.shape[1], factors.shape[1]))
    labels = labels_of(factors[:, varying])
    information[:, varying] = mutual_information(equal_width_bins(codes, bins), labels)
    squared = information[:, varying] ** 2
    best = squared.max(axis=1)  # [D]
    others = (squared.sum(axis=1) - best) / max(squared.shape[1] - 1, 1)
    knows = best > 0
    per_latent = np.where(knows, 1.0 - others / np.where(knows, best, 1.0), 0.0)
    active = active_latents(codes, min_std=min_std)
    if average == "all":
        score = per_latent.mean()
    elif average == "active":
        score = per_latent[active].mean() if active.any() else 0.0
    else:
        raise UserError(f"average must be all or active, not {average}")
    return {
        "modularity": float(score),
        "per_latent": per_latent,
        "mutual_information": information,
        "active": active,
    }


def explicitness(
    codes: np.ndarray,
    factors: np.ndarray,
    codes_test: np.ndarray | None = None,
    factors_test: np.ndarray | None = None,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    regularization: float = 1.0,
    max_iter: int = 100,
    seed: int = 0,
) -> dict:
    """Mean over factors and their values of the ROC area with which a logistic regression on the
    standardised codes tells one value from the rest, on held-out points.

    Args:
        codes: [N, D]; factors: [N, F]; without test points, `num_train` and `num_test` of them
            are drawn with `seed`.
        regularization: the C of scikit-learn's LogisticRegression, with `max_iter` steps of
            lbfgs. The reference takes that class's defaults, which these are (multinomial; the
            scikit-learn of its time fitted one against the rest).

    Chance is .5, not 0; a rotation hardly matters to a linear classifier. Values that the
    held-out points lack have no ROC curve and are left out, where the reference fails; a constant
    latent is no latent, where the reference divides by its zero deviation.

    Returns:
        `explicitness`, `explicitness_train`; `per_factor` [F] (held out; .5 for a factor with one
        value, which is left out of the mean).
    """
    number("regularization", regularization, above=0)
    max_iter = whole_number("max_iter", max_iter, 0)
    points = split_points(codes, factors, codes_test, factors_test, num_train, num_test, seed)
    varying = varying_factors(points.factors)
    train, test = standardize(points.codes, points.codes_test)
    per_factor, per_factor_train = np.full((2, points.factors.shape[1]), 0.5)
    for k in np.flatnonzero(varying):
        model = LogisticRegression(C=regularization, max_iter=max_iter)
        fit_quietly(model, train, points.factors[:, k])
        per_factor_train[k] = _mean_roc_area(model, train, points.factors[:, k])
        per_factor[k] = _mean_roc_area(model, test, points.factors_test[:, k])
    return {
        "explicitness": float(per_factor[varying].mean()),
        "explicitness_train": float(per_factor_train[varying].mean()),
        "per_factor": per_factor,
    }


def _mean_roc_area(model: LogisticRegression, codes: np.ndarray, factor: np.ndarray) -> float:
    """Mean over the model's classes of the area under the curve of one against the rest.

    By ranks (Mann-Whitney): area = (sum of the positives' ranks - P (P + 1) / 2) / (P Q), with P
    positives and Q negatives. Classes without both are left out; .5 if none is left.
    """
    ranks = rankdata(model.predict_proba(codes), axis=0)  # [n, K]
    positive = factor[:, None] == model.classes_  # [n, K]
    count = positive.sum(axis=0)
    pairs = count * (len(factor) - count)
    known = pairs > 0
    if not known.any():
        return 0.5
    wins = (ranks * positive).sum(axis=0) - count * (count + 1) / 2
    return float((wins[known] / pairs[known]).mean())
