"""The scores that evaluate.py has written beside a checkpoint, read again for pictures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from factorvae.errors import UserError
from factorvae.files import METRICS_NAME

# What JSON of any other content raises where it is taken for scores; it may be nested without end.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


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


@dataclass(frozen=True)
class SavedScores:
    """The content of a metrics.json.

    path: the file. step: of the checkpoint that was measured. about: the data and the points that
    it was measured on. rows: of a table, of which the first are headings. details: by metric; what
    explains its scores. factor_names: those that the metrics used.
    """

    path: Path
    step: int
    about: str
    rows: Sequence[Sequence[str]]
    details: Mapping[str, Mapping[str, object]]
    factor_names: tuple[str, ...]


def saved_scores(checkpoint: Path, known: Sequence[Score]) -> SavedScores | None:
    """The scores of a checkpoint, None where it was not evaluated.

    known: the scores to show, in the order of the rows.

    Raises:
        UserError: the file is damaged.
    """
    own = checkpoint.with_name(f"{checkpoint.stem}_{METRICS_NAME}")  # of several in one folder
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
            error = found["standard_error"]
            shown = "" if error is None else score.text(error)
            # once for all scores that are made alike
            how = "" if found["how"] == told else found["how"]
            told = found["how"]
            rows.append([score.title, score.text(found["value"]), shown, how])
        if any(row[2] for row in rows[1:]):
            about += " \N{PLUS-MINUS SIGN}: standard error."
        names, step, details = tuple(data["factor_names"]), measured["step"], content["details"]
        if not isinstance(step, int) or not all(isinstance(one, dict) for one in details.values()):
            raise TypeError("step and details are something else")
        return SavedScores(path, step, about, rows, details, names)


def read_scores(run_dir: Path) -> tuple[dict[str, float], int]:
    """The finite scores of a run's metrics.json by name, none where it was not evaluated; its step.

    Raises:
        UserError: the file is damaged.
    """
    path = run_dir / METRICS_NAME
    if not path.is_file():
        return {}, 0
    with _taken_for_scores(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        values = {name: score["value"] for name, score in content["scores"].items()}
        step = content["checkpoint"]["step"]
        if not isinstance(step, int):
            raise TypeError("step is something else")
        return {name: float(value) for name, value in values.items() if value is not None}, step


@contextmanager
def _taken_for_scores(path: Path) -> Iterator[None]:
    """UserError where the file's content is none that evaluate.py writes."""
    try:
        yield
    except DAMAGE as error:
        raise UserError(f"{path} is damaged; evaluate.py writes it anew") from error
