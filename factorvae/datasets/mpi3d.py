"""MPI3D (Gondal et al. 2019): a robot arm moves one object; toy, realistic and real images.

One file for each version, `mpi3d_<version>.npz`, with `images` uint8 [N, 64, 64, 3] in the order of
the factors, the last changing fastest. Names, sizes and order: README of
https://github.com/rr-learning/disentanglement_dataset. The published files have 6 colours and 6
shapes, 1,036,800 images; earlier ones, and the one of complex shapes, 4 and 4, 460,800 images.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from factorvae.datasets.cache import cached_array
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.image_files import fingerprint
from factorvae.datasets.images import Preparation, fit_all
from factorvae.datasets.npz import UNREADABLE, expect_end, open_array, read_rows
from factorvae.datasets.published_files import locate
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import UserError
from factorvae.progress import track

NAMES = (
    "object_color",
    "object_shape",
    "object_size",
    "camera_height",
    "background_color",
    "horizontal_axis",
    "vertical_axis",
)
SPACES = tuple(FactorSpace(NAMES, (n, n, 2, 3, 3, 40, 40)) for n in (6, 4))
IMAGES_AT_ONCE = 1000


def load_mpi3d(
    version: str,
    data_dir: str | Path = "data",
    *,
    image_size: int = 64,
    spaces: tuple[FactorSpace, ...] = SPACES,
) -> Dataset:
    """MPI3D, source 'official', read once into a cache of 12.7 GB.

    version: 'toy', 'realistic' or 'real'. image_size: 64 is the published one; to others they are
    resized. spaces: those that a file may have, told apart by its number of images; smaller ones
    for tests. Raises UserError for a missing file and one that is not MPI3D.
    """
    data_dir, preparation, name = Path(data_dir), Preparation(image_size), f"mpi3d_{version}"
    path = locate(data_dir, ("mpi3d", name, "."), (f"{name}.npz",), name)
    pixels = cached_array(
        data_dir / "mpi3d" / f"{version}_{preparation.tag}.table",
        (None, *preparation.image_shape),
        {"source": fingerprint(path), "preparation": vars(preparation)},
        lambda: _read(path, spaces, preparation),
    )
    space = next(space for space in spaces if len(space) == len(pixels))
    return Dataset(name, "official", Pixels(pixels), space)


def _read(
    path: Path, spaces: tuple[FactorSpace, ...], preparation: Preparation
) -> Iterator[np.ndarray]:
    """Blocks uint8 [n, 3, H, W], a thousand images at a time."""
    shapes = [(len(space), 64, 64, 3) for space in spaces]
    try:
        with zipfile.ZipFile(path) as archive:
            file, dtype, shape = open_array(archive, "images", shapes, "u")
            if dtype != np.uint8:
                raise ValueError(f"images are {dtype}")
            with file:
                yield from track(_blocks(file, shape, preparation), shape[0], f"reading {path}")
                expect_end(file, "images")
    except UNREADABLE as error:
        raise UserError(
            f"{path} is not MPI3D, or is damaged ({error or 'it ends early'}): expected an npz "
            f"with images uint8 {' or '.join(map(str, shapes))}"
        ) from error


def _blocks(
    file: zipfile.ZipExtFile, shape: tuple[int, ...], preparation: Preparation
) -> Iterator[np.ndarray]:
    for start in range(0, shape[0], IMAGES_AT_ONCE):
        n = min(IMAGES_AT_ONCE, shape[0] - start)
        yield fit_all(read_rows(file, n, np.dtype(np.uint8), shape[1:]), preparation)
