"""A dataset is a table of images and, where they are known, the factors that made them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from factorvae.datasets.factors import FactorSpace
from factorvae.errors import UserError

Index = np.ndarray | Tensor

# A larger part of the free CUDA memory than this is not given to a table: the rest is for the
# network, its optimiser and whatever else runs there.
LARGEST_SHARE_OF_DEVICE = 0.7
COPIED_AT_ONCE = 1 << 28  # bytes
CHECKED_IMAGES = 64  # of a dataset of one's own, over its whole length
COPIES_IN_FLIGHT = 50  # batches that may wait in pinned memory to be copied


class Table(ABC):
    """Images by index; see `Dataset` for the two ways to get them."""

    image_shape: tuple[int, int, int]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def images(self, index: Index) -> Tensor: ...

    @abstractmethod
    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor: ...

    def lies_on(self, device: torch.device | str) -> bool:
        """Whether a batch there needs no host."""
        return True


class OwnImages(Protocol):
    """What training asks of a dataset of one's own.

    `factors`, an attribute int [N, F], and `factor_names`, F of them, are optional.
    """

    def __len__(self) -> int: ...
    def batch(self, index: Tensor, device: torch.device | str) -> Tensor: ...


class PackedBits(Table):
    """Binary images of one channel, one bit a pixel: uint8 [N, H * W / 8] in packbits order.

    On the CPU only the rows asked for are unpacked, so the array may be a memory map. On another
    device the packed array is copied there once, at the first batch, and unpacked there.
    """

    def __init__(self, packed: np.ndarray, height: int, width: int) -> None:
        self.packed = packed
        self.image_shape = (1, height, width)
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.packed)

    def images(self, index: Index) -> Tensor:
        """uint8 [B, 1, H, W], each pixel 0 or 255."""
        return self.bits(index) * 255

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """float32 [B, 1, H, W] on `device`, each pixel 0 or 1."""
        return self.bits(index, device).float()

    def bits(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """uint8 [B, 1, H, W] on `device`, each pixel 0 or 1."""
        device = exact_device(device)
        if device.type == "cpu":
            rows = self.packed.take(on_cpu(index), axis=0)
            return torch.from_numpy(np.unpackbits(rows, axis=1)).view(-1, *self.image_shape)
        return self._unpack(*self._copy_on(device), on_device(index, device))

    def _unpack(self, packed: Tensor, shifts: Tensor, index: Tensor) -> Tensor:
        """As on the CPU, by operations that any device has."""
        rows = packed.index_select(0, index)  # [B, H * W / 8]
        bits = (rows.unsqueeze(-1) >> shifts) & 1  # [B, H * W / 8, 8]
        return bits.view(-1, *self.image_shape)

    def _copy_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._on_device:
            shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)  # high bit first
            self._on_device[device] = (torch.tensor(self.packed, device=device), shifts)
        return self._on_device[device]


class Pixels(Table):
    """Images of 256 levels: uint8 [M, C, H, W], which may be a memory map, seen through `rows`.

    rows: int [N], image i being pixels[rows[i]], for another order or a part; all when None.
    On the CPU only the rows asked for are read. On CUDA the table is copied to the device at the
    first batch if it fits with room to spare; where it does not, and on other devices, each batch
    is gathered on the host and copied.
    """

    def __init__(self, pixels: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.pixels = pixels
        self.rows = np.arange(len(pixels)) if rows is None else np.asarray(rows)
        self.image_shape = pixels.shape[1:]
        self._on_device: dict[torch.device, tuple[Tensor, Tensor] | None] = {}
        self._copying_on: dict[torch.device, torch.cuda.Stream] = {}
        self._copies = 0

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, index: Index) -> Tensor:
        """uint8 [B, C, H, W]."""
        return torch.from_numpy(self.pixels.take(self.rows[on_cpu(index)], axis=0))

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """float32 [B, C, H, W] on `device`, in [0, 1]."""
        device = exact_device(device)
        if device.type == "cpu":
            return unit_interval(self.images(index))
        if self.lies_on(device):
            return unit_interval(self._select(*self._on_device[device], on_device(index, device)))
        return unit_interval(self._gather(index, device))

    def lies_on(self, device: torch.device | str) -> bool:
        """Whether the table is on `device`, a CUDA device; it is copied there now if it fits."""
        device = exact_device(device)
        if device not in self._on_device:
            fits = device.type == "cuda" and self.pixels.nbytes < (
                LARGEST_SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]
            )
            self._on_device[device] = self._copy_to(device) if fits else None
        return self._on_device[device] is not None

    def _copy_to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The table and its rows there; copied part by part, not to be in memory twice."""
        table = torch.empty(self.pixels.shape, dtype=torch.uint8, device=device)
        step = max(1, COPIED_AT_ONCE // max(1, self.pixels[:1].nbytes))
        for start in range(0, len(table), step):
            table[start : start + step] = torch.tensor(self.pixels[start : start + step])
        return table, torch.tensor(self.rows, device=device)

    @staticmethod
    def _select(table: Tensor, rows: Tensor, index: Tensor) -> Tensor:
        return table.index_select(0, rows.index_select(0, index))

    def _gather(self, index: Index, device: torch.device) -> Tensor:
        """The images of a batch, uint8, gathered here and copied to `device`.

        On CUDA from pinned memory, on a stream of its own: as the host runs ahead of the device,
        the copy is made while the device is still at the step before.
        """
        images = self.images(index)
        if device.type != "cuda":
            return images.to(device)
        if device not in self._copying_on:
            self._copying_on[device] = torch.cuda.Stream(device)
        stream = self._copying_on[device]
        with torch.cuda.stream(stream):
            copied = images.pin_memory().to(device, non_blocking=True)
        self._copies += 1
        if self._copies % COPIES_IN_FLIGHT == 0:  # pinned memory is free again once it is copied
            stream.synchronize()
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        copied.record_stream(current)
        return copied


class OwnTable(Table):
    """Images of an object with `len` and `batch(index, device)`, as in `Dataset.batch`.

    The host asks it for its batches, index int64 [B] on the CPU, whatever the device.
    """

    def __init__(self, own: "OwnImages") -> None:
        self.own = own
        if not len(own):
            raise UserError("a dataset of one's own has at least one image")
        checked = min(CHECKED_IMAGES, len(own))
        spread = torch.linspace(0, len(own) - 1, checked, dtype=torch.float64)  # exact to the last
        first = own.batch(spread.long(), "cpu")
        if not (isinstance(first, Tensor) and first.dtype == torch.float32 and first.ndim == 4):
            found = f"{first.dtype} {[*first.shape]}" if isinstance(first, Tensor) else type(first)
            raise UserError(f"batch(index, device) gives float32 [B, C, H, W], not {found}")
        if not 0 <= first.min() <= first.max() <= 1:
            raise UserError("batch(index, device) gives pixels in [0, 1]")
        self.image_shape = tuple(first.shape[1:])

    def __len__(self) -> int:
        return len(self.own)

    def images(self, index: Index) -> Tensor:
        """uint8 [B, C, H, W] in 0..255."""
        return (self.batch(index) * 255).round().byte()

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """float32 [B, C, H, W] on `device`, in [0, 1]."""
        return self.own.batch(torch.from_numpy(on_cpu(index)), device).to(device)

    def lies_on(self, device: torch.device | str) -> bool:
        return torch.device(device).type == "cpu"


def unit_interval(levels: Tensor) -> Tensor:
    """Levels 0..255 as float32 0..1. By multiplication, which every device rounds alike."""
    return levels.float().mul_(1 / 255)


def exact_device(device: torch.device | str) -> torch.device:
    """'cuda' is the current one of several: one name for each device."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def on_cpu(index: Index) -> np.ndarray:
    return index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)


def on_device(index: Index, device: torch.device) -> Tensor:
    return torch.as_tensor(index).to(device, non_blocking=True)


@dataclass(frozen=True)
class Dataset:
    """Images by index.

    name: what `load_dataset` was asked for. source: where the pixels come from, such as 'rendered'
    or 'official'. factor_space: given where image i shows the i-th combination of known factors.
    factors: int [N, F], given where factors are known but are no full grid, with their names and
    the number of values of each. factor_names and factor_sizes are a given factor_space's too.
    value_words: by factor, what its values are called, where they are categories with names.
    Raises UserError for a factor out of range.
    """

    name: str
    source: str
    table: Table = field(repr=False)
    factor_space: FactorSpace | None = None
    factors: np.ndarray | None = field(default=None, repr=False)
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    value_words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.factor_space is not None:
            object.__setattr__(self, "factor_names", self.factor_space.names)
            object.__setattr__(self, "factor_sizes", self.factor_space.sizes)
        if self.factors is not None:
            check_factors(self.factors, self.factor_names, self.factor_sizes, self.name)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.table.image_shape

    def images(self, index: Index) -> Tensor:
        """The images at index [B], for looking at: uint8 [B, C, H, W] in 0..255 on the CPU."""
        return self.table.images(index)

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """The images at index [B], for a network: float32 [B, C, H, W] in [0, 1] on `device`.

        On CUDA a table that fits lies on the device: with an int64 index there too, nothing waits
        for the host. An index out of range is an IndexError on the CPU, and an assertion on CUDA.
        """
        return self.table.batch(index, device)

    def index_device(self, device: torch.device) -> torch.device:
        """Where an index should lie for a batch on `device` to wait for nothing.

        That is there, but for a table that does not fit: its images are gathered on the host.
        """
        return device if self.table.lies_on(device) else torch.device("cpu")


def factors_of(dataset: Dataset, index: np.ndarray) -> np.ndarray | None:
    """Factors int [B, F] of the images at index [B]; None where they are not known."""
    if dataset.factor_space is not None:
        return dataset.factor_space.factors_of(index)
    return None if dataset.factors is None else np.asarray(dataset.factors)[index]


def as_dataset(own: "Dataset | OwnImages") -> "Dataset":
    """A dataset of one's own with what it lacks; one of this project as it is.

    Raises:
        UserError: its batches or factors are not as they should be.
    """
    if hasattr(own, "index_device"):
        return own
    factors = getattr(own, "factors", None)
    names, sizes = (), ()
    if factors is not None:
        factors = on_cpu(factors)
        if factors.ndim != 2 or len(factors) != len(own):
            raise UserError(f"factors are [{len(own)}, F], a row an image, not {factors.shape}")
        names = tuple(getattr(own, "factor_names", map(str, range(factors.shape[1]))))
        if len(names) != factors.shape[1]:
            raise UserError(f"{len(names)} factor_names for {factors.shape[1]} factors")
        sizes = tuple(int(size) for size in factors.max(axis=0) + 1)
    return Dataset("own", "own", OwnTable(own), None, factors, names, sizes)


def check_factors(
    factors: np.ndarray, names: tuple[str, ...], sizes: tuple[int, ...], where: str
) -> None:
    """UserError unless each column of factors [N, F] lies in 0..size - 1."""
    for name, size, column in zip(names, sizes, factors.T, strict=True):
        outside = column[(column < 0) | (column >= size)]
        if outside.size:
            raise UserError(f"{where}: {name} {outside[0]} is out of range: 0 to {size - 1}")
