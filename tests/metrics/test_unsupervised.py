"""Total correlation, UDR and active latents by known answers."""

import math

import numpy as np
import pytest
import torch

from factorvae.errors import UserError
from factorvae.metrics import (
    active_latents,
    gaussian_total_correlation,
    minibatch_total_correlation,
    udr,
)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_gaussian_total_correlation_of_two_latents(generator):
    first, noise = generator.standard_normal((2, 20_000))
    codes = np.column_stack([first, 0.8 * first + 0.6 * noise])
    expected = -0.5 * np.log(1 - 0.8**2)
    result = gaussian_total_correlation(codes)
    assert result["gaussian_total_correlation"] == pytest.approx(expected, abs=0.02)
    assert result["correlation"][0, 1] == pytest.approx(0.8, abs=0.01)
    scaled = gaussian_total_correlation(codes * [1e-6, -50.0] + 3)
    assert scaled["gaussian_total_correlation"] == pytest.approx(
        result["gaussian_total_correlation"]
    )


def test_gaussian_total_correlation_of_independent_latents(generator):
    result = gaussian_total_correlation(generator.standard_normal((10_000, 6)))
    assert result["gaussian_total_correlation"] == pytest.approx(6 * 5 / 4e4, abs=5e-4)


def test_gaussian_total_correlation_when_degenerate(generator):
    codes = generator.standard_normal((500, 2))
    constant = np.column_stack([codes, np.full(500, 0.1)])
    value = gaussian_total_correlation(codes)["gaussian_total_correlation"]
    assert gaussian_total_correlation(constant)["gaussian_total_correlation"] == pytest.approx(
        value
    )
    duplicated = np.column_stack([codes, codes.sum(axis=1)])
    assert gaussian_total_correlation(duplicated)["gaussian_total_correlation"] == math.inf
    assert gaussian_total_correlation(codes[:, :1])["gaussian_total_correlation"] == 0
    assert gaussian_total_correlation(np.ones((9, 3)))["gaussian_total_correlation"] == 0


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e37])
def test_gaussian_total_correlation_of_any_size(generator, size):
    codes = generator.standard_normal((500, 3))
    codes[:, 2] += codes[:, 0]
    expected = gaussian_total_correlation(codes)["gaussian_total_correlation"]
    value = gaussian_total_correlation(codes * size)["gaussian_total_correlation"]
    assert value == pytest.approx(expected)
    with pytest.raises(UserError, match="^codes must be at most"):
        gaussian_total_correlation(codes * 1e200)


def posteriors(generator, correlation, count=1500, std=0.3):
    """Posteriors whose aggregate is nearly a Gaussian of unit variances and this correlation."""
    covariance = np.array([[1, correlation], [correlation, 1]]) - std**2 * np.eye(2)
    mu = generator.multivariate_normal([0, 0], covariance, count)
    return mu, np.full(mu.shape, 2 * np.log(std))


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_stratified_estimate_is_the_closed_form(generator, correlation):
    mu, logvar = posteriors(generator, correlation)
    result = minibatch_total_correlation(mu, logvar, len(mu), generator)
    expected = -0.5 * np.log(1 - correlation**2)
    assert result["total_correlation_stratified"] == pytest.approx(expected, abs=0.1)
    assert 0 < result["total_correlation_stratified_se"] < 0.05


def test_weighted_estimate_is_chens(generator):
    """Equation by equation, with loops, from the same draws."""
    mu, logvar = posteriors(generator, 0.5, count=40)
    result = minibatch_total_correlation(mu, logvar, 1000, np.random.default_rng(1))
    z = mu + np.exp(0.5 * logvar) * np.random.default_rng(1).standard_normal(mu.shape)
    variance = np.exp(logvar)
    values = []
    for i in range(40):
        density = np.exp(-((z[i] - mu) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        joint = density.prod(axis=1).sum() / (1000 * 40)
        marginals = density.sum(axis=0) / (1000 * 40)
        values.append(np.log(joint) - np.log(marginals).sum())
    assert result["total_correlation_weighted"] == pytest.approx(np.mean(values))
    assert result["total_correlation_weighted_se"] == pytest.approx(
        np.std(values, ddof=1) / np.sqrt(40)
    )


def test_stratified_estimate_by_hand(generator):
    """Three points of four: two of the same posterior, and one far from them."""
    mu = np.array([[0.0, 0], [0, 0], [100, 100]])
    result = minibatch_total_correlation(mu, np.zeros((3, 2)), 4, generator)
    # A point weighs 1/4 and the others 3/4 / 2 each. The twins' densities are 1/4 + 3/8 = 5/8 of
    # that of one posterior, q: log(5/8 q1 q2) - log(5/8 q1) - log(5/8 q2) = log(8/5); the third's
    # are 1/4 of it, and log 4. Their standard error is the difference of the two over 3.
    expected = (2 * np.log(8 / 5) + np.log(4)) / 3
    assert result["total_correlation_stratified"] == pytest.approx(expected)
    assert result["total_correlation_stratified_se"] == pytest.approx(np.log(4 / (8 / 5)) / 3)


def test_weighted_estimate_grows_with_the_data_set(generator):
    """By (D - 1) log N, which says nothing of the codes."""
    mu, logvar = posteriors(generator, 0.0, count=200)
    small, large = (
        minibatch_total_correlation(mu, logvar, n, np.random.default_rng(2)) for n in (200, 20_000)
    )
    shift = large["total_correlation_weighted"] - small["total_correlation_weighted"]
    assert shift == pytest.approx(np.log(100))


def test_total_correlation_takes_tensors_and_refuses_nonsense(generator):
    mu, logvar = posteriors(generator, 0.0, count=50)
    of_arrays = minibatch_total_correlation(mu, logvar, 60, np.random.default_rng(3))
    of_tensors = minibatch_total_correlation(
        torch.tensor(mu), torch.tensor(logvar), 60, np.random.default_rng(3)
    )
    assert of_arrays == of_tensors
    with pytest.raises(UserError):
        minibatch_total_correlation(mu, logvar, 49, generator)
    with pytest.raises(UserError):
        minibatch_total_correlation(mu, logvar[:, :1], 60, generator)
    with pytest.raises(UserError):
        gaussian_total_correlation(np.full((4, 2), np.nan))


@pytest.mark.parametrize("logvar", [-700.0, 700.0])
def test_total_correlation_of_extreme_posteriors_is_a_number(logvar):
    """Points, or two latents that know nothing of one another."""
    mu = np.column_stack([np.arange(30.0), np.arange(30.0) % 7])
    logvars = np.full(mu.shape, logvar)
    logvars[::2] = 0.0
    result = minibatch_total_correlation(mu, logvars, 30, np.random.default_rng(0))
    assert all(math.isfinite(value) for value in result.values())


@pytest.mark.parametrize(
    ("logvar", "dataset_size", "name"),
    [(1000.0, 60, "logvar"), (-1000.0, 60, "logvar"), (0.0, 60.5, "dataset_size")],
)
def test_total_correlation_says_what_is_wrong(logvar, dataset_size, name):
    mu = np.column_stack([np.arange(30.0), np.arange(30.0)])
    with pytest.raises(UserError, match=f"^{name} must be"):
        minibatch_total_correlation(
            mu, np.full(mu.shape, logvar), dataset_size, np.random.default_rng(0)
        )


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e16 / 3, -7.7])
def test_constant_codes_are_dead_whatever_their_rounding(value):
    codes = np.full((1001, 1), value)
    assert not active_latents(codes, min_std=0).any()
    assert active_latents(np.append(codes, 2 * codes, axis=0), min_std=0).all()


def test_active_latents_by_spread_and_by_kl():
    codes = np.column_stack([np.tile([0, 1.0], 50), np.tile([0, 0.01], 50), np.ones(100)])
    np.testing.assert_array_equal(active_latents(codes), [True, False, False])
    np.testing.assert_array_equal(active_latents(codes, min_std=0.0), [True, True, False])
    np.testing.assert_array_equal(active_latents(kl=np.array([2.0, 0.005, 0.02])), [1, 0, 1])
    np.testing.assert_array_equal(active_latents(kl=np.array([[0.0, 1], [0.01, 3]])), [0, 1])
    assert active_latents(codes).sum() == 1
    for arguments in [{}, {"codes": codes, "kl": codes}, {"kl": np.array([np.nan])}]:
        with pytest.raises(UserError):
            active_latents(**arguments)
    assert active_latents(kl=torch.ones(2, requires_grad=True)).all()
    for name in ("min_std", "min_kl"):
        with pytest.raises(UserError, match=f"^{name} must be a number"):
            active_latents(**{"kl" if name == "min_kl" else "codes": codes, name: math.nan})


@pytest.fixture
def independent(generator):
    return generator.standard_normal((4000, 3))


def test_models_that_agree_up_to_order_and_sign(independent):
    models = [independent, independent[:, [2, 0, 1]] * [-1, 5, 1], independent + 7]
    # The lasso shrinks each weight of 1 by its penalty.
    np.testing.assert_allclose(udr(models)["udr"], 0.9, atol=0.01)
    np.testing.assert_allclose(udr(models, alpha=0.3)["udr"], 0.7, atol=0.01)
    np.testing.assert_allclose(udr(models, method="spearman")["udr"], 1, atol=0.05)


def test_pairwise_agreement_by_hand():
    """Two latents of four points; the second model has their sum and difference."""
    first = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    second = first @ [[1, 1], [1, -1]]
    result = udr([first, second], method="lasso", alpha=0.1)
    # Each weight is 1/sqrt(2) less the penalty, w: (w^2 / 2w) in each row and column.
    np.testing.assert_allclose(result["pairwise"], (1 - np.eye(2)) * (np.sqrt(0.5) - 0.1) / 2)
    np.testing.assert_allclose(result["udr"], (np.sqrt(0.5) - 0.1) / 2)


def test_a_models_score_is_what_the_others_say_of_it():
    """The first model has two latents of correlation 1/2, the second one of them alone."""
    second = np.array([[1.0], [1], [1], [1], [-1], [-1], [-1], [-1]])
    first = np.hstack([second, [[1.0], [1], [1], [-1], [-1], [-1], [-1], [1]]])
    result = udr([first, second], method="lasso", alpha=0.25)
    # Of the first on the second the weights are 3/4 and 0, the other way 1 - 1/4 and 1/2 - 1/4:
    # (3/4 + (3/4 + 0) / 2) / 2 = 9/16 and ((3/4 + 1/4) / 2 + (3/4)^2 / (3/4 + 1/4)) / 2 = 17/32.
    np.testing.assert_allclose(result["pairwise"], [[0, 9 / 16], [17 / 32, 0]])
    np.testing.assert_allclose(result["udr"], [17 / 32, 9 / 16])
    assert result["best"] == 1


def test_a_models_score_is_the_median_of_what_the_others_say(generator, independent):
    unrelated = generator.standard_normal((4000, 3))
    result = udr([independent, -independent, unrelated, independent[:, :2]])
    others = [np.delete(result["pairwise"][:, i], i) for i in range(4)]
    np.testing.assert_allclose(result["udr"], [np.median(each) for each in others])
    assert result["udr"][0] > np.mean(others[0]) + 0.1


def test_disentangled_models_rank_first(generator, independent):
    def rotated(seed):
        rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
        return independent @ rotation

    models = [rotated(1), independent, rotated(2), independent[:, ::-1], -independent]
    result = udr(models)
    assert result["best"] in (1, 3, 4)
    assert result["udr"][[1, 3, 4]].min() > result["udr"][[0, 2]].max()


def test_dead_latents_do_not_count(generator, independent):
    dead = 0.01 * generator.standard_normal((4000, 2))
    models = [np.hstack([independent, dead]), np.hstack([dead[:, :1], independent])]
    kl = [np.array([2, 2, 2, 0.001, 0.01]), np.array([0.0, 2, 2, 2])]
    result = udr(models, kl)
    np.testing.assert_array_equal(result["num_active"], [3, 3])
    np.testing.assert_allclose(result["udr"], 0.9, atol=0.01)
    assert udr(models)["udr"].max() < 0.85
    lifeless = udr(models, [np.zeros(5), kl[1]])
    np.testing.assert_array_equal(lifeless["udr"], 0)
    assert udr([np.ones((9, 2)), np.ones((9, 2))])["udr"].tolist() == [0, 0]


def test_udr_refuses_nonsense(independent):
    for arguments in [
        ([independent],),
        ([independent, independent[:-1]],),
        ([independent, independent], [np.ones(3)]),
        ([independent, independent], [np.ones(3), np.ones(4)]),
    ]:
        with pytest.raises(UserError):
            udr(*arguments)
    with pytest.raises(UserError):
        udr([independent, independent], method="pearson")
    for alpha in (-1, math.nan, "0.1"):
        with pytest.raises(UserError, match="^alpha must be"):
            udr([independent, independent], alpha=alpha)
    with pytest.raises(UserError, match=r"^codes\[1\] must be finite"):
        udr([independent, independent * np.nan])
