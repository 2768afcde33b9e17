"""Disentanglement, completeness and informativeness (Eastwood & Williams 2018)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import Lasso

from factorvae.config import DEAD_STD
from factorvae.errors import UserError
from factorvae.metrics.active import active_latents
from factorvae.metrics.boosting import boost
from factorvae.metrics.inputs import (
    Split,
    number,
    split_points,
    standardize,
    varying_factors,
    whole_number,
)

VARIANTS = {
    "gbt": "boosted trees; gain; held-out accuracy",
    "gbt_sklearn": "scikit-learn's boosted trees; gain; held-out accuracy",
    "forest": "random forest regression; gain; held-out 1 - RMSE / deviation",
    "lasso": "lasso regression; absolute weight; held-out 1 - RMSE / deviation",
}


def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    codes_test: np.ndarray | None = None,
    factors_test: np.ndarray | None = None,
    *,
    estimator: str = "gbt",
    num_train: int = 10_000,
    num_test: int = 5_000,
    dead_latents: str = "keep",
    min_std: float = DEAD_STD,
    completeness_weights: str | None = None,
    disentanglement_base: int | None = None,
    completeness_base: int | None = None,
    num_stages: int = 100,
    num_trees: int = 10,
    max_depth: int | None = 12,
    alpha: float = 0.02,
    seed: int = 0,
    on_stage: Callable[[int, int], object] = lambda done, total: None,
) -> dict:
    """Importances R [D, F] of latents for predicting factors, and the entropies of their shares.

    disentanglement = sum_i w_i (1 - H(R_i. / sum)), w_i the latent's part of all importance;
    completeness    = sum_k w_k (1 - H(R_.k / sum)), w_k the factor's part, or 1/F.

    Args:
        codes: [N, D]; factors: [N, F]; without test points, `num_train` and `num_test` of them
            are drawn with `seed`, which also seeds the trees. Scores depend on the numbers.
        estimator: how R and the informativeness come about; scores of different estimators
            cannot be compared.
            "gbt_sklearn": as disentanglement_lib, one GradientBoostingClassifier per factor
                (`num_stages` stages of depth-3 trees, rate .1), gain importances; informativeness
                is the held-out accuracy.
            "gbt": the same trees, of all factors at once and many times faster; see `boosting.py`.
            "lasso", "forest": as the paper, regression from standardised codes to standardised
                factors; importances are the absolute weights, or the gains; informativeness is
                1 - RMSE / standard deviation, held out (below 0 if worse than the mean). Penalty
                `alpha` (.02) and `num_trees` (10) are those of the authors' code, which
                picked the depth for each factor on validation points (3 to 12); here it is
                `max_depth` for all.
        dead_latents: "keep", as the references, or "drop": those of a standard deviation below
            `min_std` are hidden from the estimator and not counted in the entropy's base.
        completeness_weights: "importance" (disentanglement_lib) or "uniform" (the paper);
            None is the estimator's own. No difference for trees: each factor's importances sum
            to 1.
        disentanglement_base, completeness_base: of the logarithms; None is the number of factors
            and of latents counted. One latent, or one factor, has a share of 1 and scores 1.
        on_stage: called after each stage, or factor of a regression, with how many are done and
            how many there are.

    The classifiers take a factor's values as unordered: right for a discrete factor, and nothing
    lost for a circular one, but an ordered one loses its order. The regressions take the value's
    index as a number: a discrete factor gets an arbitrary order, and a circular one a jump, which
    no weights and few trees can follow from a smooth code (an angle coded as sine and cosine).

    Under the boosted trees D and C measure noise as well: late stages, with nothing left to learn,
    still split, and find their gains in any latent. One latent per factor of dSprites and five of
    noise score 1 without, .99 with noise of .02 deviations, but .79 and .74 with noise of .1, where
    neighbouring values overlap (lasso 1.0, forest .99, from the same codes). A factor with one
    value is left out. Constant codes score 0 for both.

    Returns:
        `disentanglement`, `completeness`, `informativeness` and its standard error over points
        `informativeness_se` (accuracies only); `informativeness_train`, which the references'
        readers at times quoted; `variant` in words; `importance` [D, F];
        `disentanglement_per_latent` [D], `completeness_per_factor` [F],
        `informativeness_per_factor` [F]; `active` [D]; `num_train`, `num_test`.
    """
    classifies = estimator in ("gbt", "gbt_sklearn")
    completeness_weights = completeness_weights or ("importance" if classifies else "uniform")
    bases = disentanglement_base, completeness_base
    _check_choices(estimator, dead_latents, completeness_weights, bases)
    fit = _fit_of(estimator, num_stages, num_trees, max_depth, alpha, seed)
    points = split_points(codes, factors, codes_test, factors_test, num_train, num_test, seed)
    varying = varying_factors(points.factors)
    active = active_latents(points.codes, min_std=min_std)
    counted = active if dead_latents == "drop" else np.ones_like(active)
    importance, train, test = fit(_shown(points, counted, varying), stages=_Stages(on_stage))

    per_latent = concentration(importance, disentanglement_base)  # [D]
    per_factor = concentration(importance[counted].T, completeness_base)  # [varying]
    if completeness_weights == "uniform":
        factor_weights = np.full(len(per_factor), 1 / len(per_factor))
    else:
        factor_weights = _parts_of_all(importance, axis=1)
    result = {
        "disentanglement": float(_parts_of_all(importance, axis=0) @ per_latent),
        "completeness": float(factor_weights @ per_factor),
        "informativeness": float(test.mean()),
        "informativeness_train": float(train.mean()),
        "variant": f"{VARIANTS[estimator]}; {len(points.codes)} / {len(points.codes_test)} points",
        "importance": _among_all(importance, varying),
        "disentanglement_per_latent": per_latent,
        "completeness_per_factor": _among_all(per_factor, varying),
        "informativeness_per_factor": _among_all(test.mean(axis=0), varying),
        "active": active,
        "num_train": len(points.codes),
        "num_test": len(points.codes_test),
    }
    if classifies:  # test is right or wrong [n, varying]; its factors share their points
        result["informativeness_se"] = float(test.mean(axis=1).std() / np.sqrt(len(test)))
    return result


def _check_choices(
    estimator: str, dead_latents: str, completeness_weights: str, bases: Sequence[int | None]
) -> None:
    """UserError for a keyword of another value."""
    if estimator not in VARIANTS:
        raise UserError(f"estimator must be one of {', '.join(VARIANTS)}, not {estimator}")
    if dead_latents not in ("keep", "drop"):
        raise UserError(f"dead_latents must be keep or drop, not {dead_latents}")
    if completeness_weights not in ("importance", "uniform"):
        raise UserError(
            f"completeness_weights must be importance or uniform, not {completeness_weights}"
        )
    for base in bases:
        if base is not None and base < 2:
            raise UserError(f"the base of an entropy must be 2 or more, not {base}")


def _shown(points: Split, counted: np.ndarray, varying: np.ndarray) -> Split:
    """What an estimator sees of the points: the varying factors, and 0 for a latent not counted.

    A hidden latent is a constant one: no estimator can use it. counted: bool [D]; varying: [F].
    """
    return Split(
        points.codes * counted,
        points.factors[:, varying],
        points.codes_test * counted,
        points.factors_test[:, varying],
    )


def _parts_of_all(importance: np.ndarray, axis: int) -> np.ndarray:
    """Of all importance, the part of each latent (axis 0) or factor (1); zeros where it is none."""
    total, each = importance.sum(), importance.sum(axis=1 - axis)
    return each / total if total > 0 else np.zeros_like(each)


def _among_all(values: np.ndarray, varying: np.ndarray) -> np.ndarray:
    """Values of the varying factors [..., varying] among all factors, bool [F]: [..., F]."""
    everywhere = np.zeros((*values.shape[:-1], len(varying)))
    everywhere[..., varying] = values
    return everywhere


def concentration(importance: np.ndarray, base: int | None = None) -> np.ndarray:
    """1 - entropy of each row's shares, with logarithms to `base` (None: the columns): [rows].

    1 if one column has all of the row, 0 if all have the same; 0 for a row of zeros, and 1 for
    any other row of a single column.
    """
    total = importance.sum(axis=1, keepdims=True)
    share = np.divide(importance, total, out=np.zeros_like(importance), where=total > 0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    base = base or max(importance.shape[1], 2)
    return np.where(total[:, 0] > 0, 1.0 - entropy / np.log(base), 0.0)


@dataclass
class _Stages:
    """Counts the stages of an estimator, which says first how many there are."""

    tell: Callable[[int, int], object]
    total: int = 0
    done: int = 0

    def advance(self) -> None:
        self.done += 1
        self.tell(self.done, self.total)


# An estimator takes a Split and its stages, and returns importances [D, F] and, for training and
# held-out points, what averages to the informativeness: right or wrong [n, F], or scores [1, F].
Fit = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


def _fit_of(
    estimator: str, num_stages: int, num_trees: int, max_depth: int | None, alpha: float, seed: int
) -> Fit:
    """The estimator with those of the settings that it has; UserError where any is out of range."""
    num_stages = whole_number("num_stages", num_stages, 1)
    num_trees = whole_number("num_trees", num_trees, 1)
    if max_depth is not None:
        max_depth = whole_number("max_depth", max_depth, 1)
    number("alpha", alpha)
    largest_seed = math.inf if estimator in ("gbt", "lasso") else 2**32 - 1  # scikit-learn's
    seed = whole_number("seed", seed, 0, largest_seed)
    return {
        "gbt": partial(_gbt, num_stages=num_stages, seed=seed),
        "gbt_sklearn": partial(_gbt_sklearn, num_stages=num_stages, seed=seed),
        "forest": partial(_forest, num_trees=num_trees, max_depth=max_depth, seed=seed),
        "lasso": partial(_lasso, alpha=alpha),
    }[estimator]


def _gbt(points: Split, stages: _Stages, num_stages: int, seed: int) -> tuple:
    stages.total = num_stages
    fitted = boost(
        points.codes,
        points.factors,
        points.codes_test,
        num_stages=num_stages,
        generator=np.random.default_rng(seed),
        on_stage=stages.advance,
    )
    right, right_test = (
        fitted.predicted == points.factors,
        fitted.predicted_test == points.factors_test,
    )
    return fitted.importance, right, right_test


def _gbt_sklearn(points: Split, stages: _Stages, num_stages: int, seed: int) -> tuple:
    importance, right, right_test = [], [], []
    stages.total = num_stages * points.factors.shape[1]

    def on_stage(*_: object) -> bool:
        stages.advance()
        return False  # true would end the training

    for factor, factor_test in zip(points.factors.T, points.factors_test.T, strict=True):
        model = GradientBoostingClassifier(n_estimators=num_stages, random_state=seed)
        model.fit(points.codes, factor, monitor=on_stage)
        importance.append(model.feature_importances_)
        right.append(model.predict(points.codes) == factor)
        right_test.append(model.predict(points.codes_test) == factor_test)
    return tuple(np.stack(columns, axis=1) for columns in (importance, right, right_test))


def _forest(
    points: Split, stages: _Stages, num_trees: int, max_depth: int | None, seed: int
) -> tuple:
    def fit(codes: np.ndarray, factor: np.ndarray) -> tuple:
        model = RandomForestRegressor(num_trees, max_depth=max_depth, random_state=seed)
        return model.fit(codes, factor), model.feature_importances_

    return _regress(points, stages, fit)


def _lasso(points: Split, stages: _Stages, alpha: float) -> tuple:
    def fit(codes: np.ndarray, factor: np.ndarray) -> tuple:
        model = Lasso(alpha=alpha)
        return model.fit(codes, factor), np.abs(model.coef_)

    return _regress(points, stages, fit)


def _regress(points: Split, stages: _Stages, fit: Callable) -> tuple:
    """Standardised codes to each standardised factor; scores are 1 - RMSE / deviation."""
    codes, codes_test = standardize(points.codes, points.codes_test)
    factors, factors_test = standardize(points.factors, points.factors_test)
    importance, scores, scores_test = [], [], []
    stages.total = factors.shape[1]
    for factor, factor_test in zip(factors.T, factors_test.T, strict=True):
        model, weights = fit(codes, factor)
        importance.append(weights)
        scores.append(_explained(model.predict(codes), factor))
        scores_test.append(_explained(model.predict(codes_test), factor_test))
        stages.advance()
    return np.stack(importance, axis=1), np.array([scores]), np.array([scores_test])


def _explained(predicted: np.ndarray, target: np.ndarray) -> float:
    """1 - RMSE / standard deviation; by the training deviation, 1, where the target is constant."""
    return 1.0 - float(np.sqrt(np.mean((predicted - target) ** 2)) / (target.std() or 1.0))
