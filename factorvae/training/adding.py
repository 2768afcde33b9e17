"""One more latent begins, with what those before it do not tell.

Latents that begin together may share out what explains most in a twisted way of which total
correlation tells nothing. One that begins when others are settled has no part in what they hold.
"""

import itertools

import torch
from torch import Tensor

from factorvae.models import VAE
from factorvae.training.waking import STD, first_weights

NUM_IMAGES = 4096  # by which it is told what the others tell
FLOOR = 0.01  # of the features' mean variance, added to what is told of them


@torch.no_grad()
def add_latent(vae: VAE, latent: int, images: Tensor, generator: torch.Generator) -> None:
    """Let a latent whose weights are 0 begin, in place, with what those before it do not tell.

    Its means become the linear function of the encoder's last features of which they tell least,
    centred and of deviation STD.

    Args:
        vae: with the paper's encoder and decoder.
        latent: its number; those before it are trained, those behind it are not.
        images: of the training data, [N, C, H, W].
        generator: draws the decoder's column, on the CPU.
    """
    head, hidden = vae.encoder.head, vae.decoder.hidden
    images = images.contiguous(memory_format=torch.channels_last)
    features = torch.cat([*map(vae.encoder.features, images.split(64))])  # [N, hidden_dim]
    row = least_explained(features, head(features)[:, :latent])  # [hidden_dim]
    means = features @ row  # [N]
    scale = STD / means.std().clamp_min(1e-6)
    head.weight[latent].copy_(row * scale)
    head.bias[latent].copy_(-means.mean() * scale)
    hidden.weight[:, latent].copy_(first_weights(hidden.weight, generator)[:, latent])


def least_explained(features: Tensor, codes: Tensor) -> Tensor:
    """The weights [F] of features [N, F] whose sum is told least by codes [N, K].

    Told is what a cubic polynomial of the codes tells. The ratio of the variance that is left to
    the one that is told is the largest, a generalised eigenvalue.
    """
    device, features, codes = features.device, features.double().cpu(), codes.double().cpu()
    features = features - features.mean(dim=0)
    terms = _cubic_terms(codes)  # [N, T]
    told = terms @ torch.linalg.lstsq(terms, features).solution  # [N, F]
    left = features - told
    left, told = left.T @ left, told.T @ told  # [F, F] each
    floor = FLOOR * (left + told).diagonal().mean().clamp_min(1e-12)
    root = torch.linalg.cholesky(told + floor * torch.eye(len(told)))
    inverse = torch.linalg.inv(root)
    directions = torch.linalg.eigh(inverse @ left @ inverse.T).eigenvectors
    return (inverse.T @ directions[:, -1]).float().to(device)


def _cubic_terms(codes: Tensor) -> Tensor:
    """1 and all products of up to three of the standardised codes [N, K]: [N, T]."""
    one = torch.ones(len(codes), 1, dtype=codes.dtype)
    codes = (codes - codes.mean(dim=0)) / codes.std(dim=0).clamp_min(1e-6)
    factors = torch.cat([one, codes], dim=1).unbind(dim=1)
    products = itertools.combinations_with_replacement(factors, 3)
    return torch.stack([a * b * c for a, b, c in products], dim=1)
