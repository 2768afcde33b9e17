"""MIG, SAP, modularity, explicitness, IRS and InfoMEC by known answers; what all scores keep."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

from factorvae.errors import UserError
from factorvae.metrics import (
    dci,
    explicitness,
    infomec,
    irs,
    mig,
    modularity,
    sap,
)

SIZES = (3, 4, 5)
LABELLED = {f.__name__: f for f in (mig, modularity, infomec, irs, dci, sap, explicitness)}
# The score that a metric's name stands for, and settings that make it quick.
MAIN = {"dci": "disentanglement", "infomec": "infom"}
QUICK = {"dci": {"estimator": "gbt", "num_stages": 3}}


def score(name, codes, factors, **settings):
    return LABELLED[name](codes, factors, **QUICK.get(name, {}), **settings)


def main(name, codes, factors):
    return score(name, codes, factors)[MAIN.get(name, name)]


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(0).integers(0, SIZES, (3000, len(SIZES)))


@pytest.fixture(scope="module")
def noisy(factors):
    """Codes of the factors in another order and scale, with noise, and two dead latents."""
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((len(factors), 5))
    return np.hstack([factors[:, [2, 0, 1]] * [1.0, 0.5, 2.0], np.zeros((len(factors), 2))]) + (
        noise * [0.1, 0.05, 0.2, 0.01, 0.01]
    )


def all_finite(result):
    values = [v for v in result.values() if not isinstance(v, str)]
    return all(np.isfinite(np.asarray(v, dtype=float)).all() for v in values)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("mig", 0.98),
        ("modularity", 0.999),
        ("infomec", 0.98),
        ("irs", 0.999),
        ("dci", 0.98),
        ("explicitness", 0.99),
    ],
)
def test_codes_equal_to_the_factors_score_one(name, least, factors):
    assert least < main(name, factors, factors) <= 1 + 1e-12


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_constant_codes_know_nothing(name, factors):
    result = score(name, np.full((len(factors), 4), 0.3), factors)
    chance = 0.5 if name == "explicitness" else 0.0
    assert result[MAIN.get(name, name)] == pytest.approx(chance, abs=1e-12)
    assert all_finite(result)


@pytest.mark.parametrize(
    ("name", "most"),
    [("mig", 0.02), ("sap", 0.05), ("explicitness", 0.54), ("infomec", 0.7), ("irs", 0.5)],
)
def test_random_codes_score_low(name, most, factors):
    codes = np.random.default_rng(2).standard_normal((len(factors), 6))
    assert main(name, codes, factors) < most


@pytest.mark.parametrize("name", ["mig", "sap"])
def test_duplicated_latents_leave_no_gap(name, noisy, factors):
    assert main(name, np.hstack([noisy, noisy]), factors) == 0


@pytest.mark.parametrize("name", ["mig", "dci", "irs", "infomec"])
def test_a_rotation_scores_less(name, factors):
    codes = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    codes = codes + 0.05 * np.random.default_rng(4).standard_normal(codes.shape)
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))
    assert main(name, codes @ rotation, factors) < main(name, codes, factors) - 0.1


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_the_order_of_latents_does_not_matter(name, noisy, factors):
    shuffled = noisy[:, [4, 2, 0, 3, 1]]
    assert main(name, shuffled, factors) == pytest.approx(main(name, noisy, factors), abs=2e-3)


@pytest.mark.parametrize("name", ["mig", "modularity", "dci", "explicitness"])
def test_the_scale_of_each_latent_does_not_matter(name, noisy, factors):
    scaled = noisy * [8.0, -1.0, 0.25, 2.0, 4.0] + [0.0, 1.0, -2.0, 0.0, 1.0]
    # A latent turned round has its equal-width edges on the other side, hence not exactly.
    assert main(name, scaled, factors) == pytest.approx(main(name, noisy, factors), abs=2e-2)


@pytest.mark.parametrize("name", ["irs", "infomec"])
def test_a_common_scale_does_not_matter(name, noisy, factors):
    assert main(name, noisy * 64, factors) == pytest.approx(main(name, noisy, factors), abs=1e-6)


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_a_factor_of_one_value_is_left_out(name, noisy, factors):
    with_constant = np.insert(factors, 1, 7, axis=1)
    result = score(name, noisy, with_constant)
    assert result[MAIN.get(name, name)] == pytest.approx(main(name, noisy, factors), abs=1e-12)
    assert all_finite(result)


@pytest.mark.parametrize("name", sorted(LABELLED))
@pytest.mark.parametrize(("latents", "num_factors"), [(1, 3), (1, 1), (4, 1)])
def test_a_single_latent_or_factor_has_a_score(name, latents, num_factors, noisy, factors):
    result = score(name, noisy[:, :latents], factors[:, -num_factors:])
    assert all_finite(result)
    assert 0 <= result[MAIN.get(name, name)] <= 1


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_wrong_input_is_a_users_mistake(name, noisy, factors):
    broken = noisy.copy()
    broken[5, 1] = np.inf
    for codes, labels in [
        (broken, factors),
        (noisy[:, 0], factors),
        (noisy, factors[:, 0]),
        (noisy[:-1], factors),
        (noisy, factors + 0.5),
        (noisy[:1], factors[:1]),
        (noisy, np.ones_like(factors)),
    ]:
        with pytest.raises(UserError):
            score(name, codes, labels)


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_codes_of_any_size_have_a_score_or_a_reason(name, noisy, factors):
    codes, factors = noisy[:300], factors[:300]
    assert all_finite(score(name, codes * 1e37, factors))
    for size in (1e39, 1e80, 1e300):
        with pytest.raises(UserError, match=r"^codes must be at most 1e\+38"):
            score(name, codes * size, factors)


def test_a_constant_latent_of_great_size_correlates_with_nothing(noisy, factors):
    constant = np.full((len(factors), 1), 1e16 / 3)  # its mean is rounded
    result = sap(np.hstack([noisy, constant]), factors, variant="continuous")
    np.testing.assert_array_equal(result["scores"][-1], 0)


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_same_seed_same_score_and_no_global_randomness(name, noisy, factors):
    before, torchs = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    first = main(name, noisy[:600], factors[:600])
    assert main(name, noisy[:600], factors[:600]) == first
    after = np.random.get_state()  # noqa: NPY002
    assert after[2:] == before[2:] and (after[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), torchs)


def test_tensors_will_do(noisy, factors):
    assert mig(torch.tensor(noisy), torch.tensor(factors))["mig"] == mig(noisy, factors)["mig"]


GRID = np.array(list(itertools.product(range(2), range(2), range(4))))  # [16, 3], every factor


def test_mig_by_hand():
    # Of the third factor, one latent tells all 4 values and another their parity.
    codes = np.column_stack([GRID[:, 2], GRID[:, 2] % 2, GRID[:, 0], GRID[:, 1]])
    result = mig(codes, GRID)
    np.testing.assert_allclose(result["gaps"], [1, 1, 0.5], atol=1e-12)
    assert result["mig"] == pytest.approx(2.5 / 3)
    assert result["mutual_information"][1, 2] == pytest.approx(np.log(2))


def test_mig_is_capped_by_the_bins_but_not_by_neighbours():
    factors = np.random.default_rng(0).integers(0, 40, (4000, 2))
    capped = mig(factors, factors)  # 20 bins of 2 orientations each
    np.testing.assert_allclose(capped["gaps"], np.log(20) / np.log(40), atol=0.1)
    assert mig(factors, factors, bins=40)["mig"] > capped["mig"] + 0.1
    assert mig(factors, factors, estimator="knn")["mig"] > 0.97
    assert mig(np.zeros((len(factors), 3)), factors, estimator="knn")["mig"] == 0


def test_mig_over_all_of_dsprites_is_the_documented_cap():
    """With every value equally frequent, I(z_k; v_k) / H(v_k) of each factor is the whole gap."""
    gaps = [mig(np.arange(n)[:, None], np.arange(n)[:, None])["mig"] for n in (3, 6, 40, 32, 32)]
    assert np.mean(gaps) == pytest.approx(0.9024, abs=1e-4)


def test_modularity_by_hand():
    # The first latent tells one factor, the second two of them equally.
    codes = np.column_stack([GRID[:, 0], 2 * GRID[:, 0] + GRID[:, 1]])
    result = modularity(codes, GRID[:, :2])
    np.testing.assert_allclose(result["per_latent"], [1, 0], atol=1e-12)
    assert result["modularity"] == pytest.approx(0.5)


def test_modularitys_information_has_a_column_for_every_factor():
    codes = GRID[:, :1]
    information = modularity(codes, np.insert(GRID, 1, 7, axis=1))["mutual_information"]
    np.testing.assert_allclose(information, [[np.log(2), 0, 0, 0]], atol=1e-12)


def test_modularity_over_active_latents():
    codes = np.column_stack([GRID[:, 0], np.zeros(len(GRID))])
    assert modularity(codes, GRID)["modularity"] == pytest.approx(0.5)
    assert modularity(codes, GRID, average="active")["modularity"] == pytest.approx(1)


def test_explicitness_is_scikit_learns_roc_area(noisy, factors):
    train, test = slice(0, 2000), slice(2000, None)
    codes = noisy[:, :3] + np.random.default_rng(5).standard_normal((len(noisy), 3))
    result = explicitness(codes[train], factors[train], codes[test], factors[test])
    mean, std = codes[train].mean(axis=0), codes[train].std(axis=0)
    for k, expected in enumerate(result["per_factor"]):
        model = LogisticRegression().fit((codes[train] - mean) / std, factors[train, k])
        predicted = model.predict_proba((codes[test] - mean) / std)
        area = roc_auc_score(factors[test, k], predicted, multi_class="ovr")
        assert expected == pytest.approx(area, abs=1e-12)


def test_explicitness_leaves_out_values_without_test_points(noisy, factors):
    train, test = slice(0, 2000), slice(2000, None)
    seen = factors[test, 2] != 4
    result = explicitness(noisy[train], factors[train], noisy[test][seen], factors[test][seen])
    assert result["per_factor"][2] > 0.99


def test_sap_by_hand_when_continuous():
    codes = np.column_stack([GRID[:, 2], GRID[:, 2] + 2 * GRID[:, 0], GRID[:, 1]])
    result = sap(codes, GRID, GRID[:2], GRID[:2], variant="continuous")
    # var(third) = 1.25 and var(2 first) = 1: shares 1.25 / 2.25 and 1 / 2.25 of their sum.
    np.testing.assert_allclose(
        result["scores"], [[0, 0, 1], [1 / 2.25, 0, 1.25 / 2.25], [0, 1, 0]], atol=1e-12
    )
    np.testing.assert_allclose(result["gaps"], [1 / 2.25, 1, 1 / 2.25])


def test_sap_is_the_references_support_vector_machine(noisy, factors):
    train, test = slice(0, 600), slice(600, 1000)
    ours = sap(noisy[train], factors[train], noisy[test], factors[test])["scores"]
    for i, k in np.ndindex(2, 3):
        machine = LinearSVC(
            C=0.01, class_weight="balanced", dual=True, max_iter=20_000, random_state=0
        )
        machine.fit(noisy[train, i : i + 1], factors[train, k])
        accuracy = machine.score(noisy[test, i : i + 1], factors[test, k])
        assert ours[i, k] == pytest.approx(accuracy, abs=0.01)


def test_sap_of_a_perfect_code_depends_on_the_variant():
    generator = np.random.default_rng(0)
    factors = generator.integers(0, (3, 6, 40, 32, 32), (15_000, 5))
    codes = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    assert sap(codes, factors)["sap"] == pytest.approx(0.24, abs=0.02)
    assert sap(codes, factors, variant="continuous")["sap"] > 0.99


def test_irs_by_hand():
    codes = (4.0 * GRID[:, 0] + GRID[:, 1])[:, None]  # mean 2.5, at most 2.5 from it
    result = irs(codes, GRID[:, :2], quantile=1.0)
    np.testing.assert_allclose(result["robustness"], [[1 - 0.5 / 2.5, 1 - 2 / 2.5]])
    assert result["irs"] == pytest.approx(0.8)
    assert result["parents"] == [0]


def test_irs_weighs_latents_by_their_largest_deviations():
    # The first as above: .8, and at most 2.5 from its mean. The second is 0, 1 or 2, at most 1
    # from its mean and 1/2 from that of either factor's groups: .5.
    codes = np.column_stack([4 * GRID[:, 0] + GRID[:, 1], GRID[:, 0] + GRID[:, 1]])
    result = irs(codes, GRID[:, :2], quantile=1.0)
    np.testing.assert_allclose(result["per_latent"], [0.8, 0.5])
    assert result["irs"] == pytest.approx((2.5 * 0.8 + 1 * 0.5) / (2.5 + 1))


def test_irs_counts_live_latents():
    codes = np.column_stack([GRID[:, 0], np.full(len(GRID), 0.1), GRID[:, 1]])
    result = irs(codes, GRID)
    np.testing.assert_array_equal(result["active"], [True, False, True])
    np.testing.assert_array_equal(result["parents"], [0, -1, 1])
    assert result["irs"] == pytest.approx(1)


def test_irs_groups_factors_as_asked():
    factors = np.random.default_rng(0).integers(0, 40, (4000, 2))
    assert irs(factors, factors, factor_bins=None)["irs"] == pytest.approx(1)
    assert irs(factors, factors)["irs"] == pytest.approx(1 - 0.5 / 19.5, abs=2e-3)


def test_infomec_of_codes_that_share(factors):
    # Both latents tell the first factor, the second one the other too.
    codes = np.column_stack([factors[:, 0], factors[:, 0] + 3 * factors[:, 1]]).astype(float)
    result = infomec(codes, factors[:, :2])
    # Shares of the latents 1 and 1/2, of the factors 1/2 and 1: means of 3/4, moved to 1/2.
    assert result["infom"] == pytest.approx(0.5, abs=0.05)
    assert result["infoc"] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(result["nmi"], [[1, 0], [1, 1]], atol=0.05)


def test_infomec_modularity_is_over_active_latents_of_which_some_know_nothing():
    point = np.arange(400)
    factors = np.column_stack([point // 200, point // 100 % 2])
    inactive = factors.sum(axis=1) / 100  # tells both factors
    result = infomec(np.column_stack([factors[:, 0], point % 100 / 100, inactive]), factors)
    np.testing.assert_array_equal(result["active"], [True, True, False])
    np.testing.assert_array_equal(result["nmi"][1], 0)
    # Shares of 1, and 1/2 for no preference: a mean of 3/4, moved to 1/2.
    assert result["infom"] == pytest.approx(0.5, abs=0.05)


def test_infomec_explicitness_takes_all_values_as_equally_frequent():
    factors = (np.arange(100) < 90)[:, None].astype(int)
    assert infomec(np.zeros((100, 1)), factors)["infoe"] == pytest.approx(0, abs=1e-6)


def test_infomec_explicitness_and_active_latents(noisy, factors):
    result = infomec(noisy, factors)
    np.testing.assert_array_equal(result["active"], [True, True, True, False, False])
    assert result["infoe"] > 0.9
    assert infomec(noisy[:, 3:], factors)["infoe"] < 0.05


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (mig, {"estimator": "kernel"}),
        (mig, {"bins": 1}),
        (mig, {"bins": 20.5}),
        (modularity, {"bins": "20"}),
        (irs, {"factor_bins": 1.5}),
        (mig, {"estimator": "knn", "neighbors": 0}),
        (mig, {"estimator": "knn", "seed": -1}),
        (infomec, {"neighbors": 2.5}),
        (infomec, {"max_iter": -1}),
        (sap, {"regularization": 0}),
        (explicitness, {"regularization": -1.0}),
        (explicitness, {"max_iter": None}),
        (explicitness, {"seed": "first"}),
        (sap, {"num_test": 2.5}),
        (modularity, {"min_std": None}),
        (modularity, {"average": "some"}),
        (modularity, {"min_std": -1.0}),
        (sap, {"variant": "both"}),
        (sap, {"num_train": 0}),
        (irs, {"quantile": 1.5}),
        (infomec, {"active_range": 1.0}),
    ],
)
def test_wrong_settings_are_a_users_mistake(function, settings, noisy, factors):
    argument = list(settings)[-1].removeprefix("factor_")  # of irs, whose bins are the others'
    with pytest.raises(UserError, match=argument):
        function(noisy, factors, **settings)
