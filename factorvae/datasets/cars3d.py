"""Cars3D (Reed et al. 2015): 183 cars from 4 elevations and 24 azimuths, 17,568 images.

`nips2015-analogy-data.tar.gz` holds, among others, `data/cars/*.mat`, one for each car: `im` uint8
[128, 128, 3, 24, 4], the last two axes being azimuth and elevation. Cars are numbered by their
sorted file names. Order: elevation, azimuth, object_type, as in Locatello et al. 2019.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io

from factorvae.datasets.cache import cached_array
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.image_files import fingerprint, unpack
from factorvae.datasets.images import Preparation, fit_all
from factorvae.datasets.published_files import locate
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import UserError
from factorvae.progress import track

ARCHIVE = "nips2015-analogy-data.tar.gz"
CARS3D = FactorSpace(
    names=("elevation", "azimuth", "object_type"),
    sizes=(4, 24, 183),
    values=(range(4), range(0, 360, 15), range(183)),  # azimuth in degrees
)
SIZE = 128  # of the published images

FOLDERS = ("cars3d/cars", "cars3d/data/cars", "cars", "data/cars")  # where unpacked files may be


def load_cars3d(
    data_dir: str | Path = "data", *, image_size: int = 64, space: FactorSpace = CARS3D
) -> Dataset:
    """Cars3D, source 'official'; its archive is unpacked where its files are not.

    space: that of fewer cars, for tests. Raises UserError for missing files and files that are not
    Cars3D.
    """
    data_dir, preparation = Path(data_dir), Preparation(image_size)
    files = _files(data_dir, space.sizes[2])
    pixels = cached_array(
        data_dir / "cars3d" / f"{preparation.tag}.table",
        (len(space), *preparation.image_shape),
        {"source": fingerprint(*files), "preparation": vars(preparation)},
        lambda: track(_read(files, preparation), len(space), "reading Cars3D"),
    )
    elevations, azimuths, cars = space.sizes
    row = np.arange(len(space)).reshape(cars, elevations, azimuths)  # as the files have them
    return Dataset("cars3d", "official", Pixels(pixels, row.transpose(1, 2, 0).ravel()), space)


def _files(data_dir: Path, cars: int) -> list[Path]:
    folder = next((data_dir / f for f in FOLDERS if (data_dir / f).is_dir()), None)
    if folder is None:
        archive = locate(data_dir, ("cars3d", "."), (ARCHIVE,), "cars3d")
        folder = data_dir / FOLDERS[0]
        unpack(archive, folder, lambda name: "/cars/" in f"/{name}" and name.endswith(".mat"))
    files = sorted(folder.glob("*.mat"))
    if len(files) != cars:
        raise UserError(f"{folder} holds {len(files)} .mat files: expected {cars}, one for a car")
    return files


def _read(files: list[Path], preparation: Preparation) -> Iterator[np.ndarray]:
    """Blocks uint8 [96, 3, H, W], one for each car, by elevation and azimuth."""
    expected = (SIZE, SIZE, 3, *reversed(CARS3D.sizes[:2]))
    for path in files:
        try:
            kinds = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
            if kinds.get("im") != (expected, "uint8"):
                raise ValueError(f"im is {kinds.get('im', 'missing')}")
            images = scipy.io.loadmat(path, variable_names=["im"])["im"]
        except Exception as error:  # scipy raises nearly anything at damaged files
            raise UserError(
                f"{path} is not a file of Cars3D, or is damaged ({error}): expected a .mat with im "
                f"uint8 {expected}"
            ) from error
        yield fit_all(images.transpose(4, 3, 0, 1, 2).reshape(-1, SIZE, SIZE, 3), preparation)
