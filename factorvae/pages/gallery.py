"""Every picture of one trained model: what to encode and decode for it, and which plot to call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from factorvae.config import DEAD_KL
from factorvae.datasets import Dataset, factors_of
from factorvae.encoding import EncodedDataset
from factorvae.files import write_whole
from factorvae.metrics import mig
from factorvae.models import VAE
from factorvae.objective import kl_per_latent, recon_loss_per_image
from factorvae.pages.explorer import explorer_page
from factorvae.pages.page import PAGE_NAME, PagePicture, PageTable, html_page
from factorvae.pages.traversal import (
    LIMIT,
    cosine_sweep,
    image_name,
    latent_traversal,
    mean_response,
    position_factors,
    response_lines,
    shape_factor,
    shape_names,
)
from factorvae.plots import factor_plots, image_plots, training_plots
from factorvae.plots.gif import encode_gif
from factorvae.plots.latents import dead_latents
from factorvae.plots.style import untitled, write_figure
from factorvae.plots.titles import COLUMN_TITLES

SAMPLE_SIZE = 10_000  # images that tell each latent's KL and mutual information
NUM_PAIRS = 24
NUM_SAMPLES = 72
NUM_FRAMES = 48
MOST_GIF_CELLS = 32  # base images are left out of the animation where latents are many
# The page's last losses, and their decimals.
LOSSES = {"recon": 1, "kl": 2, "elbo": 1, "tc": 3, "disc_accuracy": 3, "penalty": 3}


@dataclass(frozen=True)
class Gallery:
    """A model in eval mode and its images, and the pictures of them.

    title: the run, from `titles.run_title`. base_index: the images whose codes are traversed, int64
    [B]. log: columns of the run's log, where there is one. seed: draws every sample; the same seed
    gives the same pictures. measured: by metric, what evaluate.py wrote to explain its scores, of
    the factors `measured_factors`. name: of the model, for the message of an error.
    """

    vae: VAE
    dataset: Dataset
    device: torch.device
    title: str
    base_index: np.ndarray
    log: Mapping[str, np.ndarray] | None = None
    seed: int = 0
    measured: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    measured_factors: tuple[str, ...] = ()
    name: str = "the model"

    def traversals(self) -> Figure:
        values = torch.linspace(-LIMIT, LIMIT, 7)
        codes = self._encoded.codes(self.base_index)
        return image_plots.traversals(
            self._traversed(self.base_index, values),
            self.kl,
            values,
            base_images=self.dataset.batch(self.base_index),
            decoded=self._decode(torch.from_numpy(codes)),
            codes=codes,
            base_names=self._names_of(self.base_index),
            title=self.title,
        )

    def animation(self) -> list[Image.Image]:
        """The frames of a GIF."""
        shown = self.base_index[: max(1, MOST_GIF_CELLS // self.vae.latent_dim)]
        values = cosine_sweep(NUM_FRAMES, LIMIT)
        return image_plots.traversal_frames(
            self._traversed(shown, values),
            self.kl,
            values,
            base_images=self.dataset.batch(shown),
            base_names=self._names_of(shown),
            title=self.title,
        )

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
        return image_plots.reconstructions(images, logits.sigmoid(), losses, title=self.title)

    def samples(self) -> Figure:
        generator = torch.Generator().manual_seed(self.seed)
        z = torch.randn(NUM_SAMPLES, self.vae.latent_dim, generator=generator)
        return image_plots.samples(self._decode(z), title=self.title)

    def latent_response(self) -> Figure:
        """Only for datasets that are a full grid of factors."""
        space, represent = self.dataset.factor_space, self._encoded.represent
        pair, group = position_factors(space), shape_factor(space)
        names = shape_names(self.dataset)
        maps, curves, values = {}, {}, dict(zip(space.names, space.values, strict=True))
        if pair is not None:
            across, down = (space.names[factor] for factor in pair)
            maps[across, down] = mean_response(represent, space.sizes, pair, self.seed)
        for factor, name in enumerate(space.names):
            if pair is None or factor not in pair:
                curves[name] = response_lines(represent, self.dataset, factor, self.seed)
                words = names if factor == group else self.dataset.value_words.get(name)
                values[name] = words or values[name]
        return factor_plots.latent_response(
            self.kl, maps=maps, curves=curves, values=values, line_names=names, title=self.title
        )

    def factor_matrix(self) -> Figure:
        """Only for datasets with known factors of which some vary."""
        index, codes, _ = self._sample
        found = mig(codes.numpy(), factors_of(self.dataset, index))
        information, entropy = found["mutual_information"], found["entropy"]
        # A factor with a single value has no entropy: nothing is to be known about it.
        shares = np.divide(information, entropy, out=np.zeros_like(information), where=entropy > 0)
        return factor_plots.latent_matrix(
            shares,
            self.dataset.factor_names,
            self.kl,
            bars=found["gaps"],
            heading="Mutual information of latents and factors",
            told="I(latent; factor) / H(factor)",
            bars_told="gap of the best two",
            mean=("MIG", found["mig"]),
            title=self.title,
        )

    def importance_matrix(self) -> Figure:
        """Only where DCI was measured."""
        found = self.measured["dci"]
        return factor_plots.latent_matrix(
            _numbers(found["importance"]),
            self.measured_factors,
            self.kl,
            bars=_numbers(found["completeness_per_factor"]),
            heading="Importance of latents for factors (DCI)",
            told="importance of the latent for telling the factor",
            bars_told="completeness",
            title=self.title,
        )

    def separation_matrix(self) -> Figure:
        """Only where SAP was measured."""
        found = self.measured["sap"]
        gaps = _numbers(found["gaps"])
        scores = _numbers(found["scores"])
        varying = np.isin(self.measured_factors, self.varying_factors)
        return factor_plots.latent_matrix(
            scores,
            self.measured_factors,
            self.kl,
            bars=gaps,
            heading="Factors told from one latent (SAP)",
            told="held-out accuracy of a linear machine that sees the latent alone",
            bars_told="gap of the best two",
            mean=("SAP", gaps[varying].mean() if varying.any() else 0.0),
            title=self.title,
        )

    def training(self) -> Figure:
        """Only where there is a log."""
        return training_plots.training_curves(self.log, title=self.title)

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

    def _names_of(self, index: np.ndarray) -> list[str]:
        return [image_name(self.dataset, image) for image in index]

    @cached_property
    def _sample(self) -> tuple[np.ndarray, Tensor, Tensor]:
        """Indices [N] of images drawn at random, and their mu and logvar [N, latent_dim]."""
        index = self._sample_index
        return index, *map(torch.from_numpy, self._encoded.posterior(index))

    @cached_property
    def _sample_index(self) -> np.ndarray:
        count = min(SAMPLE_SIZE, len(self.dataset))
        return self._generator(0).choice(len(self.dataset), count, replace=False)

    @cached_property
    def varying_factors(self) -> list[str]:
        """The factors of several values among the sample; only where factors are known."""
        factors = factors_of(self.dataset, self._sample_index)
        varying = (factors != factors[0]).any(axis=0)
        return [n for n, v in zip(self.dataset.factor_names, varying, strict=True) if v]

    @cached_property
    def kl(self) -> np.ndarray:
        """KL to the prior of each latent in nats, [latent_dim]."""
        _, mu, logvar = self._sample
        return kl_per_latent(mu, logvar).numpy()

    def _generator(self, picture: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, picture])

    @cached_property
    def _encoded(self) -> EncodedDataset:
        threads = torch.get_num_threads()
        return EncodedDataset(self.vae, self.dataset, self.device, threads, self.name)

    def _decode(self, z: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, C, H, W] on the CPU, of z [B, latent_dim]."""
        with torch.inference_mode():
            return self.vae.decode(z.to(self.device)).sigmoid().cpu()

    def _traversed(self, index: np.ndarray, values: Tensor) -> Tensor:
        """Cells [B, latent_dim, V, C, H, W]: each latent of each image takes each value."""
        mu = torch.from_numpy(self._encoded.codes(index))
        latents = range(self.vae.latent_dim)
        moved = [
            image_plots.fit_cells(latent_traversal(self._decode, code, latent, values))
            for code in mu
            for latent in latents
        ]
        return torch.stack(moved).unflatten(0, (len(mu), len(latents)))


def _numbers(values: object) -> np.ndarray:
    """What JSON has of an array; null is nan."""
    return np.asarray(values, dtype=np.float64)


# --- the page ------------------------------------------------------------------------------------


def about_traversals(gallery: Gallery) -> str:
    dead = dead_latents(gallery.kl)
    below = " below the dashed line" if 0 < dead.sum() < len(dead) else ""
    return (
        "Each row moves one latent from −3 to 3 and holds the others at the posterior mean of "
        "the image beside it. Triangles mark the image's own code. Rows are sorted by the latent's "
        "KL to the prior, in nats"
        + (f"; latents{below} are dead (KL of {DEAD_KL} or less)." if dead.any() else ".")
    )


def about_training(gallery: Gallery) -> str:
    log = gallery.log
    told = "From the run's log. The ELBO is the negative sum of reconstruction loss and KL."
    if training_plots.has_means(log["step"]):
        told += " Dark lines are running means."
    if "penalty" in log:
        told += " The penalty is what γ weighs."
    elif np.isfinite(log["tc"]).any():
        told += " The estimate of the total correlation and the accuracy are the discriminator's."
    return told


@dataclass(frozen=True)
class Exhibit:
    """A picture's file name, its heading on the page, what makes it, and its caption."""

    name: str
    heading: str
    make: Callable[[Gallery], Figure | list[Image.Image]]
    caption: str | Callable[[Gallery], str]
    needs_factors: bool = False
    needs_grid: bool = False
    needs_log: bool = False
    needs_metric: str | None = None

    def obstacle(self, gallery: Gallery) -> str | None:
        """Why the picture cannot be made of this gallery, if so."""
        dataset = gallery.dataset
        needs_factors = self.needs_factors or self.needs_grid or self.needs_metric is not None
        if needs_factors and not dataset.factor_names:
            return f"the factors of {dataset.name} are not known"
        if self.needs_factors and not gallery.varying_factors:
            return "no factor takes more than one value"
        if self.needs_grid and dataset.factor_space is None:
            return f"{dataset.name} has no image of every combination of its factors"
        if self.needs_log and gallery.log is None:
            return "there is no log beside the checkpoint"
        if self.needs_metric is not None and self.needs_metric not in gallery.measured:
            return f"evaluate.py has not measured {self.needs_metric}"
        return None

    def caption_for(self, gallery: Gallery) -> str:
        return self.caption if isinstance(self.caption, str) else self.caption(gallery)


EXHIBITS = (
    Exhibit("traversals", "Latent traversals", Gallery.traversals, about_traversals),
    Exhibit(
        "traversals_animated",
        "Animated traversals",
        Gallery.animation,
        "The same, every latent in its own column, swept from 3 to −3 and back.",
    ),
    Exhibit(
        "reconstructions",
        "Reconstructions",
        Gallery.reconstructions,
        "Images over what the decoder draws at their posterior means, with the reconstruction loss "
        "of each, summed over its pixels. The first are the images that are traversed.",
    ),
    Exhibit("samples", "Samples", Gallery.samples, "Decoded draws from the prior."),
    Exhibit(
        "latent_response",
        "Latent responses",
        Gallery.latent_response,
        "The mean of each latent while one factor takes all its values, averaged over settings of "
        "the other factors: a latent that encodes one factor alone is flat in every other panel.",
        needs_grid=True,
    ),
    Exhibit(
        "factor_matrix",
        "Mutual information",
        Gallery.factor_matrix,
        "What each latent knows about each factor, as a share of the factor's entropy, from 20 "
        "equal-width bins of its posterior means. MIG is the mean gap between the best two, of "
        "images drawn for this picture.",
        needs_factors=True,
    ),
    Exhibit(
        "dci_matrix",
        "Importance",
        Gallery.importance_matrix,
        "How much each latent matters to the models that tell a factor from all latents, as "
        "evaluate.py has measured it for DCI. Completeness is 1 where one latent alone matters.",
        needs_metric="dci",
    ),
    Exhibit(
        "sap_matrix",
        "Separation",
        Gallery.separation_matrix,
        "How well each factor is told from one latent alone, as evaluate.py has measured it for "
        "SAP, which is the mean gap between the best two latents.",
        needs_metric="sap",
    ),
    Exhibit("training", "Training", Gallery.training, about_training, needs_log=True),
)


def last_losses(log: Mapping[str, np.ndarray]) -> PageTable:
    """The log's last row, without what it lacks."""
    last = {name: float(column[-1]) for name, column in log.items()}
    last["elbo"] = -last["recon"] - last["kl"]
    kl = [value for name, value in last.items() if name.startswith("kl_")]
    live = int((~dead_latents(kl)).sum())
    rows = [["", "mean"]]
    for name, decimals in LOSSES.items():
        if np.isfinite(last.get(name, np.nan)):
            rows.append([COLUMN_TITLES[name], f"{last[name]:.{decimals}f}"])
    rows.append(["Live latents", f"{live} of {len(kl)}"])
    caption = f"The last row of the run's log, at step {last['step']:,.0f}."
    return PageTable("losses", "Last losses", caption, rows)


def write_gallery(
    gallery: Gallery,
    output_dir: Path,
    format: str,
    settings: Mapping[str, object],
    tables: Sequence[PageTable] = (),
) -> list[str]:
    """Write every picture that can be made, the explorer and the page that shows the pictures.

    Args:
        output_dir: an existing folder.
        format: of the figures, 'png', 'pdf' or 'svg'.
        settings: of the run, for the page.
        tables: of its scores, for the page.

    Returns:
        A line for each file: its name, or why it is not there.
    """
    lines, shown = [], []
    for exhibit in tqdm(EXHIBITS, "drawing", unit=" pictures", disable=None):
        name, kind = f"{exhibit.name}.{format}", "png"
        obstacle = exhibit.obstacle(gallery)
        if obstacle is not None:
            stays = f"; {name} there is an earlier one" if (output_dir / name).exists() else ""
            lines.append(f"{exhibit.name}: left out, {obstacle}{stays}")
            continue
        picture = exhibit.make(gallery)
        if isinstance(picture, list):
            name, kind = "traversals.gif", "gif"
            write_whole(output_dir / name, encode_gif(picture))
            data = encode_gif([untitled(frame) for frame in picture])
        else:
            data = write_figure(picture, output_dir / name, format)
        lines.append(name)
        caption = exhibit.caption_for(gallery)
        shown.append(PagePicture(exhibit.name, exhibit.heading, caption, kind, data, name))
    write_whole(output_dir / "explorer.html", gallery.explorer().encode())
    lines.append("explorer.html")
    if gallery.log is not None:
        tables = [*tables, last_losses(gallery.log)]
    beside = [("Explorer", "explorer.html")]
    page = html_page(gallery.title, shown, settings, tables, beside)
    write_whole(output_dir / PAGE_NAME, page.encode())
    return [*lines, PAGE_NAME]
