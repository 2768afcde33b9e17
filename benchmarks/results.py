"""Every number of the results, by one command: train what is missing, evaluate it, write it down.

    python -m benchmarks.results --profile laptop
    python -m benchmarks.results --profile paper --minutes 8.5 --carry parts/

A profile is a list of sweeps: `laptop`, what README compares; `long`, one seed each of the paper's
300,000 steps, hours of a core; `paper` and `methods`, five seeds of these, for a GPU; `explored`,
experiments on the way. Each is trained by train.py itself, into OUTPUT_DIR/PROFILE/NAME, and
every finished run is measured by evaluate.py: all metrics, with DCI by `gbt`, then DCI by `forest`
and by `lasso`; some are measured on their way, too, for the score over steps and minutes. Then
docs/results.md, results.csv and results.png, results_on_the_way.csv and .png are drawn from what is
there. Stopped at any moment, or by --minutes, the same command goes on; with nothing left to do it
only draws.

--carry DIR serves machines that are lent for minutes: what was made is also put there, in files of
at most 16 MiB, and taken from there where OUTPUT_DIR lacks it. `finished-N.zip` holds the finished
runs (log, scores and the weights of the VAE); `RUN.ckpt.N` are the consecutive parts of the
checkpoint of a run under way (weights and moments of the VAE and the discriminator, and its log).
"""

import argparse
import csv
import dataclasses
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from factorvae.checkpoint import PRETRAINED, export_weights, load_checkpoint, load_model
from factorvae.config import RECIPES, TrainConfig, parse_sweep, recipe_flags
from factorvae.datasets import FactorSpace, load_dataset
from factorvae.datasets.dsprites_drawing import DSPRITES
from factorvae.datasets.rooms import ROOMS
from factorvae.figures.style import save_figure
from factorvae.figures.sweep_plots import score_against_reconstruction, scores_over_training
from factorvae.files import CHECKPOINT_NAME, METRICS_NAME, whole_file
from factorvae.models import VAE
from factorvae.objective import recon_loss_per_image
from factorvae.run_log import read_log
from factorvae.training.run_folder import run_name

ROOT = Path(__file__).parents[1]
ESTIMATORS = ("gbt", "forest", "lasso")  # of DCI; the first with all other metrics
PART_BYTES = 16 << 20
COMMITS_NAME = "commits.txt"  # in a sweep's folder: of the code that trained it
SECONDS_TO_END = 30  # of --minutes, for the last checkpoint and the drawing
SEEDS = "--seed 0-4"
UNSEEN = "--seed 16-20 26 30"  # on which no recipe was chosen
TWO_CORES = "--jobs 2 --threads 1"


@dataclass(frozen=True)
class Sweep:
    """Runs of one kind.

    flags: of train.py, without --output_dir and --data_dir. ships: the name in pretrained/ of its
    run with the highest FactorVAE score, to two digits, and of several of the highest MIG.
    on_the_way: steps at which its runs are measured before their end. past: an earlier recipe or an
    experiment, which the figures leave out.
    """

    name: str
    title: str
    flags: str
    ships: str = ""
    on_the_way: tuple[int, ...] = ()
    past: bool = False


def paper() -> list[Sweep]:
    """The most important first: what the README compares, and the paper's best gamma."""
    length = f"--max_steps 300000 --log_every 1000 {SEEDS}"
    factorvae, betavae = "FactorVAE, the paper's recipe", "beta-VAE, the paper's recipe"
    return [
        Sweep("factorvae", factorvae, f"--gamma 6.4 {length}"),
        Sweep("betavae", betavae, f"--beta 4 --gamma 0 {length}"),
        Sweep("factorvae_35", factorvae, f"--gamma 35 {length}"),
        Sweep("factorvae_others", factorvae, f"--gamma 10 20 40 {length}"),
        Sweep("betavae_others", betavae, f"--beta 1 --gamma 0 {length}"),
    ]


def methods(length: str) -> list[Sweep]:
    """Every method at its default strength and at another."""
    strengths = [
        ("factorvae", "FactorVAE", "--gamma 6.4 35"),
        ("betavae", "beta-VAE", "--beta 4 8"),
        ("annealed_10", "AnnealedVAE, 10 nats", "--capacity 10"),
        ("annealed_25", "AnnealedVAE, 25 nats", "--capacity 25"),
        ("dipvae1", "DIP-VAE-I", "--gamma 2 10"),
        ("dipvae2", "DIP-VAE-II", "--gamma 2 10"),
        ("btcvae", "beta-TCVAE", "--gamma 3 5"),
    ]
    return [
        Sweep(name, title, f"--method {name.partition('_')[0]} {flags} {length}")
        for name, title, flags in strengths
    ]


FAST = f"--preset fast --precision bf16 {TWO_CORES}"
RATES = "--disc_width 300 --lr 0.0006 --lr_disc 0.0005"
ONE_BY_ONE = f"{RATES} --latent_scale 0.1 --wake_at 2000"
STARTED = "--beta_start 4 --gamma_start 50 --anneal_from 2000 --anneal_until 10000"
TURNED = (
    f"{RATES} --latent_scale 0.1 {STARTED} --turn_at 2500 5000 --wake_at 5000 8000 "
    f"--max_steps 20000 --precision bf16 {TWO_CORES}"
)
FALLING = f"{ONE_BY_ONE} --beta_start 4 --anneal_from 2000 --anneal_until 10000 --max_steps 20000"


def explored() -> list[Sweep]:
    """Experiments on the way to the recipe, and with it; docs/results.md says which on a GPU."""
    shared = f"--log_every 500 {SEEDS}"
    longer = f"{ONE_BY_ONE} --max_steps 20000 {shared}"
    rising = "--gamma 35 --gamma_start 6.4 --anneal_from 3000 --anneal_until 12000"
    betavae = f"{FALLING} --log_every 500 --precision bf16 {TWO_CORES} --beta 4 --gamma 0"
    unturned = f"{TURNED} --turn_at 0 --gamma 6.4 --seed 0"
    added = f"{FAST} --wake_at 5000 8000 --gamma 6.4 --seed 14-15"
    noisy = "--dataset noisy_dsprites --preset fast --precision bf16 --threads 2 --seed 0"
    float32 = f"--preset fast {TWO_CORES} --gamma 6.4 --seed 16"
    recipe = " ".join(recipe_flags("fast")).replace(" --disc_standardize", "")
    later_turn = "--turn_at 1500 2500 5000 15000"
    sooner = f"--anneal_until 5000 {later_turn}"
    glorot = f"--latent_scale 1 --precision bf16 {TWO_CORES}"
    same = f"--precision bf16 {TWO_CORES} --gamma 6.4 --seed 16-17"
    seen = "--gamma 6.4 --seed 22 24"
    sweeps = [
        Sweep("without_standardize", "FactorVAE, fast, codes as they are", f"{recipe} {same}"),
        Sweep("without_turn", "FactorVAE, fast, no turns", f"--preset fast --turn_at 0 {same}"),
        Sweep(
            "without_gamma",
            "FactorVAE, fast, gamma 6.4 from the start",
            f"--preset fast --gamma_start 0 {same}",
        ),
        Sweep(
            "without_scale",
            "FactorVAE, fast, first weights of Glorot's size",
            f"--preset fast --latent_scale 1 {same}",
        ),
        Sweep(
            "unscaled",
            "FactorVAE, fast, codes as they are and first weights of Glorot's size",
            f"{recipe} {later_turn} {glorot} {seen}",
        ),
        Sweep("sooner", "FactorVAE, weights falling until 5,000", f"{FAST} {sooner} {seen}"),
        Sweep(
            "sooner_unscaled",
            "the same, codes as they are and first weights of Glorot's size",
            f"{recipe} {sooner} {glorot} {seen}",
        ),
        Sweep(
            "sooner_glorot",
            "the same, first weights of Glorot's size",
            f"--preset fast {sooner} {glorot} --gamma 6.4 --seed 31-33",
        ),
        Sweep(
            "sooner_rooms",
            "the same, first weights of Glorot's size",
            f"--dataset rooms --preset fast {sooner} {glorot} --seed 0",
        ),
        Sweep("added", "FactorVAE, fast but for the last two wakings", added),
        Sweep("fast_fp32", "FactorVAE, fast, in float32", float32),
        Sweep("noisy_fast", "FactorVAE, fast", noisy),
        Sweep("unturned", "FactorVAE, turned but for the turns", unturned),
        Sweep("falling", "FactorVAE, falling", f"{FALLING} {shared} --gamma 6.4"),
        Sweep("falling_betavae", "beta-VAE, falling", f"{betavae} --seed 0-1"),
        Sweep("constant", "FactorVAE, woken once, longer", f"{longer} --gamma 6.4"),
        Sweep("gamma20", "FactorVAE, woken once, longer", f"{longer} --gamma 20"),
        Sweep("rising35", "FactorVAE, woken once, longer, gamma from 6.4", f"{longer} {rising}"),
    ]
    return [dataclasses.replace(sweep, past=True) for sweep in sweeps]


ON_THE_WAY = (1000, 2500, 5000, 10000)
ON_THE_LONGER_WAY = (2500, 5000, 10000, 15000)
ON_THE_LONGEST_WAY = (20000, 50000, 75000, 100000, 150000, 200000, 250000)
WOKEN = f"{ONE_BY_ONE} --max_steps 8000 --precision bf16 {TWO_CORES}"
TWICE = "--anneal_until 8000 --wake_at 2000 8000 --max_steps 14000"
CONSTANT = f"{RATES} --max_steps 5000 {TWO_CORES}"
ANNEALED = "--beta_start 100 --gamma_start 50 --anneal_from 300 --anneal_until 4000"
SHORT = f"--max_steps 20000 --precision bf16 {TWO_CORES}"
LONG = f"--max_steps 300000 --precision bf16 {TWO_CORES}"
PROFILES: dict[str, list[Sweep]] = {
    "laptop": [
        Sweep(
            "fast",
            "FactorVAE, fast",
            f"{FAST} --gamma 6.4 {UNSEEN}",
            "dsprites_factorvae",
            on_the_way=ON_THE_LONGER_WAY,
        ),
        Sweep(
            "fast_betavae",
            "beta-VAE, fast",
            f"{FAST} --beta 4 --gamma 0 {UNSEEN}",
            "dsprites_betavae",
            on_the_way=ON_THE_LONGER_WAY,
        ),
        Sweep(
            "turned",
            "FactorVAE, turned, the seeds it was chosen on",
            f"{TURNED} --gamma 6.4 {SEEDS}",
            on_the_way=ON_THE_LONGER_WAY,
            past=True,
        ),
        Sweep(
            "turned_betavae",
            "beta-VAE, turned",
            f"{TURNED} --beta 4 --gamma 0 {SEEDS}",
            on_the_way=ON_THE_LONGER_WAY,
            past=True,
        ),
        Sweep(
            "turned_others",
            "FactorVAE, turned, other seeds",
            f"{TURNED} --gamma 6.4 --seed 5-6",
            past=True,
        ),
        Sweep(
            "woken",
            "FactorVAE, woken once",
            f"{WOKEN} --gamma 6.4 {SEEDS}",
            on_the_way=ON_THE_WAY,
            past=True,
        ),
        Sweep(
            "woken_betavae",
            "beta-VAE, woken once",
            f"{WOKEN} --beta 4 --gamma 0 {SEEDS}",
            on_the_way=ON_THE_WAY,
            past=True,
        ),
        Sweep(
            "twice",
            "FactorVAE, falling sooner, woken twice",
            f"{FALLING} --precision bf16 {TWO_CORES} --gamma 6.4 {TWICE} {SEEDS}",
            past=True,
        ),
        Sweep(
            "factorvae",
            "FactorVAE, all latents at once",
            f"{CONSTANT} --gamma 6.4 {SEEDS}",
            on_the_way=ON_THE_WAY,
            past=True,
        ),
        Sweep(
            "betavae",
            "beta-VAE, all latents at once",
            f"{CONSTANT} --beta 4 --gamma 0 {SEEDS}",
            on_the_way=ON_THE_WAY,
            past=True,
        ),
        Sweep(
            "rooms_fast",
            "FactorVAE, fast",
            f"--dataset rooms {FAST} --seed 0-2",
            "rooms_factorvae",
        ),
        Sweep(
            "rooms_fast_betavae",
            "beta-VAE, fast",
            f"--dataset rooms {FAST} --beta 4 --gamma 0 --seed 0-2",
        ),
        Sweep("rooms", "FactorVAE, all latents at once", f"--dataset rooms {CONSTANT} --seed 0"),
        Sweep(
            "annealed",
            "FactorVAE, annealed",
            f"{CONSTANT} --gamma 6.4 {ANNEALED} --seed 0-1",
            "dsprites_annealed",
            past=True,
        ),
        Sweep(
            "factorvae_short",
            "FactorVAE, the paper's rates",
            f"{SHORT} --gamma 6.4 {SEEDS}",
            on_the_way=ON_THE_LONGER_WAY,
        ),
        Sweep(
            "betavae_short",
            "beta-VAE, the paper's rates",
            f"{SHORT} --beta 4 --gamma 0 {SEEDS}",
            on_the_way=ON_THE_LONGER_WAY,
        ),
    ],
    "long": [
        Sweep(
            "factorvae",
            "FactorVAE, the paper's recipe, on a CPU",
            f"{LONG} --gamma 6.4 --seed 0",
            on_the_way=ON_THE_LONGEST_WAY,
        ),
        Sweep(
            "betavae",
            "beta-VAE, the paper's recipe, on a CPU",
            f"{LONG} --beta 4 --gamma 0 --seed 0",
            on_the_way=ON_THE_LONGEST_WAY,
        ),
    ],
    "explored": explored(),
    "paper": paper(),
    "methods": methods(f"--max_steps 300000 {SEEDS}"),
}


@dataclass(frozen=True)
class Budget:
    """When to stop: a time of time.monotonic(), or never."""

    end: float = float("inf")

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


def train(sweep: Sweep, folder: Path, options: argparse.Namespace, budget: Budget) -> bool:
    """Train what is missing of a sweep, and measure it on its way; whether all of it is done."""
    runs = runs_of(sweep, folder)
    command = [sys.executable, "train.py", *sweep.flags.split(), *shared_flags(options)]
    command += ["--output_dir", str(runs[0] if len(runs) == 1 else folder)]  # one is no sweep
    for steps in stops_of(sweep):
        if any(steps_done(run) < steps for run in runs):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / COMMITS_NAME).open("a") as file:  # more than one where it goes on
                file.write(commit() + "\n")
            if not call([*command, "--max_steps", str(steps)], budget):
                return False
        for run in runs if sweep.on_the_way else ():
            if steps_done(run) == steps and not measure_on_the_way(run, steps, options, budget):
                return False
    return True


def stops_of(sweep: Sweep) -> list[int]:
    """Steps at which its training stops: to be measured on the way, and at the end."""
    end = length_of(sweep)
    return [*(steps for steps in sorted(sweep.on_the_way) if steps < end), end]


def length_of(sweep: Sweep) -> int:
    """Steps of each of its runs."""
    return parse_sweep(TrainConfig, "", sweep.flags.split())[0].max_steps


def curve_file(run: Path, steps: int) -> Path:
    return run / f"metrics_at_{steps}.json"


def measure_on_the_way(run: Path, steps: int, options: argparse.Namespace, budget: Budget) -> bool:
    """Measure what the curve shows, unless it has been; whether the file is there.

    The votes are the paper's 800, for which a twelfth of dSprites is encoded.
    """
    output = curve_file(run, steps)
    if output.exists():
        return True
    if budget.left < 2 * SECONDS_TO_END:
        return False
    command = [sys.executable, "evaluate.py", "--model_path", str(run), *shared_flags(options)]
    command += ["--protocol", "paper", "--metrics", *ON_CURVE, "--output", str(output)]
    return call(command, budget)


def shared_flags(options: argparse.Namespace) -> list[str]:
    return ["--data_dir", options.data_dir, "--device", options.device]


def call(command: Sequence[str], budget: Budget) -> bool:
    """Run one of the scripts; whether it came to its end before the budget did.

    Raises:
        SystemExit: it failed.
    """
    print("$", " ".join(["python", *command[1:]]), flush=True)
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        seconds = None if budget.left == float("inf") else max(0.0, budget.left - SECONDS_TO_END)
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it writes a checkpoint and ends
        process.wait()
        return False
    if code:
        raise SystemExit(code)
    return True


def runs_of(sweep: Sweep, folder: Path) -> list[Path]:
    """The folders of a sweep's runs, whether they are there or not."""
    configs = parse_sweep(TrainConfig, "", sweep.flags.split())
    return [folder / run_name([config]) for config in configs]


def steps_done(run: Path) -> int:
    """Those of its checkpoint; 0 where there is none."""
    return load_checkpoint(run)["step"] if (run / CHECKPOINT_NAME).exists() else 0


def metrics_file(run: Path, estimator: str) -> Path:
    return run / (METRICS_NAME if estimator == ESTIMATORS[0] else f"metrics_{estimator}.json")


def evaluate(run: Path, steps: int, options: argparse.Namespace, budget: Budget) -> bool:
    """Measure a finished run of so many steps; whether all its files of scores are there."""
    for estimator in ESTIMATORS:
        output = metrics_file(run, estimator)
        if steps_measured(output) == steps:
            continue
        if budget.left < 2 * SECONDS_TO_END:
            return False
        command = [sys.executable, "evaluate.py", "--model_path", str(run), *shared_flags(options)]
        command += ["--dci_estimator", estimator, "--output", str(output)]
        if estimator != ESTIMATORS[0]:
            command += ["--metrics", "dci"]
        if not call(command, budget):
            return False
    return True


def steps_measured(path: Path) -> int | None:
    """Steps of the run whose scores a file has; None where there is none."""
    return json.loads(path.read_text())["checkpoint"]["step"] if path.exists() else None


COLUMNS = (
    *("profile", "sweep", "run", "dataset", "beta", "gamma", "seed", "steps", "seconds"),
    *("commit", "torch"),
    *("factor_vae_score", "mig", "sap", "recon_loss", "kl", "num_active"),
    *(f"{name}_{e}" for e in ESTIMATORS for name in ("D", "C", "I")),
    "gaussian_total_correlation_sampled",
)
DCI = {"D": "disentanglement", "C": "completeness", "I": "informativeness"}


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


ON_CURVE = ("factor_vae_score", "mig", "losses")
CURVE_COLUMNS = (*COLUMNS[:9], "factor_vae_score_paper", "mig", "recon_loss")


def curve_rows(options: argparse.Namespace) -> list[dict[str, object]]:
    """Of each run below OUTPUT_DIR a row for every number of steps at which it was measured."""
    return [
        curve_row(profile, sweep, run, steps)
        for profile, sweep in all_sweeps()
        for run in runs_of(sweep, options.output_dir / profile / sweep.name)
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


def rows_done(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row of every finished and measured run of every profile below OUTPUT_DIR."""
    return [
        row_of(profile, sweep, run)
        for profile, sweep in all_sweeps()
        for run in measured_runs(profile, sweep, options)
    ]


def measured_runs(profile: str, sweep: Sweep, options: argparse.Namespace) -> list[Path]:
    """The runs of a sweep below OUTPUT_DIR that have all their files of scores, of its length."""
    runs = runs_of(sweep, options.output_dir / profile / sweep.name)
    length = length_of(sweep)
    return [
        run
        for run in runs
        if all(steps_measured(metrics_file(run, e)) == length for e in ESTIMATORS)
    ]


def merged(rows: Sequence[dict], path: Path) -> list[dict]:
    """These rows, and those of runs that an earlier file has and this machine has not."""
    known = {key_of(row): row for row in rows}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                known.setdefault(key_of(row), row)
    order = {(p, s.name): place for place, (p, s) in enumerate(all_sweeps())}
    last = len(order)
    return [known[key] for key in sorted(known, key=lambda k: (order.get(k[:2], last), *k[2:]))]


def key_of(row: dict) -> tuple[str, str, str, int]:
    """What names a row: its profile, its sweep, its run's folder and the steps."""
    return row["profile"], row["sweep"], row["run"], int(row["steps"])


def all_sweeps() -> Iterator[tuple[str, Sweep]]:
    """Every sweep with the name of its profile, in their order."""
    for profile, sweeps in PROFILES.items():
        for sweep in sweeps:
            yield profile, sweep


def compared(rows: Sequence[dict]) -> list[dict]:
    """The rows that figures have: those of no past sweep."""
    now = {(profile, sweep.name) for profile, sweep in all_sweeps() if not sweep.past}
    return [row for row in rows if key_of(row)[:2] in now]


def title_of(profile: str, name: str) -> str:
    """A sweep's title, or its name where the profile has it no more."""
    return next((s.title for p, s in all_sweeps() if (p, s.name) == (profile, name)), name)


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
DECIMALS = {"recon_loss": 1, "num_active": 1}


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


def markdown(rows: Sequence[dict], curve: Sequence[dict]) -> str:
    """docs/results.md, of the rows of results.csv and of results_on_the_way.csv."""
    sweeps = {(profile, sweep.name): sweep for profile, sweep in all_sweeps()}
    lines = [
        "# Results",
        "",
        "Made by `python -m benchmarks.results`; a row per run is in `results.csv`. Mean and",
        "deviation over seeds. DCI, MIG and losses: 10,240 points and 5,120 held out, evaluation",
        "seed 0. FactorVAE score: 10,000 votes of 64 images and 5,000 held out. D, C and I depend",
        "so much on the estimator that each is given; other papers' D is one of these.",
        "",
        "Trained on a core each, noisy_dsprites on two, in bfloat16 where the command says so; but",
        "FactorVAE *falling* and *longer* on an H200, 20 runs at a time, in float32 (TF32).",
        "",
        f"| data | model | beta | gamma | steps | seeds | {' | '.join(TABLE)} | minutes a run |",
        f"|---|---|---|---|---|---|{'---|' * len(TABLE)}---|",
    ]
    for (profile, name, dataset, beta, gamma, steps), group in groups_of(rows):
        cells = [cell(group, names) for names in TABLE.values()]
        seeds = ", ".join(sorted({str(row["seed"]) for row in group}))
        minutes = np.mean([float(row["seconds"]) for row in group]) / 60
        title = f"{title_of(profile, name)} ({profile})"
        settings = f"{beta:g} | {gamma:g} | {steps:,} | {seeds}"
        lines.append(f"| {dataset} | {title} | {settings} | {' | '.join(cells)} | {minutes:.0f} |")
    lines += ["", *PUBLISHED, *(OF_CURVE if compared(curve) else ())]
    trained = dict.fromkeys((row["profile"], row["sweep"]) for row in [*rows, *curve])
    commands = [f"    python train.py {sweeps[key].flags}" for key in trained if key in sweeps]
    lines += ["Trained by", "", *commands, ""]
    lines += ["and measured by `evaluate.py --model_path RUN --dci_estimator gbt|forest|lasso`."]
    lines += [f"Drawn at commit {commit()}, on {platform.machine()} with {device_name()}.", ""]
    missing = [
        f"    python -m benchmarks.results --profile {profile}  # {count} of {total} runs are done"
        for profile, (count, total) in progress(rows).items()
        if count < total
    ]
    if missing:
        lines += ["Not trained yet, and what would do it:", "", *missing, ""]
    return "\n".join(lines)


def progress(rows: Sequence[dict]) -> dict[str, tuple[int, int]]:
    """Of each profile, the runs done and those that there are."""
    done = {key_of(row)[:3] for row in rows}
    counts = {}
    for profile, sweeps in PROFILES.items():
        keys = [
            (profile, sweep.name, run.name) for sweep in sweeps for run in runs_of(sweep, Path())
        ]
        counts[profile] = len(done & {*keys}), len(keys)
    return counts


def commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores"


def write_results(options: argparse.Namespace) -> list[dict]:
    """Write the tables and figures to --docs; the rows of all runs known."""
    docs = options.docs
    rows = merged(rows_done(options), docs / "results.csv")
    if not rows:
        print("no run is finished and measured yet: there is nothing to write down")
        return []
    docs.mkdir(parents=True, exist_ok=True)
    write_csv(docs / "results.csv", COLUMNS, rows)
    curve = merged(curve_rows(options), docs / "results_on_the_way.csv")
    (docs / "results.md").write_text(markdown(rows, curve))
    settings = {
        f"{title_of(profile, name)}, {f'gamma {gamma:g}' if gamma else f'beta {beta:g}'}": np.array(
            [[float(row["recon_loss"]), float(row["factor_vae_score"])] for row in group]
        )
        for (profile, name, dataset, beta, gamma, _), group in groups_of(compared(rows))
        if dataset == "dsprites"
    }
    written = "results.md, results.csv"
    if settings:
        save_figure(score_against_reconstruction(settings, title="dSprites"), docs / "results.png")
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


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())


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


def ship(rows: Sequence[dict], options: argparse.Namespace) -> None:
    """Put the best run of each sweep that ships into --pretrained, and tell of them.

    rows: of all runs known. A model whose run is not on this machine stays, and so does its line.
    """
    page = options.pretrained / "README.md"
    told = page.read_text().splitlines() if page.exists() else []
    lines = []
    for profile, sweep in all_sweeps():
        known = [row for row in rows if key_of(row)[:2] == (profile, sweep.name)]
        if not sweep.ships:
            continue
        path = options.pretrained / f"{sweep.ships}.pt"
        kept = [line for line in told if line.startswith(f"| `{path.name}`")]
        if not known:  # what ships is of an earlier sweep still
            lines += kept
            continue
        best = max(known, key=_merit)
        run = options.output_dir / profile / sweep.name / best["run"]
        if steps_done(run) < int(best["steps"]):
            of, flags = f"(of {len(known)} seeds)", spelled_flags(sweep, best["seed"])
            for line in kept:  # of this sweep, or of an earlier one still
                lines.append(re.sub(r"\(of \d+ seeds\)", of, line) if flags in line else line)
            continue
        options.pretrained.mkdir(parents=True, exist_ok=True)
        path.write_bytes(export_weights(load_checkpoint(run), torch.float16))
        with tempfile.TemporaryDirectory() as folder:
            images = sample_images(best["dataset"], Path(folder))
        sample = reconstruction(load_model(path), images)
        lines.append(shipped_line(path.name, sweep, best, sample, len(known)))
    if lines:
        page.write_text("\n".join([SHIPPED_HEAD, *lines, ""]))
        print(f"wrote {options.pretrained}: {len(lines)} models")


def _merit(row: dict) -> tuple[float, float]:
    """A run's score to two digits, more of which are chance, and then its MIG."""
    return round(float(row.get("factor_vae_score") or 0), 2), float(row.get("mig") or 0)


SAMPLES = {"dsprites": (DSPRITES, (3, 6, 10, 4, 4)), "rooms": (ROOMS, (5, 5, 5, 2, 4, 3))}
SHIPPED_HEAD = """\
# Models that ship

Weights of the VAE in float16, with their settings, as `python -m benchmarks.results` exports them:
of the seeds trained, the one with the highest FactorVAE score (to two digits, then by MIG), so
these scores are a best of a few and docs/results.md has the means. evaluate.py and
visualize.py take them, and so does a notebook:

    python visualize.py --model_path pretrained/dsprites_factorvae.pt --output_dir results/
    python evaluate.py --model_path pretrained/rooms_factorvae.pt

    from factorvae import load_model
    vae = load_model("pretrained/dsprites_betavae.pt")

Scores are those of the run before its weights were rounded; recon is the reconstruction error in
nats of the mean codes of 1,000 images, with the file's own weights (`sample_images` in
benchmarks/results.py says which). Presets are spelled out: the flags are good at that commit.

| file | flags of train.py | commit | steps | FactorVAE score | MIG | D, C, I (gbt) | recon |
|---|---|---|---|---|---|---|---|"""


def spelled_flags(sweep: Sweep, seed: object) -> str:
    """Those of one of its runs, without presets; a flag given twice counts as it is given last."""
    flags = re.sub(r"--seed( \d\S*)+", f"--seed {seed}", sweep.flags.replace(" --jobs 2", ""))
    for name in RECIPES:
        flags = flags.replace(f"--preset {name}", " ".join(recipe_flags(name)))
    return flags


def shipped_line(file: str, sweep: Sweep, row: dict, sample: float, candidates: int) -> str:
    """A model's row in pretrained/README.md."""
    flags = spelled_flags(sweep, row["seed"])
    scores = [cell([row], name) for name in ("factor_vae_score", "mig")]
    scores.append(cell([row], ("D_gbt", "C_gbt", "I_gbt")))
    of_how_many = "" if candidates == 1 else f" (of {candidates} seeds)"
    cells = (f"`{file}`", f"`{flags}`{of_how_many}", row["commit"], f"{int(row['steps']):,}")
    return f"| {' | '.join([*cells, *scores, format(sample, '.1f')])} |"


def sample_images(dataset: str, folder: Path) -> Tensor:
    """1,000 images, evenly spaced in a grid of the set's factors; float32 [1000, C, H, W].

    folder: for the grid's cache.
    """
    space, sizes = SAMPLES[dataset]
    spread = zip(space.values, sizes, strict=True)
    values = [[v[int(place)] for place in np.linspace(0, len(v) - 1, n)] for v, n in spread]
    grid = load_dataset(dataset, folder, space=FactorSpace(space.names, sizes, values))
    return grid.batch(np.linspace(0, len(grid) - 1, 1000).round().astype(int))


def reconstruction(vae: VAE, images: Tensor) -> float:
    """Nats per image of the images [N, C, H, W] decoded from the means of their codes."""
    with torch.inference_mode():
        parts = [
            recon_loss_per_image(vae.decode(vae.encode(part)[0]), part)
            for part in images.split(100)
        ]
    return float(torch.cat(parts).mean())


def carry_to(folder: Path, options: argparse.Namespace) -> None:
    """Put what was made into `folder`, in files of at most PART_BYTES."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("finished-*.zip"), *folder.glob("*.ckpt.*")]:
        old.unlink()
    archive, number = None, 0
    base = options.output_dir
    runs = [
        (run, length_of(sweep))
        for profile, sweep in all_sweeps()
        for run in runs_of(sweep, base / profile / sweep.name)
    ]
    for run, length in runs:
        path = run / CHECKPOINT_NAME
        if not path.exists():
            continue
        checkpoint = load_checkpoint(path)
        if checkpoint["step"] < length:
            parts = [*run.iterdir(), *run.parent.glob(COMMITS_NAME)]
            bundle = zipped({p.relative_to(base): p.read_bytes() for p in parts})
            name = "__".join(run.relative_to(base).parts)
            for part, start in enumerate(range(0, len(bundle), PART_BYTES)):
                (folder / f"{name}.ckpt.{part}").write_bytes(bundle[start : start + PART_BYTES])
            continue
        parts = [p for p in (*run.iterdir(), *run.parent.glob(COMMITS_NAME)) if p != path]
        files = {p.relative_to(base): p.read_bytes() for p in parts}
        files[path.relative_to(base)] = export_weights(checkpoint)
        bundle = zipped(files)
        if archive is None or archive.stat().st_size + len(bundle) > PART_BYTES:
            archive = folder / f"finished-{number}.zip"
            number += 1
        with zipfile.ZipFile(archive, "a") as all_of_them:
            there = {*all_of_them.namelist()}  # a sweep's commits, with an earlier run of it
            for name, data in files.items():
                if str(name) not in there:
                    all_of_them.writestr(str(name), data)


def zipped(files: dict[Path, bytes]) -> bytes:
    """The files as a zip; what is hidden or temporary stays out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            if not name.name.startswith("."):
                archive.writestr(str(name), data)
    return stream.getvalue()


def carry_from(folder: Path, options: argparse.Namespace) -> None:
    """Take from `folder` the runs that OUTPUT_DIR lacks."""
    bundles = {path.name: path.read_bytes() for path in sorted(folder.glob("finished-*.zip"))}
    for path in sorted(folder.glob("*.ckpt.0")):
        stem = path.name.removesuffix(".0")
        parts = sorted(folder.glob(f"{stem}.*"), key=lambda part: int(part.suffix[1:]))
        bundles[stem] = b"".join(part.read_bytes() for part in parts)
    for bundle in bundles.values():
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            for name in archive.namelist():
                target = options.output_dir / name
                if not target.resolve().is_relative_to(options.output_dir.resolve()):
                    raise SystemExit(f"{folder}: {name} leads out of the folder")
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with whole_file(target) as file:
                        file.write(archive.read(name))


def work(options: argparse.Namespace, budget: Budget) -> None:
    """Train and measure, in the order of the profile, until all is done or the budget is spent."""
    for sweep in PROFILES[options.profile]:
        folder = options.output_dir / options.profile / sweep.name
        done = train(sweep, folder, options, budget)
        for run in runs_of(sweep, folder):
            steps = steps_done(run)
            if steps >= length_of(sweep) and not evaluate(run, steps, options, budget):
                return
        if not done:
            return


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", choices=PROFILES, required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/results"))
    parser.add_argument("--minutes", type=float, help="end before so many have passed")
    parser.add_argument("--carry", type=Path, help="folder of small files to go on from elsewhere")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="for the tables")
    parser.add_argument("--pretrained", type=Path, default=PRETRAINED, help="for models that ship")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--draw", action="store_true", help="only write down what is done")
    options = parser.parse_args(argv)
    options.output_dir = options.output_dir.resolve()
    budget = (
        Budget() if options.minutes is None else Budget(time.monotonic() + options.minutes * 60)
    )
    if options.carry and options.carry.is_dir():
        carry_from(options.carry, options)
    if not options.draw:
        work(options, budget)
    if options.carry:
        carry_to(options.carry, options)
    ship(write_results(options), options)


if __name__ == "__main__":
    main()
