"""The page of a sweep: its runs side by side, and pictures of the best and of the median one."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from factorvae.files import write_whole
from factorvae.pages.gallery import Gallery
from factorvae.pages.page import PAGE_NAME, PagePicture, PageTable, html_page
from factorvae.plots.style import write_figure
from factorvae.plots.sweep_plots import scores_against_reconstruction, sweep_curves
from factorvae.saved_scores import Score

RANKED_BY = "factor_vae_score"
PLOTTED = {RANKED_BY: "FactorVAE score", "mig": "MIG"}  # the second where all have it


@dataclass(frozen=True)
class SweepRun:
    """A run of the sweep.

    setting: the name of what it has in common with its other seeds. log: columns of its log.
    scores: by name, as in its metrics.json; empty where it was not evaluated. made: how each was,
    in words. gallery: makes its pictures.
    """

    name: str
    setting: str
    log: Mapping[str, np.ndarray] | None
    scores: Mapping[str, float]
    gallery: Callable[[], Gallery]
    made: Mapping[str, str] = field(default_factory=dict)


def by_setting(runs: Sequence[SweepRun]) -> dict[str, list[SweepRun]]:
    """The runs of each setting, in the order of their first."""
    settings: dict[str, list[SweepRun]] = {}
    for run in runs:
        settings.setdefault(run.setting, []).append(run)
    return settings


def comparable(
    runs: Sequence[SweepRun], known: Sequence[Score]
) -> tuple[list[SweepRun], list[str]]:
    """The runs without the scores that were made otherwise than most runs', and lines on these."""
    headings = {score.name: score.heading for score in known}
    made = {name: made_by_most(runs, name) for name in headings}
    lines, kept = [], []
    for run in runs:
        others = [name for name in made if name in run.scores and run.made.get(name) != made[name]]
        scores = {name: value for name, value in run.scores.items() if name not in others}
        kept.append(replace(run, scores=scores))
        for name in others:
            lines.append(
                f"{headings[name]} of {run.name}: left out, it was made otherwise than most runs' "
                f"({run.made[name]}; theirs: {made[name]})"
            )
    return kept, lines


def made_by_most(runs: Sequence[SweepRun], name: str) -> str | None:
    """How a score was made in most runs that have it; of as many, in the first."""
    ways = Counter(run.made.get(name) for run in runs if name in run.scores)
    return max(ways, key=ways.__getitem__, default=None)


def how_made(runs: Sequence[SweepRun], known: Sequence[Score]) -> str:
    """How the scores of a table were made, a sentence for those that were made alike."""
    alike: dict[str, list[str]] = {}
    for score in known:
        if how := made_by_most(runs, score.name):
            alike.setdefault(how, []).append(score.heading)
    return "".join(f" {', '.join(headings)}: {how}." for how, headings in alike.items())


def score_table(runs: Sequence[SweepRun], known: Sequence[Score]) -> list[list[str]]:
    """Headings, then a row per setting: mean and standard deviation of each score over runs.

    Where some runs have no such score, the cell tells of how many it is.
    """
    known = [score for score in known if any(score.name in run.scores for run in runs)]
    rows = [["setting", "runs", *(score.heading for score in known)]]
    for setting, group in by_setting(runs).items():
        cells = []
        for score in known:
            values = [run.scores[score.name] for run in group if score.name in run.scores]
            cells.append(score.text_of_several(values, len(group)))
        rows.append([setting, str(len(group)), *cells])
    return rows


def plotted_points(runs: Sequence[SweepRun]) -> tuple[dict[str, np.ndarray], list[str]]:
    """By setting, reconstruction and scores of the runs that have them, [runs, 1 + S]; S titles."""
    runs = [run for run in runs if {"recon_loss", RANKED_BY} <= run.scores.keys()]
    names = [name for name in PLOTTED if all(name in run.scores for run in runs)]
    points = {
        setting: np.array([[run.scores[n] for n in ("recon_loss", *names)] for run in group])
        for setting, group in by_setting(runs).items()
    }
    return points, [PLOTTED[name] for name in names]


def best_and_median(runs: Sequence[SweepRun]) -> list[tuple[str, SweepRun]]:
    """The evaluated runs with the highest and the median score, with what they are called."""
    ranked = sorted(
        (run for run in runs if RANKED_BY in run.scores), key=lambda run: run.scores[RANKED_BY]
    )
    if not ranked:
        return []
    best, median = ranked[-1], ranked[(len(ranked) - 1) // 2]
    return [("best", best)] if best is median else [("best", best), ("median", median)]


def write_sweep_gallery(
    runs: Sequence[SweepRun], output_dir: Path, format: str, title: str, known: Sequence[Score]
) -> list[str]:
    """Write the sweep's pictures and index.html; a line for each file, or why it is not there.

    known: the scores of the table, in its order.
    """
    runs, lines = comparable(runs, known)
    shown = []

    def add(name: str, heading: str, caption: str, figure: Figure) -> None:
        file = f"{name}.{format}"
        data = write_figure(figure, output_dir / file, format)
        lines.append(file)
        shown.append(PagePicture(name, heading, caption, "png", data, file))

    points, titles = plotted_points(runs)
    if points:
        caption = "A small point per run and a large one at the mean of each setting."
        figure = scores_against_reconstruction(points, scores=titles, title=title)
        add("score_reconstruction", "Score and reconstruction", caption, figure)
    else:
        why = f"evaluate.py has not measured {RANKED_BY} and losses of any run"
        lines.append(f"score_reconstruction: left out, {why}")
    logs = {
        setting: [run.log for run in group if run.log is not None]
        for setting, group in by_setting(runs).items()
    }
    logs = {setting: group for setting, group in logs.items() if group}
    if logs:
        caption = "Means over the runs of a setting, within one standard deviation."
        add("sweep_training", "Training", caption, sweep_curves(logs, title=title))
    else:
        lines.append("sweep_training: left out, there is no log beside the checkpoints")
    chosen = best_and_median(runs)
    if not chosen:
        lines.append(f"traversals: left out, no run has a {RANKED_BY}, which tells the best")
    for word, run in chosen:
        caption = (
            f"{run.name}: FactorVAE score {run.scores[RANKED_BY]:.3f}, the {word} of the sweep. "
            "Triangles mark the image's own code."
        )
        figure = run.gallery().traversals()
        add(f"traversals_{word}", f"Traversals, {word} run", caption, figure)
    settings = {run.name: run.setting for run in runs}
    caption = "Not evaluated."
    if any(run.scores for run in runs):
        caption = "Mean ± standard deviation over the runs of a setting." + how_made(runs, known)
    table = PageTable("scores", "Scores", caption, score_table(runs, known))
    page = html_page(title, shown, settings, [table])
    write_whole(output_dir / PAGE_NAME, page.encode())
    return [*lines, PAGE_NAME]
