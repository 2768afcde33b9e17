"""A grid of ground-truth factors and the order in which a dataset lists its images."""

import math
from dataclasses import dataclass, field

import numpy as np

from factorvae.errors import UserError


@dataclass(frozen=True)
class FactorSpace:
    """Every combination of F factors, in row-major order: the last factor changes fastest.

    names: F names. sizes: how many values each factor takes. values: the values themselves, one
    tuple per factor; left empty they are 0, 1, ..., size - 1. `len(space)` is the product of sizes.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    values: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        values = self.values or [range(size) for size in self.sizes]
        # Plain tuples make spaces comparable and hashable, whatever they were made from.
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        object.__setattr__(self, "values", tuple(tuple(map(float, v)) for v in values))
        if len(self.names) != len(self.sizes) or tuple(map(len, self.values)) != self.sizes:
            raise ValueError(f"names, sizes and values disagree: {self.names}, {self.sizes}")

    def __len__(self) -> int:
        return math.prod(self.sizes)

    def index_of(self, factors: np.ndarray) -> np.ndarray:
        """Factor indices [..., F] -> int64 image indices [...]; UserError when out of range."""
        factors = np.asarray(factors, dtype=np.int64)
        if factors.shape[-1:] != (len(self.sizes),):
            raise ValueError(f"factors of shape {factors.shape} for {len(self.sizes)} names")
        columns = tuple(np.moveaxis(factors, -1, 0))
        for name, size, column in zip(self.names, self.sizes, columns, strict=True):
            _check_range(column, size, name)
        return np.ravel_multi_index(columns, self.sizes)

    def factors_of(self, index: np.ndarray) -> np.ndarray:
        """Image indices [...] -> int64 factor indices [..., F]; UserError when out of range."""
        index = np.asarray(index, dtype=np.int64)
        _check_range(index, len(self), "image")
        return np.stack(np.unravel_index(index, self.sizes), axis=-1)


def _check_range(indices: np.ndarray, size: int, name: str) -> None:
    outside = indices[(indices < 0) | (indices >= size)]
    if outside.size:
        raise UserError(f"{name} {outside.flat[0]} is out of range: it runs from 0 to {size - 1}")


_HUES = tuple(number / 10 for number in range(10))
# 3D Shapes and its look-alike, the rooms, share one grid.
SHAPES3D = FactorSpace(
    names=("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
    sizes=(10, 10, 10, 8, 4, 15),
    values=(
        _HUES,
        _HUES,
        _HUES,
        np.linspace(0.75, 1.25, 8),
        range(4),  # cube, cylinder, sphere, capsule
        np.linspace(-30, 30, 15),  # degrees
    ),
)
