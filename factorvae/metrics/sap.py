"""Separated attribute predictability (Kumar et al. 2018, arXiv 1711.00848, section 3)."""

import numpy as np
from sklearn.svm import LinearSVC

from factorvae.errors import UserError
from factorvae.metrics.inputs import Split, number, split_points, top_gap, varying_factors


def sap(
    codes: np.ndarray,
    factors: np.ndarray,
    codes_test: np.ndarray | None = None,
    factors_test: np.ndarray | None = None,
    *,
    variant: str = "discrete",
    num_train: int = 10_000,
    num_test: int = 5_000,
    regularization: float = 0.01,
    seed: int = 0,
) -> dict:
    """Mean over factors of the gap between the two latents that predict the factor best alone.

    Args:
        codes: [N, D]; factors: [N, F]; without test points, `num_train` and `num_test` of them
            are drawn with `seed`.
        variant: "discrete", as disentanglement_lib publishes it: held-out accuracy of a linear
            support vector machine on the one latent, one class against the rest, classes
            balanced, C = `regularization`; or "continuous": squared correlation on the training
            points, 0 for a latent of variance 1e-12 or less.

    The two are not one scale: codes equal to the factors of dSprites score .23 to .25 (by the
    codes' scale) under "discrete", since one against the rest a linear machine finds only the end
    values along an axis, and 1.0 under "continuous". "discrete" depends on the codes' scale,
    through C, and takes a latent's chance level for knowledge; "continuous" misses what is not
    monotonous, and the order it gives to the values of a discrete or circular factor is arbitrary.

    The machine's problem has one optimum; it is solved in the primal, faster than by the
    reference's dual descent and without its randomness.

    Returns:
        `sap`; `gaps` [F] (0 for a factor with one value, which is left out of the mean);
        `scores` [D, F]; `variant`.
    """
    number("regularization", regularization, above=0)
    points = split_points(codes, factors, codes_test, factors_test, num_train, num_test, seed)
    varying = varying_factors(points.factors)
    if variant == "discrete":
        scores = _svm_accuracies(points, varying, regularization)
    elif variant == "continuous":
        scores = _squared_correlations(points.codes, points.factors)
    else:
        raise UserError(f"variant must be discrete or continuous, not {variant}")
    gaps = np.where(varying, top_gap(scores), 0.0)
    return {"sap": float(gaps[varying].mean()), "gaps": gaps, "scores": scores, "variant": variant}


def _svm_accuracies(points: Split, varying: np.ndarray, regularization: float) -> np.ndarray:
    """Held-out accuracy for each latent and factor: [D, F]; 0 for a factor with one value."""
    scores = np.zeros((points.codes.shape[1], points.factors.shape[1]))
    for i, k in np.ndindex(scores.shape):
        if varying[k]:
            # its seed changes nothing, but without one numpy's global generator is asked for it
            options = {"class_weight": "balanced", "dual": False, "random_state": 0}
            machine = LinearSVC(C=regularization, **options)
            machine.fit(points.codes[:, [i]], points.factors[:, k])
            scores[i, k] = machine.score(points.codes_test[:, [i]], points.factors_test[:, k])
    return scores


def _squared_correlations(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Squared correlation of each latent with each factor: [D, F]."""
    codes = codes - codes.mean(axis=0)
    factors = factors - factors.mean(axis=0)
    covariance = codes.T @ factors / (len(codes) - 1)
    code_variance, factor_variance = codes.var(axis=0, ddof=1), factors.var(axis=0, ddof=1)
    varied = (code_variance > 1e-12) & (np.ptp(codes, axis=0) > 0)
    known = varied[:, None] & (factor_variance > 0)
    product = np.outer(code_variance, factor_variance)
    return np.where(known, covariance**2 / np.where(known, product, 1.0), 0.0)
