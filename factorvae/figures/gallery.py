"""Every picture of one trained model: what to encode and decode for it, and which plot to call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from factorvae.config import DEAD_KL
from factorvae.datasets import Dataset, FactorSpace
from factorvae.encoding import EncodedDataset
from factorvae.figures import plots
from factorvae.figures.explorer import explorer_page, factors_of
from factorvae.figures.gif import encode_gif
from factorvae.figures.page import PagePicture, html_page
from factorvae.figures.style import png_bytes, save_figure
from factorvae.figures.traversal import (
    balanced_factors,
    cosine_sweep,
    factor_response,
    image_name,
    latent_traversal,
    position_factors,
    shape_factor,
    shape_names,
)
from factorvae.metrics import mig
from factorvae.models import VAE
from factorvae.objective import kl_per_latent, recon_loss_per_image
from factorvae.progress import Progress

LIMIT = 3.0  # latents are moved from -LIMIT to LIMIT
SAMPLE_SIZE = 10_000  # images that tell each latent's KL and mutual information
RESPONSE_IMAGES = 12_288  # a panel of the response figure: 12 settings of 32 x 32 positions, say
MOST_SETTINGS = 24  # averaged over in a response; a multiple of small factors' sizes
NUM_PAIRS = 24
NUM_SAMPLES = 72
NUM_FRAMES = 48
MOST_GIF_CELLS = 32  # base images are left out of the animation where latents are many


@dataclass(frozen=True)
class Gallery:
    """A model in eval mode and its images, and the pictures of them.

    title: the run, from `plots.run_title`. base_index: the images whose codes are traversed, int64
    [B]. log: columns of the run's log, where there is one. seed: draws every sample; the same seed
    gives the same pictures.
    """

    vae: VAE
    dataset: Dataset
    device: torch.device
    title: str
    base_index: np.ndarray
    log: Mapping[str, np.ndarray] | None = None
    seed: int = 0

    def traversals(self) -> Figure:
        values = torch.linspace(-LIMIT, LIMIT, 7)
        return plots.traversals(
            self._traversed(self.base_index, values),
            self._kl,
            values,
            base_images=self.dataset.batch(self.base_index),
            base_names=[image_name(self.dataset, index) for index in self.base_index],
            title=self.title,
        )

    def animation(self) -> bytes:
        """A GIF."""
        shown = self.base_index[: max(1, MOST_GIF_CELLS // self.vae.latent_dim)]
        values = cosine_sweep(NUM_FRAMES, LIMIT)
        images = self._traversed(shown, values)
        return encode_gif(plots.traversal_frames(images, self._kl, values, title=self.title))

    def reconstructions(self) -> Figure:
        """The images that are traversed come first, then others at random."""
        others = np.setdiff1d(np.arange(len(self.dataset)), self.base_index)
        count = min(max(0, NUM_PAIRS - len(self.base_index)), len(others))
        drawn = self._generator(1).choice(others, count, replace=False)
        index = np.concatenate([self.base_index, drawn])
        images = self.dataset.batch(index, self.device)
        with torch.inference_mode():
            logits = self.vae.decode(self.vae.encode(images)[0])
            losses = recon_loss_per_image(logits, images).cpu().numpy()
        return plots.reconstructions(images, logits.sigmoid(), losses, title=self.title)

    def samples(self) -> Figure:
        generator = torch.Generator().manual_seed(self.seed)
        z = torch.randn(NUM_SAMPLES, self.vae.latent_dim, generator=generator)
        return plots.samples(self._decode(z), title=self.title)

    def latent_response(self) -> Figure:
        """Only for datasets that are a full grid of factors."""
        space = self._space
        pair, group = position_factors(space), shape_factor(space)
        names = shape_names(self.dataset)
        maps, curves, values = {}, {}, {}
        if pair is not None:
            maps[space.names[pair[0]], space.names[pair[1]]] = self._response(pair)
        for factor, name in enumerate(space.names):
            if pair is not None and factor in pair:
                continue
            values[name] = space.values[factor]
            if group is None:
                curves[name] = self._response((factor,))[None]
            elif factor == group:
                curves[name] = self._response((factor,))[None]
                values[name] = names
            else:
                curves[name] = self._response((group, factor))
        return plots.latent_response(
            self._kl, maps=maps, curves=curves, values=values, line_names=names, title=self.title
        )

    def factor_matrix(self) -> Figure:
        """Only for datasets with known factors."""
        index, codes, _ = self._sample
        found = mig(codes.numpy(), factors_of(self.dataset, index))
        return plots.factor_matrix(
            found["mutual_information"],
            found["entropy"],
            self.dataset.factor_names,
            self._kl,
            title=self.title,
        )

    def training(self) -> Figure:
        """Only where there is a log."""
        return plots.training_curves(self.log, title=self.title)

    def explorer(self) -> str:
        """The page on which a browser runs the model."""
        return explorer_page(
            self.vae,
            self.dataset,
            self._sample[0],
            self._encoded.posterior,
            title=self.title,
            base_index=self.base_index,
            seed=self.seed,
        )

    @property
    def _space(self) -> FactorSpace:
        return self.dataset.factor_space

    @cached_property
    def _sample(self) -> tuple[np.ndarray, Tensor, Tensor]:
        """Indices [N] of images drawn at random, and their mu and logvar [N, latent_dim]."""
        count = min(SAMPLE_SIZE, len(self.dataset))
        index = self._generator(0).choice(len(self.dataset), count, replace=False)
        return index, *map(torch.from_numpy, self._encoded.posterior(index))

    @cached_property
    def _kl(self) -> np.ndarray:
        """KL to the prior of each latent in nats, [latent_dim]."""
        _, mu, logvar = self._sample
        return kl_per_latent(mu, logvar).numpy()

    def _generator(self, picture: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, picture])

    @cached_property
    def _encoded(self) -> EncodedDataset:
        threads = torch.get_num_threads()
        return EncodedDataset(self.vae, self.dataset, self.device, threads)

    def _decode(self, z: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, C, H, W] on the CPU, of z [B, latent_dim]."""
        with torch.inference_mode():
            return self.vae.decode(z.to(self.device)).sigmoid().cpu()

    def _traversed(self, index: np.ndarray, values: Tensor) -> Tensor:
        """Cells [B, latent_dim, V, C, H, W]: each latent of each image takes each value."""
        mu = torch.from_numpy(self._encoded.codes(index))
        latents = range(self.vae.latent_dim)
        moved = [
            plots.fit_cells(latent_traversal(self._decode, code, latent, values))
            for code in mu
            for latent in latents
        ]
        return torch.stack(moved).unflatten(0, (len(mu), len(latents)))

    def _response(self, varied: Sequence[int]) -> np.ndarray:
        """Mean codes, [size of each varied factor ..., latent_dim]."""
        sizes = self._space.sizes
        cells = int(np.prod([sizes[factor] for factor in varied]))
        count = min(MOST_SETTINGS, max(1, RESPONSE_IMAGES // cells))
        settings = balanced_factors(sizes, count, self._generator(2))
        return factor_response(self._encoded.represent, sizes, varied, settings)


@dataclass(frozen=True)
class Exhibit:
    """A picture's file name, its heading and caption on the page, and what makes it."""

    name: str
    heading: str
    caption: str
    make: Callable[[Gallery], Figure | bytes]
    needs_factors: bool = False
    needs_grid: bool = False
    needs_log: bool = False

    def obstacle(self, gallery: Gallery) -> str | None:
        """Why the picture cannot be made of this gallery, if so."""
        dataset = gallery.dataset
        if (self.needs_factors or self.needs_grid) and not dataset.factor_names:
            return f"the factors of {dataset.name} are not known"
        if self.needs_grid and dataset.factor_space is None:
            return f"{dataset.name} has no image of every combination of its factors"
        if self.needs_log and gallery.log is None:
            return "there is no log beside the checkpoint"
        return None


EXHIBITS = (
    Exhibit(
        "traversals",
        "Latent traversals",
        "Each row moves one latent from -3 to 3 and holds the others at the posterior mean of the "
        "image above. Rows are sorted by the latent's KL to the prior, in nats; latents below the "
        f"dashed line are dead (KL of {DEAD_KL} or less).",
        Gallery.traversals,
    ),
    Exhibit(
        "traversals_animated",
        "Animated traversals",
        "The same, every latent in its own column, swept from 3 to -3 and back.",
        Gallery.animation,
    ),
    Exhibit(
        "reconstructions",
        "Reconstructions",
        "Images over what the decoder draws at their posterior means, with the reconstruction loss "
        "of each, summed over its pixels. The first are the images that are traversed.",
        Gallery.reconstructions,
    ),
    Exhibit(
        "samples",
        "Samples",
        "Decoded draws from the prior.",
        Gallery.samples,
    ),
    Exhibit(
        "latent_response",
        "Latent responses",
        "The mean of each latent while one factor takes all its values, averaged over settings of "
        "the other factors: a latent that encodes one factor alone is flat in every other panel.",
        Gallery.latent_response,
        needs_grid=True,
    ),
    Exhibit(
        "factor_matrix",
        "Mutual information",
        "What each latent knows about each factor, as a share of the factor's entropy, from 20 "
        "equal-width bins of its posterior means. MIG is the mean gap between the best two.",
        Gallery.factor_matrix,
        needs_factors=True,
    ),
    Exhibit(
        "training",
        "Training",
        "From the run's log; dark lines are running means. The TC estimate and the accuracy are "
        "the discriminator's; a method without one has its penalty there.",
        Gallery.training,
        needs_log=True,
    ),
)


def _told(exhibits: Sequence[Exhibit]) -> Iterator[Exhibit]:
    """Each of them, and on a terminal a bar of how many are drawn."""
    with Progress(len(exhibits), what="drawing") as progress:
        for exhibit in exhibits:
            yield exhibit
            progress.advance()


def write_gallery(
    gallery: Gallery, output_dir: Path, format: str, settings: Mapping[str, object]
) -> list[str]:
    """Write every picture that can be made, the explorer and the page that shows the pictures.

    Args:
        output_dir: an existing folder.
        format: of the figures, 'png', 'pdf' or 'svg'.
        settings: of the run, for the page.

    Returns:
        A line for each file: its name, or why it is not there.
    """
    lines, shown = [], []
    for exhibit in _told(EXHIBITS):
        obstacle = exhibit.obstacle(gallery)
        if obstacle is not None:
            lines.append(f"{exhibit.name}: left out, {obstacle}")
            continue
        picture = exhibit.make(gallery)
        if isinstance(picture, bytes):
            name, kind, data = "traversals.gif", "gif", picture
        else:
            name, kind, data = f"{exhibit.name}.{format}", "png", png_bytes(picture)
        if kind == "gif" or format == "png":
            (output_dir / name).write_bytes(data)
        else:
            save_figure(picture, output_dir / name, format)
        lines.append(name)
        shown.append(PagePicture(exhibit.name, exhibit.heading, exhibit.caption, kind, data))
    (output_dir / "explorer.html").write_text(gallery.explorer(), encoding="utf-8")
    lines.append("explorer.html")
    page = html_page(gallery.title, shown, settings, beside=[("Explorer", "explorer.html")])
    (output_dir / "index.html").write_text(page, encoding="utf-8")
    return [*lines, "index.html"]
