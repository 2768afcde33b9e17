"""BetaVAE score (Higgins et al. 2017, section 3)."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from factorvae.metrics.inputs import standardize, whole_number
from factorvae.metrics.interventions import (
    Represent,
    accuracy_error,
    chunk_sizes,
    represent_all,
    sample_factors,
    varying_sizes,
)
from factorvae.metrics.regression import fit_quietly


def beta_vae_score(
    represent: Represent,
    factor_sizes: Sequence[int],
    generator: np.random.Generator,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    standardized: bool = False,
) -> dict:
    """Held-out accuracy of a logistic regression that names the factor two batches share.

    A point: draw a factor k and `batch_size` pairs of factors with equal v_k, encode, and average
    |z_1 - z_2| over the pairs: [D] features with the label k.

    Args:
        represent: factors int64 [B, F] -> codes [B, D].
        factor_sizes: number of values of each factor; those of one value are never shared.
        batch_size, num_train, num_eval: 64, 10,000 and 5,000 in disentanglement_lib's runs.
        standardized: features of zero mean and unit variance (those of the training points);
            the reference takes them as they are, so that its regression, penalised with C = 1,
            makes less of latents of small scale.

    Easily perfect: F - 1 known factors are enough, the last being the one that stills no latent,
    and half of 15 random rotations of perfect codes of dSprites' factors scored .995 to 1 in 10
    latents, .91 to .97 in 5. With a single factor there is one label, and the score is 1.

    Returns:
        `beta_vae_score` and its binomial standard error `beta_vae_score_se`; `train_accuracy`,
        `eval_accuracy`; `weights` [K, D] of the regression.
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    num_train = whole_number("num_train", num_train, 1)
    num_eval = whole_number("num_eval", num_eval, 1)
    held = varying_sizes(factor_sizes)
    draw_args = represent, factor_sizes, generator, batch_size, held
    train, train_labels = _draw(num_train, *draw_args)
    evaluation, eval_labels = _draw(num_eval, *draw_args)
    if standardized:
        train, evaluation = standardize(train, evaluation)
    if (train_labels == train_labels[0]).all():
        weights = np.zeros((1, train.shape[1]))
        train_accuracy, eval_accuracy = 1.0, float((eval_labels == train_labels[0]).mean())
    else:
        model = fit_quietly(LogisticRegression(), train, train_labels)
        weights = model.coef_
        train_accuracy = model.score(train, train_labels)
        eval_accuracy = model.score(evaluation, eval_labels)
    return {
        "beta_vae_score": float(eval_accuracy),
        "beta_vae_score_se": accuracy_error(eval_accuracy, num_eval),
        "train_accuracy": float(train_accuracy),
        "eval_accuracy": float(eval_accuracy),
        "weights": weights,
    }


def _draw(
    count: int,
    represent: Represent,
    factor_sizes: Sequence[int],
    generator: np.random.Generator,
    batch_size: int,
    held: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Features [count, D] and the shared factor of each [count]."""
    features, labels = [], []
    for size in chunk_sizes(count, 2 * batch_size):
        shared = generator.choice(held, size)  # [V]
        factors = sample_factors((2, size, batch_size), factor_sizes, generator)  # [2, V, L, F]
        each = np.arange(size)
        factors[1, each, :, shared] = factors[0, each, :, shared]
        first, second = represent_all(represent, factors)  # [V, L, D] each
        features.append(np.abs(first - second).mean(axis=1))
        labels.append(shared)
    return np.concatenate(features), np.concatenate(labels)
