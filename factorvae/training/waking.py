"""Latents that say next to nothing begin anew, with what the encoder has learnt since."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Adam

from factorvae.models import VAE, encode_parts
from factorvae.objective import kl_per_latent

NUM_IMAGES = 1024  # by which it is told which latents say next to nothing
FAINT_KL = 0.1  # nats that such a latent carries at most
STD = 0.5  # of a woken latent's means; its variances begin at 1


@torch.no_grad()
def wake_latents(
    vae: VAE, optimizer: Adam, parts: Sequence[Tensor], generator: torch.Generator
) -> Tensor:
    """Draw anew, in place, the encoder's rows and the decoder's column of every faint latent.

    Such a latent's means become a random linear function of the encoder's last features, centred
    and of deviation STD; its log variance becomes 0, and Adam's first moments of these weights too.
    Masks say which they are, so that no value waits for the device.

    Args:
        vae: with the paper's encoder and decoder.
        parts: images of the training data, [B, C, H, W] each.
        generator: draws the weights, on the CPU.

    Returns:
        Which latents were faint, of at most FAINT_KL nats: bool [latent_dim].
    """
    head, hidden = vae.encoder.head, vae.decoder.hidden
    mu, logvar = encode_parts(vae, parts)  # [N, latent_dim] each
    faint = kl_per_latent(mu, logvar) <= FAINT_KL
    rows = torch.cat([faint, faint])  # of the head: those of mu, then those of logvar

    drawn = first_weights(head.weight, generator)  # [2 * latent_dim, hidden_dim]
    drawn[vae.latent_dim :] = 0
    head.weight.copy_(torch.where(rows[:, None], drawn, head.weight))
    head.bias.mul_(~rows)
    mu, _ = encode_parts(vae, parts)
    scale = STD / mu.std(dim=0).clamp_min(1e-6)  # [latent_dim]
    head.weight[: vae.latent_dim].mul_(torch.where(faint, scale, 1)[:, None])
    head.bias[: vae.latent_dim].sub_(torch.where(faint, mu.mean(dim=0) * scale, 0))
    hidden.weight.copy_(torch.where(faint, first_weights(hidden.weight, generator), hidden.weight))

    moments = optimizer.state
    moments[head.weight]["exp_avg"].mul_(~rows[:, None])
    moments[head.bias]["exp_avg"].mul_(~rows)
    moments[hidden.weight]["exp_avg"].mul_(~faint)
    return faint


def first_weights(weight: Tensor, generator: torch.Generator) -> Tensor:
    """First weights in place of these, where they lie."""
    drawn = torch.empty(weight.shape)
    nn.init.xavier_uniform_(drawn, generator=generator)
    return drawn.to(weight.device)
