"""Any folder of images, nested or not, with or without labels: `--dataset folder:PATH`."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from factorvae.datasets.cache import cache_name
from factorvae.datasets.image_files import FolderImages
from factorvae.datasets.images import Preparation, image_table
from factorvae.datasets.labels import with_labels
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import UserError

LABELS = "factors.csv"


def load_folder(
    data_dir: str | Path,
    folder: str | Path,
    *,
    image_size: int = 64,
    grayscale: bool = False,
    crop: int | None = None,
    skip_bad_images: bool = False,
) -> Dataset:
    """The images below `folder` by their sorted paths, source 'folder'.

    With a file `factors.csv` in the folder they have factors, see `with_labels`: its first line
    names the factors after a first column for the path of an image from there, and each further
    line has those of one image. image_size, grayscale, crop: see `Preparation`. skip_bad_images:
    leave out images that cannot be read. Raises UserError for a folder that is missing or without
    images, for a bad image, and for labels that do not fit the images one to one.
    """
    preparation = Preparation(image_size, grayscale, crop)
    root = Path(os.path.expanduser(folder)).resolve()  # as it is where it names no user
    images = FolderImages(root)
    labels = root / LABELS
    labelled = labels.is_file()  # checked before the images are prepared
    names, rows = _labels(labels, images.names) if labelled else ([], np.empty((0, 0)))
    pixels, left_out = image_table(
        Path(data_dir) / "folder" / cache_name(root, preparation.tag),
        images,
        preparation,
        f"preparing {root}",
        skip_bad_images,
    )
    name = f"folder:{folder}"
    if not labelled:
        return Dataset(name, "folder", Pixels(pixels))
    rows = np.delete(rows, left_out, axis=0)
    return with_labels(name, "folder", pixels, names, rows.T, str(labels))


def _labels(path: Path, images: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Names of the factors, and their values as they are written, text [N, F], by image."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = csv.reader(file)
            header = [name.strip() for name in next(lines, [])]
            rows = [(lines.line_num, line) for line in lines if line]
    except csv.Error as error:
        raise UserError(f"{path}: {error}: expected comma-separated values") from error
    if len(header) < 2:
        raise UserError(
            f"{path}: its first line has {len(header)} columns: expected one of file names, then "
            "one for each factor, separated by commas"
        )
    if str(PurePosixPath(header[0])) in images:
        raise UserError(
            f"{path}: its first line is of {header[0]}: expected a line before it that names the "
            "columns, such as `file,colour,size`"
        )
    labels: dict[str, list[str]] = {}
    for number, line in rows:
        image, *values = map(str.strip, line)
        image = str(PurePosixPath(image))  # without a ./ in front
        if len(line) != len(header) or not all(values):
            raise UserError(
                f"{path}, line {number}: expected a file name and {len(header) - 1} values, not "
                f"`{','.join(line)}`"
            )
        if image in labels:
            raise UserError(f"{path}, line {number}: {image} has a line already")
        labels[image] = values
    unknown = sorted(labels.keys() - set(images))
    if unknown:
        raise UserError(
            f"{path}: {unknown[0]} is no image below {path.parent} ({len(unknown):,} of "
            f"{len(labels):,} lines are of none): expected paths from there"
        )
    missing = sorted(set(images) - labels.keys())
    if missing:
        raise UserError(
            f"{path}: {missing[0]} has no line ({len(missing):,} of {len(images):,} images have "
            "none): expected one for each image"
        )
    return header[1:], np.array([labels[image] for image in images])
