"""Latents are turned among each other to where they are independent.

The reconstruction and the KL term know no directions among latents: codes may be turned, the
decoder turned back, and neither changes. Only the total correlation tells directions apart, and
networks that have settled on others hardly ever turn by themselves. Here it is done in one move.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam

from factorvae.models import VAE, Discriminator
from factorvae.objective import kl_per_latent

NUM_IMAGES = 4096  # by whose codes the directions are told
LEAST_KL = 1.0  # nats of a latent that is turned: fainter ones' variances are too different
ANGLES = 91  # tried for each pair, from -45 to 45 degrees
ROUNDS = 3  # through all pairs
LEAST_GAIN = 0.05  # of a pair's contrast, below which it stays


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
    reconstruction is the same, and what the discriminator says, unless it standardizes its codes.
    Variances do not turn: each log variance becomes the mean of those that it is made of, weighted
    by the squares in R. Adam's moments change as the gradients do: the squares by the squares in R,
    as gradients of different latents hardly go together.

    Args:
        vae: with the paper's encoder and decoder.
        mu, logvar: of images of the training data, [N, latent_dim] each.

    Returns:
        R, [latent_dim, latent_dim]. Latents of at most LEAST_KL nats stay as they are.
    """
    live = (kl_per_latent(mu, logvar) > LEAST_KL).nonzero().flatten()  # [K]
    turn = torch.eye(vae.latent_dim, device=mu.device)
    turn[live[:, None], live] = independent_directions(mu[:, live])
    squares = turn.square()
    rows = torch.block_diag(turn, squares)  # of the head: those of mu, then those of logvar
    squares_of_rows = torch.block_diag(squares, squares)

    def of_rows(weight: Tensor, by: Tensor) -> Tensor:
        return by @ weight

    def of_columns(weight: Tensor, by: Tensor) -> Tensor:
        return weight @ by.T

    _replace(vae.encoder.head.weight, optimizer, of_rows, rows, squares_of_rows)
    _replace(vae.encoder.head.bias, optimizer, of_rows, rows, squares_of_rows)
    _replace(vae.decoder.hidden.weight, optimizer, of_columns, turn, squares)
    if discriminator is not None:
        _replace(discriminator.hidden[0].weight, disc_optimizer, of_columns, turn, squares)
    return turn


def _replace(
    weight: nn.Parameter,
    optimizer: Adam,
    apply: Callable[[Tensor, Tensor], Tensor],
    by: Tensor,
    squares_by: Tensor,
) -> None:
    """A linear function of the weight in its place, and of its moments.

    In float64, as CUDA may multiply float32 in TF32, which would round what is not turned, too.
    """
    moments = optimizer.state[weight]
    for tensor, factor in (
        (weight, by),
        (moments["exp_avg"], by),
        (moments["exp_avg_sq"], squares_by),
    ):
        tensor.copy_(apply(tensor.double(), factor.double()))


def independent_directions(codes: Tensor) -> Tensor:
    """A rotation R after which the codes [N, K], R z, are as independent as one makes them: [K, K].

    Pairs are turned one after the other to where the sum of their entropies is least (independent
    component analysis by pairs: Comon 1994), and so, as their joint entropy does not change, their
    total correlation. By 45 degrees at most, so that latents keep their places and signs.
    """
    u = codes - codes.mean(dim=0)
    turn = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
    angles = torch.linspace(-45, 45, ANGLES, dtype=u.dtype, device=u.device).deg2rad()
    middle = ANGLES // 2  # the angle 0
    for _ in range(ROUNDS):
        for i, j in itertools.combinations(range(u.shape[1]), 2):
            tried = _turned(u[:, i, None], u[:, j, None], angles)  # [N, ANGLES] each
            contrast = sum(map(_lack_of_entropy, tried))  # [ANGLES]
            most, best = contrast.max(dim=0)
            angle = torch.where(most - contrast[middle] > LEAST_GAIN, angles[best], 0)
            u[:, i], u[:, j] = _turned(u[:, i], u[:, j], angle)
            turn[i], turn[j] = _turned(turn[i], turn[j], angle)
    return turn


def _turned(a: Tensor, b: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Both coordinates turned by an angle in radians."""
    return angle.cos() * a + angle.sin() * b, angle.cos() * b - angle.sin() * a


def _lack_of_entropy(values: Tensor) -> Tensor:
    """Minus 48 times the entropy of each column of [N, K], whose mean is 0, up to a constant: [K].

    The entropy is half the logarithm of the variance, and for what is not normal less by about a
    48th of the square of the excess kurtosis.
    """
    variance = values.square().mean(dim=0).clamp_min(1e-12)
    kurtosis = values.square().square().mean(dim=0) / variance.square() - 3  # 0 if normal
    return kurtosis.square() - 24 * variance.log()
