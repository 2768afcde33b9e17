"""SmallNORB (LeCun, Huang and Bottou 2004): 50 toys under 6 lights from 9 x 18 directions.

Six gzipped binary matrices, `smallnorb-5x*-{training,testing}-{dat,cat,info}.mat.gz`; unpacked ones
are read too. A matrix is a magic number that tells its type, the number of dimensions, at least
three dimensions, all int32, then the values, the last dimension changing fastest, everything
little-endian (https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/). `dat` holds pairs of 96x96 images,
of which the first is used, as in Locatello et al. 2019; `cat` the category; `info` instance (0 to
9), elevation (0 to 8: 30 to 70 degrees), azimuth (0, 2, ..., 34, tens of degrees) and lighting (0
to 5). Training and testing have five instances of each category each; together they are a full grid
of 48,600, in the order category, instance, elevation, azimuth, lighting.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from factorvae.datasets.cache import cached_array
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.image_files import fingerprint
from factorvae.datasets.images import Preparation, fit_all
from factorvae.datasets.published_files import NORB_TESTING, NORB_TRAINING, locate
from factorvae.datasets.table import Dataset, Pixels, check_factors
from factorvae.errors import UserError
from factorvae.progress import track

FOLDERS = ("smallnorb", "small_norb", ".")
SPLITS = {"all": (NORB_TRAINING, NORB_TESTING), "train": (NORB_TRAINING,), "test": (NORB_TESTING,)}
SMALLNORB = FactorSpace(
    names=("category", "instance", "elevation", "azimuth", "lighting"),
    sizes=(5, 10, 9, 18, 6),
    values=(
        range(5),  # animal, human, plane, truck, car
        range(10),
        range(30, 75, 5),  # degrees
        range(0, 360, 20),  # degrees
        range(6),
    ),
)
SIZE = 96  # of the published images
PAIRS_AT_ONCE = 500
TYPES = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}


def load_smallnorb(
    data_dir: str | Path = "data",
    *,
    image_size: int = 64,
    split: str = "all",
    space: FactorSpace = SMALLNORB,
) -> Dataset:
    """SmallNORB, source 'official', one channel.

    split: 'all', or 'train' or 'test' with the five instances of each. space: that of smaller
    files, for tests. Raises UserError for missing files and files that are not SmallNORB.
    """
    if split not in SPLITS:
        raise UserError(f"SmallNORB has no split {split!r}: it has {', '.join(SPLITS)}")
    data_dir, preparation = Path(data_dir), Preparation(image_size, grayscale=True)
    parts, per_part = SPLITS[split], len(space) // 2
    factors = np.concatenate([_factors(data_dir, part, space) for part in parts])  # [N, 5]
    space, order = _grid(factors, space, data_dir)
    files = [_locate(data_dir, part, "dat") for part in parts]
    pixels = cached_array(
        data_dir / "smallnorb" / f"{split}_{preparation.tag}.table",
        (len(factors), *preparation.image_shape),
        {"source": fingerprint(*files), "preparation": vars(preparation)},
        lambda: track(
            (block for file in files for block in _images(file, per_part, preparation)),
            len(factors),
            "reading SmallNORB",
        ),
    )
    return Dataset("smallnorb", "official", Pixels(pixels, order), space)


def _grid(factors: np.ndarray, space: FactorSpace, where: Path) -> tuple[FactorSpace, np.ndarray]:
    """The space of the instances that are there, and the row of each of its images."""
    instances, factors[:, 1] = np.unique(factors[:, 1], return_inverse=True)
    values = list(space.values)
    values[1] = tuple(space.values[1][instance] for instance in instances)
    space = FactorSpace(space.names, tuple(map(len, values)), tuple(values))
    index = space.index_of(factors)
    order = np.argsort(index)
    if not np.array_equal(index[order], np.arange(len(space))):
        raise UserError(f"SmallNORB's cat and info files in {where} are no full grid of factors")
    return space, order


def _locate(data_dir: Path, part: str, kind: str) -> Path:
    name = f"{part}-{kind}.mat"
    return locate(data_dir, FOLDERS, (f"{name}.gz", name), "smallnorb")


def _factors(data_dir: Path, part: str, space: FactorSpace) -> np.ndarray:
    """int64 [N, 5] of one part, in the order of its images."""
    n = len(space) // 2
    (category,) = _read(_locate(data_dir, part, "cat"), "<i4", (n,), n)
    path = _locate(data_dir, part, "info")
    (info,) = _read(path, "<i4", (n, 4), n)
    if (info[:, 2] % 2).any():
        raise UserError(f"{path}: an azimuth is odd: expected 0, 2, ..., 34")
    factors = np.column_stack([category, info]).astype(np.int64)
    factors[:, 3] //= 2
    check_factors(factors, space.names, space.sizes, str(path))
    return factors


def _images(path: Path, n: int, preparation: Preparation) -> Iterator[np.ndarray]:
    """Blocks uint8 [n, 1, H, W] of the first image of each pair."""
    for pairs in _read(path, "u1", (n, 2, SIZE, SIZE), PAIRS_AT_ONCE):
        yield fit_all(pairs[:, 0], preparation)


def _read(
    path: Path, dtype: str, shape: tuple[int, ...], rows_at_once: int
) -> Iterator[np.ndarray]:
    """A binary matrix, some rows at a time; UserError unless it has this type and shape."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, dimensions = _take(file, "<i4", (2,))
            if TYPES.get(magic) != dtype or not 1 <= dimensions <= 4:
                raise ValueError(f"magic number {magic:#x}, {dimensions} dimensions")
            found = tuple(map(int, _take(file, "<i4", (max(3, dimensions),))[:dimensions]))
            if found != shape:
                raise ValueError(f"its shape is {found}")
            for start in range(0, shape[0], rows_at_once):
                yield _take(file, dtype, (min(rows_at_once, shape[0] - start), *shape[1:]))
            if file.read(1):
                raise ValueError("it goes on after its last value")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(
            f"{path} is not a file of SmallNORB, or is damaged ({error}): expected a binary matrix "
            f"of {np.dtype(dtype)} {shape}"
        ) from error


def _take(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    data = file.read(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(data, dtype).reshape(shape)  # ValueError when cut short
