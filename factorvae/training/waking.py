"""Latents that say next to nothing begin anew, with what the encoder has learnt since."""

import itertools

import torch
from torch import Tensor, nn
from torch.optim import Adam

from factorvae.models import VAE
from factorvae.objective import kl_per_latent

NUM_IMAGES = 1024  # by which it is told which latents say next to nothing
FAINT_KL = 0.1  # nats that such a latent carries at most
FLOOR = 0.01  # of the features' mean variance, added to what is explained of them
STD = 0.5  # of a woken latent's means; its variances begin at 1


@torch.no_grad()
def wake_latents(vae: VAE, optimizer: Adam, images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw anew, in place, the encoder's rows and the decoder's column of every faint latent.

    Such a latent's means become a random linear function of the encoder's last features, centred
    and of deviation STD; its log variance becomes 0, and Adam's first moments of these weights too.
    Masks say which they are, so that no value waits for the device.

    Args:
        vae: with the paper's encoder and decoder.
        images: of the training data, [N, C, H, W].
        generator: draws the weights, on the CPU.

    Returns:
        Which latents were faint, of at most FAINT_KL nats: bool [latent_dim].
    """
    head, hidden = vae.encoder.head, vae.decoder.hidden
    mu, logvar = _encode(vae, images)  # [N, latent_dim] each
    faint = kl_per_latent(mu, logvar) <= FAINT_KL
    rows = torch.cat([faint, faint])  # of the head: those of mu, then those of logvar

    drawn = _glorot(head.weight, generator)  # [2 * latent_dim, hidden_dim]
    drawn[vae.latent_dim :] = 0
    head.weight.copy_(torch.where(rows[:, None], drawn, head.weight))
    head.bias.mul_(~rows)
    mu, _ = _encode(vae, images)
    scale = STD / mu.std(dim=0).clamp_min(1e-6)  # [latent_dim]
    head.weight[: vae.latent_dim].mul_(torch.where(faint, scale, 1)[:, None])
    head.bias[: vae.latent_dim].sub_(torch.where(faint, mu.mean(dim=0) * scale, 0))
    hidden.weight.copy_(torch.where(faint, _glorot(hidden.weight, generator), hidden.weight))

    moments = optimizer.state
    moments[head.weight]["exp_avg"].mul_(~rows[:, None])
    moments[head.bias]["exp_avg"].mul_(~rows)
    moments[hidden.weight]["exp_avg"].mul_(~faint)
    return faint


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
    hidden.weight[:, latent].copy_(_glorot(hidden.weight, generator)[:, latent])


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


def _encode(vae: VAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """mu and logvar of the images, without the memory that a batch of all of them would take."""
    mus, logvars = zip(*map(vae.encode, images.split(64)), strict=True)
    return torch.cat(mus), torch.cat(logvars)


def _glorot(weight: Tensor, generator: torch.Generator) -> Tensor:
    """First weights in place of these, where they lie."""
    drawn = torch.empty(weight.shape)
    nn.init.xavier_uniform_(drawn, generator=generator)
    return drawn.to(weight.device)
