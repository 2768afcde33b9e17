"""Fitting scikit-learn's models as the references do."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning


def fit_quietly(model: BaseEstimator, codes: np.ndarray, labels: np.ndarray) -> BaseEstimator:
    """`model` fitted; the references stop after a number of steps, converged or not, unwarned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(codes, labels)
