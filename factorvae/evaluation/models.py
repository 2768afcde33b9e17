"""The models that are evaluated: find their checkpoints, load them, group them by setting."""

import glob
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorvae.checkpoint import (
    checkpoints_below,
    default_checkpoint,
    load_checkpoint,
    resolve_checkpoint,
    restore_dataset,
)
from factorvae.config import EvaluateConfig
from factorvae.datasets import Dataset, factors_of
from factorvae.errors import UserError
from factorvae.evaluation.scores import METRICS, check_names
from factorvae.evaluation.trial import draw_points, scored_factors
from factorvae.files import CHECKPOINT_NAME
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
