"""From checkpoints to scores: find and load them, measure, and compare runs of one setting."""

import glob
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from factorvae.checkpoint import (
    checkpoints_below,
    default_checkpoint,
    load_checkpoint,
    resolve_checkpoint,
    restore_dataset,
    restore_discriminator,
    restore_vae,
)
from factorvae.config import EvaluateConfig
from factorvae.datasets import Dataset, factors_of
from factorvae.device import exact_float32, in_threads
from factorvae.encoding import EncodedDataset
from factorvae.errors import UserError
from factorvae.evaluation.scores import METRICS, Metric, check_names
from factorvae.evaluation.trial import Result, Trial, draw_points, draw_trial, scored_factors
from factorvae.files import CHECKPOINT_NAME
from factorvae.metrics.interventions import Draws
from factorvae.progress import Activity
from factorvae.setting import order_of, setting_of

GLOB_SIGNS = set("*?[")
FEWEST_POINTS = 4  # two to fit and two held out
WITH_FACTORS = ("factors", "split", "grid")  # what metrics need that needs factors
NOT_COMPARED = "it compares several checkpoints of one setting"


def find_checkpoints(names: Sequence[str] | None) -> list[Path]:
    """The checkpoints that are meant: files, run folders, folders of run folders, or globs.

    None stands for the newest one under runs/, or else the model that ships, and a line on standard
    error tells which. Raises UserError for a name that leads to none.
    """
    if names is None:
        path, why = default_checkpoint()
        print(f"{why}: {path}", file=sys.stderr)
        return [path]
    found = []
    for name in names:
        if GLOB_SIGNS & set(name) and not Path(name).exists():
            matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            matches = [match for match in matches if match.is_dir() or match.suffix == ".pt"]
            paths = [path for match in matches for path in _checkpoints_in(match)]
            if not paths:
                raise UserError(f"no checkpoint matches {name}")
        else:
            paths = _checkpoints_in(Path(name)) or [resolve_checkpoint(name)]
        found += paths
    return list({path.resolve(): path for path in found}.values())


def _checkpoints_in(path: Path) -> list[Path]:
    """The file itself, or the checkpoint of a run's folder, or those of the runs' folders in it.

    Of a folder without any, the .pt files, as of models that ship.
    """
    if not path.is_dir():
        return [path] if path.is_file() else []
    if (path / CHECKPOINT_NAME).is_file():
        return [path / CHECKPOINT_NAME]
    return checkpoints_below(path) or sorted(path.glob("*.pt"))


@dataclass
class EvaluatedModel:
    """A checkpoint, what is known of it, and, as far as it is measured, its results.

    setting: what runs that differ by their seed only have in common. scores, protocols (how they
    were made) and errors are by the score's name; details by metric; missing says why a metric
    was left out, and failure why the model could not be measured at all. num_points and
    num_held_out count the points of one repeat.
    """

    path: Path
    checkpoint: dict
    dataset: Dataset
    setting: dict[str, object]
    scores: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    details: dict[str, dict] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    num_points: int = 0
    num_held_out: int = 0
    num_encoded: int = 0
    seconds: float = 0.0

    @property
    def seed(self) -> int:
        return self.checkpoint["config"]["seed"]


def load_models(
    paths: Sequence[Path], config: EvaluateConfig
) -> tuple[list[EvaluatedModel], list[str]]:
    """All checkpoints with their datasets, checked before the first is measured.

    A line on standard error names the runs of a setting that have the same seed, and each model
    that is left out.

    Returns:
        The models, and of each of several that cannot be loaded, a line that says why.

    Raises UserError where none can be loaded: a foreign checkpoint, a dataset that does not fit its
    model; and for a metric that was asked for and cannot be had of any.
    """
    check_names(config.metrics)
    asked = config.num_batches * config.batch_size
    if asked < FEWEST_POINTS:
        raise UserError(
            f"--num_batches times --batch_size must be at least {FEWEST_POINTS} points, not {asked}"
        )
    datasets: dict[str, tuple[Dataset, dict[str, str]]] = {}
    models, unread = [], []
    for path in paths:
        try:
            models.append(_load_model(path, config, datasets))
        except UserError as error:
            if len(paths) == 1:
                raise
            unread.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    if not models:
        raise UserError(unread[0])
    for line in unread:
        print(f"left out: {line}", file=sys.stderr)
    for model in models:
        model.missing |= _missing(_lacking(model, models))
    for name in config.metrics or ():
        if all(name in model.missing for model in models):
            raise UserError(f"{name} of {models[0].path}: {models[0].missing[name]}")
    again = with_a_seed_twice(models)
    if again:
        paths = ", ".join(str(model.path) for model in again)
        print(f"the same seed more than once in a setting: {paths}", file=sys.stderr)
    return models, unread


def _load_model(
    path: Path, config: EvaluateConfig, datasets: dict[str, tuple[Dataset, dict[str, str]]]
) -> EvaluatedModel:
    """A checkpoint with its data, and why metrics cannot be had of these.

    datasets: of other models, by what `restore_dataset` goes by: runs of one sweep share one table
    of images.
    """
    checkpoint = load_checkpoint(path)
    for unneeded in ("vae_optimizer", "disc_optimizer"):
        checkpoint.pop(unneeded, None)
    known, trained = checkpoint["dataset"], checkpoint["config"]
    key = str([known, trained["dataset"], trained["data_dir"]])
    if key not in datasets:
        dataset = _checked_dataset(checkpoint, config)
        datasets[key] = dataset, _missing(_lacking_of_data(dataset, config))
    dataset, missing = datasets[key]
    setting = _setting(checkpoint, dataset)
    return EvaluatedModel(path, checkpoint, dataset, setting, missing={**missing})


def _checked_dataset(checkpoint: dict, config: EvaluateConfig) -> Dataset:
    """The images that a model is measured on; UserError where they are too few, say."""
    dataset = restore_dataset(checkpoint, config.dataset, config.data_dir)
    if len(dataset) < FEWEST_POINTS:
        raise UserError(f"{dataset.name} has {len(dataset)} images; {FEWEST_POINTS} are the fewest")
    check_factors(config.factors, dataset)
    return dataset


def check_factors(names: Sequence[str] | None, dataset: Dataset) -> None:
    """UserError unless the names, where any are given, are factors of the dataset, each once."""
    if names is None:
        return
    if not dataset.factor_names:
        raise UserError(f"--factors: the factors of {dataset.name} are not known")
    for name in names:
        if name not in dataset.factor_names:
            known = ", ".join(dataset.factor_names)
            raise UserError(f"--factors {name}: {dataset.name} has {known}")
    if len(set(names)) < len(names):
        raise UserError(f"--factors names one twice: {', '.join(names)}")


def _setting(checkpoint: dict, dataset: Dataset) -> dict[str, object]:
    """The data of the evaluation, and the setting of the training."""
    return {"data": f"{dataset.name}, {dataset.source}", **setting_of(checkpoint)}


def group_by_setting(models: Sequence[EvaluatedModel]) -> list[list[EvaluatedModel]]:
    """Models that differ by their seed only, in its order; by method, then by their settings."""
    groups: dict[tuple, list[EvaluatedModel]] = {}
    for model in sorted(models, key=lambda model: model.seed):
        groups.setdefault(tuple(model.setting.items()), []).append(model)
    return sorted(groups.values(), key=lambda group: order_of(group[0].setting))


def with_a_seed_twice(models: Sequence[EvaluatedModel]) -> list[EvaluatedModel]:
    """The models whose seed another one of their setting has too, as a copied run does."""
    groups = group_by_setting(models)
    counts = [Counter(model.seed for model in group) for group in groups]
    return [m for group, n in zip(groups, counts, strict=True) for m in group if n[m.seed] > 1]


def _missing(lacking: dict[str, str]) -> dict[str, str]:
    """Why metrics cannot be had, by the metric's name."""
    return {
        name: lacking[metric.needs] for name, metric in METRICS.items() if metric.needs in lacking
    }


def _lacking_of_data(dataset: Dataset, config: EvaluateConfig) -> dict[str, str]:
    """Why data lack what metrics need, by the words of `Metric.needs`."""
    if not dataset.factor_names:
        return dict.fromkeys(WITH_FACTORS, f"the factors of {dataset.name} are not known")
    lacking = {}
    scored = scored_factors(config, dataset)
    constant = "no factor that is scored takes more than one value"
    if dataset.factor_space is None:
        lacking["grid"] = f"{dataset.name} has no image of every combination of its factors"
    elif all(dataset.factor_sizes[factor] < 2 for factor in scored):
        lacking["grid"] = constant
    for repeat in range(config.repeats):
        points, fit, _ = draw_points(config, repeat, len(dataset))
        for need, index in (("factors", points), ("split", fit)):
            factors = factors_of(dataset, index)[:, scored]
            if (factors == factors[0]).all():
                lacking[need] = f"{constant} in the {len(index):,} points"
    return lacking


def _lacking(model: EvaluatedModel, models: Sequence[EvaluatedModel]) -> dict[str, str]:
    """Why a model lacks what metrics need, by the words of `Metric.needs`."""
    lacking = {}
    if model.checkpoint["discriminator"] is None:
        lacking["discriminator"] = "the checkpoint has no discriminator"
    if sum(other.setting == model.setting for other in models) < 2:
        lacking["models"] = NOT_COMPARED
    return lacking


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
        try:
            with exact_float32(), Activity("metrics") as activity:
                trials = _measure(model, wanted, config, device, threads, activity)
        except UserError as error:
            model.failure = str(error)
            continue
        encoded = trials[0].encoded
        if any(metric.needs == "models" for metric in wanted):
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
    wanted: Sequence[Metric],
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
        for metric in sorted(wanted, key=lambda metric: not metric.slow)  # the slow ones first
        if metric.needs != "models"
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
    for metric in wanted:
        if metric.needs != "models":
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
