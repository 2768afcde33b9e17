"""docs/results.md, its tables as CSV, and its figures."""

import argparse
import csv
import io
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.results.rows import (
    COLUMNS,
    CURVE_COLUMNS,
    cell,
    compared,
    curve_rows,
    groups_of,
    merged,
    parted,
    progress,
    rows_done,
)
from benchmarks.results.running import commit
from benchmarks.results.sweeps import all_sweeps, title_of
from factorvae.files import write_whole
from factorvae.plots.style import save_figure
from factorvae.plots.sweep_plots import scores_against_reconstruction, scores_over_training

TABLE = {
    "FactorVAE score": "factor_vae_score",
    "MIG": "mig",
    "SAP": "sap",
    "D, C, I (gbt)": ("D_gbt", "C_gbt", "I_gbt"),
    "D, C, I (forest)": ("D_forest", "C_forest", "I_forest"),
    "D, C, I (lasso)": ("D_lasso", "C_lasso", "I_lasso"),
    "recon": "recon_loss",
    "live": "num_active",
    "TC": "gaussian_total_correlation_sampled",
}
PUBLISHED = (
    "Published for dSprites, each by its authors' own code and protocol. Lin et al. (InfoGAN-CR)",
    "as a later paper's table quotes them, with the steps of their repository's configuration;",
    "their D is of another estimator than the three above. Locatello et al. show DCI and MIG of",
    "50 seeds in figures; these rows are their released models numbered 400, 300, 100 and 0 (seed",
    "0), as a thesis quotes them (`tests/dsprites_tests/figures.ipynb` of",
    "sonmikrafft/sonmikrafft-MA-electrocardiogram-representational-learning, under *scores from",
    "Locatello*); gamma and beta are of the study's own list, where the thesis labels 400 as",
    "gamma 20 and 100 as beta 2. Their code has D, C and I by gradient boosting, like our `gbt`,",
    "and MIG by 20 bins of 10,000 points. The thesis does not say whether of means or of samples,",
    "nor whether its I is of the points that the trees were grown on (ours never is):",
    "",
    "| source | model | steps | FactorVAE score | D, C, I | MIG |",
    "|---|---|---|---|---|---|",
    "| Kim & Mnih 2018, 800 votes | FactorVAE, gamma 35 | 300,000 | .82 | | |",
    "| Locatello et al. 2019, one model | FactorVAE, gamma 30 | 300,000 | | .29, .32, .76 | .23 |",
    "| Locatello et al. 2019, one model | FactorVAE, gamma 10 | 300,000 | | .21, .24, .74 | .14 |",
    "| Locatello et al. 2019, one model | beta-VAE, beta 4 | 300,000 | | .16, .17, .78 | .09 |",
    "| Locatello et al. 2019, one model | beta-VAE, beta 1 | 300,000 | | .16, .17, .76 | .10 |",
    "| Lin et al. 2020 | FactorVAE, gamma 40 | 311,040 | .82 ± .01 | .74 ± .01 | .43 ± .01 |",
    "| Lin et al. 2020 | FactorVAE, gamma 10 | 311,040 | .83 ± .01 | .70 ± .02 | .40 ± .01 |",
    "| Lin et al. 2020 | FactorVAE, gamma 1 | 311,040 | .79 ± .01 | .67 ± .03 | .27 ± .03 |",
    "",
)
OF_CURVE = (
    "Some runs were measured on their way, too, by the paper's 800 votes, which are scored on",
    "themselves (`results_on_the_way.csv`). Minutes are of training alone, on one core, at the",
    "speed of the least disturbed run of a setting:",
    "",
    "![FactorVAE score over steps and minutes](results_on_the_way.png)",
    "",
)
OF_PAST = (
    "## Earlier recipes and experiments",
    "",
    "What the preset was found by, and the preset without one part or another; recipe.md tells",
    "what each was for. noisy_dsprites had two cores; *falling* and *longer* were trained on an",
    "H200, 20 runs at a time, in float32 (TF32), but for beta-VAE.",
    "",
)


def write_results(options: argparse.Namespace) -> list[dict]:
    """Write the tables and figures to --docs; the rows of all runs known."""
    docs = options.docs
    rows = merged(rows_done(options.output_dir), docs / "results.csv")
    curve = merged(curve_rows(options.output_dir), docs / "results_on_the_way.csv")
    if not rows:
        print("no run is finished and measured yet: there is nothing to write down")
        return []
    docs.mkdir(parents=True, exist_ok=True)
    write_csv(docs / "results.csv", COLUMNS, rows)
    write_whole(docs / "results.md", markdown(rows, curve).encode())
    settings = {
        f"{title_of(profile, name)}, {f'gamma {gamma:g}' if gamma else f'beta {beta:g}'}": np.array(
            [[float(row[n]) for n in ("recon_loss", "factor_vae_score", "mig")] for row in group]
        )
        for (profile, name, dataset, beta, gamma, _), group in groups_of(compared(rows))
        if dataset == "dsprites"
    }
    written = "results.md, results.csv"
    if settings:
        scores = ("FactorVAE score", "MIG")
        figure = scores_against_reconstruction(settings, scores=scores, title="dSprites")
        save_figure(figure, docs / "results.png")
        written += ", results.png"
    if curve:
        write_csv(docs / "results_on_the_way.csv", CURVE_COLUMNS, curve)
        written += ", results_on_the_way.csv"
        if compared(curve):
            figure = scores_over_training(curves_of(compared(curve)))
            save_figure(figure, docs / "results_on_the_way.png")
            written += ", results_on_the_way.png"
    print(f"wrote {docs}/{written}: {len(rows)} runs")
    return rows


def markdown(rows: Sequence[dict], curve: Sequence[dict]) -> str:
    """docs/results.md, of the rows of results.csv and of results_on_the_way.csv."""
    (now, past), (curve_now, curve_past) = parted(rows), parted(curve)
    lines = [
        "# Results",
        "",
        "Made by `python -m benchmarks.results`; a row per run is in `results.csv`. Mean and",
        "deviation over seeds. DCI, MIG and losses: 10,240 points and 5,120 held out, evaluation",
        "seed 0. FactorVAE score: 10,000 votes of 64 images and 5,000 held out. D, C and I depend",
        "so much on the estimator that each is given; other papers' D is one of these. Trained on",
        "a CPU core each, in bfloat16 where the command says so.",
        "",
        *table(now),
        *("Trained by", "", *commands([*now, *curve_now]), ""),
        "and measured by `evaluate.py --model_path RUN --dci_estimator gbt|forest|lasso`.",
        f"Drawn at commit {commit()}, on {platform.machine()} with {device_name()}.",
        "",
        *not_trained(rows),
        *(OF_CURVE if curve_now else ()),
        *PUBLISHED,
    ]
    if past or curve_past:
        lines += [*OF_PAST, *table(past), "Trained by", "", *commands([*past, *curve_past]), ""]
    return "\n".join(lines)


def table(rows: Sequence[dict]) -> list[str]:
    """Lines of a table of means and deviations over seeds, and an empty one."""
    lines = [
        f"| data | model | beta | gamma | steps | seeds | {' | '.join(TABLE)} | minutes a run |",
        f"|---|---|---|---|---|---|{'---|' * len(TABLE)}---|",
    ]
    for (profile, name, dataset, beta, gamma, steps), group in groups_of(rows):
        cells = [cell(group, names) for names in TABLE.values()]
        seeds = ", ".join(map(str, sorted({int(row["seed"]) for row in group})))
        minutes = np.mean([float(row["seconds"]) for row in group]) / 60
        title = f"{title_of(profile, name)} ({profile})"
        settings = f"{beta:g} | {gamma:g} | {steps:,} | {seeds}"
        lines.append(f"| {dataset} | {title} | {settings} | {' | '.join(cells)} | {minutes:.0f} |")
    return [*lines, ""]


def commands(rows: Sequence[dict]) -> list[str]:
    """The command that trained each sweep of these rows, as far as it is still in a profile."""
    flags = {(profile, sweep.name): sweep.flags for profile, sweep in all_sweeps()}
    trained = dict.fromkeys((row["profile"], row["sweep"]) for row in rows)
    return [f"    python train.py {flags[key]}" for key in trained if key in flags]


def not_trained(rows: Sequence[dict]) -> list[str]:
    """Lines on what each profile lacks and the command that would train it."""
    missing = [
        f"    python -m benchmarks.results --profile {profile}  # {count} of {total} runs are done"
        for profile, (count, total) in progress(rows).items()
        if count < total
    ]
    return ["Not trained yet, and what would do it:", "", *missing, ""] if missing else []


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores"


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def curves_of(rows: Sequence[dict]) -> dict[str, list[np.ndarray]]:
    """By sweep, the steps, minutes, score and reconstruction of each run, [points, 4].

    The minutes are steps over the speed of the sweep's least disturbed run.
    """
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows:
        title = title_of(row["profile"], row["sweep"])
        points = curves.setdefault(title, {}).setdefault(row["run"], [])
        names = ("steps", "seconds", "factor_vae_score_paper", "recon_loss")
        points.append([float(row[name]) for name in names])
    made = {title: [np.array(run) for run in runs.values()] for title, runs in curves.items()}
    for runs in made.values():
        seconds_per_step = min((run[:, 1] / run[:, 0]).min() for run in runs)
        for run in runs:
            run[:, 1] = run[:, 0] * seconds_per_step / 60
    return made
