"""What the pictures show, as arrays: how images answer to a latent, and latents to a factor.

Pure functions of callables, so that a hand-made encoder or decoder can stand in for a network:
`decode(z [B, latent_dim]) -> images [B, C, H, W]` and
`represent(factors [B, F]) -> codes [B, latent_dim]`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Decode = Callable[[Tensor], Tensor]
Represent = Callable[[np.ndarray], np.ndarray]


def latent_traversal(decode: Decode, mu: Tensor, latent: int, values: Tensor) -> Tensor:
    """Images decoded while one latent takes `values` and the others stay at `mu`.

    Args:
        decode: z [B, latent_dim] -> images [B, C, H, W].
        mu: the posterior mean of one image, [latent_dim].
        latent: which latent is moved.
        values: what it takes, [V].

    Returns:
        Images [V, C, H, W].
    """
    z = mu.repeat(len(values), 1)  # [V, latent_dim]
    z[:, latent] = values.to(z)
    return decode(z)


def cosine_sweep(num_frames: int, limit: float = 3.0) -> Tensor:
    """Values [num_frames] from `limit` to -`limit` and back, slow at the ends: a seamless loop."""
    phase = torch.arange(num_frames, dtype=torch.float64) / num_frames
    return (limit * torch.cos(2 * torch.pi * phase)).float()


def balanced_factors(
    factor_sizes: Sequence[int], n: int, generator: np.random.Generator
) -> np.ndarray:
    """Factor vectors int64 [n, F] in which each factor takes its values as evenly as n allows.

    A Latin hypercube on the factor grid: a mean over these few settings is close to the mean over
    all of them, where independent draws would leave the noise of the factors averaged over.
    """
    columns = [
        generator.permutation(((np.arange(n) + 0.5) / n * size).astype(np.int64))
        for size in factor_sizes
    ]
    return np.stack(columns, axis=1)


def factor_response(
    represent: Represent, factor_sizes: Sequence[int], varied: Sequence[int], settings: np.ndarray
) -> np.ndarray:
    """The mean code while some factors take all their values, averaged over settings of the rest.

    Every cell averages over the same settings, so differences between cells come from the varied
    factors alone.

    Args:
        represent: factors int64 [B, F] -> codes [B, latent_dim].
        factor_sizes: number of values of each factor, [F].
        varied: which factors are varied; ordered as the axes of the answer.
        settings: factor vectors int64 [K, F]; their varied columns are overwritten.

    Returns:
        Means, float64 [size of varied 0, size of varied 1, ..., latent_dim].
    """
    sizes = [factor_sizes[factor] for factor in varied]
    cells = np.indices(sizes).reshape(len(sizes), -1).T  # [cells, len(varied)]
    factors = np.repeat(settings[None], len(cells), axis=0)  # [cells, K, F]
    factors[:, :, list(varied)] = cells[:, None, :]
    codes = np.asarray(represent(factors.reshape(-1, len(factor_sizes))), dtype=np.float64)
    means = codes.reshape(len(cells), len(settings), -1).mean(axis=1)  # [cells, latent_dim]
    return means.reshape(*sizes, -1)
