"""The scores that evaluate.py has written beside a checkpoint, read again for pictures."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from factorvae.errors import UserError
from factorvae.files import CHECKPOINT_NAME, METRICS_NAME, strict_json

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
class SavedScore:
    """A finite value, its standard error if there is one, and how it was made, in words."""

    value: float
    error: float | None
    how: str


@dataclass(frozen=True)
class SavedScores:
    """The scores in a metrics.json, and which checkpoint and data the scores are of.

    path: the file. checkpoint: the name of the checkpoint's file. step: the checkpoint's. weights:
    a digest of its weights; None in files of earlier versions. data: the name and source of the
    images. num_points: images that were measured. seed: drew them. factors: those asked for; empty
    for all. scores: by name, without those that have no value. details: by metric; what explains
    its scores. factor_names: those that the metrics used.
    """

    path: Path
    checkpoint: str
    step: int
    weights: str | None
    data: tuple[str, str]
    num_points: int
    seed: int
    factors: tuple[str, ...]
    scores: Mapping[str, SavedScore]
    details: Mapping[str, Mapping[str, object]]
    factor_names: tuple[str, ...]


def scores_path(checkpoint: Path) -> Path:
    """Where the scores of a checkpoint are: metrics.json of a run's own, NAME_metrics.json of any
    other file, of which there may be several in one folder."""
    if checkpoint.name == CHECKPOINT_NAME:
        return checkpoint.with_name(METRICS_NAME)
    return checkpoint.with_name(f"{checkpoint.stem}_{METRICS_NAME}")


def saved_scores(checkpoint: Path) -> SavedScores | None:
    """The scores of a checkpoint, None where it was not evaluated.

    Raises:
        UserError: the file is damaged.
    """
    own = scores_path(checkpoint)
    # earlier versions wrote metrics.json for a file of any name
    path = own if own.is_file() else checkpoint.with_name(METRICS_NAME)
    if not path.is_file():
        return None
    scores = read_scores(path)
    return scores if scores.checkpoint == checkpoint.name else None


def check_latents(scores: SavedScores, latent_dim: int) -> None:
    """UserError where what pictures show is not of the latents of the model that is drawn."""
    with _taken_for_scores(scores.path):
        for metric in PICTURED.keys() & scores.details.keys():
            of_latents, _ = PICTURED[metric]
            if len(scores.details[metric][of_latents]) != latent_dim:
                raise ValueError(f"details of {metric} are of other latents")


def read_scores(path: Path) -> SavedScores:
    """The scores in a metrics.json.

    Raises:
        UserError: the file is damaged.
    """
    with _taken_for_scores(path):
        return _scores_of(path, strict_json(path))


def read_results(path: Path) -> dict | None:
    """The whole of a metrics.json, as evaluate.py writes it; None where there is none.

    Raises:
        UserError: the file is damaged, or of a version that wrote less.
    """
    if not path.is_file():
        return None
    with _taken_for_scores(path):
        content = strict_json(path)
        _scores_of(path, content)
        asked = content["settings"]["metrics"]
        metrics = [score["measure"] for score in content["scores"].values()]
        metrics += [] if asked is None else [*asked]
        if not all(isinstance(name, str) for name in metrics):
            raise TypeError("metrics are something else")
        return content


def _scores_of(path: Path, content: Mapping) -> SavedScores:
    """The content of the file at `path`; one of DAMAGE where it is none that evaluate.py writes."""
    model, data, settings = content["checkpoint"], content["data"], content["settings"]
    scores = {
        name: SavedScore(_number(score["value"]), _number(score["standard_error"]), score["how"])
        for name, score in content["scores"].items()
    }
    found = SavedScores(
        path=path,
        checkpoint=Path(model["path"]).name,
        step=model["step"],
        weights=model.get("weights"),
        data=(data["name"], data["source"]),
        num_points=content["points"]["num_points"],
        seed=settings["seed"],
        factors=tuple(settings.get("factors") or ()),
        scores={name: score for name, score in scores.items() if score.value is not None},
        details=content["details"],
        factor_names=tuple(data["factor_names"]),
    )
    texts = [*found.data, found.weights or "", *found.factors, *found.factor_names]
    texts += [score.how for score in scores.values()]
    whole = all(isinstance(text, str) for text in texts)
    whole &= all(isinstance(n, int) for n in (found.step, found.num_points, found.seed))
    if not whole:
        raise TypeError("scores are something else")
    _check_details(found.details, len(found.factor_names))
    return found


def _number(value: object) -> float | None:
    """A finite number; None for null, which is what is not finite."""
    if value is None:
        return None
    if not math.isfinite(value):
        raise ValueError("a score is not finite")
    return float(value)


def _check_details(details: Mapping, num_factors: int) -> None:
    if not all(isinstance(one, dict) for one in details.values()):
        raise TypeError("details are something else")
    for metric in PICTURED.keys() & details.keys():
        of_latents, of_factors = (details[metric][name] for name in PICTURED[metric])
        for row in [of_factors, *of_latents]:
            _check_numbers(row, num_factors)


def _check_numbers(row: object, count: int) -> None:
    """Some finite numbers, or null for what is not finite."""
    numbers = isinstance(row, list) and len(row) == count > 0
    if not numbers or not all(n is None or math.isfinite(n) for n in row):
        raise TypeError("details are no numbers of each factor")


@contextmanager
def _taken_for_scores(path: Path) -> Iterator[None]:
    """UserError where the file's content is none that evaluate.py writes."""
    try:
        yield
    except DAMAGE as error:
        raise UserError(f"{path} is damaged; evaluate.py writes it anew") from error
