"""Training what is missing of a sweep, and measuring it, by the scripts themselves."""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results.sweeps import Sweep, runs_of, stops_of
from factorvae.checkpoint import load_checkpoint
from factorvae.files import CHECKPOINT_NAME, METRICS_NAME

ROOT = Path(__file__).parents[2]
ESTIMATORS = ("gbt", "forest", "lasso")  # of DCI; the first with all other metrics
ON_CURVE = ("factor_vae_score", "mig", "losses")
COMMITS_NAME = "commits.txt"  # in a sweep's folder: of the code that trained it
SECONDS_TO_END = 30  # of --minutes, for the last checkpoint and the drawing


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


def shared_flags(options: argparse.Namespace) -> list[str]:
    return ["--data_dir", options.data_dir, "--device", options.device]


def steps_done(run: Path) -> int:
    """Those of its checkpoint; 0 where there is none."""
    return load_checkpoint(run)["step"] if (run / CHECKPOINT_NAME).exists() else 0


def steps_measured(path: Path) -> int | None:
    """Steps of the run whose scores a file has; None where there is none."""
    return json.loads(path.read_text())["checkpoint"]["step"] if path.exists() else None


def metrics_file(run: Path, estimator: str) -> Path:
    return run / (METRICS_NAME if estimator == ESTIMATORS[0] else f"metrics_{estimator}.json")


def curve_file(run: Path, steps: int) -> Path:
    return run / f"metrics_at_{steps}.json"


def commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"
