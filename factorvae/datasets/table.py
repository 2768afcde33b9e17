"""A dataset is a table of images and, where they are known, the factors that made them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from factorvae.datasets.factors import FactorSpace

Index = np.ndarray | Tensor


class PackedBits:
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
        return torch.from_numpy(self._bits(index) * np.uint8(255))

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """float32 [B, 1, H, W] on `device`, each pixel 0 or 1."""
        device = torch.device(device)
        if device.type == "cpu":
            return torch.from_numpy(self._bits(index)).float()
        index = torch.as_tensor(index).to(device, non_blocking=True)
        return self._unpack(*self._copy_on(device), index)

    def _bits(self, index: Index) -> np.ndarray:
        rows = self.packed.take(_on_cpu(index), axis=0)
        return np.unpackbits(rows, axis=1).reshape(-1, *self.image_shape)

    def _unpack(self, packed: Tensor, shifts: Tensor, index: Tensor) -> Tensor:
        """As `_bits`, by operations that any device has."""
        rows = packed.index_select(0, index)  # [B, H * W / 8]
        bits = (rows.unsqueeze(-1) >> shifts) & 1  # [B, H * W / 8, 8]
        return bits.view(-1, *self.image_shape).float()

    def _copy_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._on_device:
            shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)  # high bit first
            self._on_device[device] = (torch.tensor(self.packed, device=device), shifts)
        return self._on_device[device]


def _on_cpu(index: Index) -> np.ndarray:
    return index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)


@dataclass(frozen=True)
class Dataset:
    """Images by index.

    name: what `load_dataset` was asked for. source: where the pixels come from, such as 'rendered'
    or 'official'. factor_space: given where image i shows the i-th combination of known factors.
    """

    name: str
    source: str
    table: PackedBits = field(repr=False)
    factor_space: FactorSpace | None = None

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

        On CUDA the table lies on the device: with an int64 index there too, nothing waits for
        the host. An index out of range is an IndexError on the CPU, and an assertion on CUDA.
        """
        return self.table.batch(index, device)
