"""One more latent begins, with what those before it do not explain.

Latents that begin together may share out what explains most in a twisted way of which total
correlation tells nothing. One that begins when others are settled has no part in what they hold.
"""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from factorvae.models import VAE
from factorvae.training.waking import STD, first_weights

NUM_IMAGES = 4096  # on which the features are regressed
FLOOR = 0.01  # of the features' mean variance, added to what is explained of them
LEAST_RATIO = 0.01  # of residual to explained variance, below which nothing is left


@torch.no_grad()
def residual_direction(vae: VAE, latent: int, parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """What a latent is to begin with: the feature of the images that those before it explain least.

    Args:
        vae: with the paper's encoder.
        latent: its number; those before it are trained.
        parts: images of the training data, [B, C, H, W] each.

    Returns:
        Weights of the encoder's last features and a bias, [hidden_dim] and [], on the CPU, which
        make means of deviation STD around 0; all 0 where the others explain everything.
    """
    encoder = vae.encoder
    images = (part.contiguous(memory_format=torch.channels_last) for part in parts)
    features = torch.cat([*map(encoder.features, images)])  # [N, hidden_dim]
    row = least_explained(features, encoder.head(features)[:, :latent])  # [hidden_dim]
    means = features.cpu() @ row  # [N]
    row *= STD / means.std().clamp_min(1e-6)
    return row, -features.cpu().mean(dim=0) @ row


@torch.no_grad()
def add_latent(
    vae: VAE, latent: int, row: Tensor, bias: Tensor, generator: torch.Generator
) -> None:
    """Let a latent whose weights are 0 begin with what `residual_direction` found, in place.

    The decoder's column is drawn by the generator, on the CPU. Adam's moments of these weights are
    0 and stay so: with its second ones so young, the first steps are some three times the rate.
    """
    head, hidden = vae.encoder.head, vae.decoder.hidden
    head.weight[latent].copy_(row)
    head.bias[latent].copy_(bias)
    hidden.weight[:, latent].copy_(first_weights(hidden.weight, generator)[:, latent])


def least_explained(features: Tensor, codes: Tensor) -> Tensor:
    """The direction [F] of features [N, F] that codes [N, K] explain least, on the CPU.

    Explained is what least squares on a cubic polynomial of the codes gives. The direction is the
    generalised eigenvector of the largest ratio of residual to explained variance; 0 where hardly
    any residual is left.
    """
    features, codes = features.double().cpu(), codes.double().cpu()
    features = features - features.mean(dim=0)
    terms = _cubic_terms(codes)  # [N, T]
    explained = terms @ torch.linalg.lstsq(terms, features).solution  # [N, F]
    residual = features - explained
    residual, explained = residual.T @ residual, explained.T @ explained  # [F, F] each
    floor = FLOOR * (residual + explained).diagonal().mean().clamp_min(1e-12)
    root = torch.linalg.cholesky(explained + floor * torch.eye(len(explained)))
    inverse = torch.linalg.inv(root)
    ratios, directions = torch.linalg.eigh(inverse @ residual @ inverse.T)
    row = inverse.T @ directions[:, -1]
    row *= row[row.abs().argmax()].sign() / row.norm()  # an eigenvector has no sign or size
    return (row * (ratios[-1] > LEAST_RATIO)).float()


def _cubic_terms(codes: Tensor) -> Tensor:
    """1 and all products of up to three of the standardised codes [N, K]: [N, T]."""
    one = torch.ones(len(codes), 1, dtype=codes.dtype)
    codes = (codes - codes.mean(dim=0)) / codes.std(dim=0).clamp_min(1e-6)
    factors = torch.cat([one, codes], dim=1).unbind(dim=1)
    products = itertools.combinations_with_replacement(factors, 3)
    return torch.stack([a * b * c for a, b, c in products], dim=1)
