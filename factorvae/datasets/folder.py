"""Any folder of images, nested or not: `--dataset folder:PATH`."""

import hashlib
import os
from pathlib import Path

from factorvae.datasets.image_files import FolderImages
from factorvae.datasets.images import Preparation, image_table
from factorvae.datasets.table import Dataset, Pixels

LONGEST_NAME_BYTES = 120  # of a folder, in the name of its cache


def load_folder(
    data_dir: str | Path,
    folder: str | Path,
    *,
    image_size: int = 64,
    grayscale: bool = False,
    crop: int | None = None,
    skip_bad_images: bool = False,
) -> Dataset:
    """The images below `folder` by their sorted paths, source 'folder', without factors.

    image_size, grayscale, crop: see `Preparation`. skip_bad_images: leave out images that cannot
    be read. Raises UserError for a folder that is missing or without images, and for a bad image.
    """
    preparation = Preparation(image_size, grayscale, crop)
    root = Path(os.path.expanduser(folder)).resolve()  # as it is where it names no user
    where = hashlib.sha256(str(root).encode()).hexdigest()[:8]  # folders may share a name
    # A name as long as a file system takes leaves no room for more.
    name = root.name if len(os.fsencode(root.name)) <= LONGEST_NAME_BYTES else root.name[:20]
    pixels, _ = image_table(
        Path(data_dir) / "folder" / f"{name}_{where}_{preparation.tag}.table",
        FolderImages(root),
        preparation,
        f"preparing {root}",
        skip_bad_images,
    )
    return Dataset(f"folder:{folder}", "folder", Pixels(pixels))
