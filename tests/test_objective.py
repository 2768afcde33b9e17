"""The objective's terms against torch.distributions and closed forms."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from factorvae import objective
from factorvae.models import Discriminator


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_kl_divergence_is_that_of_torch_distributions(generator):
    mu = torch.randn(7, 5, generator=generator)
    logvar = torch.randn(7, 5, generator=generator)
    posterior = Normal(mu, (0.5 * logvar).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0))  # [7, 5]
    torch.testing.assert_close(objective.kl_per_latent(mu, logvar), expected.mean(0))
    torch.testing.assert_close(objective.kl_divergence(mu, logvar), expected.sum(1).mean())
    assert objective.kl_divergence(torch.zeros(3, 4), torch.zeros(3, 4)) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_recon_loss_is_the_bernoulli_log_likelihood(generator, channels):
    logits = torch.randn(3, channels, 8, 8, generator=generator)
    x = torch.rand(logits.shape, generator=generator).round()
    pixels = Independent(Bernoulli(logits=logits), 3)
    expected = -pixels.log_prob(x).mean()  # summed over pixels, averaged over the batch
    torch.testing.assert_close(objective.recon_loss(logits, x), expected)


def test_losses_of_each_image_average_to_the_batchs(generator):
    logits = torch.randn(5, 1, 8, 8, generator=generator)
    x = torch.rand(logits.shape, generator=generator)
    each = objective.recon_loss_per_image(logits, x)
    assert each.shape == (5,)
    torch.testing.assert_close(each.mean(), objective.recon_loss(logits, x))
    torch.testing.assert_close(each[1], objective.recon_loss(logits[1:2], x[1:2]))
    mu, logvar = torch.randn(2, 5, 3, generator=generator).unbind()
    codes = objective.kl_per_code(mu, logvar)  # [5, 3]
    torch.testing.assert_close(codes.mean(0).sum(), objective.kl_divergence(mu, logvar))


def test_recon_loss_of_an_undecided_decoder_is_log_two_a_pixel():
    x = torch.rand(5, 1, 64, 64)
    loss = objective.recon_loss(torch.zeros_like(x), x)
    assert loss.item() == pytest.approx(64 * 64 * math.log(2), rel=1e-5)


def test_reparameterize_has_the_moments_of_the_posterior(generator):
    mu = torch.tensor([[1.0, -2.0]]).expand(200_000, 2)
    logvar = torch.tensor([[math.log(4.0), math.log(0.25)]]).expand(200_000, 2)
    eps = torch.randn(mu.shape, generator=generator)
    z = objective.reparameterize(mu, logvar, eps)
    torch.testing.assert_close(z.mean(0), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), torch.tensor([2.0, 0.5]), atol=0.02, rtol=0)
    assert torch.equal(objective.reparameterize(mu, logvar, torch.zeros_like(mu)), mu)


def test_permute_dims_keeps_each_columns_multiset(generator):
    z = torch.randn(64, 10, generator=generator)
    z_perm = objective.permute_dims(z, generator)
    assert torch.equal(z_perm.sort(dim=0).values, z.sort(dim=0).values)
    assert not torch.equal(z_perm, z)


def test_permute_dims_permutes_columns_independently(generator):
    column = torch.randn(4096, generator=generator)
    z = torch.stack([column, column], dim=1)  # correlation 1
    z_perm = objective.permute_dims(z, generator)
    correlation = torch.corrcoef(z_perm.t())[0, 1].item()
    assert abs(correlation) < 0.06  # 4 standard errors


def test_permute_dims_is_its_generators_and_takes_a_batch_of_one():
    z = torch.randn(32, 4)
    first, again, other = (
        objective.permute_dims(z, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(objective.permute_dims(z[:1]), z[:1])


def test_total_correlation_is_the_mean_log_odds_of_joint():
    logits = torch.tensor([[2.0, -1.0], [0.5, 1.0]])
    assert objective.total_correlation(logits).item() == pytest.approx((3.0 - 0.5) / 2)
    d = logits.softmax(1)[:, 0]  # D(z) of Eq. 3
    expected = (d.log() - (1 - d).log()).mean()
    torch.testing.assert_close(objective.total_correlation(logits), expected)


def test_discriminator_loss_is_the_cross_entropy_of_both_halves(generator):
    joint, perm = torch.randn(2, 6, 2, generator=generator).unbind()
    labels = torch.tensor([0] * 6 + [1] * 6)
    expected = torch.nn.functional.cross_entropy(torch.cat([joint, perm]), labels)
    torch.testing.assert_close(objective.discriminator_loss(joint, perm), expected)
    undecided = objective.discriminator_loss(torch.zeros(4, 2), torch.zeros(4, 2))
    assert undecided.item() == pytest.approx(math.log(2))


def test_discriminator_accuracy_counts_both_halves():
    joint = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # three of four right
    perm = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])  # one of four right
    assert objective.discriminator_accuracy(joint, perm).item() == pytest.approx(0.5)
    assert objective.discriminator_accuracy(joint, joint.flip(1)).item() == pytest.approx(0.75)


def train_discriminator(covariance, steps, generator):
    """The estimate of a discriminator trained by density ratio on draws of N(0, covariance)."""
    cholesky = torch.linalg.cholesky(covariance)
    dim = len(covariance)

    def draw(n):
        return torch.randn(n, dim, generator=generator) @ cholesky.t()

    discriminator = Discriminator(dim, depth=3, width=64, generator=generator)
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3, (0.5, 0.9))
    for _ in range(steps):
        joint = discriminator(draw(256))
        perm = discriminator(objective.permute_dims(draw(256), generator))
        optimizer.zero_grad()
        objective.discriminator_loss(joint, perm).backward()
        optimizer.step()
    with torch.no_grad():
        return objective.total_correlation(discriminator(draw(20_000))).item()


def test_a_trained_discriminator_finds_a_gaussians_total_correlation(generator):
    covariance = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 1.0]])
    closed_form = -0.5 * torch.logdet(covariance).item()  # unit variances: .66 nats
    estimate = train_discriminator(covariance, 400, generator)
    assert estimate == pytest.approx(closed_form, rel=0.15)


def test_a_trained_discriminator_finds_none_in_a_factorised_gaussian(generator):
    estimate = train_discriminator(torch.diag(torch.tensor([0.5, 1.0, 2.0])), 200, generator)
    assert abs(estimate) < 0.03
