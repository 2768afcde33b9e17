"""Images of your own in an npz file, with or without labels: `--dataset npz:FILE`."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from factorvae.datasets.cache import cache_name, cached_array
from factorvae.datasets.image_files import fingerprint
from factorvae.datasets.images import Preparation, fit_all
from factorvae.datasets.labels import with_labels
from factorvae.datasets.npz import UNREADABLE, expect_end, open_member, read_array, read_rows
from factorvae.datasets.table import Dataset, Pixels
from factorvae.errors import UserError
from factorvae.progress import track

EXPECTED = (
    "expected an npz with images uint8 [N, H, W] or [N, H, W, C] of 1 or 3 channels and, for "
    "scores, factors [N, F] and factor_names [F]"
)
BYTES_AT_ONCE = 1 << 26


def load_array_file(
    data_dir: str | Path,
    file: str | Path,
    *,
    image_size: int = 64,
    grayscale: bool = False,
    crop: int | None = None,
) -> Dataset:
    """The images of an npz file, source 'npz', and the factors in it, see `with_labels`.

    It holds `images` uint8 [N, H, W] or [N, H, W, C], C 1 or 3; `factors` [N, F], whole, real or
    boolean numbers or text, if there are; and `factor_names` [F], text, 'factor_0' and so on where
    there are none. image_size, grayscale, crop: see `Preparation`; images of one channel stay so.
    Raises UserError for a file that is missing or holds anything else: objects are not unpickled.
    """
    path = Path(os.path.expanduser(file)).resolve()  # as it is where it names no user
    if not path.is_file():
        raise UserError(f"{path} is not there, or is no file: {EXPECTED}")
    shape, names, factors = _contents(path)
    grayscale = grayscale or len(shape) == 3 or shape[3] == 1
    preparation = Preparation(image_size, grayscale, crop)
    if crop is not None and crop > min(shape[1:3]):
        raise UserError(
            f"{path}: images of {shape[2]}x{shape[1]} pixels have no square of {crop}: expected "
            f"--crop {min(shape[1:3])} or less"
        )
    pixels = cached_array(
        Path(data_dir) / "npz" / cache_name(path, preparation.tag),
        (shape[0], *preparation.image_shape),
        {"source": fingerprint(path), "preparation": vars(preparation)},
        lambda: track(_blocks(path, preparation), shape[0], f"preparing {path}"),
    )
    name = f"npz:{file}"
    if factors is None:
        return Dataset(name, "npz", Pixels(pixels))
    return with_labels(name, "npz", pixels, names, factors.T, str(path))


def _contents(path: Path) -> tuple[tuple[int, ...], list[str], np.ndarray | None]:
    """The images' shape, the factors' names, and the factors [N, F] if there are any."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                archive.open(name).close()  # its name here and there: a damaged one would hide it
            held = {name.removesuffix(".npy") for name in archive.namelist()}
            if "images" not in held:
                raise ValueError(f"it holds no images but {', '.join(sorted(held)) or 'nothing'}")
            file, dtype, shape, fortran_order = open_member(archive, "images")
            file.close()
            is_image = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
            if dtype != np.uint8 or not is_image or min(shape) < 1:
                raise ValueError(f"images are {dtype} {shape}")
            if fortran_order:
                raise ValueError("images are in Fortran's order, not np.ascontiguousarray(images)")
            if "factors" not in held:
                return shape, [], None
            factors = read_array(archive, "factors", "biufU", 2)
            if len(factors) != shape[0] or not factors.shape[1]:
                raise ValueError(f"factors are {factors.shape} for {shape[0]} images")
            names = [f"factor_{number}" for number in range(factors.shape[1])]
            if "factor_names" in held:
                names = read_array(archive, "factor_names", "U", 1).tolist()
            if len(names) != factors.shape[1]:
                raise ValueError(f"{len(names)} factor_names for {factors.shape[1]} factors")
            return shape, names, factors
    except UNREADABLE as error:
        raise UserError(f"{path}: {error or 'it ends early'}: {EXPECTED}") from error


def _blocks(path: Path, preparation: Preparation) -> Iterator[np.ndarray]:
    """Blocks uint8 [n, C, H, W]."""
    try:
        with zipfile.ZipFile(path) as archive:
            file, dtype, shape, _ = open_member(archive, "images")
            n, row = shape[0], shape[1:] if shape[-1] != 1 else shape[1:3]
            step, brightest = max(1, BYTES_AT_ONCE // int(np.prod(row))), 0
            with file:
                for start in range(0, n, step):
                    images = read_rows(file, min(step, n - start), dtype, row)
                    brightest = max(brightest, images.max())
                    yield fit_all(images, preparation)
                expect_end(file, "images")
    except UNREADABLE as error:
        raise UserError(f"{path}: {error or 'it ends early'}: {EXPECTED}") from error
    if brightest <= 1:  # as masks are often kept; seen as levels of 255 they are all black
        raise UserError(f"{path}: no pixel is more than 1: expected levels from 0 to 255")
