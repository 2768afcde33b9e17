"""Entropies, mutual information, and what all metrics ask of their input."""

import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score

from factorvae.errors import UserError
from factorvae.metrics.information import (
    entropy,
    equal_width_bins,
    mutual_information,
    mutual_information_knn,
)
from factorvae.metrics.inputs import split_points, standardize, top_gap


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_bins_are_those_of_the_reference(generator):
    codes = np.column_stack([generator.standard_normal(500), generator.integers(0, 40, 500)])
    for column, ours in zip(codes.T, equal_width_bins(codes, 20).T, strict=True):
        reference = np.digitize(column, np.histogram(column, 20)[1][:-1])  # from 1
        np.testing.assert_array_equal(ours, reference - 1)


def test_a_constant_latent_falls_into_one_bin():
    assert len(np.unique(equal_width_bins(np.full((9, 1), 3.7)))) == 1


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
