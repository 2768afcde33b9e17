"""Total correlation of the codes: Gaussian closed form, and from the posteriors of a sample."""

import math

import numpy as np
from scipy.special import logsumexp

from factorvae.errors import UserError
from factorvae.metrics.inputs import as_codes, whole_number
from factorvae.metrics.interventions import ROWS_PER_CALL

# Beyond, a variance or its inverse is no float64.
LARGEST_LOGVAR = 700.0


def gaussian_total_correlation(codes: np.ndarray) -> dict:
    """Total correlation of a Gaussian with the codes' covariance, in nats.

    TC = (sum_i log S_ii - log det S) / 2 = -(log det of the correlation matrix) / 2, so that it
    does not depend on the latents' scale. It sees linear dependence only. Of codes [N, D] that
    are independent it is about D (D - 1) / (4 N), not 0.

    Constant latents have no correlation and are left out (the reference gives NaN). If one latent
    is a linear function of the others the value is `inf`.

    Returns:
        `gaussian_total_correlation`; `correlation` [D, D] (0 beside a constant latent's 1).
    """
    codes = as_codes(codes)
    active = np.ptp(codes, axis=0) > 0
    correlation = np.eye(codes.shape[1])
    total = 0.0
    if active.sum() > 1:
        # By powers of two, which changes no digit: squares of very small codes would be 0.
        exponent = np.frexp(np.abs(codes).max(axis=0))[1]
        among = np.corrcoef(np.ldexp(codes, -exponent)[:, active], rowvar=False)
        correlation[np.ix_(active, active)] = among
        eigenvalues = np.linalg.eigvalsh(among)
        singular = eigenvalues.min() <= len(among) * np.finfo(np.float64).eps
        total = math.inf if singular else max(-0.5 * np.log(eigenvalues).sum(), 0.0)
    return {"gaussian_total_correlation": float(total), "correlation": correlation}


def minibatch_total_correlation(
    mu: np.ndarray,
    logvar: np.ndarray,
    dataset_size: int,
    generator: np.random.Generator,
) -> dict:
    """KL(q(z) || prod_d q(z_d)) of the aggregate posterior from M of its N points, in nats.

    One z_i is drawn from each posterior q(z | x_i) and the densities are estimated from the
    sample, both ways of Chen et al. 2018 (arXiv 1802.04942, appendix C):

    - weighted: q(z_i) ~ sum_j q(z_i | x_j) / (N M), the same for each q(z_d). It is the plain
      mixture of the M posteriors, but shifted by exactly (D - 1) log N: as large as 121 nats for
      10 latents on dSprites. Only its changes mean something.
    - stratified: q(z_i) ~ q(z_i | x_i) / N + (1 - 1/N) sum_{j != i} q(z_i | x_j) / (M - 1),
      unbiased for the densities. The paper gives one other point a weight of its own, as
      `penalties/beta_tcvae.py` does; here it is spread evenly over all of them, the same in
      expectation. In many dimensions a point finds none of its neighbours among the M, so that
      q(z) is too small and the value too low.

    Args:
        mu, logvar: posteriors [M, D], arrays or tensors, of points drawn without replacement.
        dataset_size: N, at least M.

    Returns:
        `total_correlation_weighted`, `total_correlation_stratified`, and `..._se`, the standard
        error over the M points (it knows nothing of the bias).
    """
    mu, logvar = as_codes(mu, "mu"), as_codes(logvar, "logvar")
    if mu.shape != logvar.shape:
        raise UserError(f"mu and logvar must be of one shape: {mu.shape} and {logvar.shape}")
    if np.abs(logvar).max() > LARGEST_LOGVAR:
        raise UserError(
            f"logvar must be at most {LARGEST_LOGVAR:g} in size, not {np.abs(logvar).max():.3g}"
        )
    count = len(mu)
    dataset_size = whole_number("dataset_size", dataset_size, count)
    z = mu + np.exp(0.5 * logvar) * generator.standard_normal(mu.shape)
    equal = np.full(count, -math.log(dataset_size * count))
    rest = math.log1p(-1 / dataset_size) - math.log(count - 1) if dataset_size > 1 else -math.inf
    weighted, stratified = np.empty(count), np.empty(count)
    rows = max(ROWS_PER_CALL // count, 1)
    for start in range(0, count, rows):
        part = np.arange(start, min(start + rows, count))
        # log q(z_i,d | x_j): [rows, M, D]
        with np.errstate(over="ignore"):  # of a density of 0
            distance = (z[part, None] - mu) ** 2 / np.exp(logvar)
        log_density = -0.5 * (math.log(2 * math.pi) + logvar + distance)
        own = np.full((len(part), count), rest)
        own[np.arange(len(part)), part] = -math.log(dataset_size)
        weighted[part] = _log_ratio(log_density, equal)
        stratified[part] = _log_ratio(log_density, own)
    return {
        "total_correlation_weighted": float(weighted.mean()),
        "total_correlation_weighted_se": float(weighted.std(ddof=1) / math.sqrt(count)),
        "total_correlation_stratified": float(stratified.mean()),
        "total_correlation_stratified_se": float(stratified.std(ddof=1) / math.sqrt(count)),
    }


def _log_ratio(log_density: np.ndarray, log_weight: np.ndarray) -> np.ndarray:
    """log q(z_i) - sum_d log q(z_i,d) of mixtures with the weights [M] or [rows, M]: [rows]."""
    joint = logsumexp(log_density.sum(axis=2) + log_weight, axis=1)
    marginals = logsumexp(log_density + log_weight[..., None], axis=1)  # [rows, D]
    return joint - marginals.sum(axis=1)
