"""FactorVAE and BetaVAE scores by known answers."""

import numpy as np
import pytest
import torch

from factorvae.errors import UserError
from factorvae.metrics import beta_vae_score, factor_vae_score
from factorvae.metrics.beta_vae import draw_pairs, score_pairs
from factorvae.metrics.factor_vae import draw_votes, score_votes
from factorvae.metrics.interventions import Draws, Votes, sample_factors

SIZES = (3, 6, 8, 5)
FEW = {"num_train": 800, "num_eval": 400}
SCORES = {"factor_vae_score": factor_vae_score, "beta_vae_score": beta_vae_score}


def standard(factors):
    """Factors [B, F] of zero mean and unit variance."""
    sizes = np.array(SIZES)
    return (factors - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)


def rotated(dimensions, seed):
    rotation, _ = np.linalg.qr(
        np.random.default_rng(seed).standard_normal((dimensions, dimensions))
    )
    return lambda factors: standard(factors) @ rotation[: len(SIZES)]


def generator(seed=0):
    return np.random.default_rng(seed)


def test_sampling_covers_every_value_and_follows_its_generator():
    drawn = sample_factors((40, 100), SIZES, generator())
    assert drawn.shape == (40, 100, 4) and drawn.dtype == np.uint8
    assert sample_factors((1,), (257,), generator()).dtype == np.uint16
    for column, size in zip(drawn.reshape(-1, 4).T, SIZES, strict=True):
        counts = np.bincount(column, minlength=size)
        assert len(counts) == size
        assert np.allclose(counts, 4000 / size, atol=6 * np.sqrt(4000 / size))
    assert np.array_equal(drawn, sample_factors((40, 100), SIZES, generator()))
    assert not np.array_equal(drawn, sample_factors((40, 100), SIZES, generator(1)))


@pytest.mark.parametrize("draw", [draw_votes, draw_pairs])
def test_all_factors_are_drawn_before_any_code_is_known(draw):
    """Scoring asks for those images and no others, and needs no generator."""
    score = {draw_votes: score_votes, draw_pairs: score_pairs}[draw]
    draws = draw(SIZES, generator(), **FEW)
    asked = []

    def represent(factors):
        assert factors.dtype == np.int64
        asked.append(factors)
        return standard(factors)

    result = score(represent, draws)
    np.testing.assert_array_equal(np.concatenate(asked), np.concatenate(list(draws.factors())))
    name = "factor_vae_score" if draw is draw_votes else "beta_vae_score"
    whole = SCORES[name](standard, SIZES, generator(), **FEW)
    for key, value in result.items():
        np.testing.assert_array_equal(value, whole[key])
    for vote, held in enumerate(draws.train[0].held):  # the same in all images, or in each pair
        values = draws.train[0].factors[..., vote, :, held]
        assert len(np.unique(values if draw is draw_votes else values[0] - values[1])) == 1


@pytest.mark.parametrize("draw", [draw_votes, draw_pairs])
def test_only_factors_among_those_named_are_held_and_the_others_vary(draw):
    draws = draw(SIZES, generator(), among=[2, 3], **FEW)
    for votes in (*draws.train, *draws.evaluation):
        assert set(np.unique(votes.held)) == {2, 3}
    for column, size in zip(draws.train[0].factors.reshape(-1, 4).T, SIZES, strict=True):
        assert len(np.unique(column)) == size


@pytest.mark.parametrize("name", SCORES)
def test_perfect_codes_in_any_order_and_scale_score_one(name):
    represent = lambda factors: standard(factors)[:, [2, 0, 3, 1]] * [1, -3, 0.2, 10]  # noqa: E731
    result = SCORES[name](represent, SIZES, generator(), **FEW)
    assert result[name] == result["train_accuracy"] == result["eval_accuracy"] == 1
    assert result[f"{name}_se"] == 0


@pytest.mark.parametrize("name", SCORES)
def test_random_codes_score_by_chance(name):
    noise = generator(7)
    result = SCORES[name](lambda f: noise.standard_normal((len(f), 6)), SIZES, generator(), **FEW)
    assert result[name] == pytest.approx(0.25, abs=0.08)
    expected = np.sqrt(result[name] * (1 - result[name]) / 400)
    assert result[f"{name}_se"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings", [{}, {"min_std": 0}, {"active": torch.ones(3, requires_grad=True)}]
)
def test_constant_codes_cast_no_vote(settings):
    constant = lambda f: torch.full((len(f), 3), 0.7, dtype=torch.bfloat16)  # noqa: E731
    result = factor_vae_score(constant, SIZES, generator(), **FEW, **settings)
    assert result["factor_vae_score"] == 0
    assert result["num_active"] == result["votes"].sum() == 0


def test_constant_codes_leave_the_regression_to_chance():
    result = beta_vae_score(lambda f: np.full((len(f), 3), 0.7), SIZES, generator(), **FEW)
    assert result["beta_vae_score"] == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize(
    ("protocol", "votes", "held_out"), [("dlib", 10_000, 5_000), ("paper", 800, 0)]
)
def test_protocols(protocol, votes, held_out):
    result = factor_vae_score(rotated(4, seed=2), SIZES, generator(), protocol=protocol)
    assert result["votes"].sum() == votes
    assert result["votes"].shape == (4, 4)
    majority = result["votes"].max(axis=0).sum() / votes
    assert result["train_accuracy"] == pytest.approx(majority)
    if not held_out:
        assert result["factor_vae_score"] == result["train_accuracy"]
    expected = np.sqrt(majority * (1 - majority) / (held_out or votes))
    assert result["factor_vae_score_se"] == pytest.approx(expected, rel=0.1)


def test_a_missing_factor_goes_to_whichever_latent_votes():
    """Two factors, one known: all votes are the one latent's, and the majority is one half."""
    result = factor_vae_score(lambda f: f[:, :1] * 1.0, (8, 8), generator(), **FEW)
    assert result["factor_vae_score"] == pytest.approx(0.5, abs=0.08)


def test_held_out_votes_are_scored_by_the_majority_of_those_fitted():
    """Of one latent, whose are all votes: it stands for the first factor, rarely held later on."""
    train, evaluation = (
        [Votes(np.array(held), np.zeros((len(held), 2, 2), np.uint8))]
        for held in ([0, 0, 1], [1, 0, 1, 1])
    )
    draws = Draws(train, evaluation, np.array([[0, 0], [1, 1]]))
    result = score_votes(lambda factors: factors[:, :1] * 1.0, draws)
    np.testing.assert_array_equal(result["votes"], [[2], [1]])
    assert result["train_accuracy"] == pytest.approx(2 / 3)
    assert result["factor_vae_score"] == result["eval_accuracy"] == 1 / 4  # of [1, 0, 1, 1]
    assert result["factor_vae_score_se"] == pytest.approx(np.sqrt(1 / 4 * 3 / 4 / 4))


def test_dead_latents_vote_only_without_a_threshold():
    noise = generator(3)

    def represent(factors):
        return np.hstack(
            [standard(factors)[:, 1:], 0.02 * noise.standard_normal((len(factors), 5))]
        )

    kept_out = factor_vae_score(represent, SIZES, generator(), **FEW)
    voting = factor_vae_score(represent, SIZES, generator(), min_std=0.0, **FEW)
    np.testing.assert_array_equal(kept_out["active"], [True] * 3 + [False] * 5)
    assert kept_out["num_active"] == 3 and voting["num_active"] == 8
    assert kept_out["votes"][:, 3:].sum() == 0
    assert voting["factor_vae_score"] > kept_out["factor_vae_score"] + 0.07
    by_mask = factor_vae_score(
        represent, SIZES, generator(), active=np.arange(8) < 3, min_std=0.0, **FEW
    )
    assert by_mask["num_active"] == 3


def test_factor_vae_score_is_the_slow_one():
    """Against one vote at a time, as the paper tells it, on a code that scores in between."""
    represent, slow = rotated(4, seed=2), generator(11)
    scale = represent(slow.integers(0, SIZES, (10_000, 4))).std(axis=0)
    votes = []
    for _ in range(3000):
        k = slow.integers(4)
        factors = slow.integers(0, SIZES, (64, 4))
        factors[:, k] = slow.integers(SIZES[k])
        votes.append((k, (represent(factors) / scale).var(axis=0).argmin()))
    table = np.zeros((4, 4))
    np.add.at(table, tuple(np.array(votes[:2000]).T), 1)
    accuracy = np.mean([table[:, d].argmax() == k for k, d in votes[2000:]])
    ours = factor_vae_score(represent, SIZES, generator(), num_train=2000, num_eval=4000)
    assert 0.5 < accuracy < 0.97
    assert ours["factor_vae_score"] == pytest.approx(accuracy, abs=0.05)


def test_beta_vae_score_is_the_slow_one():
    represent, slow = rotated(4, seed=2), generator(11)
    labels, features = [], []
    for _ in range(1500):
        k = slow.integers(4)
        first, second = slow.integers(0, SIZES, (2, 64, 4))
        second[:, k] = first[:, k]
        labels.append(k)
        features.append(np.abs(represent(first) - represent(second)).mean(axis=0))
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(features[:1000], labels[:1000])
    accuracy = model.score(features[1000:], labels[1000:])
    ours = beta_vae_score(represent, SIZES, generator(), num_train=1000, num_eval=2000)
    assert ours["beta_vae_score"] == pytest.approx(accuracy, abs=0.06)


def test_standardised_differences_do_not_depend_on_scale():
    tiny = lambda factors: 1e-3 * rotated(4, seed=2)(factors)  # noqa: E731
    settings = {"standardized": True, **FEW}
    expected = beta_vae_score(rotated(4, seed=2), SIZES, generator(), **settings)
    result = beta_vae_score(tiny, SIZES, generator(), **settings)
    assert result["beta_vae_score"] == pytest.approx(expected["beta_vae_score"], abs=1e-9)
    raw = beta_vae_score(tiny, SIZES, generator(), **FEW)
    assert raw["beta_vae_score"] < expected["beta_vae_score"]


@pytest.mark.parametrize("name", SCORES)
def test_factors_of_one_value_are_never_held_still(name):
    sizes = (1, 4, 1, 5)
    seen = []

    def represent(factors):
        seen.append(factors)
        return factors[:, [1, 3]] * 1.0

    assert SCORES[name](represent, sizes, generator(), **FEW)[name] == 1
    drawn = np.concatenate(seen)
    np.testing.assert_array_equal(drawn.min(axis=0), 0)
    np.testing.assert_array_equal(drawn.max(axis=0), np.array(sizes) - 1)


@pytest.mark.parametrize("name", SCORES)
def test_a_single_factor_is_always_told(name):
    assert SCORES[name](lambda f: f * 1.0, (6,), generator(), **FEW)[name] == 1


@pytest.mark.parametrize("name", SCORES)
def test_the_generator_settles_everything(name):
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, second, other = (
        SCORES[name](rotated(4, seed=2), SIZES, generator(seed), **FEW) for seed in (1, 1, 2)
    )
    assert first[name] == second[name]
    assert first["train_accuracy"] != other["train_accuracy"]
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(
    ("represent", "sizes", "settings"),
    [
        (lambda f: f[:-1] * 1.0, SIZES, {}),
        (lambda f: f[:, 0] * 1.0, SIZES, {}),
        (lambda f: f / 0.0 * np.ones_like(f), SIZES, {}),
        (lambda f: f * 1.0, (1, 1), {}),
        (lambda f: f * 1.0, (3, 0), {}),
        (lambda f: f * 1.0, SIZES, {"num_train": 0}),
        (lambda f: f * 1.0, SIZES, {"batch_size": 0}),
        (lambda f: f * 1.0, SIZES, {"num_eval": 2.5}),
        (lambda f: f * 1.0, (3, 2.5), {}),
        (lambda f: f * 1e80, SIZES, {}),
        (lambda f: f * 1j, SIZES, {}),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wrong_input_is_a_users_mistake(name, represent, sizes, settings):
    with pytest.raises(UserError):
        SCORES[name](represent, sizes, generator(), **settings)


def test_unknown_protocol_and_wrong_mask_are_a_users_mistake():
    for settings in ({"protocol": "other"}, {"active": np.ones(3, bool)}, {"min_std": -1}):
        with pytest.raises(UserError):
            factor_vae_score(lambda f: f * 1.0, SIZES, generator(), **settings)
