"""3D Chairs (Aubry et al. 2014): 1,393 chairs from 62 directions, 600x600 pixels on white.

`rendered_chairs.tar`, read as it is, or its folder: `rendered_chairs/<id>/renders/*.png`, with the
view in the name: `image_001_p020_t011_r096.png` is elevation 20 and azimuth 11 degrees. Chairs are
numbered by their sorted ids. `all_chair_names.mat`, a list, is passed over.
"""

import math
import re
import sys
from pathlib import Path

import numpy as np

from factorvae.datasets.cache import cached_array
from factorvae.datasets.image_files import FolderImages, ImageSource, TarImages
from factorvae.datasets.images import Preparation, image_table
from factorvae.datasets.labels import with_labels
from factorvae.datasets.published_files import CHAIRS, VIEWS, is_chair, locate
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import printable

FOLDERS = ("chairs", "3dchairs", ".")
NAMES = ("chair_id", "azimuth", "elevation")
CROP = 400  # of 600: the chairs lie in it
UNTOLD = 255  # in every byte kept of views that the names do not tell
VIEW = re.compile(r"(?:.*/)?([^/]+)/renders/image_\d+_p(\d{1,3})_t(\d{1,3})_r\d+\.png", re.ASCII)


def load_chairs(
    data_dir: str | Path = "data",
    *,
    image_size: int = 64,
    grayscale: bool = False,
    crop: int = CROP,
    skip_bad_images: bool = False,
) -> Dataset:
    """3D Chairs, source 'official'.

    crop: side of the centred square that is cut out before the resize. With every view of every
    chair there is a full grid of factors, chair_id, azimuth and elevation; otherwise, if all names
    tell their views, `factors` has them image by image. skip_bad_images: leave out images that
    cannot be read. Raises UserError for missing files and for a bad image.
    """
    data_dir, preparation = Path(data_dir), Preparation(image_size, grayscale, crop)
    path = locate(data_dir, FOLDERS, ("rendered_chairs", "rendered_chairs.tar"), "chairs")
    source = FolderImages(path) if path.is_dir() else TarImages(path, is_chair)
    pixels, left_out = image_table(
        data_dir / "chairs" / f"{preparation.tag}.table",
        source,
        preparation,
        f"preparing {path}",
        skip_bad_images,
    )
    if len(pixels) != CHAIRS * VIEWS:
        print(
            printable(f"{path}: {len(pixels):,} images; all of 3D Chairs are {CHAIRS * VIEWS:,}"),
            file=sys.stderr,
        )
    views = _views(data_dir, source)
    if views is None:
        return Dataset("chairs", "official", Pixels(pixels))
    return _with_factors(pixels, np.delete(views, left_out, axis=0), path)


def _views(data_dir: Path, source: ImageSource) -> np.ndarray | None:
    """Chair's number, azimuth and elevation in degrees: int64 [N, 3] by the sorted names.

    None if a name does not tell them. Kept beside the images, so that a tar need not be listed.
    """

    def read() -> list[np.ndarray]:
        matches = [VIEW.fullmatch(name) for name in source.names]
        if not all(matches):
            return [np.full((len(matches), 6), UNTOLD, np.uint8)]
        chairs, elevations, azimuths = zip(*(match.groups() for match in matches), strict=True)
        numbers = np.unique(chairs, return_inverse=True)[1]
        views = np.column_stack([numbers, np.array(azimuths, int), np.array(elevations, int)])
        return [views.astype("<u2").view(np.uint8)]

    views = cached_array(data_dir / "chairs" / "views.table", (None, 6), source.made_from, read)
    return None if (views == UNTOLD).all() else views.view("<u2").astype(np.int64)


def _with_factors(pixels: np.ndarray, views: np.ndarray, where: Path) -> Dataset:
    dataset = with_labels("chairs", "official", pixels, NAMES, list(views.T), str(where))
    if dataset.factor_space is None:
        sizes = dataset.factor_sizes
        views_there = len(np.unique(dataset.factors, axis=0))
        missing, twice = math.prod(sizes) - views_there, len(views) - views_there
        told = f"{missing:,} of {math.prod(sizes):,} views are missing" if missing else ""
        told = told or f"{twice:,} views are there more than once"
        print(
            printable(
                f"{where}: {told} ({sizes[0]:,} chairs from {sizes[1]} x {sizes[2]} directions): "
                "factors are known image by image but are no full grid, so that what asks for "
                "images of chosen factors is lost: factor_vae_score, beta_vae_score and the "
                "latent responses"
            ),
            file=sys.stderr,
        )
    return dataset
