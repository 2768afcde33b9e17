"""Which latents are alive: by how far their means spread, or by their KL divergence."""

import numpy as np

from factorvae.config import DEAD_KL, DEAD_STD
from factorvae.errors import UserError
from factorvae.metrics.inputs import as_array, as_codes, number


def active_latents(
    codes: np.ndarray | None = None,
    kl: np.ndarray | None = None,
    *,
    min_std: float = DEAD_STD,
    min_kl: float = DEAD_KL,
) -> np.ndarray:
    """Mask [D] of live latents, from posterior means or from KL divergences; count with `.sum()`.

    Args:
        codes: posterior means [N, D]; a latent lives if their standard deviation is at least
            `min_std` (.05 in disentanglement_lib's published runs) and they are not all equal.
        kl: KL divergence of each latent in nats, [D] or per point [N, D]; a latent lives if its
            mean is above `min_kl` (.01 in the UDR of Duan 2020).

    disentanglement_lib's `num_active_dims` counts the length of this mask (FactorVAE score) or
    adds up the codes themselves (IRS), and so never counts live latents.
    """
    if (codes is None) == (kl is None):
        raise UserError("active_latents needs either codes or kl")
    if codes is not None:
        codes = as_codes(codes)
        std = codes.std(axis=0, ddof=1)
        # Equal values may have a deviation above zero, of rounding only.
        return (std >= number("min_std", min_std)) & (std > 0) & (np.ptp(codes, axis=0) > 0)
    kl = as_array(kl, "kl").astype(np.float64)
    if kl.ndim not in (1, 2) or not np.isfinite(kl).all():
        raise UserError("kl must be finite numbers [latent_dim] or [num_points, latent_dim]")
    return (kl if kl.ndim == 1 else kl.mean(axis=0)) > number("min_kl", min_kl, least=-np.inf)
