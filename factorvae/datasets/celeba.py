"""CelebA (Liu et al. 2015): 202,599 aligned faces of 178x218 with 40 binary attributes.

As torchvision lays it out, in `celeba/`: the folder `img_align_celeba` or the zip of that name,
`list_attr_celeba.txt` (number of images, names of attributes, then a line of 1 and -1 for each
image) and `list_eval_partition.txt` (a line for each image, ending in 0 train, 1 valid, 2 test).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from factorvae.datasets.cache import cached_array
from factorvae.datasets.image_files import FolderImages, ZipImages, fingerprint
from factorvae.datasets.images import Preparation, image_table
from factorvae.datasets.published_files import locate
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import UserError

SPLITS = {"train": ("0",), "valid": ("1",), "test": ("2",), "all": ("0", "1", "2")}
FOLDER, ATTRIBUTES, PARTITION = (
    "img_align_celeba",
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
)
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
    'test' or 'all'. skip_bad_images: leave out images that cannot be read. Raises UserError for
    missing files, lists that do not fit the images, and a bad image.
    """
    if split not in SPLITS:
        raise UserError(f"CelebA has no split {split!r}: it has {', '.join(SPLITS)}")
    data_dir, preparation = Path(data_dir), Preparation(image_size, grayscale, crop)
    attributes, partition, images = (
        locate(data_dir, ("celeba", "."), names, "celeba")
        for names in ((ATTRIBUTES,), (PARTITION,), (FOLDER, f"{FOLDER}.zip"))
    )
    names, splits = _partition(partition)
    factor_names, factors = _attributes(attributes, names, data_dir)
    if images.is_dir():
        source = FolderImages(images, names)
    else:
        source = ZipImages(images, [f"{FOLDER}/{name}" for name in names])
    pixels, left_out = image_table(
        data_dir / "celeba" / f"{preparation.tag}.table",
        source,
        preparation,
        f"preparing {images}",
        skip_bad_images,
    )
    rows = np.flatnonzero(np.isin(np.delete(splits, left_out), SPLITS[split]))
    if not len(rows):
        raise UserError(f"{partition} puts no image into the split {split!r}")
    return Dataset(
        "celeba",
        "official",
        Pixels(pixels, rows),
        factors=np.delete(factors, left_out, axis=0)[rows],
        factor_names=factor_names,
        factor_sizes=(2,) * len(factor_names),
    )


def _partition(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the images, sorted, and the split of each: '0', '1' or '2'."""
    lines = sorted(line.split() for line in _lines(path))
    for line in lines:
        if len(line) != 2 or line[1] not in SPLITS["all"] or {"/", "\\"} & set(line[0]):
            raise UserError(f"{path}: expected `<file name> <0, 1 or 2>`, not `{' '.join(line)}`")
    if not lines:
        raise UserError(f"{path} is empty: expected a line for each image")
    names, splits = zip(*lines, strict=True)
    return list(names), np.array(splits)


def _attributes(path: Path, names: list[str], data_dir: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the attributes, and uint8 [N, F] of 0 and 1 by the images' sorted names.

    Kept beside the images: the list of 26 MB takes seconds to read.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        file.readline()
        factor_names = tuple(file.readline().split())
    if not factor_names:
        raise UserError(f"{path}: expected the names of the attributes in its second line")
    factors = cached_array(
        data_dir / "celeba" / "attributes.table",
        (len(names), len(factor_names)),
        fingerprint(path),
        lambda: [_read_attributes(path, names, len(factor_names))],
    )
    return factor_names, factors


def _read_attributes(path: Path, names: list[str], columns: int) -> np.ndarray:
    lines = sorted(list(_lines(path))[2:])
    if len(lines) != len(names):
        raise UserError(f"{path} lists {len(lines):,} images: {PARTITION} lists {len(names):,}")
    rows = np.zeros((len(names), columns), np.uint8)
    for row, name, line in zip(rows, names, lines, strict=True):
        found, *values = line.split()
        if found != name or len(values) != columns or set(values) - {"1", "-1"}:
            raise UserError(
                f"{path}: expected {name} and {columns} of 1 or -1, not `{line.strip()}`"
            )
        row[:] = [value == "1" for value in values]
    return rows


def _lines(path: Path) -> Iterator[str]:
    """The lines that are not blank."""
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line for line in file if line.strip())
