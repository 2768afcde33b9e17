"""From encoded images to a table: decode, cut to a centred square, resize with antialiasing.

All cores take part: decoding and resizing are C code that runs outside the interpreter's lock.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from factorvae.config import IMAGE_SIZES
from factorvae.datasets.cache import cached_array
from factorvae.datasets.image_files import ImageSource
from factorvae.datasets.png import check_png
from factorvae.device import in_threads, usable_cores
from factorvae.errors import UserError, printable
from factorvae.progress import track

IMAGES_PER_BLOCK = 64
MOST_LISTED = 100  # of the images that were left out
MOST_PIXELS = 1 << 26  # of one encoded image: 64 million; more is taken for a decompression bomb
# Formats that Pillow decodes by itself; others call programs, or run code.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
ORIENTATION = 0x0112  # the EXIF tag


class CropTooLarge(ValueError):
    """An image has no room for the square that is to be cut out."""


@dataclass(frozen=True)
class Preparation:
    """What is made of each image.

    image_size: height and width of the result. grayscale: one channel instead of three. crop: the
    side of the centred square that is cut out before the resize; None: the largest that fits.
    Raises UserError for a size that is no power of two from 32 to 256 and for an empty crop.
    """

    image_size: int = 64
    grayscale: bool = False
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.image_size not in IMAGE_SIZES:
            raise UserError(
                f"image size {self.image_size} is not among {', '.join(map(str, IMAGE_SIZES))}"
            )
        if self.crop is not None and self.crop < 1:
            raise UserError(f"a crop of {self.crop} pixels leaves nothing")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1 if self.grayscale else 3, self.image_size, self.image_size)

    @property
    def tag(self) -> str:
        """For the names of caches: each preparation has its own."""
        crop = "" if self.crop is None else f"_crop{self.crop}"
        return f"{self.image_size}{'_gray' if self.grayscale else ''}{crop}"


def image_table(
    path: Path,
    source: ImageSource,
    preparation: Preparation,
    what: str,
    skip_bad_images: bool = False,
) -> tuple[np.ndarray, list[int]]:
    """The images of `source` in the order of its names: uint8 [N, C, H, W], memory-mapped.

    Prepared first and cached at `path` where need be. Returns also the places in `names` of images
    that could not be read and have no row, none unless skip_bad_images. Raises UserError for the
    first bad image otherwise, and where all are bad.
    """
    left_out: list[int] = []
    pixels = cached_array(
        path,
        (None, *preparation.image_shape),
        {"source": source.made_from, "preparation": vars(preparation)},
        lambda: track(
            _prepare_those_there(source, preparation, left_out if skip_bad_images else None),
            len(source.names),
            what,
        ),
        left_out if skip_bad_images else None,
    )
    if left_out:
        names = printable(", ".join(source.names[number] for number in left_out[:MOST_LISTED]))
        more = len(left_out) - MOST_LISTED
        total = len(pixels) + len(left_out)
        names += f" and {more:,} more" if more > 0 else ""
        print(f"left out {len(left_out):,} of {total:,} images: {names}", file=sys.stderr)
    return pixels, left_out


def _prepare_those_there(
    source: ImageSource, preparation: Preparation, left_out: list[int] | None
) -> Iterator[np.ndarray]:
    """`_prepare` without the images that are absent; UserError for them where left_out is None."""
    absent, names = source.absent(), source.names
    if not absent:
        yield from _prepare(source, names, preparation, left_out)
        return
    there = [number for number, name in enumerate(names) if name not in absent]
    if left_out is None or not there:
        first = next(name for name in names if name in absent)
        raise UserError(
            f"{source.place(first)} is missing, as are {len(absent):,} of {len(names):,} images in "
            "all: put them there, or leave them out by --skip_bad_images"
        )
    bad: list[int] = []
    yield from _prepare(source, [names[number] for number in there], preparation, bad)
    kept = set(there) - {there[number] for number in bad}
    left_out += [number for number in range(len(names)) if number not in kept]


def _prepare(
    source: ImageSource,
    names: Sequence[str],
    preparation: Preparation,
    left_out: list[int] | None,
) -> Iterator[np.ndarray]:
    """Blocks uint8 [n, C, H, W] in order; left_out, where given, takes the bad images' numbers."""
    blocks = [names[i : i + IMAGES_PER_BLOCK] for i in range(0, len(names), IMAGES_PER_BLOCK)]
    workers, number = usable_cores(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused in one line
        decoded = in_threads(
            lambda block: _decode_all(source, block, preparation), blocks, workers, 2 * workers
        )
        # Closed here: left to the garbage collector, its threads could be awaited in one of others.
        with contextlib.closing(decoded):
            for results in decoded:
                good = []
                for result in results:
                    if not isinstance(result, UserError):
                        good.append(result)
                    elif left_out is None:
                        raise UserError(f"{result}; --skip_bad_images leaves it out")
                    else:
                        tqdm.write(f"left out: {result}", file=sys.stderr)
                        left_out.append(number)
                    number += 1
                if good:
                    yield np.stack(good)
    if left_out is not None and len(left_out) == len(names):
        raise UserError(
            f"none of {len(names)} images can be read; the first is {source.place(names[0])}"
        )


def _decode_all(
    source: ImageSource, names: Sequence[str], preparation: Preparation
) -> list[np.ndarray | UserError]:
    return [_decode_one(source, name, preparation) for name in names]


def _decode_one(source: ImageSource, name: str, preparation: Preparation) -> np.ndarray | UserError:
    try:
        return decode(source.read(name), preparation)
    except UserError as error:
        return error
    except Exception as error:  # decoders raise nearly anything at damaged files
        told = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            told = "not an image"
        if not isinstance(error, CropTooLarge):
            told += ": expected a sound image"
        return UserError(f"{source.place(name)}: {told}")


def decode(data: bytes, preparation: Preparation) -> np.ndarray:
    """One encoded image as uint8 [C, H, W]: upright, over white, cropped and resized.

    Raises ValueError for an image too small for its crop, too large to be one, a PNG that belies
    its checksums, or pixels that are neither 8 nor 16 bits deep, and whatever Pillow raises.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are more than {MOST_PIXELS:,}")
        if image.format == "PNG":
            # At most four channels of 16 bits, and a filter's byte for a row of one pixel.
            check_png(data, 9 * image.width * image.height)
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return fit(_eight_bits_over_white(image), preparation)


def _eight_bits_over_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("pixels of 32 bits")
        return Image.fromarray((levels // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels of floating point")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def fit(image: Image.Image, preparation: Preparation) -> np.ndarray:
    """The centred square of an image, resized by a Lanczos filter: uint8 [C, H, W]."""
    image = image.convert("L" if preparation.grayscale else "RGB")
    side = min(image.size) if preparation.crop is None else preparation.crop
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if left < 0 or top < 0:
        raise CropTooLarge(
            f"{image.width}x{image.height} pixels have no square of {side}: expected --crop "
            f"{min(image.size)} or less"
        )
    # Cropped first: `resize` with a box would let the filter reach over the square's edge.
    image = image.crop((left, top, left + side, top + side))
    size = preparation.image_size
    image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(size, size, -1).transpose(2, 0, 1)


def fit_all(images: np.ndarray, preparation: Preparation) -> np.ndarray:
    """Raw images uint8 [n, H, W, 3] or [n, H, W] as uint8 [n, C, size, size]."""
    size = preparation.image_size
    if images.shape[1:3] == (size, size) and preparation.crop in (None, size):
        if images.ndim == 4 and not preparation.grayscale:
            return images.transpose(0, 3, 1, 2)
        if images.ndim == 3 and preparation.grayscale:
            return images[:, None]
    return np.stack([fit(Image.fromarray(image), preparation) for image in images])
