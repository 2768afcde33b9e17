"""DCI: hand-made matrices, the estimators, and boosted trees against scikit-learn's."""

import sys

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import Lasso
from sklearn.tree import DecisionTreeRegressor

from factorvae.errors import UserError
from factorvae.metrics import dci
from factorvae.metrics.boosting import _Grower, boost
from factorvae.metrics.dci import concentration

ESTIMATORS = ("gbt", "gbt_sklearn", "forest", "lasso")


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(0).integers(0, (3, 2, 5), (1500, 3))


@pytest.fixture(scope="module")
def codes(factors):
    """One latent for each factor, with noise, and one of noise only."""
    noise = np.random.default_rng(1).standard_normal((len(factors), 4))
    return np.pad(factors[:, [2, 0, 1]] * 1.0, ((0, 0), (0, 1))) + 0.2 * noise


def quick(estimator):
    return {"estimator": estimator, "num_stages": 10}


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        (np.eye(3), [1, 1, 1]),
        (np.ones((2, 4)), [0, 0]),
        ([[1, 1, 0, 0], [0, 0, 0, 3]], [0.5, 1]),
        ([[0, 0], [2, 0]], [0, 1]),  # a row of zeros concentrates on nothing
        ([[4], [0]], [1, 0]),  # a single column has all
    ],
)
def test_concentration_of_hand_made_rows(importance, expected):
    np.testing.assert_allclose(concentration(np.asarray(importance, float)), expected, atol=1e-12)


def test_concentration_by_another_base():
    assert concentration(np.array([[1.0, 1.0]]), base=4) == pytest.approx(0.5)


def test_scores_of_a_hand_made_matrix(monkeypatch, codes, factors):
    """R = [[2, 0], [1, 1], [0, 0]]: D = (2/4)(1) + (2/4)(0); C by shares 2/3, 1/3 and 0, 1."""
    matrix = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    outcome = matrix, np.ones((5, 2)), np.array([[1, 0], [1, 1], [1, 0], [1, 1]], float)
    monkeypatch.setattr(sys.modules["factorvae.metrics.dci"], "_lasso", lambda *_, **__: outcome)
    result = dci(codes[:, :3], factors[:, :2], estimator="lasso")
    thirds = -(2 / 3) * np.log(2 / 3) - (1 / 3) * np.log(1 / 3)
    np.testing.assert_allclose(result["disentanglement_per_latent"], [1, 0, 0])
    np.testing.assert_allclose(result["completeness_per_factor"], [1 - thirds / np.log(3), 1])
    assert result["disentanglement"] == pytest.approx(0.5)
    assert result["completeness"] == pytest.approx((2 - thirds / np.log(3)) / 2)  # the paper's
    assert result["informativeness"] == pytest.approx(0.75)
    weighted = dci(
        codes[:, :3], factors[:, :2], estimator="lasso", completeness_weights="importance"
    )
    assert weighted["completeness"] == pytest.approx(0.75 * (1 - thirds / np.log(3)) + 0.25)
    based = dci(
        codes[:, :3],
        factors[:, :2],
        estimator="lasso",
        disentanglement_base=4,
        completeness_base=10,
    )
    assert based["disentanglement"] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    np.testing.assert_allclose(based["completeness_per_factor"], [1 - thirds / np.log(10), 1])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_latent_for_each_factor_scores_near_one(estimator, codes, factors):
    result = dci(codes, factors, **quick(estimator))
    assert result["disentanglement"] > 0.9 and result["completeness"] > 0.9
    np.testing.assert_array_equal(result["importance"].argmax(axis=0), [1, 2, 0])
    assert result["informativeness"] > (0.9 if "gbt" in estimator else 0.5)
    assert result["num_train"] == 1000 and result["num_test"] == 500
    assert "1000 / 500" in result["variant"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_constant_codes_score_zero(estimator, factors):
    result = dci(np.ones((len(factors), 3)), factors, **quick(estimator))
    assert result["disentanglement"] == result["completeness"] == 0
    assert (result["importance"] == 0).all()
    assert not result["active"].any()
    chance = 0.35 if estimator.startswith("gbt") else 0.0
    assert result["informativeness"] == pytest.approx(chance, abs=0.05)


@pytest.mark.parametrize("estimator", ["gbt", "forest", "lasso"])
def test_entangled_codes_score_less(estimator, codes, factors):
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))
    standard = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    result = dci(standard @ rotation, factors, **quick(estimator))
    assert result["disentanglement"] < 0.7 and result["completeness"] < 0.7


@pytest.mark.parametrize("estimator", ["gbt", "gbt_sklearn", "lasso"])
def test_dead_latents_kept_or_dropped(estimator, codes, factors):
    dying = codes * [1, 1, 1, 0.1]
    kept = dci(dying, factors, **quick(estimator))
    dropped = dci(dying, factors, dead_latents="drop", **quick(estimator))
    without = dci(dying[:, :3], factors, **quick(estimator))
    np.testing.assert_array_equal(dropped["active"], [True, True, True, False])
    assert (dropped["importance"][3] == 0).all()
    assert dropped["completeness"] == pytest.approx(without["completeness"], abs=1e-3)
    assert dropped["disentanglement"] == pytest.approx(without["disentanglement"], abs=1e-3)
    if estimator != "lasso":  # which gives noise no weight
        assert kept["completeness"] != pytest.approx(dropped["completeness"], abs=1e-6)


def test_lasso_is_scikit_learns(codes, factors):
    train, test = slice(0, 1000), slice(1000, None)
    result = dci(codes[train], factors[train], codes[test], factors[test], estimator="lasso")
    x = (codes - codes[train].mean(axis=0)) / codes[train].std(axis=0)
    y = (factors - factors[train].mean(axis=0)) / factors[train].std(axis=0)
    for k in range(3):
        model = Lasso(alpha=0.02).fit(x[train], y[train, k])
        np.testing.assert_allclose(result["importance"][:, k], np.abs(model.coef_))
        error = np.sqrt(np.mean((model.predict(x[test]) - y[test, k]) ** 2)) / y[test, k].std()
        assert result["informativeness_per_factor"][k] == pytest.approx(1 - error)


def test_forest_is_scikit_learns(codes, factors):
    train, test = slice(0, 1000), slice(1000, None)
    result = dci(codes[train], factors[train], codes[test], factors[test], estimator="forest")
    x = (codes - codes[train].mean(axis=0)) / codes[train].std(axis=0)
    y = (factors - factors[train].mean(axis=0)) / factors[train].std(axis=0)
    model = RandomForestRegressor(10, max_depth=12, random_state=0).fit(x[train], y[train, 0])
    np.testing.assert_allclose(result["importance"][:, 0], model.feature_importances_, atol=1e-3)


def test_accuracy_is_held_out_and_has_a_standard_error(codes, factors):
    train, test = slice(0, 400), slice(400, None)
    noise = np.random.default_rng(5).standard_normal((len(codes), 4))
    result = dci(noise[train], factors[train], noise[test], factors[test], num_stages=30)
    assert result["informativeness_train"] > result["informativeness"] + 0.2
    independent = np.sqrt(np.sum([p * (1 - p) for p in result["informativeness_per_factor"]])) / 3
    assert result["informativeness_se"] == pytest.approx(independent / np.sqrt(1100), rel=0.1)


@pytest.mark.parametrize("decimals", [1, 6])
def test_boosted_trees_are_scikit_learns(decimals):
    """On few distinct values and on many: the same importances, and all but a few predictions."""
    generator = np.random.default_rng(0)
    factors = generator.integers(0, (2, 3, 8), (1200, 3))
    noise = generator.standard_normal((2, 1200, 3))
    codes = np.round(np.hstack([factors + 0.5 * noise[0], noise[1]]), decimals)
    train, test = slice(0, 800), slice(800, None)
    ours = boost(
        codes[train], factors[train], codes[test], num_stages=15, generator=np.random.default_rng(0)
    )
    for k in range(3):
        model = GradientBoostingClassifier(n_estimators=15, random_state=0)
        model.fit(codes[train], factors[train, k])
        np.testing.assert_allclose(ours.importance[:, k], model.feature_importances_, atol=5e-3)
        assert np.mean(ours.predicted[:, k] == model.predict(codes[train])) > 0.98
        assert np.mean(ours.predicted_test[:, k] == model.predict(codes[test])) > 0.95


@pytest.mark.parametrize("decimals", [1, 6])
def test_one_tree_is_scikit_learns_leaf_by_leaf(decimals):
    """The same leaves and drops (latents may tie in setting one point apart, so: their sum)."""
    generator = np.random.default_rng(4)
    codes = np.round(generator.standard_normal((700, 3)), decimals).astype(np.float32)
    target = codes[:, :2] ** 2 + generator.standard_normal((700, 2))
    drops = np.zeros((3, 2))
    leaves = _Grower(codes, 700, generator).grow(target, drops)
    for k in range(2):
        tree = DecisionTreeRegressor(max_depth=3, random_state=0).fit(codes, target[:, k])
        pairs = np.column_stack([leaves[:, k], tree.apply(codes)])
        assert len(np.unique(pairs, axis=0)) == len(np.unique(leaves[:, k])) == 8
        total = tree.tree_.compute_feature_importances(normalize=False).sum()
        assert drops[:, k].sum() / 700 == pytest.approx(total)


def test_importances_add_up_and_duplicates_share_them(codes, factors):
    doubled = np.hstack([codes[:, :3], codes[:, :3]])
    importance = boost(
        doubled, factors, doubled[:5], num_stages=30, generator=np.random.default_rng(0)
    ).importance
    np.testing.assert_allclose(importance.sum(axis=0), 1)
    for latent, factor in [(1, 0), (2, 1), (0, 2)]:
        assert 0.2 < importance[latent, factor] < 0.8
        assert importance[[latent, latent + 3], factor].sum() > 0.9


def test_trees_that_separate_classes_completely_stay_finite():
    labels = np.repeat(np.arange(3), 40)[:, None]
    result = boost(labels * 1.0, labels, labels * 1.0, generator=np.random.default_rng(0))
    np.testing.assert_array_equal(result.predicted_test, labels)
    np.testing.assert_allclose(
        result.importance,
        [
            [
                1,
            ]
        ],
    )


def test_progress_is_told_once_a_stage(codes, factors):
    stages = []
    boost(
        codes,
        factors,
        codes[:1],
        num_stages=4,
        generator=np.random.default_rng(0),
        on_stage=lambda: stages.append(1),
    )
    assert len(stages) == 4


@pytest.mark.parametrize(
    ("estimator", "total"), [("gbt", 10), ("gbt_sklearn", 30), ("forest", 3), ("lasso", 3)]
)
def test_every_stage_is_told(codes, factors, estimator, total):
    told = []
    settings = quick(estimator) | {"on_stage": lambda *stage: told.append(stage)}
    dci(codes[:90], factors[:90], **settings)
    assert told == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "tree"},
        {"dead_latents": "hide"},
        {"completeness_weights": "none"},
        {"disentanglement_base": 1},
        {"num_stages": 0},
        {"num_trees": 0},
        {"max_depth": 2.5},
        {"alpha": -1},
        {"seed": -1},
        {"seed": 2**32, "estimator": "forest"},
        {"num_test": 0},
    ],
)
def test_wrong_settings_are_a_users_mistake(settings, codes, factors):
    argument = next(iter(settings)).removeprefix("disentanglement_")
    with pytest.raises(UserError, match=argument):
        dci(codes, factors, **settings)
