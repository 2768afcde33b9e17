"""From checkpoints to scores: find and load them, measure, and compare runs of one setting."""

import glob
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from factorvae.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    resolve_checkpoint,
    restore_dataset,
    restore_discriminator,
    restore_vae,
)
from factorvae.config import EvaluateConfig, TrainConfig
from factorvae.datasets import Dataset
from factorvae.device import in_threads
from factorvae.encoding import EncodedDataset
from factorvae.errors import UserError
from factorvae.evaluation.scores import (
    MEASURE_NAMES,
    MEASURES,
    NEEDS_FACTORS,
    NEEDS_GRID,
    NEEDS_SPLIT,
    Measured,
    Trial,
    check_names,
    draw_from,
    kl_of_points,
)
from factorvae.files import CHECKPOINT_NAME
from factorvae.methods import METHOD_SETTINGS, METHODS, Method
from factorvae.metrics import udr
from factorvae.models import Discriminator

GLOB_SIGNS = set("*?[")
FEWEST_POINTS = 4  # two to fit and two held out


def find_checkpoints(names: Sequence[str] | None) -> list[Path]:
    """The checkpoints that are meant: files, run folders, folders of run folders, or globs.

    None stands for the newest one under runs/. Raises UserError for a name that leads to none.
    """
    if names is None:
        return [newest_checkpoint("runs")]
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
    """The file itself, or the checkpoint of a run folder, or those of the run folders in it."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    if (path / CHECKPOINT_NAME).is_file():
        return [path / CHECKPOINT_NAME]
    return sorted(path.rglob(CHECKPOINT_NAME))


@dataclass
class EvaluatedModel:
    """A checkpoint, what is known of it, and, as far as it is measured, its results.

    setting: what runs that differ by their seed only have in common. scores, protocols (how they
    were made) and errors are by the score's name; details by measure; missing says why a measure
    was left out. num_points and num_held_out count the points of one repeat.
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
    num_points: int = 0
    num_held_out: int = 0
    num_encoded: int = 0
    seconds: float = 0.0


def load_models(paths: Sequence[Path], config: EvaluateConfig) -> list[EvaluatedModel]:
    """All checkpoints with their datasets, checked before the first is measured.

    Raises UserError for a foreign checkpoint, a dataset that does not fit its model, and a metric
    that was asked for and cannot be had of any.
    """
    check_names(config.metrics)
    asked = config.num_batches * config.batch_size
    if asked < FEWEST_POINTS:
        raise UserError(
            f"--num_batches times --batch_size must be at least {FEWEST_POINTS} points, not {asked}"
        )
    datasets: dict[str, Dataset] = {}
    models = []
    for path in paths:
        checkpoint = load_checkpoint(path)
        for unneeded in ("vae_optimizer", "disc_optimizer"):
            checkpoint.pop(unneeded, None)
        known, trained = checkpoint["dataset"], checkpoint["config"]
        # what `restore_dataset` goes by: runs of one sweep share one table of images
        key = str([known, trained["dataset"], trained["data_dir"]])
        if key not in datasets:
            datasets[key] = restore_dataset(checkpoint, config.dataset, config.data_dir)
        dataset = datasets[key]
        if len(dataset) < FEWEST_POINTS:
            raise UserError(
                f"{dataset.name} has {len(dataset)} images; {FEWEST_POINTS} are the fewest"
            )
        models.append(EvaluatedModel(path, checkpoint, dataset, _setting(checkpoint, dataset)))
    for model in models:
        model.missing = _missing(model, models)
    for name in config.metrics or ():
        if all(name in model.missing for model in models):
            raise UserError(f"{name} of {models[0].path}: {models[0].missing[name]}")
    return models


def _setting(checkpoint: dict, dataset: Dataset) -> dict[str, object]:
    """The data of the evaluation, and every field of the training but the seed that shapes it.

    A setting of other methods only is None.
    """
    method = checkpoint["config"]["method"]
    not_of_method = METHOD_SETTINGS - set(METHODS.get(method, Method()).settings)
    trained = {
        f.name: None if f.name in not_of_method else checkpoint["config"].get(f.name, f.default)
        for f in fields(TrainConfig)
        if f.metadata["resume"] == "same"
        and (f.metadata["group"] != "run" or f.name == "precision")
        and f.name not in ("dataset", "seed")
    }
    data = f"{dataset.name}, {dataset.source}"
    trained_on = f"{checkpoint['dataset']['name']}, {checkpoint['dataset']['source']}"
    return {"data": data, "trained on": trained_on, **trained, "steps": checkpoint["step"]}


def group_by_setting(models: Sequence[EvaluatedModel]) -> list[list[EvaluatedModel]]:
    """Models that differ by their seed only: by method, and in the order of their first."""
    groups: dict[tuple, list[EvaluatedModel]] = {}
    methods = [*METHODS, *(model.setting["method"] for model in models)]
    for model in sorted(models, key=lambda model: methods.index(model.setting["method"])):
        groups.setdefault(tuple(model.setting.items()), []).append(model)
    return list(groups.values())


def _missing(model: EvaluatedModel, models: Sequence[EvaluatedModel]) -> dict[str, str]:
    """Why a measure cannot be had of a model, by the measure's name."""
    dataset = model.dataset
    missing = {}
    if dataset.factor_space is None:
        if dataset.factors is None:
            why = f"the factors of {dataset.name} are not known"
            missing |= dict.fromkeys(NEEDS_FACTORS, why)
        else:
            why = f"{dataset.name} has no image of every combination of its factors"
        missing |= dict.fromkeys(NEEDS_GRID, why)
    if model.checkpoint["discriminator"] is None:
        missing["discriminator_total_correlation"] = "trained without a discriminator"
    if sum(other.setting == model.setting for other in models) < 2:
        missing["udr"] = "it compares several checkpoints of one setting"
    return missing


def evaluate(
    models: Sequence[EvaluatedModel], config: EvaluateConfig, device: torch.device, threads: int
) -> Iterator[EvaluatedModel]:
    """Fill in the results of one model after the other, and pass it on.

    Where some are compared by UDR, they come once more after the last.
    """
    wanted = config.metrics or MEASURE_NAMES
    compared: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
    for number, model in enumerate(models, start=1):
        print(f"measuring {model.path}, {number} of {len(models)}", file=sys.stderr)
        start = time.monotonic()
        encoded = EncodedDataset(
            restore_vae(model.checkpoint, device), model.dataset, device, threads
        )
        discriminator = restore_discriminator(model.checkpoint, device)
        trials = [
            _trial(config, repeat, encoded, discriminator) for repeat in range(config.repeats)
        ]
        names = [name for name in MEASURES if name in wanted and name not in model.missing]
        _measure(model, names, trials, threads)
        if "udr" in wanted and "udr" not in model.missing:
            mu, logvar = encoded.posterior(trials[0].points)
            compared[model.path] = mu, kl_of_points(mu, logvar)
        model.num_encoded = encoded.num_encoded
        model.seconds = time.monotonic() - start
        yield model
    for group in group_by_setting([model for model in models if model.path in compared]):
        _compare(group, compared)
        yield from group


def _trial(
    config: EvaluateConfig,
    repeat: int,
    encoded: EncodedDataset,
    discriminator: Discriminator | None,
) -> Trial:
    """Draw the points of a repeat, without replacement: the same ones for every model.

    There are num_batches * batch_size points, and half as many more to be held out where a metric
    fits a model, as the 10,000 and 5,000 of disentanglement_lib. A set of fewer images is used as
    a whole, and parted in the same ratio.
    """
    dataset = encoded.dataset
    asked = config.num_batches * config.batch_size
    order = draw_from(config.seed, repeat, "points").permutation(len(dataset))
    points, split = order[:asked], order[: asked + asked // 2]
    num_fit = min(asked, len(split) * 2 // 3)
    return Trial(
        config=config,
        repeat=repeat,
        encoded=encoded,
        discriminator=discriminator,
        points=points,
        fit=split[:num_fit],
        held_out=split[num_fit:],
        represent=encoded.represent if dataset.factor_space else None,
    )


def _measure(
    model: EvaluatedModel, names: Sequence[str], trials: Sequence[Trial], threads: int
) -> None:
    """Every measure of every trial, their means and standard errors."""
    needed = np.zeros(len(model.dataset), dtype=bool)
    for trial in trials:
        needed[trial.points] = True
        if any(name in NEEDS_SPLIT for name in names):
            needed[trial.held_out] = needed[trial.fit] = True
        for name in names:
            if name in NEEDS_GRID:
                needed |= images_drawn(name, trial)
    trials[0].encoded.encode(np.flatnonzero(needed))

    jobs = [(name, trial) for name in names for trial in trials]
    with warnings.catch_warnings():  # in one place: threads cannot each do so
        warnings.simplefilter("ignore", ConvergenceWarning)
        done = list(in_threads(lambda job: MEASURES[job[0]](job[1]), jobs, threads))
    model.num_points, model.num_held_out = len(trials[0].points), len(trials[0].held_out)
    for name in names:
        _combine(
            model, name, [m for (other, _), m in zip(jobs, done, strict=True) if other == name]
        )


def images_drawn(name: str, trial: Trial) -> np.ndarray:
    """Mask [images] of those that an interventional measure will ask for.

    It draws them by its generator alone; so it is rehearsed with codes that mean nothing.
    """
    drawn = np.zeros(len(trial.dataset), dtype=bool)
    noise = np.random.default_rng(0)

    def stand_in(factors: np.ndarray) -> np.ndarray:
        drawn[trial.dataset.factor_space.index_of(factors)] = True
        return noise.standard_normal((len(factors), 1))

    MEASURES[name](replace(trial, represent=stand_in))
    return drawn


def _combine(model: EvaluatedModel, name: str, measured: Sequence[Measured]) -> None:
    """The mean over repeats and its standard error; of a single one the error that it knows."""
    first = measured[0]
    model.details[name] = first.details
    model.protocols |= first.protocols
    for score in first.scores:
        values = np.array([each.scores[score] for each in measured])
        model.scores[score] = float(values.mean())
        if len(values) > 1:
            model.errors[score] = float(values.std(ddof=1) / np.sqrt(len(values)))
        elif score in first.errors:
            model.errors[score] = first.errors[score]


def _compare(
    group: Sequence[EvaluatedModel], compared: dict[Path, tuple[np.ndarray, np.ndarray]]
) -> None:
    """UDR of models of one setting."""
    codes, kl = zip(*(compared[model.path] for model in group), strict=True)
    result = udr(codes, kl)
    for i, model in enumerate(group):
        model.scores["udr"] = float(result["udr"][i])
        model.protocols["udr"] = f"lasso, median over {len(group) - 1} other models of the setting"
        model.details["udr"] = {
            "compared_with": [str(other.path) for other in group if other is not model],
            "pairwise": np.delete(result["pairwise"][:, i], i),
        }
