"""CelebA (Liu et al. 2015): 202,599 aligned faces of 178x218 with 40 binary attributes.

As torchvision lays it out, in `celeba/`: the folder `img_align_celeba` or the zip of that name,
`list_attr_celeba.txt` (number of images, names of attributes, then a line of 1 and -1 for each
image) and `list_eval_partition.txt` (a line for each image, ending in 0 train, 1 valid, 2 test).
Mirrors have the folder once more inside itself, and the lists as `.csv`, of which the first line
is a header (`image_id`, then names of the columns).
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from factorvae.datasets.cache import cached_array
from factorvae.datasets.image_files import FolderImages, ImageSource, ZipImages, fingerprint
from factorvae.datasets.images import Preparation, image_table
from factorvae.datasets.published_files import find, locate
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import UserError, printable

SPLITS = {"train": ("0",), "valid": ("1",), "test": ("2",), "all": ("0", "1", "2")}
FOLDER = "img_align_celeba"
ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
PLACES = ("celeba", ".")
IMAGES = 202_599  # of the whole set
CROP = 148


def load_celeba(
    data_dir: str | Path = "data",
    *,
    image_size: int = 64,
    grayscale: bool = False,
    crop: int = CROP,
    split: str = "train",
    skip_bad_images: bool = False,
) -> Dataset:
    """CelebA, source 'official'; `factors` are its attributes, 0 or 1, under their own names.

    crop: side of the centred square that is cut out before the resize. split: 'train', 'valid',
    'test' or 'all', which needs no partition. skip_bad_images: leave out images that are missing or
    cannot be read. Raises UserError for missing files, lists that do not fit each other or the
    images, and a bad image.
    """
    if split not in SPLITS:
        raise UserError(f"CelebA has no split {split!r}: it has {', '.join(SPLITS)}")
    data_dir, preparation = Path(data_dir), Preparation(image_size, grayscale, crop)
    attributes = locate(data_dir, PLACES, ATTRIBUTES, "celeba")
    where = (data_dir, PLACES, PARTITION)
    partition = find(*where) if split == "all" else locate(*where, "celeba")
    images = locate(data_dir, PLACES, (FOLDER, f"{FOLDER}.zip"), "celeba")
    if partition is None:
        names = sorted(line.split(maxsplit=1)[0] for line in _lines(attributes, 2))
        splits = np.full(len(names), SPLITS["all"][0])
    else:
        names, splits = _partition(partition)
    for name in names:
        if {"/", "\\"} & set(name):
            raise UserError(f"{partition or attributes}: expected a file name, not `{name}`")
    factor_names, factors = _attributes(attributes, names, data_dir)
    pixels, left_out = image_table(
        data_dir / "celeba" / f"{preparation.tag}.table",
        _source(images, names),
        preparation,
        f"preparing {images}",
        skip_bad_images,
    )
    if len(pixels) != IMAGES:
        print(printable(f"{images}: {len(pixels):,} of {IMAGES:,} images"), file=sys.stderr)
    rows = np.flatnonzero(np.isin(np.delete(splits, left_out), SPLITS[split]))
    if not len(rows):
        raise UserError(f"{partition or images} puts no image into the split {split!r}")
    return Dataset(
        "celeba",
        "official",
        Pixels(pixels, rows),
        factors=np.delete(factors, left_out, axis=0)[rows],
        factor_names=factor_names,
        factor_sizes=(2,) * len(factor_names),
    )


def _source(images: Path, names: list[str]) -> ImageSource:
    """The images in their folder, which may be once more in itself, or in their zip."""
    if not images.is_dir():
        return ZipImages(images, [f"{FOLDER}/{name}" for name in names])
    if (images / FOLDER).is_dir() and not (images / names[0]).is_file():
        images = images / FOLDER
    return FolderImages(images, names)


def _partition(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the images, sorted, and the split of each: '0', '1' or '2'."""
    lines = sorted(line.split() for line in _lines(path, 0))
    for line in lines:
        if len(line) != 2 or line[1] not in SPLITS["all"]:
            raise UserError(f"{path}: expected `<file name> <0, 1 or 2>`, not `{' '.join(line)}`")
    if not lines:
        raise UserError(f"{path} is empty: expected a line for each image")
    names, splits = zip(*lines, strict=True)
    return list(names), np.array(splits)


def _attributes(path: Path, names: list[str], data_dir: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the attributes, and uint8 [N, F] of 0 and 1 by the images' sorted names.

    Kept beside the images: the list of 26 MB takes seconds to read.
    """
    is_csv = path.suffix == ".csv"
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline().replace(",", " ").split()[1:]
        factor_names = tuple(header if is_csv else file.readline().split())
    if not factor_names:
        line = "first" if is_csv else "second"
        raise UserError(f"{path}: expected the names of the attributes in its {line} line")
    factors = cached_array(
        data_dir / "celeba" / "attributes.table",
        (len(names), len(factor_names)),
        fingerprint(path),
        lambda: [_read_attributes(path, names, len(factor_names))],
    )
    return factor_names, factors


def _read_attributes(path: Path, names: list[str], columns: int) -> np.ndarray:
    lines = sorted(_lines(path, 2))
    if len(lines) != len(names):
        raise UserError(f"{path} lists {len(lines):,} images: the partition lists {len(names):,}")
    rows = np.zeros((len(names), columns), np.uint8)
    for row, name, line in zip(rows, names, lines, strict=True):
        found, *values = line.split()
        if found != name or len(values) != columns or set(values) - {"1", "-1"}:
            raise UserError(
                f"{path}: expected {name} and {columns} of 1 or -1, not `{line.strip()}`"
            )
        row[:] = [value == "1" for value in values]
    return rows


def _lines(path: Path, headers: int) -> Iterator[str]:
    """The lines of a list that are not blank, with blanks between their fields, without headers.

    headers: how many there are in a txt; in a csv it is one.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = (line for line in file if line.strip())
        if path.suffix == ".csv":
            yield from (line.replace(",", " ") for line in itertools.islice(lines, 1, None))
        else:
            yield from itertools.islice(lines, headers, None)
