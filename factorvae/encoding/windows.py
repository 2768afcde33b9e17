"""Encoding images that are black but for a small window, such as dSprites, in less time.

Where a convolution sees nothing but black, it answers as it does on a black image. So the layers
are computed once on a black image, and on each image only as far as the window reaches; around
that stand the black image's values. The codes are those of `Encoder`, but for rounding. All of
dSprites' 737,280 images took 112 CPU seconds, and 192 without, on one thread in one run.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from factorvae.models import Encoder

GRID = 8  # pixels; windows end on multiples of it, so that many images share one
MULTIPLE = 16  # of which batches are: the library prepares its convolutions for each new shape


@dataclass(frozen=True, order=True)
class Window:
    """Rows [top, bottom) and columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, maps: Tensor) -> Tensor:
        """This part of maps [..., H, W], a view."""
        return maps[..., self.top : self.bottom, self.left : self.right]

    def within(self, outer: "Window") -> "Window":
        """This window by its place in a larger one."""
        rows, columns = outer.top, outer.left
        return Window(
            self.top - rows, self.bottom - rows, self.left - columns, self.right - columns
        )

    def reached(self, size: int) -> "Window":
        """Outputs of a layer that see any of this window of its input; there are `size` a side.

        Output o of a 4x4 convolution of stride 2 and padding 1 sees the inputs 2o - 1 to 2o + 2.
        """

        def span(first: int, end: int) -> tuple[int, int]:
            return max(0, (first - 1) // 2), min(size, end // 2 + 1)

        return Window(*span(self.top, self.bottom), *span(self.left, self.right))

    def seen(self) -> "Window":
        """Inputs that this window of a layer's output sees; may reach into the padding."""
        return Window(2 * self.top - 1, 2 * self.bottom + 1, 2 * self.left - 1, 2 * self.right + 1)


class WindowEncoder:
    """An encoder on the CPU that is told outside of which window a batch's images are black."""

    @torch.inference_mode()
    def __init__(self, encoder: Encoder, image_shape: tuple[int, int, int]) -> None:
        self.encoder = encoder
        maps = torch.zeros(1, *image_shape).contiguous(memory_format=torch.channels_last)
        self.black = [maps]  # each layer's input, and the last one's output: [1, C, H, W]
        for conv in encoder.convs:
            self.black.append(conv(self.black[-1]))
        self.padded = [F.pad(maps, (1, 1, 1, 1)) for maps in self.black]

    @torch.inference_mode()
    def encode(self, x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W], black outside of `window` -> (mu, logvar), [B, latent_dim] each."""
        part = window.of(x)  # what differs from a black image's maps
        for layer, conv in enumerate(self.encoder.convs):
            reached = window.reached(self.black[layer + 1].shape[-1])
            seen = reached.seen()
            # the padded map begins one before its first row and column
            inputs = _copies(seen.within(_PADDING).of(self.padded[layer]), len(x))
            window.within(seen).of(inputs).copy_(part)
            part = F.relu_(F.conv2d(inputs, conv.weight, conv.bias, stride=2))
            window = reached
        maps = _copies(self.black[-1], len(x))  # [B, 64, 4, 4]
        window.of(maps).copy_(part)
        hidden = F.relu(self.encoder.hidden(maps.flatten(1)))
        mu, logvar = self.encoder.head(hidden).chunk(2, dim=1)
        return mu, logvar


_PADDING = Window(-1, -1, -1, -1)


def _copies(maps: Tensor, count: int) -> Tensor:
    """Maps [1, C, H, W] -> [count, C, H, W], channels-last."""
    return maps.expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)


def windows_of(images: Tensor) -> np.ndarray:
    """Of uint8 images [B, C, H, W] the window that holds all that is not black: int64 [B, 4].

    Columns as in `Window`, on multiples of GRID; that of a black image is the first of all.
    """
    marked = (images != 0).any(dim=1).numpy()  # [B, H, W]
    spans = []
    for line in (marked.any(axis=2), marked.any(axis=1)):  # rows, columns
        first = line.argmax(axis=1)
        end = line.shape[1] - line[:, ::-1].argmax(axis=1)
        end = np.where(line.any(axis=1), end, 1)
        spans += [first // GRID * GRID, -(-end // GRID) * GRID]
    return np.stack(spans, axis=1)


def window_batches(windows: np.ndarray, size: int) -> list[tuple[np.ndarray, Window]]:
    """Images that share a window, in batches of at most `size`: places in `windows` [N, 4] each."""
    order = np.lexsort(windows.T)
    ends = np.flatnonzero((np.diff(windows[order], axis=0) != 0).any(axis=1)) + 1
    batches = []
    for group in np.split(order, ends):
        window = Window(*windows[group[0]].tolist())
        batches += [(group[i : i + size], window) for i in range(0, len(group), size)]
    return batches
