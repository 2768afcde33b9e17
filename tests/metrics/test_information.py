"""Entropies, mutual information, and what all metrics ask of their input."""

import numpy as np
import pytest
import torch
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score

from factorvae.errors import UserError
from factorvae.metrics.information import (
    entropy,
    equal_width_bins,
    mutual_information,
    mutual_information_knn,
)
from factorvae.metrics.inputs import (
    LARGEST_CODE,
    as_codes,
    as_factors,
    number,
    split_points,
    standardize,
    top_gap,
    whole_number,
)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_bins_are_those_of_the_reference(generator):
    codes = np.column_stack([generator.standard_normal(500), generator.integers(0, 40, 500)])
    for column, ours in zip(codes.T, equal_width_bins(codes, 20).T, strict=True):
        reference = np.digitize(column, np.histogram(column, 20)[1][:-1])  # from 1
        np.testing.assert_array_equal(ours, reference - 1)


def test_a_value_on_an_edge_falls_into_the_bin_above_it():
    codes = np.arange(21.0)[:, None]
    assert equal_width_bins(codes, 20)[:, 0].tolist() == [*range(20), 19]


def test_a_constant_latent_falls_into_one_bin():
    assert len(np.unique(equal_width_bins(np.full((9, 1), 3.7)))) == 1


def test_latents_of_neighbouring_numbers_have_bins():
    """Between 1 and the number after it there is no room for 19 edges."""
    codes = np.where(np.arange(10) < 5, 1.0, np.nextafter(1.0, 2.0))[:, None]
    labels = (np.arange(10) < 5).astype(int)[:, None]
    assert mutual_information(equal_width_bins(codes), labels) == pytest.approx(np.log(2))


def test_entropy_of_equal_and_single_values():
    labels = np.column_stack([np.arange(8), np.zeros(8, int), np.arange(8) % 2])
    np.testing.assert_allclose(entropy(labels), [np.log(8), 0, np.log(2)])


def test_mutual_information_is_scikit_learns(generator):
    first = generator.integers(0, 7, (300, 3))
    second = np.column_stack([first[:, 0] // 2, generator.integers(0, 4, 300)])
    expected = [[mutual_info_score(a, b) for b in second.T] for a in first.T]
    np.testing.assert_allclose(mutual_information(first, second), expected, atol=1e-12)


def test_mutual_information_of_a_constant_is_exactly_zero(generator):
    constant = np.full((301, 1), 5)
    assert mutual_information(constant, generator.integers(0, 7, (301, 1))) == 0


def test_nearest_neighbour_estimate_is_scikit_learns(generator):
    labels = np.column_stack([generator.integers(0, 5, 5000), generator.integers(0, 3, 5000)])
    codes = np.column_stack(
        [
            labels[:, 0] + 0.3 * generator.standard_normal(5000),
            generator.standard_normal(5000),
            labels.sum(axis=1),
        ]
    )
    expected = [
        mutual_info_classif(codes, column, n_neighbors=10, random_state=0) for column in labels.T
    ]
    np.testing.assert_allclose(
        mutual_information_knn(codes, labels, 10), np.transpose(expected), atol=1e-2
    )


def test_nearest_neighbour_estimate_of_classes_of_unlike_size_is_scikit_learns(generator):
    labels = (np.arange(400) < 20).astype(int)[:, None]
    codes = 3 * labels + generator.standard_normal((400, 1))
    expected = mutual_info_classif(codes, labels[:, 0], n_neighbors=10, random_state=0)
    np.testing.assert_allclose(mutual_information_knn(codes, labels, 10)[0], expected, atol=1e-2)


def test_more_neighbours_than_points_are_all_of_a_class(generator):
    labels = np.arange(900)[:, None] % 3
    codes = labels + generator.standard_normal((900, 1))
    ours = mutual_information_knn(codes, labels, 1000)
    expected = mutual_info_classif(codes, labels[:, 0], n_neighbors=1000, random_state=0)
    np.testing.assert_allclose(ours[0], expected, atol=1e-2)
    np.testing.assert_array_equal(ours, mutual_information_knn(codes, labels, 299))


def test_nearest_neighbour_estimate_survives_classes_of_one_point():
    codes = np.array([[0.0], [0.1], [5.0], [7.0]])
    assert np.isfinite(mutual_information_knn(codes, np.array([[0], [0], [1], [2]]), 3)).all()
    assert mutual_information_knn(codes, np.arange(4)[:, None], 3) == 0


def test_standardize_leaves_a_constant_column_at_zero():
    codes = np.column_stack([np.full(7, 0.1), np.arange(7.0)])
    (standard,) = standardize(codes)
    np.testing.assert_array_equal(standard[:, 0], 0)
    np.testing.assert_allclose([standard[:, 1].mean(), standard[:, 1].std()], [0, 1], atol=1e-12)


def test_gap_of_the_two_largest_in_each_column():
    np.testing.assert_allclose(top_gap(np.array([[3.0, 1.0], [1.0, 1.0], [2.5, 0.0]])), [0.5, 0])
    np.testing.assert_allclose(top_gap(np.array([[3.0, 1.0]])), [3, 1])


def test_split_keeps_the_ratio_and_every_point_once():
    codes = np.arange(30.0)[:, None]
    split = split_points(codes, codes.astype(int), None, None, 10_000, 5_000, seed=0)
    assert (len(split.codes), len(split.codes_test)) == (20, 10)
    every = np.concatenate([split.codes, split.codes_test])
    np.testing.assert_array_equal(np.sort(every, axis=0), codes)
    np.testing.assert_array_equal(split.codes, split.factors)  # still of the same points
    few = split_points(codes, codes.astype(int), None, None, 6, 3, seed=0)
    assert (len(few.codes), len(few.codes_test)) == (6, 3)
    two = split_points(codes[:2], codes[:2].astype(int), None, None, 10_000, 1, seed=0)
    assert (len(two.codes), len(two.codes_test)) == (1, 1)


def test_split_takes_given_test_points_whole():
    codes, factors = np.arange(8.0)[:, None], np.arange(8)[:, None]
    split = split_points(codes, factors, codes[:3], factors[:3], 2, 2, seed=0)
    assert (len(split.codes), len(split.codes_test)) == (8, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((5, 2)), np.zeros((5, 1), int), np.zeros((5, 2)), None),
        (np.zeros((5, 2)), np.zeros((5, 1), int), np.zeros((5, 3)), np.zeros((5, 1), int)),
        (np.zeros((5, 2)), np.zeros((5, 1), int), np.zeros((5, 2)), np.zeros((5, 2), int)),
        (np.zeros((5, 2)), np.zeros((4, 1), int), None, None),
        (np.zeros(5), np.zeros((5, 1), int), None, None),
        (np.full((5, 2), np.nan), np.zeros((5, 1), int), None, None),
        (np.zeros((5, 2)), np.full((5, 1), 0.5), None, None),
        (np.zeros((1, 2)), np.zeros((1, 1), int), None, None),
    ],
)
def test_wrong_input_is_a_users_mistake(arguments):
    with pytest.raises(UserError):
        split_points(*arguments, 10, 5, seed=0)


VALUES = [[0.5, -2.0], [1.0, 4.0]]


@pytest.mark.parametrize(
    "codes",
    [
        VALUES,
        torch.tensor(VALUES, requires_grad=True),
        torch.tensor(VALUES, dtype=torch.bfloat16),
        torch.tensor(VALUES, dtype=torch.float16, requires_grad=True) * 1,
        np.array(VALUES, np.float16),
        np.ma.array(VALUES),
    ],
)
def test_codes_of_any_real_type_are_taken_as_they_are(codes):
    taken = as_codes(codes)
    assert type(taken) is np.ndarray
    assert taken.dtype == np.float64
    np.testing.assert_array_equal(taken, VALUES)


@pytest.mark.parametrize(
    "values",
    [
        [[1.0, 2.0], [3.0]],
        [["1", "2"], ["3", "4"]],
        [[1.0, None], [3.0, 4.0]],
        [[1 + 1j, 2], [3, 4]],
        torch.ones(2, 2, dtype=torch.complex64),
        [torch.ones(2, requires_grad=True), torch.ones(3)],
        np.ma.array(VALUES, mask=[[False, True], [False, False]]),
        np.array([[1, 2], [3, 4]], "datetime64[s]"),
        "codes",
        None,
    ],
)
@pytest.mark.parametrize("check", [as_codes, as_factors])
def test_what_is_no_array_of_real_numbers_is_refused_by_name(check, values):
    with pytest.raises(UserError, match="^points_b ") as caught:
        check(values, "points_b")
    assert "\n" not in str(caught.value)


def test_codes_have_a_largest_size_and_factors_64_bits():
    largest = np.array([[LARGEST_CODE, 0], [-LARGEST_CODE, 1]])
    np.testing.assert_array_equal(as_codes(largest), largest)
    with pytest.raises(UserError, match=r"^codes must be at most 1e\+38 in size, not 1e\+80"):
        as_codes(largest * 1e42)
    edges = np.array([[2**63 - 1], [-(2**63)]])
    np.testing.assert_array_equal(as_factors(edges), edges)
    for beyond in [1e300, 2.0**63, -(2.0**64)]:
        with pytest.raises(UserError, match="^factors must be whole numbers"):
            as_factors(np.array([[0.0], [beyond]]))


def test_no_factors_are_refused():
    with pytest.raises(UserError, match="^factors must be an array"):
        as_factors(np.zeros((0, 3)))


@pytest.mark.parametrize("value", [20, 20.0, np.int8(20), np.float32(20)])
def test_whole_numbers_of_any_type(value):
    taken = whole_number("bins", value, 2, 20)
    assert type(taken) is int
    assert taken == 20


@pytest.mark.parametrize(
    "value", [20.5, np.nan, np.inf, 1, 21, "20", None, [20], 20j, np.array([20, 20])]
)
def test_what_is_no_whole_number_within_limits_is_refused_by_name(value):
    with pytest.raises(UserError, match="^bins must be a whole number, 2 to 20, not ") as caught:
        whole_number("bins", value, 2, 20)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    "value", [pytest.param(-(10**5000), id="number"), pytest.param("5" * 5000, id="text")]
)
def test_a_value_of_many_digits_is_not_echoed(value):
    with pytest.raises(UserError, match="^bins must be a whole number") as caught:
        whole_number("bins", value, 2)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("value", [-1, np.nan, -np.inf, "0.1", None, 1j])
def test_what_is_no_number_within_limits_is_refused_by_name(value):
    with pytest.raises(UserError, match="^alpha must be a number of 0 or more, not "):
        number("alpha", value)
    with pytest.raises(UserError, match="^alpha must be a number above 0, not "):
        number("alpha", 0.0, above=0)
