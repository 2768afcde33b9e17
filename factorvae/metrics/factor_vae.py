"""FactorVAE score (Kim & Mnih 2018, arXiv 1802.05983, section 4)."""

from collections.abc import Sequence

import numpy as np

from factorvae.config import DEAD_STD
from factorvae.errors import UserError
from factorvae.metrics.active import active_latents
from factorvae.metrics.inputs import as_array, whole_number
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

PROTOCOLS = {
    "dlib": Protocol(batch_size=64, num_train=10_000, num_eval=5_000),
    "paper": Protocol(batch_size=100, num_train=800, num_eval=0),
}


def factor_vae_score(
    represent: Represent,
    factor_sizes: Sequence[int],
    generator: np.random.Generator,
    *,
    protocol: str = "dlib",
    batch_size: int | None = None,
    num_train: int | None = None,
    num_eval: int | None = None,
    num_variance: int = 10_000,
    min_std: float = DEAD_STD,
    active: np.ndarray | None = None,
) -> dict:
    """Accuracy of a majority vote from the latent that moves least to the factor held still.

    A vote: draw a factor k, draw `batch_size` factors with v_k held still, encode, divide each
    latent's variance by its variance over the data, and take the smallest: one pair (latent, k).
    The classifier gives each latent the factor it is paired with most among `num_train` votes.

    Args:
        represent: factors int64 [B, F] -> codes [B, D].
        factor_sizes: number of values of each factor; those of one value are never held still.
        protocol: "dlib" (disentanglement_lib's published runs): 64 codes a vote, 10,000 votes to
            fit, 5,000 held out. "paper": 100 codes a vote, 800 votes, scored on themselves, as
            the public reimplementations of the paper have it.
        batch_size, num_train, num_eval: instead of the protocol's.
        num_variance: points of a separate sample that gives the variance over the data.
        min_std: latents below this standard deviation are collapsed and cast no vote: .05 in
            disentanglement_lib's published runs, 0 in its code. Without it the noise of dead
            latents votes wherever no live latent stands still, and is taken for the missing
            factor: codes of four of dSprites' factors with six dead latents scored .96, not .80.
        active: mask [D] of the latents that vote, for another rule (KL, say), over `min_std`.

    The score forgives much. Where there are more latents than factors, a random rotation of perfect
    codes does well, since each factor is likely to find a latent that it moves most: with the 5
    factors of dSprites half of 40 rotations scored .96 to .997 in 10 latents, .998 to 1 in 20,
    but .78 to .90 in 5. A factor spread over several latents costs nothing.

    Returns:
        `factor_vae_score` and its binomial standard error `factor_vae_score_se`;
        `train_accuracy`, `eval_accuracy` (equal where no votes are held out); `votes` int
        [F, D], those fitted; `active` [D], `num_active`; `protocol`. With no live latent the
        score is 0.
    """
    draws = draw_votes(
        factor_sizes,
        generator,
        protocol=protocol,
        batch_size=batch_size,
        num_train=num_train,
        num_eval=num_eval,
        num_variance=num_variance,
    )
    return score_votes(represent, draws, min_std=min_std, active=active) | {"protocol": protocol}


def draw_votes(
    factor_sizes: Sequence[int],
    generator: np.random.Generator,
    *,
    protocol: str = "dlib",
    batch_size: int | None = None,
    num_train: int | None = None,
    num_eval: int | None = None,
    num_variance: int = 10_000,
    among: Sequence[int] | None = None,
) -> Draws:
    """The first half of `factor_vae_score`, with its arguments: the factors of all its images.

    factors of the votes are [V, L, F], L = batch_size. among: the factors that may be held still,
    by their places; all when None.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol}")
    usual = PROTOCOLS[protocol]

    def setting_of(name: str, given: int | None, minimum: int) -> int:
        return whole_number(name, getattr(usual, name) if given is None else given, minimum)

    batch_size = setting_of("batch_size", batch_size, 2)
    num_train = setting_of("num_train", num_train, 1)
    num_eval = setting_of("num_eval", num_eval, 0)
    num_variance = whole_number("num_variance", num_variance, 2)
    held = varying_sizes(factor_sizes, among)

    def votes(size: int) -> Votes:
        still = generator.choice(held, size)  # [V]
        factors = sample_factors((size, batch_size), factor_sizes, generator)  # [V, L, F]
        each = np.arange(size)
        factors[each, :, still] = factors[each, :1, still]
        return Votes(still, factors)

    sample = sample_factors((num_variance,), factor_sizes, generator)
    train = [votes(size) for size in chunk_sizes(num_train, batch_size)]
    return Draws(train, [votes(size) for size in chunk_sizes(num_eval, batch_size)], sample)


def score_votes(
    represent: Represent,
    draws: Draws,
    *,
    min_std: float = DEAD_STD,
    active: np.ndarray | None = None,
) -> dict:
    """The second half of `factor_vae_score`: its result, but for the protocol's name."""
    sample = represent_all(represent, draws.sample)
    variance = sample.var(axis=0, ddof=1)  # [D]
    if active is None:
        active = active_latents(sample, min_std=min_std)
    else:
        active = as_array(active, "active").astype(bool)
        if active.shape != variance.shape:
            raise UserError(f"active must be a mask of {len(variance)} latents")
        active = active & active_latents(sample, min_std=0.0)

    num_train, num_eval = count_votes(draws.train), count_votes(draws.evaluation)
    votes = np.zeros((draws.sample.shape[1], len(variance)), dtype=np.int64)  # [F, D]
    train_accuracy = eval_accuracy = 0.0
    if active.any():
        votes = _cast(represent, draws.train, variance, active)
        chosen = votes.argmax(axis=0)  # [D], the factor each latent stands for
        latents = np.arange(len(chosen))
        train_accuracy = eval_accuracy = votes[chosen, latents].sum() / num_train
        if num_eval:
            fresh = _cast(represent, draws.evaluation, variance, active)
            eval_accuracy = fresh[chosen, latents].sum() / num_eval
    return {
        "factor_vae_score": float(eval_accuracy),
        "factor_vae_score_se": accuracy_error(eval_accuracy, num_eval or num_train),
        "train_accuracy": float(train_accuracy),
        "eval_accuracy": float(eval_accuracy),
        "votes": votes,
        "active": active,
        "num_active": int(active.sum()),
    }


def _cast(
    represent: Represent, parts: Sequence[Votes], variance: np.ndarray, active: np.ndarray
) -> np.ndarray:
    """How often each latent moved least under each factor held still: int64 [F, D]."""
    votes = np.zeros((parts[0].factors.shape[-1], len(variance)), dtype=np.int64)
    live = np.flatnonzero(active)
    for part in parts:
        codes = represent_all(represent, part.factors)[..., live]  # [V, L, live]
        least = (codes.var(axis=1, ddof=1) / variance[live]).argmin(axis=1)
        np.add.at(votes, (part.held, live[least]), 1)
    return votes
