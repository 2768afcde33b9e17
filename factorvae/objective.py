"""The objective of FactorVAE (Kim & Mnih 2018), as pure functions of tensors.

Losses are summed over pixels or latents and averaged over the batch. In the words of Eq. 2, what
is minimised is `recon + beta * kl + gamma * tc`, where beta is 1 in the paper.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def reparameterize(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """z = mu + sigma * eps, with eps ~ N(0, I) drawn by the caller; all [B, latent_dim]."""
    return mu + torch.exp(0.5 * logvar) * eps


def recon_loss(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x given z) of Bernoulli pixels, in nats: summed over pixels, averaged over the batch.

    Args:
        logits: [B, C, H, W], before the sigmoid.
        x: [B, C, H, W] in [0, 1].
    """
    return _BernoulliNLL.apply(logits, x) / len(x)


def recon_loss_per_image(logits: Tensor, x: Tensor) -> Tensor:
    """The same of each image, not averaged: [B]."""
    losses = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return losses.flatten(1).sum(dim=1)


def kl_per_code(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z_j given x) || N(0, 1)) of each latent of each image: [B, latent_dim], nats."""
    return 0.5 * (mu.square() + logvar.exp() - logvar - 1)


def kl_per_latent(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z_j given x) || N(0, 1)) of each latent, averaged over the batch: [latent_dim], nats."""
    return kl_per_code(mu, logvar).mean(dim=0)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z given x) || N(0, I)) in nats: summed over latents, averaged over the batch."""
    return kl_per_latent(mu, logvar).sum()


def permute_dims(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Algorithm 1: each latent of z [B, latent_dim] shuffled over the batch, independently.

    The rows of the result are as good as draws from the product of q(z)'s marginals.
    """
    keys = torch.rand(z.shape, generator=generator, device=z.device)
    return z.gather(0, keys.argsort(dim=0))


def total_correlation(logits: Tensor) -> Tensor:
    """Eq. 3: KL(q(z) || prod_j q(z_j)), the mean of log D(z) - log(1 - D(z)), in nats.

    Args:
        logits: the discriminator's, [B, 2], on codes from q(z); 0 is joint, 1 is permuted.
    """
    return (logits[:, 0] - logits[:, 1]).mean()


def discriminator_loss(logits_joint: Tensor, logits_perm: Tensor) -> Tensor:
    """Algorithm 2, the discriminator's cross-entropy over both halves, averaged over codes.

    Args:
        logits_joint: [B, 2] on codes from q(z), whose right answer is 0.
        logits_perm: [B, 2] on permuted codes, whose right answer is 1.
    """
    joint = F.log_softmax(logits_joint, dim=1)[:, 0]
    perm = F.log_softmax(logits_perm, dim=1)[:, 1]
    return -0.5 * (joint.mean() + perm.mean())


def discriminator_accuracy(logits_joint: Tensor, logits_perm: Tensor) -> Tensor:
    """Share of codes, in both halves, that the discriminator takes for what they are; chance .5."""
    right_joint = (logits_joint[:, 0] > logits_joint[:, 1]).float().mean()
    right_perm = (logits_perm[:, 1] > logits_perm[:, 0]).float().mean()
    return 0.5 * (right_joint + right_perm)


class _BernoulliNLL(torch.autograd.Function):
    """sum of log(1 + exp(logits)) - x * logits, as stable as the library's and thrice as fast.

    The library's log1p is slow on the CPU. log(1 + e^l) = max(l, 0) - log(sigmoid(|l|)) needs none:
    that sigmoid lies in [.5, 1], where its logarithm is exact to 1e-7.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, x: Tensor) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(logits, x)
        softplus = logits.relu() - logits.abs().sigmoid_().log_()
        return softplus.sub_(x * logits).sum()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        logits, x = ctx.saved_tensors
        return logits.sigmoid().sub_(x).mul_(grad), None
