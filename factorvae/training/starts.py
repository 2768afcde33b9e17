"""How good a start is: the first steps of training decide which latents hold what.

A start in which latents are twisted into one another may have no total correlation to speak of,
and yet it costs more than a straight one: that is told without labels.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from factorvae.models import VAE
from factorvae.objective import kl_divergence, recon_loss, reparameterize

NUM_IMAGES = 4096  # by which starts are compared


@torch.no_grad()
def loss_of(vae: VAE, parts: Iterable[Tensor], beta: float, generator: torch.Generator) -> float:
    """Reconstruction + beta * KL, in nats an image: Eq. 2 without the total correlation.

    Args:
        parts: images [B, C, H, W] in [0, 1], as many in each.
        generator: draws the noise of the codes, on the CPU.
    """
    losses = []
    for x in parts:
        mu, logvar = vae.encode(x)  # [B, latent_dim] each
        noise = torch.randn(mu.shape, generator=generator).to(mu.device)
        logits = vae.decode(reparameterize(mu, logvar, noise))
        losses.append(recon_loss(logits, x) + beta * kl_divergence(mu, logvar))
    return float(torch.stack(losses).mean())
