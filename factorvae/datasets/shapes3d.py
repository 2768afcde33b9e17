"""3D Shapes (Burgess and Kim 2018): 480,000 images of one object in a room, six factors.

One file, `3dshapes.h5`: `images` uint8 [480000, 64, 64, 3] and `labels` float [480000, 6], the last
factor changing fastest. Factors, sizes and order are those of the labels' columns.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from factorvae.datasets.cache import cached_array
from factorvae.datasets.factors import SHAPES3D, FactorSpace
from factorvae.datasets.image_files import fingerprint
from factorvae.datasets.images import Preparation, fit_all
from factorvae.datasets.published_files import locate
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import UserError
from factorvae.progress import track

FILE = "3dshapes.h5"
IMAGES_AT_ONCE = 1000
LARGEST_CHUNK_BYTES = 1 << 28


def load_shapes3d(
    data_dir: str | Path = "data", *, image_size: int = 64, space: FactorSpace = SHAPES3D
) -> Dataset:
    """3D Shapes, source 'official', read once into a cache of 5.9 GB.

    image_size: 64 is the published one; to others they are resized. space: that of a smaller file,
    for tests. Raises UserError for a missing file and one that is not 3D Shapes.
    """
    data_dir, preparation = Path(data_dir), Preparation(image_size)
    try:
        path = locate(data_dir, ("shapes3d", "3dshapes", "3d-shapes", "."), (FILE,), "shapes3d")
    except UserError as error:
        raise UserError(
            f"{error}; or train on `--dataset rooms`, a look-alike drawn here"
        ) from None
    pixels = cached_array(
        data_dir / "shapes3d" / f"{preparation.tag}.table",
        (len(space), *preparation.image_shape),
        {"source": fingerprint(path), "preparation": vars(preparation)},
        lambda: track(_read(path, space, preparation), len(space), f"reading {path}"),
    )
    return Dataset("shapes3d", "official", Pixels(pixels), space)


def _read(path: Path, space: FactorSpace, preparation: Preparation) -> Iterator[np.ndarray]:
    """Blocks uint8 [n, 3, H, W], a thousand images at a time."""
    image_shape, label_shape = (len(space), 64, 64, 3), (len(space), len(space.sizes))
    try:
        with h5py.File(path, "r") as file:
            images, labels = _array(file, "images"), _array(file, "labels")
            if (images.shape, images.dtype) != (image_shape, np.uint8):
                raise ValueError(f"images are {images.dtype} {images.shape}")
            if labels.shape != label_shape or labels.dtype.kind != "f":
                raise ValueError(f"labels are {labels.dtype} {labels.shape}")
            _check_labels(labels[:], space)
            for start in range(0, len(space), IMAGES_AT_ONCE):
                yield fit_all(images[start : start + IMAGES_AT_ONCE], preparation)
    except (OSError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{path} is not 3D Shapes, or is damaged ({error}): expected HDF5 with images uint8 "
            f"{image_shape} and labels float {label_shape} in the order of the factors"
        ) from error


def _array(file: h5py.File, name: str) -> h5py.Dataset:
    """An array that lies in the file itself, in chunks that the memory holds.

    HDF5 can refer to any other file of the machine, and unpacks a whole chunk at once.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is missing, or is a link")
    array = file[name]
    if array.external or array.is_virtual:
        raise ValueError(f"{name} lies in another file")
    if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > LARGEST_CHUNK_BYTES:
        raise ValueError(f"{name} is in chunks of {array.chunks}")
    return array


def _check_labels(labels: np.ndarray, space: FactorSpace) -> None:
    grid = space.factors_of(np.arange(len(space)))
    for name, size, column, expected in zip(
        space.names, space.sizes, labels.T, grid.T, strict=True
    ):
        values, ranks = np.unique(column, return_inverse=True)
        if len(values) != size or not np.array_equal(ranks, expected):
            raise ValueError(f"{name} takes {len(values)} values of {size}, or in another order")
