"""Labels of a user's own, numbers or words, as factors: their values become indices."""

import math
import re
import sys
from collections.abc import Sequence

import numpy as np

from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import UserError, printable

# those that are not finite, too, which are told of as such and are no words
NUMBER = re.compile(
    r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)", re.ASCII | re.IGNORECASE
)


def with_labels(
    name: str,
    source: str,
    pixels: np.ndarray,
    names: Sequence[str],
    columns: Sequence[np.ndarray],
    where: str,
) -> Dataset:
    """Images uint8 [N, C, H, W] and what is known of each, as a dataset of that name and source.

    With one image of each combination of values there is a grid of factors, and the images come in
    its order; otherwise `factors` has them image by image.

    names: of the factors, [F]. columns: the values of each, [F] arrays [N] of numbers or text; a
    column of text that is all numbers is one of numbers. Values are numbered as they are sorted,
    and words are kept.
    where: the labels' file, for messages. Raises UserError for names that are empty or not
    distinct, and for numbers that are not finite.
    """
    if not all(names) or len(set(names)) < len(names):
        listed = ", ".join(map(repr, names))
        raise UserError(f"{where}: expected distinct names of factors, not {listed}")
    values, indices, words = [], [], {}
    for factor, column in zip(names, columns, strict=True):
        if column.dtype.kind == "U" and all(map(NUMBER.fullmatch, column.tolist())):
            column = column.astype(np.float64)
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            image = int(np.flatnonzero(~np.isfinite(column))[0])
            raise UserError(
                f"{where}: {factor} of image {image} is {column[image]}: expected finite numbers"
            )
        found, index = np.unique(column, return_inverse=True)
        if column.dtype.kind == "U":
            words[factor] = tuple(found.tolist())
        values.append(range(len(found)) if factor in words else found)
        indices.append(index)
    sizes = tuple(map(len, values))
    factors = np.column_stack(indices)  # int64 [N, F]
    for factor, size in zip(names, sizes, strict=True):
        if 2 * size > len(factors):
            print(
                printable(
                    f"{where}: {factor} takes {size:,} values in {len(factors):,} images, and "
                    "scores count each as a class: leave it out or put it into bins"
                ),
                file=sys.stderr,
            )
    if math.prod(sizes) == len(factors):
        space = FactorSpace(tuple(names), sizes, tuple(map(tuple, values)))
        index = space.index_of(factors)
        order = np.argsort(index)
        if np.array_equal(index[order], np.arange(len(space))):
            return Dataset(name, source, Pixels(pixels, order), space, value_words=words)
    return Dataset(name, source, Pixels(pixels), None, factors, tuple(names), sizes, words)
