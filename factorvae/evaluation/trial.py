"""A model, the points on which it is measured once, and what a metric makes of them."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from factorvae.config import EvaluateConfig
from factorvae.datasets import Dataset, factors_of
from factorvae.encoding import EncodedDataset
from factorvae.models import Discriminator
from factorvae.objective import kl_per_code, reparameterize


@dataclass(frozen=True)
class Trial:
    """A model and the points on which it is measured once.

    points, fit, held_out: images, int [N]; the metrics that fit a model do so on `fit` and score it
    on `held_out`, which share none. tell: takes a metric's name and how far it has come.
    """

    config: EvaluateConfig
    repeat: int
    encoded: EncodedDataset
    discriminator: Discriminator | None
    points: np.ndarray
    fit: np.ndarray
    held_out: np.ndarray
    tell: Callable[[str, str], None] = lambda name, text: None

    @property
    def dataset(self) -> Dataset:
        return self.encoded.dataset

    @property
    def codes(self) -> np.ndarray:
        """Posterior means of the points: float32 [N, latent_dim]."""
        return self.encoded.codes(self.points)

    @property
    def scored_factors(self) -> list[int]:
        """The places of the factors that are scored, F of them."""
        return scored_factors(self.config, self.dataset)

    @property
    def factors(self) -> np.ndarray:
        """Of the points: int [N, F]."""
        return self._factors_of(self.points)

    @property
    def split(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """codes and factors to fit, codes and factors held out."""
        codes = self.encoded.codes
        fit = codes(self.fit), self._factors_of(self.fit)
        return *fit, codes(self.held_out), self._factors_of(self.held_out)

    def _factors_of(self, index: np.ndarray) -> np.ndarray:
        return factors_of(self.dataset, index)[:, self.scored_factors]

    def generator(self, purpose: str) -> np.random.Generator:
        """Independent for every purpose and repeat, whatever else is measured."""
        return generator_of(self.config.seed, self.repeat, purpose)

    def samples(self) -> Tensor:
        """A code from each point's posterior: float32 [N, latent_dim], on the CPU."""
        mu, logvar = map(torch.from_numpy, self.encoded.posterior(self.points))
        noise = self.generator("samples").standard_normal(mu.shape, dtype=np.float32)
        return reparameterize(mu, logvar, torch.from_numpy(noise))


def draw_trial(
    config: EvaluateConfig,
    repeat: int,
    encoded: EncodedDataset,
    discriminator: Discriminator | None,
    tell: Callable[[str, str], None],
) -> Trial:
    """Of a repeat, with the points of `draw_points`."""
    points = draw_points(config, repeat, len(encoded.dataset))
    return Trial(config, repeat, encoded, discriminator, *points, tell)


def draw_points(
    config: EvaluateConfig, repeat: int, num_images: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, points to fit and points held out, without replacement: the same for every model.

    There are num_batches * batch_size points, and half as many more to be held out where a metric
    fits a model, as the 10,000 and 5,000 of disentanglement_lib. A set of fewer images is used as
    a whole, and parted in the same ratio.
    """
    asked = config.num_batches * config.batch_size
    order = generator_of(config.seed, repeat, "points").permutation(num_images)
    points, split = order[:asked], order[: asked + asked // 2]
    num_fit = min(asked, len(split) * 2 // 3)
    return points, split[:num_fit], split[num_fit:]


def scored_factors(config: EvaluateConfig, dataset: Dataset) -> list[int]:
    """The places of the factors that are scored, F of them."""
    return [dataset.factor_names.index(name) for name in config.factors or dataset.factor_names]


def generator_of(seed: int, repeat: int, purpose: str) -> np.random.Generator:
    """The generator for one purpose in one repeat."""
    return np.random.default_rng([seed, repeat, zlib.crc32(purpose.encode())])


def kl_of_points(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """KL(q(z_j given x) || N(0, 1)) in nats, of each latent of each point: [N, latent_dim]."""
    return kl_per_code(torch.from_numpy(mu).double(), torch.from_numpy(logvar).double()).numpy()


@dataclass(frozen=True)
class Result:
    """Scores by name, how they were made, their standard errors where known, what explains them."""

    scores: dict[str, float]
    protocols: dict[str, str]
    errors: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)


def pick(found: dict, how: str, *names: str) -> Result:
    """The named scores of what a metric returned; the rest but their errors explains them."""
    errors = {name: found[f"{name}_se"] for name in names if f"{name}_se" in found}
    used = {*names, *(f"{name}_se" for name in names), "variant"}
    details = {key: value for key, value in found.items() if key not in used}
    scores = {name: float(found[name]) for name in names}
    return Result(scores, dict.fromkeys(names, how), errors, details)
