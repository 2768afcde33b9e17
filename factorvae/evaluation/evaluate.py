"""Measure models one after the other, and compare those of one setting."""

import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from factorvae.checkpoint import restore_discriminator, restore_vae
from factorvae.config import EvaluateConfig
from factorvae.device import exact_float32, in_threads
from factorvae.encoding import EncodedDataset
from factorvae.errors import UserError
from factorvae.evaluation.models import NOT_COMPARED, EvaluatedModel, group_by_setting
from factorvae.evaluation.scores import METRICS, Metric
from factorvae.evaluation.trial import Result, Trial, draw_trial
from factorvae.metrics.interventions import Draws
from factorvae.progress import Activity


def evaluate(
    models: Sequence[EvaluatedModel], config: EvaluateConfig, device: torch.device, threads: int
) -> Iterator[EvaluatedModel]:
    """Fill in the results of one model after the other, and pass it on.

    Where some are compared by UDR, they come once more after the last. A model that cannot be
    measured is not passed on: `failure` tells why, and the others are measured all the same.
    """
    compared: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
    names = list(dict.fromkeys(config.metrics or METRICS))  # a name given twice counts once
    for number, model in enumerate(models, start=1):
        print(f"measuring {model.path}, {number} of {len(models)}", file=sys.stderr)
        start = time.monotonic()
        wanted = [METRICS[name] for name in names if name not in model.missing]
        alone = [metric for metric in wanted if metric.needs != "models"]
        try:
            with exact_float32(), Activity("metrics") as activity:
                trials = _measure(model, alone, config, device, threads, activity)
        except UserError as error:
            model.failure = str(error)
            continue
        encoded = trials[0].encoded
        if len(alone) < len(wanted):
            compared[model.path] = encoded.posterior(trials[0].points)
        model.num_encoded = encoded.num_encoded
        model.seconds = time.monotonic() - start
        yield model
    for group in group_by_setting([model for model in models if model.path in compared]):
        if len(group) > 1:
            _compare(group, compared)
        else:  # the others of its setting could not be measured
            group[0].missing["udr"] = NOT_COMPARED
        yield from group


@dataclass(frozen=True)
class Job:
    """One metric of one trial, and, where it draws factors first, those."""

    metric: Metric
    trial: Trial
    draws: Draws | None = None

    def images(self) -> Iterator[np.ndarray]:
        """Indices of the images whose codes it asks for besides the points', in parts."""
        if self.draws is not None:
            yield from map(self.trial.dataset.factor_space.index_of, self.draws.factors())
        elif self.metric.needs == "split":
            yield from (self.trial.fit, self.trial.held_out)

    def run(self) -> Result:
        drawn = () if self.draws is None else (self.draws,)
        return self.metric.function(self.trial, *drawn)


def _measure(
    model: EvaluatedModel,
    metrics: Sequence[Metric],
    config: EvaluateConfig,
    device: torch.device,
    threads: int,
    activity: Activity,
) -> list[Trial]:
    """Fill in every metric of every repeat; returns the repeats."""
    encoded = EncodedDataset(restore_vae(model.checkpoint, device), model.dataset, device, threads)
    discriminator = restore_discriminator(model.checkpoint, device)
    trials = [
        draw_trial(config, repeat, encoded, discriminator, activity.tell)
        for repeat in range(config.repeats)
    ]
    jobs = [
        Job(metric, trial, metric.draw and metric.draw(trial))
        for metric in sorted(metrics, key=lambda metric: not metric.slow)  # the slow ones first
        for trial in trials
    ]
    needed = np.zeros(len(model.dataset), dtype=bool)
    for trial in trials:
        needed[trial.points] = True
    for job in jobs:
        for part in job.images():
            needed[part] = True
    encoded.encode(np.flatnonzero(needed))  # all at once, which is quickest
    with warnings.catch_warnings():
        # of fits that stop unconverged, as the references do, and of factors of many values
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        done = _run(jobs, threads, activity)
    model.num_points, model.num_held_out = len(trials[0].points), len(trials[0].held_out)
    for metric in metrics:
        _combine(model, metric.name, [r for j, r in done if j.metric is metric])
    return trials


def _run(jobs: Sequence[Job], threads: int, activity: Activity) -> list[tuple[Job, Result]]:
    """Every job with its result; what is done and what is at work is told meanwhile."""
    activity.begin(len(jobs))

    def run(job: Job) -> Result:
        with activity.at(job.metric.name):
            return job.run()

    # each product's own threads, on top of these, would get in each other's way
    with threadpool_limits(1, user_api="blas"):
        return list(zip(jobs, in_threads(run, jobs, threads), strict=True))


def _combine(model: EvaluatedModel, name: str, results: Sequence[Result]) -> None:
    """The mean over repeats and its standard error; of a single one the error that it knows."""
    first = results[0]
    model.details[name] = first.details
    model.protocols |= first.protocols
    for score in first.scores:
        values = np.array([each.scores[score] for each in results])
        model.scores[score] = float(values.mean())
        if len(values) > 1:
            model.errors[score] = float(values.std(ddof=1) / np.sqrt(len(values)))
        elif score in first.errors:
            model.errors[score] = first.errors[score]


def _compare(
    group: Sequence[EvaluatedModel], compared: dict[Path, tuple[np.ndarray, np.ndarray]]
) -> None:
    """What compares models of one setting."""
    results = METRICS["udr"].function([compared[model.path] for model in group])
    for model, result in zip(group, results, strict=True):
        others = [str(other.path) for other in group if other is not model]
        _combine(model, "udr", [result])
        model.details["udr"] = {"compared_with": others, **result.details}
