"""AnnealedVAE: a KL term held at a capacity that grows (Burgess et al. 2018, arXiv 1804.03599).

disentanglement_lib's `annealed_vae` is the same: its `gamma`, `c_max` and `iteration_threshold` are
--gamma, --capacity and --capacity_steps.
"""

import torch
from torch import Tensor

from factorvae.objective import kl_divergence


def capacity_distance(
    mu: Tensor,
    logvar: Tensor,
    z: Tensor,
    step: Tensor | int,
    *,
    capacity: float,
    capacity_steps: int,
) -> Tensor:
    """Eq. 8: |KL(q(z given x) || N(0, I)) - C|, in nats.

    Args:
        mu, logvar, z: [B, latent_dim]; z is not used.
        step: steps done before this one, a number or a tensor [] on any device.
        capacity: C after `capacity_steps` steps, in nats; it grows linearly from 0.
        capacity_steps: N of the growth.
    """
    return (kl_divergence(mu, logvar) - capacity_at(step, capacity, capacity_steps)).abs()


def capacity_at(step: Tensor | int, capacity: float, capacity_steps: int) -> Tensor:
    """C at a step, in nats: 0 before the first, `capacity` from `capacity_steps` on."""
    return (torch.as_tensor(step) / capacity_steps).clamp(max=1) * capacity
