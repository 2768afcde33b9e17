"""The penalties against their formulas in float64 numpy, known answers and finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch

from factorvae.objective import kl_divergence
from factorvae.penalties import PENALTIES, bind_penalty
from factorvae.penalties.annealed import capacity_at, capacity_distance
from factorvae.penalties.beta_tcvae import (
    log_aggregate,
    minibatch_total_correlation,
    stratified_weights,
)
from factorvae.penalties.dip_vae import covariance, dip_vae_1, dip_vae_2

B, D, N = 6, 3, 50
STEP = torch.tensor(30)
SETTINGS = {
    "annealed": {"capacity": 25.0, "capacity_steps": 100},
    "dipvae1": {"dip_ratio": 10.0},
    "dipvae2": {"dip_ratio": 1.0},
    "btcvae": {"num_images": N, "stratified": False},
    "btcvae, stratified": {"num_images": N, "stratified": True},
}


@pytest.fixture
def codes():
    """mu, logvar and z, float64 [B, D] each, correlated over the latents."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((D, D))
    mu = rng.standard_normal((B, D)) @ mix + rng.standard_normal(D)
    logvar = rng.standard_normal((B, D)) - 1
    z = mu + np.exp(0.5 * logvar) * rng.standard_normal((B, D))
    return mu, logvar, z


def bound(case):
    return bind_penalty(case.partition(",")[0], SETTINGS[case])


def log_normal(z, mu, logvar):
    return -0.5 * ((z - mu) ** 2 / np.exp(logvar) + logvar + np.log(2 * np.pi))


# Each penalty's formula, written out for one code and one latent at a time.


def expected_annealed(mu, logvar, z):
    kl = 0.0
    for i, j in np.ndindex(B, D):
        kl += 0.5 * (mu[i, j] ** 2 + np.exp(logvar[i, j]) - logvar[i, j] - 1) / B
    return abs(kl - 25.0 * 30 / 100)


def dip(cov, ratio):
    total = 0.0
    for i, j in np.ndindex(D, D):
        total += ratio * (cov[i, j] - 1) ** 2 if i == j else cov[i, j] ** 2
    return total


def expected_dip_vae_1(mu, logvar, z):
    return dip(np.cov(mu, rowvar=False, bias=True), 10)


def expected_dip_vae_2(mu, logvar, z):
    return dip(np.cov(mu, rowvar=False, bias=True) + np.diag(np.exp(logvar).mean(0)), 1)


def expected_tc(mu, logvar, z, weight):
    """weight(i, j): of q(z_i given x_j) in q(z_i)."""
    total = 0.0
    for i in range(B):
        q = np.array([np.exp(log_normal(z[i], mu[j], logvar[j])) for j in range(B)])  # [B, D]
        w = np.array([weight(i, j) for j in range(B)])
        total += np.log(w @ q.prod(1)) - sum(np.log(w @ q[:, k]) for k in range(D))
    return total / B


def expected_weighted(mu, logvar, z):
    return expected_tc(mu, logvar, z, lambda i, j: 1 / (N * B))


def expected_stratified(mu, logvar, z):
    M = B - 1

    def weight(i, j):
        if i == j:
            return 1 / N
        return (N - M) / (N * M) if j == (i + 1) % B else 1 / M

    return expected_tc(mu, logvar, z, weight)


FORMULAS = {
    "annealed": expected_annealed,
    "dipvae1": expected_dip_vae_1,
    "dipvae2": expected_dip_vae_2,
    "btcvae": expected_weighted,
    "btcvae, stratified": expected_stratified,
}


def test_every_method_with_a_function_is_held_to_its_formula():
    known = {case.partition(",")[0] for case in FORMULAS}
    assert known == {*PENALTIES}


@pytest.mark.parametrize("case", FORMULAS)
def test_penalty_is_its_formula(case, codes):
    expected = torch.tensor(FORMULAS[case](*codes))
    doubles = [torch.from_numpy(array) for array in codes]
    torch.testing.assert_close(bound(case)(*doubles, STEP), expected, rtol=1e-6, atol=0)
    floats = [array.float() for array in doubles]
    computed = bound(case)(*floats, STEP)
    assert computed.dtype == torch.float32
    torch.testing.assert_close(computed, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", FORMULAS)
def test_gradients_are_those_of_finite_differences(case, codes):
    doubles = [torch.from_numpy(array).requires_grad_() for array in codes]
    penalty = bound(case)
    assert torch.autograd.gradcheck(
        lambda mu, logvar, z: penalty(mu, logvar, z, STEP), doubles, eps=1e-6, atol=1e-6
    )


def test_penalties_are_finite_on_codes_far_from_the_prior():
    """A latent that is told apart exactly: variance e^-20, means a thousand deviations apart."""
    mu = torch.arange(8.0)[:, None] * torch.tensor([1.0, -2.0])
    logvar = torch.full((8, 2), -20.0)
    z = mu + torch.exp(0.5 * logvar)
    for case in FORMULAS:
        inputs = [array.clone().requires_grad_() for array in (mu, logvar, z)]
        penalty = bound(case)(*inputs, STEP)
        penalty.backward()
        grads = [array.grad for array in inputs if array.grad is not None]
        assert penalty.isfinite() and all(grad.isfinite().all() for grad in grads), case


# AnnealedVAE


@pytest.mark.parametrize("make", [int, torch.tensor])
def test_capacity_grows_from_zero_to_c_and_stays(make):
    at = {step: float(capacity_at(make(step), 25.0, 1000)) for step in (0, 1, 500, 1000, 5000)}
    assert at == pytest.approx({0: 0.0, 1: 0.025, 500: 12.5, 1000: 25.0, 5000: 25.0})


def test_annealed_penalty_is_kl_at_first_and_zero_at_capacity(codes):
    mu, logvar, z = map(torch.from_numpy, codes)
    kl = kl_divergence(mu, logvar)
    settings = {"capacity": float(kl), "capacity_steps": 10}
    assert capacity_distance(mu, logvar, z, 0, **settings) == kl
    last = capacity_distance(mu, logvar, z, torch.tensor(10), **settings)
    assert float(last) == pytest.approx(0, abs=1e-6)


def test_capacity_follows_a_step_that_is_changed_in_place(codes):
    """As in a CUDA graph, where the penalty is recorded once and the step goes on."""
    mu, logvar, z = map(torch.from_numpy, codes)
    step = torch.zeros((), dtype=torch.int64)
    penalty = bind_penalty("annealed", SETTINGS["annealed"])
    first = penalty(mu, logvar, z, step)
    step += 10
    assert float(penalty(mu, logvar, z, step)) != float(first)


# DIP-VAE


def white(rng):
    """[B, D] whose covariance, divided by B, is the identity."""
    centred = rng.standard_normal((B, D))
    centred -= centred.mean(0)
    q, _ = np.linalg.qr(centred)
    return q * math.sqrt(B)


def test_dip_vae_is_zero_on_white_codes():
    rng = np.random.default_rng(1)
    mu = torch.from_numpy(white(rng) + 3.0)  # wherever they lie
    torch.testing.assert_close(covariance(mu), torch.eye(D, dtype=torch.float64))
    logvar = torch.randn(B, D, dtype=torch.float64)
    assert float(dip_vae_1(mu, logvar, mu, 0, dip_ratio=10.0)) == pytest.approx(0, abs=1e-20)
    assert float(dip_vae_2(mu, logvar, mu, 0, dip_ratio=1.0)) > 0.01
    # half of the variance in the means, half in the posteriors
    half = torch.full((B, D), math.log(0.5), dtype=torch.float64)
    narrow = mu * math.sqrt(0.5)
    assert float(dip_vae_2(narrow, half, mu, 0, dip_ratio=1.0)) == pytest.approx(0, abs=1e-20)
    assert float(dip_vae_1(narrow, half, mu, 0, dip_ratio=1.0)) == pytest.approx(D * 0.25)


def test_dip_ratio_weighs_the_diagonal_only():
    mu = torch.from_numpy(white(np.random.default_rng(2)))
    twice = torch.cat([mu[:, :2], mu[:, :1]], dim=1)  # two entries off the diagonal are 1
    assert float(dip_vae_1(twice, twice, twice, 0, dip_ratio=10.0)) == pytest.approx(2.0)
    wide = mu * math.sqrt(3.0)  # every entry on it is 3
    assert float(dip_vae_1(wide, wide, wide, 0, dip_ratio=10.0)) == pytest.approx(10 * D * 4.0)


# beta-TCVAE


@pytest.mark.parametrize("stratified", [False, True])
def test_the_estimates_add_up_to_the_kl_term(stratified, codes):
    """Eq. 2: mutual information, total correlation and dimension-wise KL, by one estimator.

    So beta of the paper 1 is the ELBO, with the KL term as sampled at z.
    """
    mu, logvar, z = map(torch.from_numpy, codes)
    log_qz, log_qz_j = log_aggregate(mu, logvar, z, N, stratified)
    log_qz_given_x = torch.from_numpy(log_normal(*(codes[k] for k in (2, 0, 1)))).sum(1)
    log_pz = torch.from_numpy(log_normal(codes[2], 0.0, np.zeros((B, D)))).sum(1)
    information = (log_qz_given_x - log_qz).mean()
    tc = minibatch_total_correlation(mu, logvar, z, 0, num_images=N, stratified=stratified)
    dimension_wise = (log_qz_j.sum(1) - log_pz).mean()
    sampled_kl = (log_qz_given_x - log_pz).mean()
    torch.testing.assert_close(information + tc + dimension_wise, sampled_kl)


def test_sampled_kl_of_that_decomposition_is_the_kl_term():
    """Averaged over many samples z of the same posteriors."""
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn(1, D, generator=generator).expand(200_000, D)
    logvar = torch.full_like(mu, -1.0)
    z = mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=generator)
    log_ratio = log_normal(z.numpy(), mu.numpy(), logvar.numpy()) - log_normal(z.numpy(), 0.0, 0.0)
    kl = float(kl_divergence(mu, logvar))
    assert log_ratio.sum(1).mean() == pytest.approx(kl, abs=0.02)


def test_stratified_rows_sum_to_one():
    for batch_size, num_images in ((2, 7), (6, 50), (64, 737_280), (5, 4)):
        weights = stratified_weights(batch_size, num_images, torch.zeros((), dtype=torch.float64))
        torch.testing.assert_close(weights.sum(1), torch.ones(batch_size, dtype=torch.float64))
        assert (weights.diagonal() == 1 / num_images).all()


def test_stratified_sampling_has_no_bias(codes):
    """Over all ways to draw B - 1 others of N images, the estimate of q(z) averages to q(z)."""
    mu, logvar, z = (array[:5] for array in codes)
    density = np.array([np.exp(log_normal(z[0], mu[j], logvar[j]).sum()) for j in range(5)])
    weights = stratified_weights(3, 5, torch.zeros((), dtype=torch.float64))[0].numpy()
    estimates = [
        weights @ density[[0, *others]] for others in itertools.permutations(range(1, 5), 2)
    ]
    assert np.mean(estimates) == pytest.approx(density.mean())


def test_total_correlation_of_one_posterior_is_a_constant():
    """Where every image has the same posterior, q(z) is a product, and TC is the weights' alone."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(B, D, generator=generator, dtype=torch.float64)
    same = torch.zeros_like(z)
    tc = minibatch_total_correlation(same, same, z, 0, num_images=N, stratified=True)
    assert float(tc) == pytest.approx(0, abs=1e-12)
    tc = minibatch_total_correlation(same, same, z, 0, num_images=N, stratified=False)
    assert float(tc) == pytest.approx((D - 1) * math.log(N), abs=1e-9)


def test_total_correlation_tells_copies_from_independent_latents():
    """A latent and its copy share their whole information; by the stratified estimator."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 1, generator=generator, dtype=torch.float64)
    logvar = torch.full((256, 2), -4.0, dtype=torch.float64)
    noise = torch.exp(0.5 * logvar) * torch.randn(logvar.shape, generator=generator)
    tc = {}
    for name, mu in (("independent", torch.cat([a, b], 1)), ("copied", torch.cat([a, a], 1))):
        tc[name] = float(
            minibatch_total_correlation(
                mu, logvar, mu + noise, 0, num_images=100_000, stratified=True
            )
        )
    assert tc["copied"] > tc["independent"] + 0.5
