"""FactorVAE as a textbook would write it: the yardstick for the step's speed, and for its result.

Plain modules, eager float32, contiguous images, autograd through everything, Algorithm 2 line by
line. The tests hold the project's step against it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from factorvae.objective import (
    discriminator_loss,
    kl_divergence,
    permute_dims,
    reparameterize,
    total_correlation,
)


class TextbookVAE(nn.Module):
    """The paper's VAE for images of 64x64; parameters in the order of `factorvae.models.VAE`."""

    def __init__(self, channels: int, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, 32, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(64, 64, 4, 2, 1), nn.ReLU()),
            nn.Flatten(),
            *(nn.Linear(64 * 4 * 4, hidden_dim), nn.ReLU()),
            nn.Linear(hidden_dim, 2 * latent_dim),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(latent_dim, hidden_dim), nn.ReLU()),
            *(nn.Linear(hidden_dim, 64 * 4 * 4), nn.ReLU()),
            nn.Unflatten(1, (64, 4, 4)),
            *(nn.ConvTranspose2d(64, 64, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU()),
            nn.ConvTranspose2d(32, channels, 4, 2, 1),
        )


def textbook_discriminator(latent_dim: int, depth: int, width: int) -> nn.Sequential:
    """The MLP of the paper, parameters in the order of `factorvae.models.Discriminator`."""
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(width if k else latent_dim, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(width, 2))


class TextbookTrainer:
    """Algorithm 2 by autograd.

    Args:
        device: where the networks lie; images come to `step` already there.
    """

    def __init__(
        self,
        channels: int = 1,
        latent_dim: int = 10,
        hidden_dim: int = 128,
        disc_depth: int = 6,
        disc_width: int = 1000,
        beta: float = 1.0,
        gamma: float = 6.4,
        lr: float = 1e-4,
        lr_disc: float = 1e-4,
        device: str = "cpu",
    ) -> None:
        self.beta, self.gamma = beta, gamma
        self.vae = TextbookVAE(channels, latent_dim, hidden_dim).to(device)
        self.discriminator = textbook_discriminator(latent_dim, disc_depth, disc_width).to(device)
        self.vae_optimizer = Adam(self.vae.parameters(), lr, (0.9, 0.999))
        self.disc_optimizer = Adam(self.discriminator.parameters(), lr_disc, (0.5, 0.9))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> mu, logvar, [B, latent_dim] each."""
        mu, logvar = self.vae.encoder(x).chunk(2, dim=1)
        return mu, logvar

    def step(self, x1: Tensor, x2: Tensor, generator: torch.Generator | None = None) -> list[float]:
        """One step; returns recon, kl, tc and the discriminator's loss."""
        mu, logvar = self.encode(x1)
        noise = torch.randn(mu.shape, generator=generator, device=mu.device)
        z = reparameterize(mu, logvar, noise)
        logits = self.vae.decoder(z)
        recon = F.binary_cross_entropy_with_logits(logits, x1, reduction="sum") / len(x1)
        kl = kl_divergence(mu, logvar)
        tc = total_correlation(self.discriminator(z))
        self.vae_optimizer.zero_grad()
        (recon + self.beta * kl + self.gamma * tc).backward()
        self.vae_optimizer.step()

        with torch.no_grad():
            mu2, logvar2 = self.encode(x2)
            noise2 = torch.randn(mu2.shape, generator=generator, device=mu2.device)
            z_perm = permute_dims(reparameterize(mu2, logvar2, noise2), generator)
        disc_loss = discriminator_loss(self.discriminator(z.detach()), self.discriminator(z_perm))
        self.disc_optimizer.zero_grad()
        disc_loss.backward()
        self.disc_optimizer.step()
        return [recon.item(), kl.item(), tc.item(), disc_loss.item()]
