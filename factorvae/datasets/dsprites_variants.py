"""dSprites in colour, in noise and in a picture, as defined by Locatello et al. 2019 (appendix H).

- color_dsprites: the sprite takes a colour, uniform in [0.5, 1] for each channel, on black.
- noisy_dsprites: the sprite stays white, and each value of the background is uniform in [0, 1].
- scream_dsprites: the background is a random 64x64 patch of Munch's The Scream, averaged with a
  colour uniform in [0, 1]; on the sprite it is inverted.

There the noise is drawn anew whenever an image is; here it is a function of the image's index, so
that image i is always the same, on every machine and device, and a batch can be made again. All
values are whole levels of 255. Made as a batch is, from dSprites' bits: nothing more is stored.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from factorvae.datasets.dsprites import load_dsprites
from factorvae.datasets.dsprites_drawing import DSPRITES, SIZE
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.published_files import how_to_get
from factorvae.datasets.table import (
    Dataset,
    Index,
    PackedBits,
    Table,
    exact_device,
    on_device,
    unit_interval,
)
from factorvae.errors import UserError

# Paints sprites: bits uint8 [B, 1, H, W] of 0 and 1 and seeds int32 [B] -> levels [B, 3, H, W].
Paint = Callable[[Tensor, Tensor], Tensor]

SALT = 0x9E3779B9 - 2**32  # keeps images' numbers apart from places within them
PICTURE_WITHIN = (350, 274)  # width and height that The Scream is shrunk to fit in


class Painted(Table):
    """Sprites painted as they are asked for.

    bits: the sprites. paint: see `Paint`. image_shape is (3, H, W).
    """

    def __init__(self, bits: PackedBits, paint: Paint) -> None:
        self.sprites, self.paint = bits, paint
        self.image_shape = (3, *bits.image_shape[1:])

    def __len__(self) -> int:
        return len(self.sprites)

    def images(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """uint8 [B, 3, H, W] on `device`."""
        index = on_device(index, exact_device(device))
        seeds = scrambled(index.to(torch.int32) + SALT)
        return self.paint(self.sprites.bits(index, device), seeds)

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """float32 [B, 3, H, W] on `device`, in [0, 1]."""
        return unit_interval(self.images(index, device))


def scrambled(numbers: Tensor) -> Tensor:
    """int32 of any shape -> int32 that look random: a bijection of 32-bit words.

    Two rounds of multiply and xor-shift (the constants found by Wellons 2018); integers wrap
    round alike on every device. Changes its argument.
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        numbers ^= (numbers >> shift) & ((1 << (32 - shift)) - 1)  # >> keeps the sign
        numbers *= factor
    numbers ^= (numbers >> 16) & 0xFFFF
    return numbers


def random_levels(seeds: Tensor, n: int) -> Tensor:
    """uint8 [B, n], uniform, from seeds int32 [B]."""
    places = scrambled(torch.arange((n + 3) // 4, dtype=torch.int32, device=seeds.device))
    words = scrambled(seeds[:, None] ^ places)  # [B, n / 4]
    return words.view(torch.uint8)[:, :n]


def paint_colour(bits: Tensor, seeds: Tensor) -> Tensor:
    colour = 128 + (random_levels(seeds, 3) >> 1)  # 128..255
    return bits * colour[:, :, None, None]


def paint_noise(bits: Tensor, seeds: Tensor) -> Tensor:
    noise = random_levels(seeds, 3 * SIZE * SIZE).view(-1, 3, SIZE, SIZE)
    return noise.bitwise_or_(bits * 255)


def paint_on(picture: np.ndarray) -> Paint:
    """The paint of scream_dsprites on a picture uint8 [3, height, width], both above 64."""
    whole, copies = torch.tensor(picture), {}

    def paint(bits: Tensor, seeds: Tensor) -> Tensor:
        if bits.device not in copies:
            copies[bits.device] = whole.to(bits.device)
        picture = copies[bits.device]
        draws = scrambled(seeds[:, None] + torch.arange(3, dtype=torch.int32, device=seeds.device))
        free = [side - SIZE for side in picture.shape[1:]]
        along = torch.arange(SIZE, device=bits.device)
        down, right = (draws[:, k, None] % free[k] + along for k in range(2))  # [B, 64] each
        patch = picture[:, down[:, :, None], right[:, None, :]].transpose(0, 1)  # [B, 3, 64, 64]
        colour = random_levels(draws[:, 2], 3)[:, :, None, None]
        mixed = ((patch.short() + colour.short()) // 2).to(torch.uint8)
        return torch.where(bits.bool(), 255 - mixed, mixed)

    return paint


def load_color_dsprites(
    data_dir: str | Path = "data", *, image_size: int = SIZE, space: FactorSpace = DSPRITES
) -> Dataset:
    """dSprites, each sprite in its own colour; options and errors as `load_dsprites`."""
    return _painted("color_dsprites", paint_colour, data_dir, image_size, space)


def load_noisy_dsprites(
    data_dir: str | Path = "data", *, image_size: int = SIZE, space: FactorSpace = DSPRITES
) -> Dataset:
    """dSprites in noise; options and errors as `load_dsprites`."""
    return _painted("noisy_dsprites", paint_noise, data_dir, image_size, space)


def load_scream_dsprites(
    data_dir: str | Path = "data", *, image_size: int = SIZE, space: FactorSpace = DSPRITES
) -> Dataset:
    """dSprites on patches of data_dir/scream/scream.jpg; options as `load_dsprites`.

    Raises UserError also where the picture is missing, unreadable or too small.
    """
    paint = paint_on(_picture(Path(data_dir)))
    return _painted("scream_dsprites", paint, data_dir, image_size, space)


def _picture(data_dir: Path) -> np.ndarray:
    path = data_dir / "scream" / "scream.jpg"
    if not path.is_file():
        raise UserError(f"{path} is not there: {how_to_get('scream_dsprites', data_dir)}")
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except Exception as error:  # decoders raise nearly anything at damaged files
        raise UserError(f"{path} is not a sound image: {error}") from error
    picture.thumbnail(PICTURE_WITHIN, Image.Resampling.LANCZOS)
    if min(picture.size) <= SIZE:
        raise UserError(
            f"{path}: {picture.width}x{picture.height} pixels: expected more than {SIZE}"
        )
    return np.asarray(picture).transpose(2, 0, 1)


def _painted(
    name: str, paint: Paint, data_dir: str | Path, image_size: int, space: FactorSpace
) -> Dataset:
    sprites = load_dsprites(data_dir, image_size=image_size, space=space)
    return Dataset(name, sprites.source, Painted(sprites.table, paint), space)
