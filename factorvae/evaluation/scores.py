"""What `evaluate.py` measures of a model: a function of a trial for each."""

import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from factorvae import metrics
from factorvae.config import EvaluateConfig
from factorvae.datasets import Dataset
from factorvae.encoding import EncodedDataset
from factorvae.errors import UserError
from factorvae.metrics.factor_vae import PROTOCOLS
from factorvae.metrics.interventions import Represent
from factorvae.models import Discriminator
from factorvae.objective import (
    kl_per_code,
    recon_loss_per_image,
    reparameterize,
    total_correlation,
)

MINIBATCH = 2048  # points of the minibatch estimates, whose cost grows with their square
DECODED_AT_ONCE = 64


@dataclass(frozen=True)
class Trial:
    """A model and the points on which it is measured once.

    points, fit, held_out: images, int [N]; the metrics that fit a model do so on `fit` and score it
    on `held_out`, which share none. represent: factors -> codes, where the data are a full grid.
    """

    config: EvaluateConfig
    repeat: int
    encoded: EncodedDataset
    discriminator: Discriminator | None
    points: np.ndarray
    fit: np.ndarray
    held_out: np.ndarray
    represent: Represent | None

    @property
    def dataset(self) -> Dataset:
        return self.encoded.dataset

    @property
    def codes(self) -> np.ndarray:
        """Posterior means of the points: float32 [N, latent_dim]."""
        return self.encoded.codes(self.points)

    @property
    def factors(self) -> np.ndarray:
        """Of the points: int [N, F]."""
        return factors_of(self.dataset, self.points)

    @property
    def split(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """codes and factors to fit, codes and factors held out."""
        codes, dataset = self.encoded.codes, self.dataset
        fit = codes(self.fit), factors_of(dataset, self.fit)
        return *fit, codes(self.held_out), factors_of(dataset, self.held_out)

    def generator(self, purpose: str) -> np.random.Generator:
        """Independent for every purpose and repeat, whatever else is measured."""
        return draw_from(self.config.seed, self.repeat, purpose)

    def samples(self) -> Tensor:
        """A code from each point's posterior: float32 [N, latent_dim], on the CPU."""
        mu, logvar = map(torch.from_numpy, self.encoded.posterior(self.points))
        noise = self.generator("samples").standard_normal(mu.shape, dtype=np.float32)
        return reparameterize(mu, logvar, torch.from_numpy(noise))


def draw_from(seed: int, repeat: int, purpose: str) -> np.random.Generator:
    """The generator for one purpose in one repeat."""
    return np.random.default_rng([seed, repeat, zlib.crc32(purpose.encode())])


def factors_of(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """Factors int [B, F] of the images at index [B], where they are known."""
    if dataset.factor_space is not None:
        return dataset.factor_space.factors_of(index)
    return dataset.factors[index]


@dataclass(frozen=True)
class Measured:
    """Scores by name, how they were made, their standard errors where known, what explains them."""

    scores: dict[str, float]
    protocols: dict[str, str]
    errors: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)


def _pick(result: dict, how: str, *names: str) -> Measured:
    """The named scores of a metric's result; the rest but their errors explains them."""
    errors = {name: result[f"{name}_se"] for name in names if f"{name}_se" in result}
    used = {*names, *(f"{name}_se" for name in names), "variant"}
    details = {key: value for key, value in result.items() if key not in used}
    scores = {name: float(result[name]) for name in names}
    return Measured(scores, dict.fromkeys(names, how), errors, details)


def factor_vae_score(trial: Trial) -> Measured:
    protocol = PROTOCOLS[trial.config.protocol]
    result = metrics.factor_vae_score(
        trial.represent,
        trial.dataset.factor_sizes,
        trial.generator("factor_vae_score"),
        protocol=trial.config.protocol,
    )
    held_out = f"{protocol.num_eval:,} held out" if protocol.num_eval else "none held out"
    how = (
        f"protocol {trial.config.protocol}: {protocol.num_train:,} votes of {protocol.batch_size} "
        f"images, {held_out}; latents of a standard deviation below .05 cast none"
    )
    return _pick(result, how, "factor_vae_score")


def beta_vae_score(trial: Trial) -> Measured:
    generator = trial.generator("beta_vae_score")
    result = metrics.beta_vae_score(trial.represent, trial.dataset.factor_sizes, generator)
    how = "10,000 votes of 64 pairs, 5,000 held out; raw differences"
    return _pick(result, how, "beta_vae_score")


def mig(trial: Trial) -> Measured:
    codes, factors = trial.codes, trial.factors
    binned = metrics.mig(codes, factors)
    unbinned = metrics.mig(codes, factors, estimator="knn", seed=trial.config.seed)
    measured = _pick(binned, binned["estimator"], "mig")
    measured.scores["mig_knn"] = unbinned["mig"]
    measured.protocols["mig_knn"] = unbinned["estimator"]
    return measured


def dci(trial: Trial) -> Measured:
    result = metrics.dci(
        *trial.split,
        estimator=trial.config.dci_estimator,
        seed=trial.config.seed + trial.repeat,
        progress=sys.stderr.isatty(),
    )
    how = f"{trial.config.dci_estimator}: {result['variant']}"
    return _pick(result, how, "disentanglement", "completeness", "informativeness")


def sap(trial: Trial) -> Measured:
    discrete = metrics.sap(*trial.split)
    continuous = metrics.sap(*trial.split, variant="continuous")
    measured = _pick(discrete, "discrete: linear SVM, C .01, held-out accuracy", "sap")
    measured.scores["sap_continuous"] = continuous["sap"]
    measured.protocols["sap_continuous"] = "continuous: squared correlation"
    return measured


def modularity(trial: Trial) -> Measured:
    result = metrics.modularity(trial.codes, trial.factors)
    return _pick(result, "20 bins; mean over all latents", "modularity")


def explicitness(trial: Trial) -> Measured:
    result = metrics.explicitness(*trial.split)
    return _pick(result, "logistic regression, held-out ROC area; chance is .5", "explicitness")


def irs(trial: Trial) -> Measured:
    return _pick(metrics.irs(trial.codes, trial.factors), "quantile .99", "irs")


def infomec(trial: Trial) -> Measured:
    result = metrics.infomec(trial.codes, trial.factors, seed=trial.config.seed)
    how = "10 neighbors; over latents of a twentieth of the widest one's range or more"
    return _pick(result, how, "infom", "infoe", "infoc")


def losses(trial: Trial) -> Measured:
    """In nats per image: summed over pixels or latents, z drawn once from each posterior."""
    z = trial.samples()
    parts = range(0, len(z), DECODED_AT_ONCE)
    recon = [_recon_losses(trial, slice(start, start + DECODED_AT_ONCE), z) for start in parts]
    recon = torch.cat(recon).double().cpu().numpy()  # [N]
    mu, logvar = trial.encoded.posterior(trial.points)
    kl = kl_of_points(mu, logvar)
    total = kl.sum(axis=1)
    by_kl = metrics.active_latents(kl=kl)
    by_std = metrics.active_latents(mu)
    each = {"recon_loss": recon, "kl": total, "elbo": -recon - total}
    return Measured(
        {name: float(values.mean()) for name, values in each.items()}
        | {"num_active": float(by_kl.sum()), "num_active_std": float(by_std.sum())},
        dict.fromkeys(each, "nats per image")
        | {
            "num_active": "those of a KL above .01 nats",
            "num_active_std": "those whose means have a standard deviation of .05 or more",
        },
        {name: float(values.std(ddof=1) / np.sqrt(len(values))) for name, values in each.items()},
        {"kl_per_latent": kl.mean(axis=0), "active_by_kl": by_kl, "active_by_std": by_std},
    )


def kl_of_points(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """KL(q(z_j given x) || N(0, 1)) in nats, of each latent of each point: [N, latent_dim]."""
    return kl_per_code(torch.from_numpy(mu).double(), torch.from_numpy(logvar).double()).numpy()


@torch.inference_mode()
def _recon_losses(trial: Trial, part: slice, z: Tensor) -> Tensor:
    """-log p(x given z) of each of the points in `part`, summed over its pixels: [B]."""
    encoded = trial.encoded
    x = trial.dataset.batch(trial.points[part], encoded.device)
    logits = encoded.vae.decode(z[part].to(encoded.device))
    return recon_loss_per_image(logits, x)


def gaussian_total_correlation(trial: Trial) -> Measured:
    of_means = metrics.gaussian_total_correlation(trial.codes)
    of_samples = metrics.gaussian_total_correlation(trial.samples().numpy())
    name = "gaussian_total_correlation"
    measured = _pick(of_means, "closed form, from the covariance of the posterior means", name)
    measured.scores[f"{name}_sampled"] = of_samples[name]
    measured.protocols[f"{name}_sampled"] = "the same, of a sample from each posterior"
    return measured


@torch.inference_mode()
def discriminator_total_correlation(trial: Trial) -> Measured:
    name = "discriminator_total_correlation"
    logits = trial.discriminator(trial.samples().to(trial.encoded.device))
    how = "Eq. 3 by the checkpoint's own discriminator, of samples; biased low"
    return Measured({name: float(total_correlation(logits))}, {name: how})


def minibatch_total_correlation(trial: Trial) -> Measured:
    mu, logvar = trial.encoded.posterior(trial.points[:MINIBATCH])
    num_images = len(trial.dataset)
    generator = trial.generator("minibatch_total_correlation")
    result = metrics.minibatch_total_correlation(mu, logvar, num_images, generator)
    how = f"Chen 2018, of {len(mu):,} samples"
    weighted, stratified = "total_correlation_weighted", "total_correlation_stratified"
    measured = _pick(result, f"{how}; biased low", weighted, stratified)
    shift = (mu.shape[1] - 1) * np.log(num_images)
    measured.protocols[weighted] = f"{how}; {shift:.1f} of it come from its weights"
    return measured


MEASURES: dict[str, Callable[[Trial], Measured]] = {
    function.__name__: function
    for function in (
        # the long ones first, that threads may end together
        *(dci, infomec, losses, minibatch_total_correlation, sap, explicitness),
        *(beta_vae_score, factor_vae_score, discriminator_total_correlation),
        *(mig, modularity, irs, gaussian_total_correlation),
    )
}
NEEDS_SPLIT = ("dci", "sap", "explicitness")
NEEDS_GRID = ("factor_vae_score", "beta_vae_score")
NEEDS_FACTORS = ("mig", "dci", "sap", "modularity", "explicitness", "irs", "infomec")


@dataclass(frozen=True)
class Score:
    """One number of a measure.

    name: in files. title: in a table of one model. heading: in a table of several. headline:
    whether a README's table has it without being asked for it.
    """

    name: str
    measure: str
    title: str
    heading: str
    decimals: int = 3
    headline: bool = False


SCORES = (
    Score("factor_vae_score", "factor_vae_score", "FactorVAE score", "FactorVAE", headline=True),
    Score("beta_vae_score", "beta_vae_score", "BetaVAE score", "BetaVAE"),
    Score("mig", "mig", "MIG", "MIG", headline=True),
    Score("mig_knn", "mig", "MIG without bins", "MIG (kNN)"),
    Score("disentanglement", "dci", "DCI disentanglement", "DCI D", headline=True),
    Score("completeness", "dci", "DCI completeness", "DCI C", headline=True),
    Score("informativeness", "dci", "DCI informativeness", "DCI I", headline=True),
    Score("sap", "sap", "SAP, discrete", "SAP", headline=True),
    Score("sap_continuous", "sap", "SAP, continuous", "SAP (R2)"),
    Score("modularity", "modularity", "Modularity", "Modularity"),
    Score("explicitness", "explicitness", "Explicitness", "Explicit."),
    Score("irs", "irs", "IRS", "IRS"),
    Score("infom", "infomec", "InfoMEC modularity", "InfoM"),
    Score("infoe", "infomec", "InfoMEC explicitness", "InfoE"),
    Score("infoc", "infomec", "InfoMEC compactness", "InfoC"),
    Score("recon_loss", "losses", "Reconstruction loss", "Recon", 2, headline=True),
    Score("kl", "losses", "KL to the prior", "KL", 2),
    Score("elbo", "losses", "ELBO", "ELBO", 2),
    Score("num_active", "losses", "Active latents, by KL", "Active", 0, headline=True),
    Score("num_active_std", "losses", "Active latents, by spread", "Act. std", 0),
    Score("gaussian_total_correlation", "gaussian_total_correlation", "TC, Gaussian", "TC Gauss"),
    Score(
        "gaussian_total_correlation_sampled",
        "gaussian_total_correlation",
        "TC, Gaussian, of samples",
        "TC G. smp.",
    ),
    Score(
        "discriminator_total_correlation",
        "discriminator_total_correlation",
        "TC, discriminator",
        "TC discr.",
    ),
    Score(
        "total_correlation_weighted",
        "minibatch_total_correlation",
        "TC, minibatch-weighted",
        "TC MWS",
    ),
    Score(
        "total_correlation_stratified",
        "minibatch_total_correlation",
        "TC, minibatch-stratified",
        "TC MSS",
    ),
    Score("udr", "udr", "UDR", "UDR", headline=True),
)
MEASURE_NAMES = tuple(dict.fromkeys(score.measure for score in SCORES))


def check_names(measures: tuple[str, ...] | None) -> None:
    """UserError for a name that is no measure's."""
    for name in measures or ():
        if name not in MEASURE_NAMES:
            raise UserError(f"unknown metric {name}; known are {', '.join(MEASURE_NAMES)}")
