"""Latents are turned among each other to where they are independent.

The reconstruction and the KL term know no directions among latents: codes may be turned, the
decoder turned back, and neither changes. Only the total correlation tells directions apart, and
networks that have settled on others hardly ever turn by themselves. Here it is done in one move.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam

from factorvae.models import VAE, Discriminator
from factorvae.objective import kl_per_latent
from factorvae.training.waking import FAINT_KL

NUM_IMAGES = 4096  # by whose codes the directions are told
ANGLES = 91  # tried for each pair, from -45 to 45 degrees
ROUNDS = 3  # through all pairs
LEAST_GAIN = 0.05  # of a pair's contrast, below which it stays: more than chance brings


@torch.no_grad()
def turn_latents(
    vae: VAE,
    optimizer: Adam,
    discriminator: Discriminator | None,
    disc_optimizer: Adam | None,
    mu: Tensor,
    logvar: Tensor,
) -> Tensor:
    """Turn the latents, in place, to where `independent_directions` finds them independent.

    The encoder's means become R mu and the decoder and the discriminator take R^T z, so that the
    reconstruction is the same. Variances do not turn: each log variance becomes the mean of those
    that it is made of, weighted by the squares in R. Adam's moments change as the gradients do.

    Args:
        vae: with the paper's encoder and decoder.
        mu, logvar: of images of the training data, [N, latent_dim] each.

    Returns:
        R, [latent_dim, latent_dim]. Latents of at most FAINT_KL nats stay as they are.
    """
    turn = independent_directions(mu, kl_per_latent(mu, logvar) > FAINT_KL)
    rows = torch.block_diag(turn, turn.square())  # of the head: those of mu, then those of logvar

    def of_rows(weight: Tensor, by: Tensor) -> Tensor:
        return by @ weight

    def of_columns(weight: Tensor, by: Tensor) -> Tensor:
        return weight @ by.T

    _replace(vae.encoder.head.weight, optimizer, of_rows, rows)
    _replace(vae.encoder.head.bias, optimizer, of_rows, rows)
    _replace(vae.decoder.hidden.weight, optimizer, of_columns, turn)
    if discriminator is not None:
        _replace(discriminator.hidden[0].weight, disc_optimizer, of_columns, turn)
    return turn


def _replace(
    weight: nn.Parameter, optimizer: Adam, apply: Callable[[Tensor, Tensor], Tensor], by: Tensor
) -> None:
    """A linear function of the weight in its place, and of its moments."""
    moments = optimizer.state[weight]
    weight.copy_(apply(weight, by))
    moments["exp_avg"].copy_(apply(moments["exp_avg"], by))
    moments["exp_avg_sq"].copy_(apply(moments["exp_avg_sq"], by.square()))


def independent_directions(codes: Tensor, live: Tensor) -> Tensor:
    """A rotation R after which the codes, R z, are as independent as a rotation makes them.

    Pairs are turned one after the other to where the squares of their excess kurtoses have the
    largest sum (independent component analysis by pairs: Comon 1994). A pair of which one is not
    live stays. No value waits for the device.

    Args:
        codes: [N, D].
        live: which latents may be turned, bool [D].

    Returns:
        R, [D, D]: of each pair by 45 degrees at most, so that latents keep their places and signs.
    """
    centred = codes - codes.mean(dim=0)
    u = centred / centred.std(dim=0).clamp_min(1e-6)  # [N, D]
    latent_dim = codes.shape[1]
    turn = torch.eye(latent_dim, dtype=codes.dtype, device=codes.device)
    angles = torch.linspace(-45, 45, ANGLES, dtype=codes.dtype, device=codes.device).deg2rad()
    sin, cos = angles.sin(), angles.cos()  # [ANGLES], of which the middle one is 0
    for _ in range(ROUNDS):
        for i in range(latent_dim):
            for j in range(i + 1, latent_dim):
                first = torch.outer(u[:, i], cos) + torch.outer(u[:, j], sin)  # [N, ANGLES]
                second = torch.outer(u[:, j], cos) - torch.outer(u[:, i], sin)
                contrast = _excess_kurtosis(first).square() + _excess_kurtosis(second).square()
                best = contrast.argmax()
                gains = contrast[best] - contrast[ANGLES // 2] > LEAST_GAIN
                angle = torch.where(gains & live[i] & live[j], angles[best], 0)
                by = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()]).view(2, 2)
                turn[[i, j]] = by @ turn[[i, j]]
                u[:, [i, j]] = u[:, [i, j]] @ by.T
    return turn


def _excess_kurtosis(values: Tensor) -> Tensor:
    """Of each column of [N, K], whose mean is 0: [K]; 0 for a normal distribution."""
    squares = values.square()
    return squares.square().mean(dim=0) / squares.mean(dim=0).square() - 3
