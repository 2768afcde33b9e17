"""DIP-VAE: the covariance of the codes is drawn to the identity (Kumar et al. 2018, 1711.00848).

The paper's lambda_od is --gamma and its lambda_d is --gamma times --dip_ratio. The paper leaves the
estimate of the covariance to the minibatch; here it divides by B, as disentanglement_lib's does, of
which `lambda_od` and `lambda_d_factor` are --gamma and --dip_ratio. The DIP-VAE in AIX360 differs
from the paper: it centres each code over its latents instead of each latent over the batch, and
does not divide by B.
"""

import torch
from torch import Tensor


def dip_vae_1(
    mu: Tensor, logvar: Tensor, z: Tensor, step: Tensor | int, *, dip_ratio: float
) -> Tensor:
    """Eq. 6: the distance of Cov[mu] from the identity.

    Args:
        mu, logvar, z: [B, latent_dim]; only mu is used, and `step` is not.
        dip_ratio: weight of the diagonal, where the entries off it weigh 1.
    """
    return distance_from_identity(covariance(mu), dip_ratio)


def dip_vae_2(
    mu: Tensor, logvar: Tensor, z: Tensor, step: Tensor | int, *, dip_ratio: float
) -> Tensor:
    """Eq. 7: the distance of Cov[z] = E[Sigma] + Cov[mu] from the identity; else as `dip_vae_1`."""
    return distance_from_identity(torch.diag(logvar.exp().mean(dim=0)) + covariance(mu), dip_ratio)


def covariance(codes: Tensor) -> Tensor:
    """Of [B, latent_dim] over the batch, divided by B: [latent_dim, latent_dim]."""
    centred = codes - codes.mean(dim=0)
    return (centred[:, :, None] * centred[:, None, :]).mean(dim=0)  # no product in TF32


def distance_from_identity(cov: Tensor, ratio: float) -> Tensor:
    """sum_{i != j} cov_ij^2 + ratio * sum_i (cov_ii - 1)^2 of a square matrix."""
    identity = torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
    weight = 1 + (ratio - 1) * identity
    return (weight * (cov - identity).square()).sum()
