"""Rooms: 480,000 pictures of one object in a room, one for each combination of six factors.

This is a look-alike of 3D Shapes (Burgess & Kim 2018), for use where that file is not at hand: it
has the same factors with the same sizes, values and order, but other colours, light, proportions
and pixels. It is not 3D Shapes, and results on it are not results on 3D Shapes.

Three of the factors are hues and move nothing. So only the 480 combinations of the others are
drawn, as shading per region (rooms_drawing.py), and colours are mixed in when a batch is made:
15 MB stand for 5.9 GB.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from factorvae.datasets import rooms_drawing
from factorvae.datasets.cache import cached_array
from factorvae.datasets.factors import SHAPES3D, FactorSpace
from factorvae.datasets.table import Dataset, Index, Table, exact_device, on_device
from factorvae.errors import UserError
from factorvae.progress import track

ROOMS = SHAPES3D  # the same six factors; a shape is a place in rooms_drawing.SHAPES

# One colour for each hue 0, 0.1, ..., 0.9: red, orange, yellow, ... as on 3D Shapes' circle, but at
# about even steps to the eye (some 36 degrees each in OKLab) and a little less glaring.
PALETTE = (
    (0xF2, 0x50, 0x3F),
    (0xF5, 0x9A, 0x2F),
    (0xEF, 0xDA, 0x40),
    (0x7F, 0xDB, 0x4C),
    (0x39, 0xD4, 0x9C),
    (0x3F, 0xD5, 0xE4),
    (0x3D, 0x90, 0xF2),
    (0x66, 0x58, 0xEE),
    (0xC2, 0x57, 0xE6),
    (0xF4, 0x51, 0x9F),
)

SIZE = 64
SMALLEST_SIZE, LARGEST_SIZE = 32, 256
STORED = np.dtype("<f2")  # rounds by less than an eighth of a level of 255


class ShadedRooms(Table):
    """Pictures as shading per region, coloured as they are asked for.

    shading: float16 [P, 4, H, W], P pictures in the order of the last three factors; planes as in
    `rooms_drawing.PLANES`. On a device other than the CPU it is copied there once, at the first
    batch.
    """

    def __init__(self, shading: np.ndarray, space: FactorSpace) -> None:
        self.shading, self.space = shading, space
        self.image_shape = (3, *shading.shape[2:])
        palette = np.array(PALETTE, np.float32) / 255
        colours = [palette[[round(hue * 10) for hue in hues]] for hues in space.values[:3]]
        self._on_device = {
            torch.device("cpu"): (
                torch.from_numpy(shading),
                [torch.from_numpy(each) for each in colours],  # [hues, 3] for each of 3 regions
            )
        }

    def __len__(self) -> int:
        return len(self.space)

    def images(self, index: Index) -> Tensor:
        """uint8 [B, 3, H, W]: what `batch` gives, to the nearest of 255 levels."""
        return self.batch(index).mul_(255).round_().to(torch.uint8)

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """float32 [B, 3, H, W] on `device`, in [0, 1]."""
        device = exact_device(device)
        shading, colours = self._copy_on(device)
        index = on_device(index, device)
        hues, picture = index // len(shading), index % len(shading)
        _, walls, objects = self.space.sizes[:3]
        hue_of = (hues // (walls * objects), hues // objects % walls, hues % objects)

        planes = shading.index_select(0, picture).float()  # [B, 4, H, W]
        image = planes[:, 3:].repeat(1, 3, 1, 1)  # white
        # Sums of products, not a matmul: that autocast or TF32 would round.
        for region in range(3):
            colour = colours[region].index_select(0, hue_of[region])  # [B, 3]
            image.addcmul_(planes[:, region, None], colour[:, :, None, None])
        return image

    def _copy_on(self, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        if device not in self._on_device:
            shading, colours = self._on_device[torch.device("cpu")]
            self._on_device[device] = (shading.to(device), [each.to(device) for each in colours])
        return self._on_device[device]


def load_rooms(
    data_dir: str | Path = "data", *, image_size: int = SIZE, space: FactorSpace = ROOMS
) -> Dataset:
    """The rooms, source 'rendered', drawn in a few seconds at first and cached under data_dir.

    image_size: height and width. space: a part of the rooms (the six factors with fewer values)
    makes a small set, for tests. Raises UserError for a size out of range and where the cache
    cannot be written.
    """
    if not SMALLEST_SIZE <= image_size <= LARGEST_SIZE:
        raise UserError(
            f"rooms are drawn from {SMALLEST_SIZE}x{SMALLEST_SIZE} to "
            f"{LARGEST_SIZE}x{LARGEST_SIZE}: image size {image_size} is not among them"
        )
    scales, shapes, orientations = space.sizes[3:]
    planes = len(rooms_drawing.PLANES)
    stored = cached_array(
        Path(data_dir) / "rooms" / f"shading_{image_size}.table",
        (orientations * scales * shapes, planes, image_size, image_size * STORED.itemsize),
        {"renderer": _fingerprint(), "values": space.values[3:]},
        lambda: track(_draw(space, image_size), orientations * scales * shapes, "drawing rooms"),
    )
    # Drawn and stored by orientation, which changes fastest in the set: put in the set's order.
    shading = stored.view(STORED).reshape(orientations, -1, planes, image_size, image_size)
    shading = shading.swapaxes(0, 1).copy().reshape(-1, planes, image_size, image_size)
    return Dataset("rooms", "rendered", ShadedRooms(shading, space), space)


def _draw(space: FactorSpace, size: int) -> Iterator[np.ndarray]:
    """The cache's blocks: uint8 [scales * shapes, 4, H, W * 2], one for each orientation."""
    scales, shapes, orientations = space.values[3:]
    names = [rooms_drawing.SHAPES[int(number)] for number in shapes]
    for pictures in rooms_drawing.draw_pictures(scales, names, orientations, size):
        yield pictures.astype(STORED).view(np.uint8)


def _fingerprint() -> str:
    """Changes with the ray caster, so that its old pictures are drawn again."""
    return hashlib.sha256(Path(rooms_drawing.__file__).read_bytes()).hexdigest()
