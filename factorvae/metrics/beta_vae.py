"""BetaVAE score (Higgins et al. 2017, section 3)."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from factorvae.metrics.inputs import standardize, whole_number
from factorvae.metrics.interventions import (
    Draws,
    Protocol,
    Represent,
    Votes,
    accuracy_error,
    chunk_sizes,
    count_votes,
    represent_all,
    sample_factors,
    varying_sizes,
)
from factorvae.metrics.regression import fit_quietly

PROTOCOL = Protocol(batch_size=64, num_train=10_000, num_eval=5_000)


def beta_vae_score(
    represent: Represent,
    factor_sizes: Sequence[int],
    generator: np.random.Generator,
    *,
    batch_size: int = PROTOCOL.batch_size,
    num_train: int = PROTOCOL.num_train,
    num_eval: int = PROTOCOL.num_eval,
    standardized: bool = False,
) -> dict:
    """Held-out accuracy of a logistic regression that names the factor two batches share.

    A point: draw a factor k and `batch_size` pairs of factors with equal v_k, encode, and average
    |z_1 - z_2| over the pairs: [D] features with the label k.

    Args:
        represent: factors int64 [B, F] -> codes [B, D].
        factor_sizes: number of values of each factor; those of one value are never shared.
        batch_size, num_train, num_eval: PROTOCOL's, as disentanglement_lib's published runs.
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
    draws = draw_pairs(
        factor_sizes, generator, batch_size=batch_size, num_train=num_train, num_eval=num_eval
    )
    return score_pairs(represent, draws, standardized=standardized)


def draw_pairs(
    factor_sizes: Sequence[int],
    generator: np.random.Generator,
    *,
    batch_size: int = PROTOCOL.batch_size,
    num_train: int = PROTOCOL.num_train,
    num_eval: int = PROTOCOL.num_eval,
    among: Sequence[int] | None = None,
) -> Draws:
    """The first half of `beta_vae_score`, with its arguments: the factors of all its images.

    factors of the votes are [2, V, L, F], L = batch_size: the two images of each pair. among: the
    factors that may be shared, by their places; all when None.
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    num_train = whole_number("num_train", num_train, 1)
    num_eval = whole_number("num_eval", num_eval, 1)
    held = varying_sizes(factor_sizes, among)

    def votes(size: int) -> Votes:
        shared = generator.choice(held, size)  # [V]
        factors = sample_factors((2, size, batch_size), factor_sizes, generator)  # [2, V, L, F]
        each = np.arange(size)
        factors[1, each, :, shared] = factors[0, each, :, shared]
        return Votes(shared, factors)

    train = [votes(size) for size in chunk_sizes(num_train, 2 * batch_size)]
    return Draws(train, [votes(size) for size in chunk_sizes(num_eval, 2 * batch_size)])


def score_pairs(represent: Represent, draws: Draws, *, standardized: bool = False) -> dict:
    """The second half of `beta_vae_score`: its result."""
    train, train_labels = _features(represent, draws.train)
    evaluation, eval_labels = _features(represent, draws.evaluation)
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
        "beta_vae_score_se": accuracy_error(eval_accuracy, count_votes(draws.evaluation)),
        "train_accuracy": float(train_accuracy),
        "eval_accuracy": float(eval_accuracy),
        "weights": weights,
    }


def _features(represent: Represent, parts: Sequence[Votes]) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute differences of the pairs [N, D], and the factor that each vote shares [N]."""
    features = []
    for part in parts:
        first, second = represent_all(represent, part.factors)  # [V, L, D] each
        features.append(np.abs(first - second).mean(axis=1))
    return np.concatenate(features), np.concatenate([part.held for part in parts])
