"""Drawing factors with one held still, and the codes of their images.

A score that intervenes first draws the factors of all the images it asks for, which takes a tenth
of a second for a million, and then has them encoded: whoever has a table of images can look up
which ones are needed, and encode each once, all together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from factorvae.errors import UserError
from factorvae.metrics.inputs import as_array, as_codes

Represent = Callable[[np.ndarray], np.ndarray]  # factors int64 [B, F] -> codes [B, D]

ROWS_PER_CALL = 2**16


@dataclass(frozen=True)
class Protocol:
    """How many votes a score takes, and of how many images or pairs of images.

    num_train: votes to fit. num_eval: votes held out; 0: scored on the votes fitted.
    """

    batch_size: int
    num_train: int
    num_eval: int


@dataclass(frozen=True)
class Votes:
    """A part of a score's votes, V of them: held int64 [V], the factor that is the same within
    each, and factors of its images, of the smallest unsigned type that holds them: [..., L, F]."""

    held: np.ndarray
    factors: np.ndarray


@dataclass(frozen=True)
class Draws:
    """What a score draws before any image is encoded.

    train, evaluation: the votes that are fitted, and those held out. sample: factors [M, F] drawn
    without intervention, where the score needs such.
    """

    train: list[Votes]
    evaluation: list[Votes]
    sample: np.ndarray | None = None

    def factors(self) -> Iterator[np.ndarray]:
        """The factors of every image that is needed, in parts [B, F]."""
        if self.sample is not None:
            yield self.sample
        for votes in (*self.train, *self.evaluation):
            yield votes.factors.reshape(-1, votes.factors.shape[-1])


def count_votes(parts: Sequence[Votes]) -> int:
    """How many votes all parts hold together."""
    return sum(len(votes.held) for votes in parts)


def varying_sizes(factor_sizes: Sequence[int], among: Sequence[int] | None = None) -> np.ndarray:
    """Indices of the factors with two values or more: only these can be held still.

    Holding a factor of one value is no intervention, and no classifier could tell it. among: the
    factors that may be held (all when None).
    """
    sizes = as_array(factor_sizes, "factor_sizes")
    if sizes.ndim != 1 or sizes.size == 0 or sizes.dtype.kind not in "iu" or (sizes < 1).any():
        raise UserError(
            f"factor_sizes must be positive whole numbers, one a factor, not {factor_sizes}"
        )
    varying = np.flatnonzero(sizes > 1)
    if among is not None:
        varying = np.intersect1d(varying, among)
    if varying.size == 0:
        raise UserError("no factor has more than one value: there is nothing to intervene on")
    return varying


def sample_factors(
    shape: tuple[int, ...], factor_sizes: Sequence[int], generator: np.random.Generator
) -> np.ndarray:
    """Independent uniform factors [*shape, F], of the smallest unsigned type that holds them."""
    factors = generator.integers(0, np.asarray(factor_sizes), size=(*shape, len(factor_sizes)))
    return factors.astype(np.min_scalar_type(max(factor_sizes) - 1))


def represent_all(represent: Represent, factors: np.ndarray) -> np.ndarray:
    """Codes float64 [..., D] of factors [..., F]; UserError for codes of a wrong kind."""
    flat = factors.reshape(-1, factors.shape[-1])
    codes = as_codes(represent(flat.astype(np.int64)), "the codes of represent")
    if len(codes) != len(flat):
        raise UserError(
            f"represent must return [{len(flat)}, latent_dim] for as many factors, "
            f"not {codes.shape}"
        )
    return codes.reshape(*factors.shape[:-1], -1)


def chunk_sizes(total: int, rows_each: int) -> Iterator[int]:
    """`total` cut into numbers of at most `ROWS_PER_CALL / rows_each` (at least 1)."""
    most = max(ROWS_PER_CALL // rows_each, 1)
    for done in range(0, total, most):
        yield min(most, total - done)


def accuracy_error(accuracy: float, count: int) -> float:
    """Standard error of an accuracy over `count` independent trials."""
    return float(np.sqrt(accuracy * (1.0 - accuracy) / count))
