"""The networks of Kim & Mnih (2018), appendix A: encoder, decoder and discriminator.

Every weight is drawn Glorot-uniform and every bias is zero, from the generator given. Images are
square, their side a power of two from 32 to 256; each halving is one convolution, down to 4x4.
"""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from factorvae.config import IMAGE_SIZES, TrainConfig
from factorvae.layers import DownConv, Linear, UpConv
from factorvae.objective import reparameterize

LEAKY_SLOPE = 0.2


def conv_channels(image_size: int) -> list[int]:
    """Channels after each halving: 32, 32, 64, 64 for 64 pixels, a 32 more or less per octave."""
    if image_size not in IMAGE_SIZES:
        raise ValueError(f"image size must be one of {IMAGE_SIZES}, not {image_size}")
    stages = image_size.bit_length() - 3  # 4x4 is left in the end
    return [32] * (stages - 2) + [64, 64]


M = TypeVar("M", bound=nn.Module)


def glorot_(module: M, generator: torch.Generator | None) -> M:
    """`module`, its weights drawn Glorot-uniform and its biases set to zero in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return module


class Encoder(nn.Module):
    """q(z given x): [B, C, H, W] pixels in [0, 1] -> mu and logvar, [B, latent_dim] float32."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        channels = [image_shape[0], *conv_channels(image_shape[1])]
        self.convs = nn.ModuleList(map(DownConv, channels[:-1], channels[1:]))
        self.hidden = Linear(64 * 4 * 4, hidden_dim)
        self.head = Linear(hidden_dim, 2 * latent_dim)

    def features(self, x: Tensor) -> Tensor:
        """What mu and logvar are linear functions of: [B, hidden_dim]."""
        for conv in self.convs:
            x = conv(x)  # [B, 32, H/2, W/2] ... [B, 64, 4, 4]
        return F.relu(self.hidden(x.flatten(1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.head(self.features(x)).float().chunk(2, dim=1)  # [B, latent_dim] each
        return mu, logvar


class Decoder(nn.Module):
    """p(x given z): [B, latent_dim] -> logits of the pixels, [B, C, H, W] float32."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        channels = [*reversed(conv_channels(image_shape[1])), image_shape[0]]
        self.hidden = Linear(latent_dim, hidden_dim)
        self.expand = Linear(hidden_dim, 64 * 4 * 4)
        self.upconvs = nn.ModuleList(map(UpConv, channels[:-1], channels[1:]))
        self.upconvs[-1].relu = False  # it gives logits

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.hidden(z))  # [B, hidden_dim]
        x = F.relu(self.expand(x)).view(-1, 64, 4, 4)
        x = x.contiguous(memory_format=torch.channels_last)
        for upconv in self.upconvs:
            x = upconv(x)  # [B, 64, 8, 8] ... [B, 32, H/2, W/2], [B, C, H, W]
        return x.float()


class VAE(nn.Module):
    """Encoder and decoder. The noise of sampling is the caller's.

    Args:
        image_shape: (C, H, W), square.
        latent_dim: width of z.
        hidden_dim: width of the fully connected layer on either side (paper: 128 for dSprites,
            256 for RGB data).
        generator: draws the initial weights; the global one if None.
        latent_scale: factor of the first weights into and out of the latents, of the paper's
            networks. Where it is small, latents awake one after the other.
        first_latents: how many have first weights other than 0, of the paper's networks; 0: all.
        encoder, decoder: in place of the paper's, with weights as they are; they map as `Encoder`
            and `Decoder` do.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        hidden_dim: int = TrainConfig.hidden_dim,
        generator: torch.Generator | None = None,
        *,
        latent_scale: float = TrainConfig.latent_scale,
        first_latents: int = TrainConfig.first_latents,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim
        self.encoder = encoder or glorot_(Encoder(image_shape, latent_dim, hidden_dim), generator)
        self.decoder = decoder or glorot_(Decoder(image_shape, latent_dim, hidden_dim), generator)
        with torch.no_grad():
            scales = torch.full((latent_dim,), latent_scale)
            if first_latents:
                scales[first_latents:] = 0
            if encoder is None:
                self.encoder.head.weight.mul_(torch.cat([scales, scales])[:, None])
            if decoder is None:
                self.decoder.hidden.weight.mul_(scales)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, C, H, W] and eps ~ N(0, I) [B, latent_dim] -> logits, mu, logvar and the sample z."""
        mu, logvar = self.encode(x)
        z = reparameterize(mu, logvar, eps)
        return self.decode(z.to(x.dtype)), mu, logvar, z

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> (mu, logvar), [B, latent_dim] each, computed in the dtype of x.

        x: pixels in [0, 1], or uint8 levels 0..255, which are scaled. Raises ValueError for images
        of another shape or of other integers.
        """
        if x.shape[1:] != self.image_shape:
            found = "x".join(map(str, x.shape))
            expected = "x".join(map(str, self.image_shape))
            raise ValueError(f"the model takes images [B, C, H, W] of {expected}, not {found}")
        if x.dtype == torch.uint8:
            x = x.float() / 255
        elif not x.is_floating_point():
            raise ValueError(f"images are floats in [0, 1] or uint8 in 0..255, not {x.dtype}")
        return self.encoder(x.contiguous(memory_format=torch.channels_last))

    def decode(self, z: Tensor) -> Tensor:
        """[B, latent_dim] -> logits [B, C, H, W], computed in the dtype of z."""
        return self.decoder(z)


class Discriminator(nn.Module):
    """Tells codes from q(z) from codes with permuted dimensions: z [B, latent_dim] -> [B, 2].

    Logit 0 says 'joint', a sample of q(z); logit 1 says 'permuted', a sample of the product of
    its marginals. Their difference is the log density ratio of Eq. 3.

    Args:
        standardizes: whether it sees codes of mean 0 and deviation 1 over the batch. Total
            correlation does not depend on the scales of latents; layers do, and what they cannot
            see of a small latent is not penalised.
    """

    def __init__(
        self,
        latent_dim: int,
        depth: int = TrainConfig.disc_depth,
        width: int = TrainConfig.disc_width,
        generator: torch.Generator | None = None,
        *,
        standardizes: bool = False,
    ) -> None:
        super().__init__()
        widths = [latent_dim] + [width] * depth
        self.hidden = nn.ModuleList(map(Linear, widths[:-1], widths[1:]))
        self.out = Linear(widths[-1], 2)
        glorot_(self, generator)
        self.standardizes = standardizes

    def forward(self, z: Tensor) -> Tensor:
        if self.standardizes:
            z = standardized(z.float()).to(z.dtype)
        for layer in self.hidden:
            z = F.leaky_relu(layer(z), LEAKY_SLOPE)  # [B, width]
        return self.out(z).float()  # [B, 2]


def standardized(z: Tensor) -> Tensor:
    """Codes [B, latent_dim] with a mean of 0 and a deviation of 1 of each latent over the batch."""
    return (z - z.mean(dim=0)) / z.std(dim=0).clamp_min(1e-6)


@torch.no_grad()
def encode_parts(vae: VAE, parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """mu and logvar of all images, [N, latent_dim] each, in the memory of one of their parts.

    parts: images [B, C, H, W] each.
    """
    mus, logvars = zip(*map(vae.encode, parts), strict=True)
    return torch.cat(mus), torch.cat(logvars)


def vae_of(
    config: TrainConfig,
    image_shape: tuple[int, int, int],
    generator: torch.Generator | None = None,
) -> VAE:
    """The VAE that a config asks for, with first weights."""
    return VAE(
        image_shape,
        config.latent_dim,
        config.hidden_dim,
        generator,
        latent_scale=config.latent_scale,
        first_latents=config.first_latents,
    )


def discriminator_of(
    config: TrainConfig, generator: torch.Generator | None = None
) -> Discriminator:
    """The discriminator that a config asks for."""
    return Discriminator(
        config.latent_dim,
        config.disc_depth,
        config.disc_width,
        generator,
        standardizes=config.disc_standardize,
    )


def model_on_meta(
    image_shape: tuple[int, int, int], config: TrainConfig
) -> tuple[VAE, Discriminator]:
    """The networks of a config without memory: the names, shapes and dtypes of their weights."""
    with torch.device("meta"):
        return vae_of(config, image_shape), discriminator_of(config)
