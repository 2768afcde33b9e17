"""Which of a dataset's factors are a shape or a place, for pictures to show them as such."""

from collections.abc import Sequence

import numpy as np

from factorvae.datasets import Dataset, FactorSpace
from factorvae.errors import UserError
from factorvae.responses import balanced_factors

SPRITES = ("square", "ellipse", "heart")
SOLIDS = ("cube", "cylinder", "sphere", "capsule")
SHAPE_NAMES = {"dsprites": SPRITES, "shapes3d": SOLIDS, "rooms": SOLIDS}
MOST_IMAGES = 32  # a picture of more base images is too large to look at, and soon to draw
MOST_SHAPES = 8  # more than these are no lines that could be told apart


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
    # color_dsprites and noisy_dsprites show what dsprites shows.
    words = SHAPE_NAMES.get(dataset.name.rsplit("_", 1)[-1], ())
    if len(words) == space.sizes[group]:
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
    return space.index_of(factors)


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
