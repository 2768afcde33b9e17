"""Unsupervised disentanglement ranking (Duan et al. 2020, arXiv 1905.12614, section 3)."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import Lasso

from factorvae.config import DEAD_KL
from factorvae.errors import UserError
from factorvae.metrics.active import active_latents
from factorvae.metrics.inputs import as_codes, number, standardize


def udr(
    codes: Sequence[np.ndarray],
    kl: Sequence[np.ndarray] | None = None,
    *,
    method: str = "lasso",
    alpha: float = 0.1,
    min_kl: float = DEAD_KL,
) -> dict:
    """How well models of one setting (different seeds) agree: disentangled ones agree the most.

    For models i and j, R [D_i, D_j] says how much each latent of i says of each of j, over live
    latents. With r the largest of a row or column,

        UDR_ij = (mean over columns of r^2 / column sum + mean over rows of r^2 / row sum) / 2,

    and a model's score is the median of UDR_ji over the other models j. The formula is that of the
    authors' code in disentanglement_lib, the mean of two means; Eq. 3 of their paper instead
    divides both sums together by D_i + D_j, which is the same where both have as many live latents.

    Args:
        codes: of each model, the posterior means [N, D] of the same N images.
        kl: of each model, the KL divergence of each latent [D] or [N, D]; those of `min_kl` nats
            or less are dead. Without it only constant latents are.
        method: R by "lasso" (absolute weights of standardised codes, penalty `alpha`, .1 in the
            authors' code) or "spearman" (absolute rank correlation).

    The lasso's weights are shrunk by `alpha`, so that identical disentangled models score
    (1 - alpha) and not 1 under it. A model without live latents scores 0 (the reference: NaN).

    Returns:
        `udr` [models]; `pairwise` [models, models], from row to column, 0 on the diagonal;
        `best`, the index of the highest; `num_active` [models].
    """
    if len(codes) < 2:
        raise UserError(f"udr compares at least 2 models, not {len(codes)}")
    if kl is not None and len(kl) != len(codes):
        raise UserError(f"udr needs the KL of every model: {len(kl)} given for {len(codes)}")
    if method not in ("lasso", "spearman"):
        raise UserError(f"method must be lasso or spearman, not {method}")
    number("alpha", alpha)
    live = _live_codes(codes, kl, min_kl)
    if method == "spearman":
        live = [standardize(rankdata(standard, axis=0))[0] for standard in live]
    pairwise = np.zeros((len(live), len(live)))
    for i, j in np.ndindex(pairwise.shape):
        if i != j and live[i].shape[1] and live[j].shape[1]:
            relation = _relation(live[i], live[j], method, alpha)
            pairwise[i, j] = (_relative_strength(relation) + _relative_strength(relation.T)) / 2
    others = ~np.eye(len(live), dtype=bool)
    scores = np.array([np.median(pairwise[others[:, i], i]) for i in range(len(live))])
    return {
        "udr": scores,
        "pairwise": pairwise,
        "best": int(scores.argmax()),
        "num_active": np.array([model.shape[1] for model in live]),
    }


def _live_codes(
    codes: Sequence[np.ndarray], kl: Sequence[np.ndarray] | None, min_kl: float
) -> list[np.ndarray]:
    """Of each model, the standardised codes of its live latents [N, live]."""
    live = []
    for i, model_codes in enumerate(codes):
        array = as_codes(model_codes, f"codes[{i}]")
        if len(array) != len(codes[0]):
            raise UserError("udr needs the codes of the same images from every model")
        active = np.ptp(array, axis=0) > 0
        if kl is not None:
            alive = active_latents(kl=kl[i], min_kl=min_kl)
            if alive.shape != active.shape:
                raise UserError(
                    f"kl[{i}] is of {len(alive)} latents, but codes[{i}] of {len(active)}"
                )
            active = active & alive
        live.append(standardize(array[:, active])[0])
    return live


def _relation(one: np.ndarray, other: np.ndarray, method: str, alpha: float) -> np.ndarray:
    """How much each latent of `one` [N, D_i] says of each of `other` [N, D_j]: [D_i, D_j]."""
    if method == "lasso":
        weights = Lasso(alpha=alpha).fit(one, other).coef_
        return np.abs(weights.reshape(other.shape[1], -1).T)
    return np.abs(one.T @ other) / len(one)


def _relative_strength(relation: np.ndarray) -> float:
    """Mean over columns of (largest entry)^2 / sum, a column of zeros counting as 0."""
    total = relation.sum(axis=0)
    known = total > 0
    return float(np.where(known, relation.max(axis=0) ** 2 / np.where(known, total, 1), 0).mean())
