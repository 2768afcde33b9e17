"""Rows of results.csv and results_on_the_way.csv, a run each, and means over their seeds."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.results.running import (
    COMMITS_NAME,
    ESTIMATORS,
    curve_file,
    metrics_file,
    steps_measured,
)
from benchmarks.results.sweeps import Sweep, all_sweeps, length_of, runs_of, stops_of
from factorvae.errors import UserError
from factorvae.run_log import read_log

COLUMNS = (
    *("profile", "sweep", "run", "dataset", "beta", "gamma", "seed", "steps", "seconds"),
    *("commit", "torch"),
    *("factor_vae_score", "mig", "sap", "recon_loss", "kl", "num_active"),
    *(f"{name}_{e}" for e in ESTIMATORS for name in ("D", "C", "I")),
    "gaussian_total_correlation_sampled",
)
CURVE_COLUMNS = (*COLUMNS[:9], "factor_vae_score_paper", "mig", "recon_loss")
DCI = {"D": "disentanglement", "C": "completeness", "I": "informativeness"}
DECIMALS = {"recon_loss": 1, "num_active": 1}  # in tables; 3 of others


def rows_done(output_dir: Path) -> list[dict[str, object]]:
    """A row of every finished and measured run of every profile below OUTPUT_DIR."""
    return [
        row_of(profile, sweep, run)
        for profile, sweep in all_sweeps()
        for run in measured_runs(profile, sweep, output_dir)
    ]


def measured_runs(profile: str, sweep: Sweep, output_dir: Path) -> list[Path]:
    """The runs of a sweep below OUTPUT_DIR that have all their files of scores, of its length."""
    runs = runs_of(sweep, output_dir / profile / sweep.name)
    length = length_of(sweep)
    return [
        run
        for run in runs
        if all(steps_measured(metrics_file(run, e)) == length for e in ESTIMATORS)
    ]


def row_of(profile: str, sweep: Sweep, run: Path) -> dict[str, object]:
    """A finished run's row of results.csv."""
    found = {e: json.loads(metrics_file(run, e).read_text()) for e in ESTIMATORS}
    whole = found[ESTIMATORS[0]]
    config, steps = whole["checkpoint"]["config"], whole["checkpoint"]["step"]
    row: dict[str, object] = {
        "profile": profile,
        "sweep": sweep.name,
        "run": run.name,
        **{name: config[name] for name in ("dataset", "beta", "gamma", "seed")},
        "steps": steps,
        "seconds": round(seconds_of(run, config["batch_size"], steps)),
        "commit": commit_of(run.parent),
        "torch": whole["versions"]["torch"],
    }
    for name in COLUMNS:
        if name in whole["scores"]:
            row[name] = whole["scores"][name]["value"]
    for estimator, metrics in found.items():
        for short, name in DCI.items():
            row[f"{short}_{estimator}"] = metrics["scores"][name]["value"]
    return row


def curve_rows(output_dir: Path) -> list[dict[str, object]]:
    """Of each run below OUTPUT_DIR a row for every number of steps at which it was measured."""
    return [
        curve_row(profile, sweep, run, steps)
        for profile, sweep in all_sweeps()
        for run in runs_of(sweep, output_dir / profile / sweep.name)
        for steps in stops_of(sweep)
        if curve_file(run, steps).exists()
    ]


def curve_row(profile: str, sweep: Sweep, run: Path, steps: int) -> dict[str, object]:
    """A row of results_on_the_way.csv; the seconds are of training alone."""
    found = json.loads(curve_file(run, steps).read_text())
    config, scores = found["checkpoint"]["config"], found["scores"]
    return {
        "profile": profile,
        "sweep": sweep.name,
        "run": run.name,
        **{name: config[name] for name in ("dataset", "beta", "gamma", "seed")},
        "steps": steps,
        "seconds": round(seconds_of(run, config["batch_size"], steps)),
        "factor_vae_score_paper": scores["factor_vae_score"]["value"],
        "mig": scores["mig"]["value"],
        "recon_loss": scores["recon_loss"]["value"],
    }


def commit_of(folder: Path) -> str:
    """Of the code that trained a sweep, the first commit; 'unknown' where no file tells."""
    path = folder / COMMITS_NAME
    return path.read_text().split()[0] if path.exists() else "unknown"


def seconds_of(run: Path, batch_size: int, until: float = float("inf")) -> float:
    """What a run's steps took, or so many of them, from the rate in each row of its log."""
    log = read_log(run)
    seconds = np.diff(log["step"], prepend=0) * batch_size / log["images_per_second"]
    return float(np.sum(seconds[log["step"] <= until]))


def merged(rows: Sequence[dict], path: Path) -> list[dict]:
    """These rows, and those of runs that an earlier file has and this machine has not.

    Raises:
        UserError: the file is of something else.
    """
    known = {key_of(row): row for row in rows}
    if path.exists() and path.stat().st_size:  # empty: of a full disk
        with path.open(newline="") as file:
            found = csv.DictReader(file)
            if not {"profile", "sweep", "run", "steps"}.issubset(found.fieldnames or ()):
                raise UserError(f"{path} is no table of results, which would replace it: --docs")
            for row in found:
                known.setdefault(key_of(row), row)
    order = {(p, s.name): place for place, (p, s) in enumerate(all_sweeps())}
    last = len(order)
    return [known[key] for key in sorted(known, key=lambda k: (order.get(k[:2], last), *k[2:]))]


def key_of(row: dict) -> tuple[str, str, str, int]:
    """What names a row: its profile, its sweep, its run's folder and the steps."""
    return row["profile"], row["sweep"], row["run"], int(row["steps"])


def compared(rows: Sequence[dict]) -> list[dict]:
    """The rows of what is compared, which figures have: those of no past sweep."""
    return parted(rows)[0]


def parted(rows: Sequence[dict]) -> tuple[list[dict], list[dict]]:
    """The rows of what is compared, and those of past sweeps, or of such as no profile has."""
    now = {(profile, sweep.name) for profile, sweep in all_sweeps() if not sweep.past}
    parts: tuple[list[dict], list[dict]] = [], []
    for row in rows:
        parts[key_of(row)[:2] not in now].append(row)
    return parts


def progress(rows: Sequence[dict]) -> dict[str, tuple[int, int]]:
    """Of each profile, the runs done and those that there are."""
    done = {key_of(row)[:3] for row in rows}
    counts = {}
    for profile, sweep in all_sweeps():
        keys = {(profile, sweep.name, run.name) for run in runs_of(sweep, Path())}
        finished, total = counts.get(profile, (0, 0))
        counts[profile] = finished + len(done & keys), total + len(keys)
    return counts


def groups_of(rows: Sequence[dict]) -> Iterator[tuple[tuple, list[dict]]]:
    """Rows that differ by their seed only, by (profile, sweep, dataset, beta, gamma, steps)."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        key = (
            row["profile"],
            row["sweep"],
            row["dataset"],
            float(row["beta"]),
            float(row["gamma"]),
        )
        groups.setdefault((*key, int(row["steps"])), []).append(row)
    yield from groups.items()


def cell(rows: Sequence[dict], names: str | tuple[str, ...]) -> str:
    """Mean ± standard deviation over the rows, of one score or of several side by side."""
    if isinstance(names, tuple):
        return ", ".join(cell(rows, name) for name in names)
    values = np.array([float(row[names]) for row in rows if row.get(names) not in (None, "")])
    if not len(values):
        return "-"
    decimals = DECIMALS.get(names, 3)
    mean = f"{values.mean():.{decimals}f}".removeprefix("0")
    if len(values) == 1:
        return mean
    return f"{mean} ± {f'{values.std(ddof=1):.{decimals}f}'.removeprefix('0')}"
