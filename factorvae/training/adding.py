"""One more latent begins, with what those before it do not tell.

Latents that begin together may share out what explains most in a twisted way of which total
correlation tells nothing. One that begins when others are settled has no part in what they hold.
"""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from factorvae.models import VAE
from factorvae.training.waking import STD, first_weights

NUM_IMAGES = 4096  # by which it is told what the others tell
FLOOR = 0.01  # of the features' mean variance, added to what is told of them
LEAST_RATIO = 0.01  # of what is left to what is told, below which nothing is left


@torch.no_grad()
def untold_direction(vae: VAE, latent: int, parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """What a latent is to begin with: the function of the images that those before it tell least.

    Args:
        vae: with the paper's encoder.
        latent: its number; those before it are trained.
        parts: images of the training data, [B, C, H, W] each.

    Returns:
        Weights of the encoder's last features and a bias, [hidden_dim] and [], on the CPU, which
        make means of deviation STD around 0; all 0 where the others tell everything.
    """
    encoder = vae.encoder
    images = (part.contiguous(memory_format=torch.channels_last) for part in parts)
    features = torch.cat([*map(encoder.features, images)])  # [N, hidden_dim]
    row = least_told(features, encoder.head(features)[:, :latent])  # [hidden_dim]
    means = features.cpu() @ row  # [N]
    row *= STD / means.std().clamp_min(1e-6)
    return row, -features.cpu().mean(dim=0) @ row


@torch.no_grad()
def add_latent(
    vae: VAE, latent: int, row: Tensor, bias: Tensor, generator: torch.Generator
) -> None:
    """Let a latent whose weights are 0 begin with what `untold_direction` found, in place.

    The decoder's column is drawn by the generator, on the CPU. Adam's moments of these weights are
    0 and stay so: with its second ones so young, the first steps are some three times the rate.
    """
    head, hidden = vae.encoder.head, vae.decoder.hidden
    head.weight[latent].copy_(row)
    head.bias[latent].copy_(bias)
    hidden.weight[:, latent].copy_(first_weights(hidden.weight, generator)[:, latent])


def least_told(features: Tensor, codes: Tensor) -> Tensor:
    """The weights [F] of features [N, F] whose sum is told least by codes [N, K], on the CPU.

    Told is what a cubic polynomial of the codes tells. The ratio of the variance that is left to
    the one that is told is the largest, a generalised eigenvalue; where hardly any is left, 0.
    """
    features, codes = features.double().cpu(), codes.double().cpu()
    features = features - features.mean(dim=0)
    terms = _cubic_terms(codes)  # [N, T]
    told = terms @ torch.linalg.lstsq(terms, features).solution  # [N, F]
    left = features - told
    left, told = left.T @ left, told.T @ told  # [F, F] each
    floor = FLOOR * (left + told).diagonal().mean().clamp_min(1e-12)
    root = torch.linalg.cholesky(told + floor * torch.eye(len(told)))
    inverse = torch.linalg.inv(root)
    ratios, directions = torch.linalg.eigh(inverse @ left @ inverse.T)
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
