"""The images of a step: its batches, drawn at random with replacement."""

import torch
from torch import Tensor

from factorvae.datasets import Dataset
from factorvae.training.distributed import World


class Batches:
    """Draws every step's batches, this process's part of them.

    A table that is not on the device is read by the host, and `read` puts a step's images where
    `draw` gives them from; CUDA graphs find them there.

    Args:
        dataset: gives `len`, `batch(index, device)` and `index_device(device)`.
        count: a step's batches, of `batch_size` images each.
    """

    def __init__(
        self, dataset: Dataset, count: int, batch_size: int, device: torch.device, world: World
    ) -> None:
        self.dataset, self.device = dataset, device
        self.count, self.batch_size = count, batch_size
        self.shard = world.shard(batch_size)
        self.images = None
        if dataset.index_device(device) != device:
            size = count * batch_size // world.size
            self.images = torch.zeros(size, *dataset.image_shape, device=device)

    @property
    def on_host(self) -> bool:
        """Whether `read` is to be called before every step."""
        return self.images is not None

    def read(self, seed: int) -> None:
        """Have the host read the images of the step with that seed."""
        index = self._index(torch.Generator().manual_seed(seed))
        self.images.copy_(self.dataset.batch(index, self.device))

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The batches, [b, C, H, W] each in [0, 1]; `generator` draws them, or `read` has."""
        images = self.images
        if images is None:
            images = self.dataset.batch(self._index(generator), self.device)
        return images.chunk(self.count)

    def _index(self, generator: torch.Generator) -> Tensor:
        """Which images a step takes, this process's part of every batch one after the other."""
        where = generator.device
        shape = (self.count, self.batch_size)
        index = torch.randint(len(self.dataset), shape, generator=generator, device=where)
        return index[:, self.shard].flatten()
