"""The scores that evaluate.py has written beside a checkpoint, read again for pictures."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from factorvae.errors import UserError
from factorvae.files import CHECKPOINT_NAME, METRICS_NAME

# What JSON of any other content raises where it is taken for scores; it may be nested without end.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)

# Of details, by metric, what pictures show: lists [latent_dim, F], and of each factor, [F].
PICTURED = {"dci": ("importance", "completeness_per_factor"), "sap": ("scores", "gaps")}


@dataclass(frozen=True)
class Score:
    """One number of a metric.

    name: in files. title: in a table of one model. heading: in a table of several. headline:
    whether a Markdown table has it without being asked for it.
    """

    name: str
    title: str
    heading: str
    decimals: int = 3
    headline: bool = False

    def text(self, value: float) -> str:
        """The number as tables have it; a count's mean and deviation are no whole numbers."""
        decimals = self.decimals or int(not float(value).is_integer())
        return f"{value:.{decimals}f}"

    def text_of_several(self, values: Sequence[float], count: int, sign: str = " ± ") -> str:
        """Mean and standard deviation, '0.712 ± 0.031'; of one value itself, and nothing of none.

        count: of the models. Where not all of them have the score, it tells of how many it is.
        """
        if not values:
            return ""
        spread = f"{sign}{self.text(statistics.stdev(values))}" if len(values) > 1 else ""
        few = f" (of {len(values)})" if len(values) < count else ""
        return self.text(statistics.mean(values)) + spread + few


@dataclass(frozen=True)
class Measured:
    """What a metrics.json is of.

    path: the file. step: of the checkpoint that was measured. weights: a digest of that one's; None
    in files of earlier versions. data: the name and source of the images.
    """

    path: Path
    step: int
    weights: str | None
    data: tuple[str, str]


@dataclass(frozen=True)
class SavedScores(Measured):
    """The content of a metrics.json.

    about: the data and the points that it was measured on. rows: of a table, of which the first are
    headings. details: by metric; what explains its scores. factor_names: those that the metrics
    used.
    """

    about: str
    rows: Sequence[Sequence[str]]
    details: Mapping[str, Mapping[str, object]]
    factor_names: tuple[str, ...]


@dataclass(frozen=True)
class SavedValues(Measured):
    """The finite scores of a metrics.json by their names, and how each was made, in words."""

    values: Mapping[str, float]
    made: Mapping[str, str]


def scores_path(checkpoint: Path) -> Path:
    """Where the scores of a checkpoint are: metrics.json of a run's own, NAME_metrics.json of any
    other file, of which there may be several in one folder."""
    if checkpoint.name == CHECKPOINT_NAME:
        return checkpoint.with_name(METRICS_NAME)
    return checkpoint.with_name(f"{checkpoint.stem}_{METRICS_NAME}")


def saved_scores(checkpoint: Path, known: Sequence[Score]) -> SavedScores | None:
    """The scores of a checkpoint, None where it was not evaluated.

    known: the scores to show, in the order of the rows.

    Raises:
        UserError: the file is damaged.
    """
    own = scores_path(checkpoint)
    # earlier versions wrote metrics.json for a file of any name
    path = own if own.is_file() else checkpoint.with_name(METRICS_NAME)
    if not path.is_file():
        return None
    with _taken_for_scores(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        measured, data, scores = content["checkpoint"], content["data"], content["scores"]
        if Path(measured["path"]).name != checkpoint.name:
            return None
        about = (
            f"By evaluate.py, on {data['name']}, {data['source']}: "
            f"{content['points']['num_points']:,} points, seed {content['settings']['seed']}."
        )
        rows = [["score", "value", "\N{PLUS-MINUS SIGN}", "how"]]
        told = None
        for score in known:
            found = scores.get(score.name)
            if found is None or found["value"] is None:
                continue
            if not isinstance(found["how"], str):
                raise TypeError("how a score was made is no text")
            error = found["standard_error"]
            shown = "" if error is None else score.text(error)
            # once for all scores that are made alike
            how = "" if found["how"] == told else found["how"]
            told = found["how"]
            rows.append([score.title, score.text(found["value"]), shown, how])
        if any(row[2] for row in rows[1:]):
            about += " \N{PLUS-MINUS SIGN}: standard error."
        names, details = tuple(data["factor_names"]), content["details"]
        _check_details(details, names)
        return SavedScores(path, *_measured_of(content), about, rows, details, names)


def check_latents(scores: SavedScores, latent_dim: int) -> None:
    """UserError where what pictures show is not of the latents of the model that is drawn."""
    with _taken_for_scores(scores.path):
        for metric in PICTURED.keys() & scores.details.keys():
            of_latents, _ = PICTURED[metric]
            if len(scores.details[metric][of_latents]) != latent_dim:
                raise ValueError(f"details of {metric} are of other latents")


def read_scores(run_dir: Path) -> SavedValues | None:
    """The scores in a run's metrics.json, None where it was not evaluated.

    Raises:
        UserError: the file is damaged.
    """
    path = run_dir / METRICS_NAME
    if not path.is_file():
        return None
    with _taken_for_scores(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["scores"].items()
        values = {n: float(score["value"]) for n, score in found if score["value"] is not None}
        factors, num_points = content["settings"].get("factors"), content["points"]["num_points"]
        of = f", {num_points:,} points" + (f", {', '.join(factors)} only" if factors else "")
        made = {name: score["how"] + of for name, score in found}
        return SavedValues(path, *_measured_of(content), values, made)


def read_results(path: Path) -> dict | None:
    """The whole of a metrics.json, as evaluate.py writes it; None where there is none.

    Raises:
        UserError: the file is damaged, or of a version that wrote less.
    """
    if not path.is_file():
        return None
    with _taken_for_scores(path):
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        _measured_of(content)
        _check_details(content["details"], content["data"]["factor_names"])
        named = content["settings"]["metrics"]
        whole = named is None or all(isinstance(name, str) for name in [*named])
        for score in content["scores"].values():
            numbers = (score["value"], score["standard_error"])
            whole &= all(n is None or isinstance(n, int | float) for n in numbers)
            whole &= isinstance(score["measure"], str) and isinstance(score["how"], str)
        if not whole:
            raise TypeError("scores are something else")
        return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _check_details(details: Mapping, factor_names: Sequence[str]) -> None:
    whole = all(isinstance(one, dict) for one in details.values())
    whole &= all(isinstance(name, str) for name in factor_names)
    if not whole:
        raise TypeError("details are something else")
    for metric in PICTURED.keys() & details.keys():
        of_latents, of_factors = (details[metric][name] for name in PICTURED[metric])
        for row in [of_factors, *of_latents]:
            _check_numbers(row, len(factor_names))


def _check_numbers(row: object, count: int) -> None:
    """Some finite numbers, or null for what is not finite."""
    numbers = isinstance(row, list) and len(row) == count > 0
    if not numbers or not all(n is None or math.isfinite(n) for n in row):
        raise TypeError("details are no numbers of each factor")


def _measured_of(content: Mapping) -> tuple[int, str | None, tuple[str, str]]:
    """The step and the weights' digest of the model, and the name and source of the data."""
    model, data = content["checkpoint"], (content["data"]["name"], content["data"]["source"])
    step, weights = model["step"], model.get("weights")
    named = all(isinstance(word, str) for word in (*data, weights or ""))
    if not isinstance(step, int) or not named:
        raise TypeError("step, weights and data are something else")
    return step, weights, data


@contextmanager
def _taken_for_scores(path: Path) -> Iterator[None]:
    """UserError where the file's content is none that evaluate.py writes."""
    try:
        yield
    except DAMAGE as error:
        raise UserError(f"{path} is damaged; evaluate.py writes it anew") from error
