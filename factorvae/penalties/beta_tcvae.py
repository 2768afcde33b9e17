"""beta-TCVAE: total correlation estimated from the minibatch (Chen et al. 2018, arXiv 1802.04942).

The paper's objective (Eq. 4, with alpha = gamma = 1) weighs the total correlation in the KL term by
beta, so its beta is 1 + --gamma here, with --beta 1. disentanglement_lib's `beta_tc_vae` has the
paper's beta too; it knows weighted sampling only and leaves out the weights 1/(NM), which moves the
estimate by (latent_dim - 1) log(NM) and no gradient. The code that the authors published lays the
stratified weights along the first column of the matrix in place of its diagonal; here each code's
own posterior has the weight 1/N, as in the paper.
"""

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def minibatch_total_correlation(
    mu: Tensor,
    logvar: Tensor,
    z: Tensor,
    step: Tensor | int,
    *,
    num_images: int,
    stratified: bool,
) -> Tensor:
    """The second term of Eq. 2: KL(q(z) || prod_j q(z_j)), estimated in nats.

    Args:
        mu, logvar, z: [B, latent_dim], where row i of z is a sample from row i's posterior.
        step: not used.
        num_images: N of the data.
        stratified: see `log_aggregate`.
    """
    log_qz, log_qz_j = log_aggregate(mu, logvar, z, num_images, stratified)
    return (log_qz - log_qz_j.sum(dim=1)).mean()


def log_aggregate(
    mu: Tensor, logvar: Tensor, z: Tensor, num_images: int, stratified: bool
) -> tuple[Tensor, Tensor]:
    """Estimates of log q(z) and log q(z_j), [B] and [B, latent_dim], at each z of the batch.

    stratified: whether by minibatch stratified sampling (the paper's appendix), which needs
        2 <= B <= N + 1, or by minibatch weighted sampling (Eq. 3).
    """
    deviations = (z[:, None] - mu) * torch.exp(-0.5 * logvar)  # [B, B, latent_dim] of z_i, x_j
    log_q = -0.5 * (deviations.square() + (logvar + LOG_2PI))
    batch_size = len(z)
    if not stratified:
        shift = math.log(num_images * batch_size)
        return log_q.sum(dim=2).logsumexp(dim=1) - shift, log_q.logsumexp(dim=1) - shift
    log_weights = stratified_weights(batch_size, num_images, z).log()
    log_qz = (log_q.sum(dim=2) + log_weights).logsumexp(dim=1)
    return log_qz, (log_q + log_weights[:, :, None]).logsumexp(dim=1)


def stratified_weights(batch_size: int, num_images: int, like: Tensor) -> Tensor:
    """Weights of q(z_i given x_j) in the estimate of q(z_i): [B, B], whose rows sum to 1.

    1/N where j = i, (N - M)/(NM) of one other image, and 1/M of the others, with M = B - 1.
    """
    N, M = num_images, batch_size - 1
    own = torch.eye(batch_size, dtype=like.dtype, device=like.device)
    one_other = own.roll(1, dims=1)
    return own / N + one_other * ((N - M) / (N * M)) + (1 - own - one_other) / M
