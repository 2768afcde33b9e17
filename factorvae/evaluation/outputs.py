"""Files of results: metrics.json, a CSV table; and which files these must not replace."""

import csv
import dataclasses
import importlib.metadata
import io
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from factorvae.checkpoint import weights_digest
from factorvae.config import EvaluateConfig
from factorvae.errors import UserError
from factorvae.evaluation.models import EvaluatedModel, group_by_setting
from factorvae.evaluation.scores import METRIC_OF
from factorvae.evaluation.tables import known_scores, markdown_table, text_table
from factorvae.files import (
    CHECKPOINT_NAME,
    CONFIG_NAME,
    METRICS_NAME,
    SWEEP_NAME,
    WRITTEN_IN_TRAINING,
    check_writable,
    is_replaced,
    json_object,
    write_text,
)
from factorvae.saved_scores import read_results, scores_path

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn")
FIRST_COLUMNS = ("checkpoint", "seed")  # of every CSV file of results
NOT_WRITTEN = "what evaluate.py has not written"


class Outputs:
    """The files that results go to, tried before the first model is measured.

    One that cannot be written after all holds up nothing, nor does a model that cannot be measured:
    `check` tells of them in the end, and of those that could not be loaded.
    Raises UserError for a file that cannot be written, or would replace what is to stay.
    """

    def __init__(
        self,
        models: Sequence[EvaluatedModel],
        config: EvaluateConfig,
        unread: Sequence[str] = (),
    ) -> None:
        self.models, self.config, self.unread = models, config, unread
        count = len(models) + len(self.unread)
        if config.output is not None and count > 1:
            raise UserError(f"--output names one file, and there are {count} models")
        self.failures: dict[Path, str] = {}
        self.paths = {
            model.path: Path(config.output) if config.output else scores_path(model.path)
            for model in models
        }
        self._check_apart()
        if len(models) == 1 or config.csv is None:  # several in a folder of others have a table
            advice = "; --csv has a table of them elsewhere"
            if len(models) == 1:
                advice = "" if config.output else "; name another file by --output"
            for path in self.paths.values():
                _try_to_write(path, advice)
        if config.csv is not None:
            _try_to_write(Path(config.csv))
        self._check_replaced()

    def _check_apart(self) -> None:
        """Raise UserError where two models would have their results in one file."""
        first: dict[str, Path] = {}
        for model, path in self.paths.items():
            other = first.setdefault(os.path.realpath(path), model)
            if other != model:
                raise UserError(
                    f"{other} and {model} would both have their results in {path}; rename one"
                )

    def _check_replaced(self) -> None:
        output, table = self.config.output, self.config.csv
        asked = (("--output", output, self._lost_to_scores), ("--csv", table, self._lost_to_table))
        for flag, name, lost_to in asked:
            if name is None or not is_replaced(Path(name)):
                continue
            lost = lost_to(Path(name))
            if lost is not None:
                raise UserError(f"{flag} {name} would replace {lost}; name another file")

    def _lost_to_scores(self, path: Path) -> str | None:
        """What --output there would replace that is to stay, in words."""
        lost = self._lost_of_runs(path, WRITTEN_IN_TRAINING)
        return lost if lost or _is_empty_or_results(path) else NOT_WRITTEN

    def _lost_to_table(self, path: Path) -> str | None:
        """What --csv there would replace that is to stay, in words."""
        lost = self._lost_of_runs(path, (*WRITTEN_IN_TRAINING, METRICS_NAME))
        measured_there = {os.path.realpath(scores): model for model, scores in self.paths.items()}
        model = measured_there.get(os.path.realpath(path))
        lost = f"the scores of {model}" if lost is None and model else lost
        return lost if lost or _is_empty_or_table(path) else NOT_WRITTEN

    def _lost_of_runs(self, path: Path, own: Sequence[str]) -> str | None:
        """The same of a model that is measured, and of files of a run by their names `own`."""
        target = os.path.realpath(path)
        if target in map(os.path.realpath, self.paths):
            return "a model that is measured"
        folders = {os.path.realpath(model.parent) for model in self.paths}
        for each in (path, Path(target)):
            folder = os.path.realpath(each.parent)
            if each.name in own and (folder in folders or _is_of_training(Path(folder))):
                return f"a run's own {each.name}"
        return None

    @property
    def measured(self) -> list[EvaluatedModel]:
        """Those of which there is something to tell."""
        return [model for model in self.models if model.failure is None]

    def write(self, model: EvaluatedModel) -> None:
        """One model's metrics.json, in place of an earlier one; `with_earlier` says what stays."""
        path = self.paths[model.path]
        content = with_earlier(_plain(as_dict(model, self.config)), path)
        self._write(path, json.dumps(content, indent=2) + "\n")

    def write_csv(self) -> None:
        """With --csv, a row per model that was measured."""
        models = self.measured
        if self.config.csv is None or not models:
            return
        scores = known_scores(models)
        columns = [column for s in scores for column in (s.name, f"{s.name}_se")]
        columns = [c for c in columns if any(c in _flat(model) for model in models)]
        settings = list(dict.fromkeys(key for model in models for key in model.setting))
        made = ("protocol", "dci_estimator", "repeats")
        points = ("num_points", "num_held_out")
        text = io.StringIO()
        names = [*FIRST_COLUMNS, *settings, "evaluation_seed", *made, *points, *columns]
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        for model in (model for group in group_by_setting(models) for model in group):
            flat = _flat(model)
            writer.writerow(
                {"checkpoint": model.path, "seed": model.seed}
                | model.setting
                | {"evaluation_seed": self.config.seed}
                | {name: getattr(self.config, name) for name in made}
                | {name: getattr(model, name) for name in points}
                | {column: flat[column] for column in columns if column in flat}
            )
        self._write(Path(self.config.csv), text.getvalue())

    def _write(self, path: Path, content: str) -> None:
        try:
            write_text(path, content)
            self.failures.pop(path, None)
        except OSError as error:
            self.failures[path] = error.strerror or str(error)

    def print_table(self) -> None:
        """Of the models that were measured."""
        if self.measured:
            table = markdown_table if self.config.markdown else text_table
            print(table(self.measured, self.config), flush=True)

    def check(self) -> None:
        """Raise UserError where a model could not be measured or a file not be written."""
        failed = [f"{model.path}: {model.failure}" for model in self.models if model.failure]
        told = [*self.unread, *failed]
        if self.failures:
            paths = "; ".join(f"{path}: {reason}" for path, reason in self.failures.items())
            told.append(f"the results are printed, but not written to {paths}")
        if told:
            raise UserError("; ".join(told))


def _try_to_write(path: Path, advice: str = "") -> None:
    try:
        check_writable(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}{advice}") from error


def _is_of_training(folder: Path) -> bool:
    """Whether it is a run's, if only begun, or a sweep's."""
    return any((folder / name).exists() for name in (CHECKPOINT_NAME, CONFIG_NAME, SWEEP_NAME))


def _is_empty(path: Path) -> bool:
    """Whether there is no file, or nothing in it."""
    return not path.exists() or path.stat().st_size == 0


def _is_empty_or_results(path: Path) -> bool:
    """Whether there is no file, or nothing in it, or results of evaluate.py, of any version."""
    if _is_empty(path):
        return True
    content = json_object(path)
    return content is not None and (not content or {"checkpoint", "scores"} <= content.keys())


def _is_empty_or_table(path: Path) -> bool:
    """Whether there is no file, or nothing in it, or a table that begins as evaluate.py's do."""
    if _is_empty(path):
        return True
    first = (",".join(FIRST_COLUMNS) + ",").encode()
    try:
        with open(path, "rb") as file:
            return file.read(len(first)) == first
    except OSError:
        return False


def _flat(model: EvaluatedModel) -> dict[str, float]:
    return model.scores | {f"{name}_se": error for name, error in model.errors.items()}


def as_dict(model: EvaluatedModel, config: EvaluateConfig) -> dict[str, object]:
    """Everything that is known of a measured model."""
    dataset, checkpoint = model.dataset, model.checkpoint
    names = config.factors or dataset.factor_names
    return {
        "checkpoint": {
            "path": str(model.path),
            "step": checkpoint["step"],
            "finished": checkpoint["finished"],
            "trained_on": {key: checkpoint["dataset"][key] for key in ("name", "source")},
            "weights": weights_digest(checkpoint),
            "config": checkpoint["config"],
        },
        "data": {
            "name": dataset.name,
            "source": dataset.source,
            "num_images": len(dataset),
            "num_encoded": model.num_encoded,
            "factor_names": list(names),
            "factor_sizes": [dataset.factor_sizes[dataset.factor_names.index(n)] for n in names],
        },
        "settings": dataclasses.asdict(config),
        "points": {
            "num_points": model.num_points,
            "num_held_out": model.num_held_out,
        },
        "scores": {
            name: {
                "value": value,
                "standard_error": model.errors.get(name),
                "measure": METRIC_OF[name].name,
                "how": model.protocols[name],
            }
            for name, value in model.scores.items()
        },
        "left_out": model.missing,
        "details": model.details,
        "seconds": round(model.seconds, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }


POINTS = ("num_batches", "batch_size", "repeats", "seed", "factors")  # what draws the points


def with_earlier(content: dict, path: Path) -> dict:
    """The results, and those of other metrics than --metrics named, as an earlier file has them.

    They stay where they are of the same weights, data and points, and each tells how it was made;
    the settings beside them, but for the names of metrics, are those of the last call. An earlier
    file of anything else is left out whole, with a line, and so is one that is damaged.
    """
    asked = content["settings"]["metrics"]
    if not is_replaced(path):
        return content
    try:
        earlier = None if _is_empty(path) else read_results(path)
    except (UserError, OSError):
        _tell(f"{path} could not be read as scores, and what it had is gone")
        return content
    if earlier is None:
        return content
    if _weights_and_points(earlier) != _weights_and_points(content):
        told = "had scores of other weights, data or points, which are gone"
        _tell(f"{path} {told}; --output NAME keeps such apart")
        return content
    if asked is None:
        return content
    kept = {n: s for n, s in earlier["scores"].items() if s["measure"] not in asked}
    measures = {score["measure"] for score in kept.values()}
    details = {n: one for n, one in earlier["details"].items() if n in measures}
    named = earlier["settings"]["metrics"]
    named = named and list(dict.fromkeys([*named, *asked]))
    return {
        **content,
        "settings": {**content["settings"], "metrics": named},
        "scores": {**kept, **content["scores"]},
        "left_out": {n: why for n, why in content["left_out"].items() if n not in measures},
        "details": {**details, **content["details"]},
    }


def _tell(line: str) -> None:
    """On standard error, beside a progress bar."""
    tqdm.write(line, file=sys.stderr)


def _weights_and_points(content: Mapping) -> list[object]:
    """What results are of, with the data; earlier versions did not write down the weights."""
    return [
        content["checkpoint"].get("weights"),
        *(content["data"].get(key) for key in ("name", "source", "num_images")),
        *(content["settings"].get(key) for key in POINTS),
    ]


def _plain(value: object) -> object:
    """For strict JSON: arrays as lists, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
