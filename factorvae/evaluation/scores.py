"""The one list of what `evaluate.py` measures: METRICS, and above it how each is measured.

A metric of one score that takes codes and factors needs its own file in `factorvae/metrics`, and
here its import and a `plain` line of the list: flags, tables and files follow. One that needs more
has a function of a `Trial` here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from factorvae.config import DEAD_KL, DEAD_STD
from factorvae.errors import UserError
from factorvae.evaluation.trial import Result, Trial, kl_of_points, pick
from factorvae.metrics.active import active_latents
from factorvae.metrics.beta_vae import PROTOCOL as BETA_VAE_PROTOCOL
from factorvae.metrics.beta_vae import draw_pairs, score_pairs
from factorvae.metrics.dci import dci
from factorvae.metrics.factor_vae import PROTOCOLS, draw_votes, score_votes
from factorvae.metrics.infomec import infomec
from factorvae.metrics.interventions import Draws, Protocol
from factorvae.metrics.irs import irs
from factorvae.metrics.mig import mig
from factorvae.metrics.modularity import explicitness, modularity
from factorvae.metrics.sap import sap
from factorvae.metrics.total_correlation import (
    gaussian_total_correlation,
    minibatch_total_correlation,
)
from factorvae.metrics.udr import udr
from factorvae.objective import recon_loss_per_image, total_correlation
from factorvae.saved_scores import Score

MINIBATCH = 2048  # points of the minibatch estimates, whose cost grows with their square
DECODED_AT_ONCE = 64


def draw_factor_vae(trial: Trial) -> Draws:
    generator = trial.generator("factor_vae_score")
    return draw_votes(
        trial.dataset.factor_sizes,
        generator,
        protocol=trial.config.protocol,
        among=trial.scored_factors,
    )


def measure_factor_vae(trial: Trial, draws: Draws) -> Result:
    protocol = trial.config.protocol
    result = score_votes(trial.encoded.represent, draws) | {"protocol": protocol}
    how = (
        f"protocol {protocol}: {_votes(PROTOCOLS[protocol], 'images')}; "
        f"latents of a standard deviation below {_decimal(DEAD_STD)} cast none"
    )
    return pick(result, how, "factor_vae_score")


def draw_beta_vae(trial: Trial) -> Draws:
    generator = trial.generator("beta_vae_score")
    return draw_pairs(trial.dataset.factor_sizes, generator, among=trial.scored_factors)


def measure_beta_vae(trial: Trial, draws: Draws) -> Result:
    result = score_pairs(trial.encoded.represent, draws)
    how = f"{_votes(BETA_VAE_PROTOCOL, 'pairs')}; raw differences"
    return pick(result, how, "beta_vae_score")


def _votes(protocol: Protocol, what: str) -> str:
    """A protocol in words; what: images or pairs, of which a vote has some."""
    held_out = f"{protocol.num_eval:,}" if protocol.num_eval else "none"
    return f"{protocol.num_train:,} votes of {protocol.batch_size} {what}, {held_out} held out"


def _decimal(limit: float) -> str:
    """A number below 1 as the tables' words have it: .05."""
    return str(limit).lstrip("0")


def measure_mig(trial: Trial) -> Result:
    codes, factors = trial.codes, trial.factors
    binned = mig(codes, factors)
    unbinned = mig(codes, factors, estimator="knn", seed=trial.config.seed)
    measured = pick(binned, binned["estimator"], "mig")
    measured.scores["mig_knn"] = unbinned["mig"]
    measured.protocols["mig_knn"] = unbinned["estimator"]
    return measured


def measure_dci(trial: Trial) -> Result:
    result = dci(
        *trial.split,
        estimator=trial.config.dci_estimator,
        seed=(trial.config.seed + trial.repeat) % 2**32,  # scikit-learn takes no larger one
        on_stage=lambda done, total: trial.tell("dci", f"stage {done} of {total}"),
    )
    how = f"{trial.config.dci_estimator}: {result['variant']}"
    return pick(result, how, "disentanglement", "completeness", "informativeness")


def measure_sap(trial: Trial) -> Result:
    discrete = sap(*trial.split)
    continuous = sap(*trial.split, variant="continuous")
    measured = pick(discrete, "discrete: linear SVM, C .01, held-out accuracy", "sap")
    measured.scores["sap_continuous"] = continuous["sap"]
    measured.protocols["sap_continuous"] = "continuous: squared correlation"
    return measured


def measure_infomec(trial: Trial) -> Result:
    result = infomec(trial.codes, trial.factors, seed=trial.config.seed)
    how = "10 neighbors; over latents of a twentieth of the widest one's range or more"
    return pick(result, how, "infom", "infoe", "infoc")


def measure_losses(trial: Trial) -> Result:
    """In nats per image: summed over pixels or latents, z drawn once from each posterior."""
    z = trial.samples()
    parts = range(0, len(z), DECODED_AT_ONCE)
    recon = [_recon_losses(trial, slice(start, start + DECODED_AT_ONCE), z) for start in parts]
    recon = torch.cat(recon).double().cpu().numpy()  # [N]
    mu, logvar = trial.encoded.posterior(trial.points)
    kl = kl_of_points(mu, logvar)
    total = kl.sum(axis=1)
    by_kl = active_latents(kl=kl)
    by_std = active_latents(mu)
    each = {"recon_loss": recon, "kl": total, "elbo": -recon - total}
    return Result(
        {name: float(values.mean()) for name, values in each.items()}
        | {"num_active": float(by_kl.sum()), "num_active_std": float(by_std.sum())},
        dict.fromkeys(each, "nats per image")
        | {
            "num_active": f"those of a KL above {_decimal(DEAD_KL)} nats",
            "num_active_std": "those whose means have a standard deviation of "
            f"{_decimal(DEAD_STD)} or more",
        },
        {name: float(values.std(ddof=1) / np.sqrt(len(values))) for name, values in each.items()},
        {"kl_per_latent": kl.mean(axis=0), "active_by_kl": by_kl, "active_by_std": by_std},
    )


@torch.inference_mode()
def _recon_losses(trial: Trial, part: slice, z: Tensor) -> Tensor:
    """-log p(x given z) of each of the points in `part`, summed over its pixels: [B]."""
    encoded = trial.encoded
    x = trial.dataset.batch(trial.points[part], encoded.device)
    logits = encoded.vae.decode(z[part].to(encoded.device))
    return recon_loss_per_image(logits, x)


def measure_gaussian_total_correlation(trial: Trial) -> Result:
    of_means = gaussian_total_correlation(trial.codes)
    of_samples = gaussian_total_correlation(trial.samples().numpy())
    name = "gaussian_total_correlation"
    measured = pick(of_means, "closed form, from the covariance of the posterior means", name)
    measured.scores[f"{name}_sampled"] = of_samples[name]
    measured.protocols[f"{name}_sampled"] = "the same, of a sample from each posterior"
    return measured


@torch.inference_mode()
def measure_discriminator_total_correlation(trial: Trial) -> Result:
    name = "discriminator_total_correlation"
    logits = trial.discriminator(trial.samples().to(trial.encoded.device))
    how = "Eq. 3 by the checkpoint's own discriminator, of samples; biased low"
    return Result({name: float(total_correlation(logits))}, {name: how})


def measure_minibatch_total_correlation(trial: Trial) -> Result:
    mu, logvar = trial.encoded.posterior(trial.points[:MINIBATCH])
    num_images = len(trial.dataset)
    generator = trial.generator("minibatch_total_correlation")
    result = minibatch_total_correlation(mu, logvar, num_images, generator)
    how = f"Chen 2018, of {len(mu):,} samples"
    weighted, stratified = "total_correlation_weighted", "total_correlation_stratified"
    measured = pick(result, f"{how}; biased low", weighted, stratified)
    shift = (mu.shape[1] - 1) * np.log(num_images)
    measured.protocols[weighted] = f"{how}; {shift:.1f} of it come from its weights"
    return measured


def compare_by_udr(posteriors: list[tuple[np.ndarray, np.ndarray]]) -> list[Result]:
    """Of each of several models of one setting, from mu and logvar [N, latent_dim] of each."""
    codes = [mu for mu, _ in posteriors]
    found = udr(codes, [kl_of_points(mu, logvar) for mu, logvar in posteriors])
    how = "lasso, median over the other models of the setting"
    return [
        Result(
            {"udr": float(found["udr"][i])},
            {"udr": how},
            details={"pairwise": np.delete(found["pairwise"][:, i], i)},
        )
        for i in range(len(posteriors))
    ]


@dataclass(frozen=True)
class Metric:
    """What `--metrics` knows by its name: a function that gives a score or several.

    needs: what a model or its data must have for it: "images"; "factors" of every image; "split",
    which is factors, and points to hold out; "grid", an image of every combination of factors;
    "discriminator"; "models", several of one setting.
    function: of a trial; with `draw`, of a trial and the factors drawn for it, whose images are all
    encoded before; where it needs models, of their posteriors.
    slow: it is begun before the others, that threads may end together.
    """

    name: str
    needs: str
    function: Callable[..., Result | list[Result]]
    scores: tuple[Score, ...]
    draw: Callable[[Trial], Draws] | None = None
    slow: bool = False


def plain(
    function: Callable[..., dict],
    needs: str,
    how: str,
    title: str,
    heading: str,
    slow: bool = False,
    **settings: object,
) -> Metric:
    """A metric of one score, under its own name, from codes and factors alone.

    function: (codes, factors, **settings), or codes and factors to fit and those held out where it
    needs a split. how: a few words for the table.
    """
    name = function.__name__

    def measure(trial: Trial) -> Result:
        points = trial.split if needs == "split" else (trial.codes, trial.factors)
        return pick(function(*points, **settings), how, name)

    return Metric(name, needs, measure, (Score(name, title, heading),), slow=slow)


_ALL = (
    Metric(
        "factor_vae_score",
        "grid",
        measure_factor_vae,
        (Score("factor_vae_score", "FactorVAE score", "FactorVAE", headline=True),),
        draw=draw_factor_vae,
    ),
    Metric(
        "beta_vae_score",
        "grid",
        measure_beta_vae,
        (Score("beta_vae_score", "BetaVAE score", "BetaVAE"),),
        draw=draw_beta_vae,
    ),
    Metric(
        "mig",
        "factors",
        measure_mig,
        (
            Score("mig", "MIG", "MIG", headline=True),
            Score("mig_knn", "MIG without bins", "MIG (kNN)"),
        ),
    ),
    Metric(
        "dci",
        "split",
        measure_dci,
        (
            Score("disentanglement", "DCI disentanglement", "DCI D", headline=True),
            Score("completeness", "DCI completeness", "DCI C", headline=True),
            Score("informativeness", "DCI informativeness", "DCI I", headline=True),
        ),
        slow=True,
    ),
    Metric(
        "sap",
        "split",
        measure_sap,
        (
            Score("sap", "SAP, discrete", "SAP", headline=True),
            Score("sap_continuous", "SAP, continuous", "SAP (R2)"),
        ),
        slow=True,
    ),
    plain(modularity, "factors", "20 bins; mean over all latents", "Modularity", "Modularity"),
    plain(
        explicitness,
        "split",
        "logistic regression, held-out ROC area; chance is .5",
        "Explicitness",
        "Explicit.",
        slow=True,
    ),
    plain(irs, "factors", "quantile .99", "IRS", "IRS"),
    Metric(
        "infomec",
        "factors",
        measure_infomec,
        (
            Score("infom", "InfoMEC modularity", "InfoM"),
            Score("infoe", "InfoMEC explicitness", "InfoE"),
            Score("infoc", "InfoMEC compactness", "InfoC"),
        ),
        slow=True,
    ),
    Metric(
        "losses",
        "images",
        measure_losses,
        (
            Score("recon_loss", "Reconstruction loss", "Recon", 2, headline=True),
            Score("kl", "KL to the prior", "KL", 2),
            Score("elbo", "ELBO", "ELBO", 2),
            Score("num_active", "Active latents, by KL", "Active", 0, headline=True),
            Score("num_active_std", "Active latents, by spread", "Act. std", 0),
        ),
        slow=True,
    ),
    Metric(
        "gaussian_total_correlation",
        "images",
        measure_gaussian_total_correlation,
        (
            Score("gaussian_total_correlation", "TC, Gaussian", "TC Gauss"),
            Score("gaussian_total_correlation_sampled", "TC, Gaussian, of samples", "TC G. smp."),
        ),
    ),
    Metric(
        "discriminator_total_correlation",
        "discriminator",
        measure_discriminator_total_correlation,
        (Score("discriminator_total_correlation", "TC, discriminator", "TC discr."),),
    ),
    Metric(
        "minibatch_total_correlation",
        "images",
        measure_minibatch_total_correlation,
        (
            Score("total_correlation_weighted", "TC, minibatch-weighted", "TC MWS"),
            Score("total_correlation_stratified", "TC, minibatch-stratified", "TC MSS"),
        ),
        slow=True,
    ),
    Metric("udr", "models", compare_by_udr, (Score("udr", "UDR", "UDR", headline=True),)),
)
METRICS = {metric.name: metric for metric in _ALL}  # in the order of the tables
METRIC_OF = {score.name: metric for metric in _ALL for score in metric.scores}
SCORES = tuple(score for metric in _ALL for score in metric.scores)


def check_names(names: tuple[str, ...] | None) -> None:
    """UserError for a name that is no metric's."""
    for name in names or ():
        if name not in METRICS:
            raise UserError(f"unknown metric {name}; known are {', '.join(METRICS)}")
