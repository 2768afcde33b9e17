"""Images to codes: a dataset's posteriors under one model, each image encoded once."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch

from factorvae.datasets import Dataset
from factorvae.device import exact_float32, in_threads
from factorvae.encoding.windows import MULTIPLE, Window, WindowEncoder, window_batches, windows_of
from factorvae.errors import UserError
from factorvae.models import VAE, Encoder
from factorvae.progress import track

LARGEST = 1e30  # of a mean's square, a variance and its log: sums over images are float32, too
CPU_BATCH = 64  # what keeps a batch's maps in a core's cache
CUDA_BATCH = 4096
LOOKED_AT = 256  # images that tell whether the data have much black around
WINDOWED_FROM = 4000  # with fewer images, too few share a window
TOLD_FROM = 20_000 * 64 * 64  # pixels whose encoding takes long enough to tell of its progress


class EncodedDataset:
    """A dataset whose N images are encoded by one model when they are first asked for.

    Keeps mu and logvar of each, float32 [N, latent_dim]; answers are numpy arrays.

    Args:
        vae: in evaluation mode, on `device`.
        workers: CPU threads.
        name: of the model, for the message of an error.

    All that encodes raises UserError where a posterior is not finite, or too large to be summed.
    """

    def __init__(
        self,
        vae: VAE,
        dataset: Dataset,
        device: torch.device | str = "cpu",
        workers: int = 1,
        name: str = "the model",
    ) -> None:
        self.vae, self.dataset, self.workers, self.name = vae, dataset, workers, name
        self.device = torch.device(device)
        self._mu, self._logvar = np.zeros((2, len(dataset), vae.latent_dim), dtype=np.float32)
        self._known = np.zeros(len(dataset), dtype=bool)

    @cached_property
    def _window_encoder(self) -> WindowEncoder | None:
        """Of the paper's encoder, where images are mostly black and enough to gain by it."""
        papers = type(self.vae.encoder) is Encoder  # another's forward may be anything
        if not papers or not _mostly_black(self.dataset):
            return None
        return WindowEncoder(self.vae.encoder, self.dataset.image_shape)

    @property
    def num_encoded(self) -> int:
        """How many images have been encoded."""
        return int(self._known.sum())

    def codes(self, index: np.ndarray) -> np.ndarray:
        """Posterior means float32 [B, latent_dim] of the images at index int [B]."""
        return self.posterior(index)[0]

    def posterior(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """mu and logvar, float32 [B, latent_dim] each, of the images at index int [B]."""
        self.encode(index)
        return self._mu[index], self._logvar[index]

    def represent(self, factors: np.ndarray) -> np.ndarray:
        """Posterior means float32 [B, latent_dim] of the images with factors int [B, F].

        Only for a dataset with a full grid of factors.
        """
        return self.codes(self.dataset.factor_space.index_of(factors))

    def encode(self, index: np.ndarray) -> None:
        """Encode what is not yet known of the images at index int [B].

        Many at once are encoded quicker than few at a time.
        """
        unknown = np.unique(index[~self._known[index]])
        if len(unknown) == 0:
            return
        if self.device.type == "cuda":
            self._mu[unknown], self._logvar[unknown] = self._encode_on_cuda(unknown)
        else:
            batches = self._batches(unknown)
            done = in_threads(self._encode_on_cpu, batches, self.workers)
            for _ in self._told(done, len(unknown), "encoding"):
                pass
        self._check(unknown)
        self._known[unknown] = True

    def _check(self, index: np.ndarray) -> None:
        """UserError unless the posteriors of the images at index are numbers of a usual size."""
        mu, logvar = self._mu[index], self._logvar[index]
        with np.errstate(over="ignore"):
            good = np.maximum(mu**2 + np.exp(logvar), np.abs(logvar)) < LARGEST
        bad = int((~good).any(axis=1).sum())
        if bad:
            raise UserError(
                f"{self.name} gives {bad:,} of {len(index):,} images a mean or variance that is "
                "infinite, too large or no number"
            )

    @torch.inference_mode()
    def _encode_on_cuda(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nothing waits for the device until all is queued."""
        batches = torch.as_tensor(index, device=self.device).split(CUDA_BATCH)
        with exact_float32():
            encoded = [self.vae.encode(self.dataset.batch(i, self.device)) for i in batches]
        mu, logvar = (torch.cat(part).cpu().numpy() for part in zip(*encoded, strict=True))
        return mu, logvar

    def _batches(self, index: np.ndarray) -> list[tuple[np.ndarray, Window | None]]:
        """Images of one batch, and the window that they share where it is worth it."""
        if len(index) < WINDOWED_FROM or self._window_encoder is None:
            ends = range(CPU_BATCH, len(index), CPU_BATCH)
            return [(part, None) for part in np.split(index, ends)]
        parts = np.array_split(index, -(-len(index) // 1024))
        windows = in_threads(lambda i: windows_of(self.dataset.images(i)), parts, self.workers)
        windows = list(self._told(windows, len(index), "looking for the black borders"))
        grouped = window_batches(np.concatenate(windows), CPU_BATCH)
        return [(index[places], window) for places, window in grouped]

    def _told(self, parts: Iterator[np.ndarray], total: int, what: str) -> Iterator[np.ndarray]:
        """The parts; where there are so many images that it takes long, progress is told."""
        _, height, width = self.dataset.image_shape
        return track(parts, total, what) if total * height * width >= TOLD_FROM else parts

    @torch.inference_mode()
    def _encode_on_cpu(self, batch: tuple[np.ndarray, Window | None]) -> np.ndarray:
        """Encode a batch into the tables; returns its index."""
        index, window = batch
        if window is None:
            mu, logvar = self.vae.encode(self.dataset.batch(index))
        else:
            filled = np.pad(index, (0, -len(index) % MULTIPLE), mode="edge")
            mu, logvar = self._window_encoder.encode(self.dataset.batch(filled), window)
        self._mu[index], self._logvar[index] = mu[: len(index)], logvar[: len(index)]
        return index


def _mostly_black(dataset: Dataset) -> bool:
    """Whether a window around what is not black leaves most of an image out."""
    index = np.random.default_rng(0).integers(0, len(dataset), LOOKED_AT)
    windows = windows_of(dataset.images(index))
    area = (windows[:, 1] - windows[:, 0]) * (windows[:, 3] - windows[:, 2])
    _, height, width = dataset.image_shape
    return bool(area.mean() < height * width / 2)
