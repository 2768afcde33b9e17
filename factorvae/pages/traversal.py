"""What the pictures show: how images answer to a latent, latents to a factor, and which of them.

The first are pure functions of callables, so that a hand-made encoder or decoder can stand in for
a network:
`decode(z [B, latent_dim]) -> images [B, C, H, W]` and
`represent(factors [B, F]) -> codes [B, latent_dim]`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from factorvae.datasets import Dataset, FactorSpace
from factorvae.errors import UserError

Decode = Callable[[Tensor], Tensor]
Represent = Callable[[np.ndarray], np.ndarray]

SPRITES = ("square", "ellipse", "heart")
SOLIDS = ("cube", "cylinder", "sphere", "capsule")
SHAPE_NAMES = {"dsprites": SPRITES, "shapes3d": SOLIDS, "rooms": SOLIDS}
MOST_IMAGES = 32  # a picture of more base images is too large to look at, and soon to draw
LIMIT = 3.0  # latents are moved from -LIMIT to LIMIT, and by hand at least so far
RESPONSE_IMAGES = 12_288  # that tell of one factor: 12 settings of 32 x 32 positions, say
MOST_SETTINGS = 24  # averaged over in a response; a multiple of small factors' sizes
MOST_SHAPES = 8  # more than these are no lines that could be told apart


def latent_traversal(decode: Decode, mu: Tensor, latent: int, values: Tensor) -> Tensor:
    """Images decoded while one latent takes `values` and the others stay at `mu`.

    Args:
        decode: z [B, latent_dim] -> images [B, C, H, W].
        mu: the posterior mean of one image, [latent_dim].
        latent: which latent is moved.
        values: what it takes, [V].

    Returns:
        Images [V, C, H, W].
    """
    z = mu.repeat(len(values), 1)  # [V, latent_dim]
    z[:, latent] = values.to(z)
    return decode(z)


def cosine_sweep(num_frames: int, limit: float = LIMIT) -> Tensor:
    """Values [num_frames] from `limit` to -`limit` and back, slow at the ends: a seamless loop."""
    phase = torch.arange(num_frames, dtype=torch.float64) / num_frames
    return (limit * torch.cos(2 * torch.pi * phase)).float()


def balanced_factors(
    factor_sizes: Sequence[int], n: int, generator: np.random.Generator
) -> np.ndarray:
    """Factor vectors int64 [n, F] in which each factor takes its values as evenly as n allows.

    A Latin hypercube on the factor grid: a mean over these few settings is close to the mean over
    all of them, where independent draws would leave the noise of the factors averaged over.
    """
    columns = [
        generator.permutation(((np.arange(n) + 0.5) / n * size).astype(np.int64))
        for size in factor_sizes
    ]
    return np.stack(columns, axis=1)


def factor_response(
    represent: Represent, factor_sizes: Sequence[int], varied: Sequence[int], settings: np.ndarray
) -> np.ndarray:
    """The mean code while some factors take all their values, averaged over settings of the rest.

    Every cell averages over the same settings, so differences between cells come from the varied
    factors alone.

    Args:
        represent: factors int64 [B, F] -> codes [B, latent_dim].
        factor_sizes: number of values of each factor, [F].
        varied: which factors are varied; ordered as the axes of the answer.
        settings: factor vectors int64 [K, F]; their varied columns are overwritten.

    Returns:
        Means, float64 [size of varied 0, size of varied 1, ..., latent_dim].
    """
    sizes = [factor_sizes[factor] for factor in varied]
    cells = np.indices(sizes).reshape(len(sizes), -1).T  # [cells, len(varied)]
    factors = np.repeat(settings[None], len(cells), axis=0)  # [cells, K, F]
    factors[:, :, list(varied)] = cells[:, None, :]
    codes = np.asarray(represent(factors.reshape(-1, len(factor_sizes))), dtype=np.float64)
    means = codes.reshape(len(cells), len(settings), -1).mean(axis=1)  # [cells, latent_dim]
    return means.reshape(*sizes, -1)


def mean_response(
    represent: Represent, factor_sizes: Sequence[int], varied: Sequence[int], seed: int
) -> np.ndarray:
    """`factor_response` over balanced settings, fewer where the varied factors have many values.

    seed: draws the settings.
    """
    cells = math.prod(factor_sizes[factor] for factor in varied)
    count = min(MOST_SETTINGS, max(1, RESPONSE_IMAGES // cells))
    generator = np.random.default_rng([seed, 2])  # apart from what else the gallery draws
    settings = balanced_factors(factor_sizes, count, generator)
    return factor_response(represent, factor_sizes, varied, settings)


def response_lines(represent: Represent, dataset: Dataset, factor: int, seed: int) -> np.ndarray:
    """The `mean_response` to one factor of a full grid as lines, float64 [G, V, latent_dim].

    There is one for each of the G shapes where there are shapes, and otherwise one in all, as also
    for the shapes themselves and for categories, whose values have names.
    """
    space, group = dataset.factor_space, shape_factor(dataset.factor_space)
    if group in (None, factor) or space.names[factor] in dataset.value_words:
        return mean_response(represent, space.sizes, [factor], seed)[None]
    return mean_response(represent, space.sizes, [group, factor], seed)


def shape_factor(space: FactorSpace | None) -> int | None:
    """The factor that says which of a few shapes or categories is seen, if there is one."""
    if space is None:
        return None
    for factor, (name, size) in enumerate(zip(space.names, space.sizes, strict=True)):
        if ("shape" in name or "category" in name) and 2 <= size <= MOST_SHAPES:
            return factor
    return None


def shape_names(dataset: Dataset) -> tuple[str, ...]:
    """What the values of the shape factor are called: words if known, else numbers; () if none."""
    space, group = dataset.factor_space, shape_factor(dataset.factor_space)
    if group is None:
        return ()
    if space.names[group] in dataset.value_words:
        return dataset.value_words[space.names[group]]
    # color_dsprites and noisy_dsprites show what dsprites shows.
    words = SHAPE_NAMES.get(dataset.name.rsplit("_", 1)[-1], ())
    if len(words) == space.sizes[group] and ":" not in dataset.name:  # not of a user's folder
        return words
    return tuple(f"{space.names[group]} {value:g}" for value in space.values[group])


def position_factors(space: FactorSpace) -> tuple[int, int] | None:
    """The factors for a place along x and along y (downwards), if there are such."""
    for x, name in enumerate(space.names):
        for along, other in (("X", "Y"), ("horizontal", "vertical")):
            partner = name.replace(along, other)
            if along in name and partner in space.names:
                return x, space.names.index(partner)
    return None


def choose_images(dataset: Dataset, num_images: int, seed: int = 0) -> np.ndarray:
    """Image indices int64 [num_images]: the shapes in turn where there are any, else at random.

    Raises UserError where these are too many.
    """
    if num_images > MOST_IMAGES:
        raise UserError(
            f"--num_images {num_images} is more than {MOST_IMAGES}, which fit a picture"
        )
    if num_images > len(dataset):
        raise UserError(
            f"--num_images {num_images} is more than the {len(dataset):,} images of {dataset.name}"
        )
    generator = np.random.default_rng([seed, len(dataset)])
    space, group = dataset.factor_space, shape_factor(dataset.factor_space)
    if group is None:
        return generator.choice(len(dataset), num_images, replace=False)
    factors = balanced_factors(space.sizes, num_images, generator)
    factors[:, group] = np.arange(num_images) % space.sizes[group]
    index = space.index_of(factors)
    _, first = np.unique(index, return_index=True)
    for again in np.setdiff1d(np.arange(num_images), first):  # of a small grid, some come twice
        others = np.setdiff1d(np.arange(len(dataset)), index)
        alike = others[space.factors_of(others)[:, group] == factors[again, group]]
        index[again] = generator.choice(alike if len(alike) else others)
    return index


def check_images(dataset: Dataset, index: Sequence[int]) -> np.ndarray:
    """`index` as int64 [B]; UserError where an image is out of range, or they are too many."""
    if len(index) > MOST_IMAGES:
        raise UserError(f"--image_index has {len(index)} images, and {MOST_IMAGES} fit a picture")
    for image in index:
        if not 0 <= image < len(dataset):
            raise UserError(
                f"--image_index {image} is out of range: {dataset.name} has images "
                f"0 to {len(dataset) - 1}"
            )
    return np.asarray(index, dtype=np.int64)


def image_name(dataset: Dataset, index: int) -> str:
    """'image 512', or 'heart, image 512' where its shape is known."""
    group = shape_factor(dataset.factor_space)
    if group is None:
        return f"image {index}"
    shape = dataset.factor_space.factors_of(np.asarray(index))[group]
    return f"{shape_names(dataset)[shape]}, image {index}"
