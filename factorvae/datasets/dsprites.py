"""dSprites: 737,280 binary 64x64 images of one white shape, one for each combination of 5 factors.

The official file is used where it lies in the data directory; otherwise the images are drawn. In
either case they are kept bit-packed, 512 bytes an image, in a cache of 377 MB.
"""

from pathlib import Path

from factorvae.datasets.cache import cached_array
from factorvae.datasets.dsprites_drawing import DSPRITES, PACKED_BYTES, SIZE, render
from factorvae.datasets.dsprites_file import OFFICIAL_FILE, read_official
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.table import Dataset, PackedBits
from factorvae.errors import UserError
from factorvae.progress import track

OFFICIAL_FOLDERS = (".", "dsprites", "dsprites-dataset")  # below the data directory


def load_dsprites(
    data_dir: str | Path = "data", *, image_size: int = SIZE, space: FactorSpace = DSPRITES
) -> Dataset:
    """dSprites, source 'official' where its file is in the data directory, else 'rendered'.

    image_size: only 64, dSprites' own. space: a part of dSprites (the five factors with fewer
    values) makes a small set, for tests. Raises UserError for another image size, for an official
    file that is not what it should be, and where the cache cannot be written.
    """
    if image_size != SIZE:
        raise UserError(f"dSprites comes in {SIZE}x{SIZE} only: image size {image_size} is not it")
    data_dir = Path(data_dir)
    candidates = [data_dir / folder / OFFICIAL_FILE for folder in OFFICIAL_FOLDERS]
    official = next((path for path in candidates if path.is_file()), None)
    if official is None:
        source, made_from = "rendered", {"renderer": 1, "values": space.values}
        what, blocks = "drawing dSprites", render(space)
    else:
        source, stat = "official", official.stat()
        made_from = {"file": OFFICIAL_FILE, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        what, blocks = f"packing {official}", read_official(official, space)
    packed = cached_array(
        data_dir / "dsprites" / f"{source}.table",
        (len(space), PACKED_BYTES),
        made_from,
        lambda: track(blocks, len(space), what),
    )
    return Dataset("dsprites", source, PackedBits(packed, SIZE, SIZE), space)
