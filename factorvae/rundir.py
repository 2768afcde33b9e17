"""Folders to write to: a run's, where it is and whether it may be gone on with, and others."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from factorvae import checkpoint, runlog
from factorvae.config import TrainConfig, flag_of
from factorvae.datasets import Dataset
from factorvae.errors import UserError

METRICS_NAME = "metrics.json"  # what evaluate.py leaves beside a checkpoint


def run_dir_of(config: TrainConfig) -> Path:
    """--output_dir, or runs/dsprites_beta1_gamma6.4_seed0."""
    if config.output_dir is not None:
        return Path(config.output_dir)
    return Path("runs") / run_name(config.dataset, [config.beta], [config.gamma], [config.seed])


def run_name(
    dataset: str, betas: Sequence[float], gammas: Sequence[float], seeds: Sequence[int]
) -> str:
    """dsprites_beta1_gamma6.4_seed0, or, of a study, dsprites_beta1+4_gamma6.4_seed0-9."""
    dataset = dataset.replace(":", "_").replace("/", "_")
    beta, gamma = ("+".join(map(_shortest, values)) for values in (betas, gammas))
    seed = "+".join(map(str, seeds))
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        seed = f"{seeds[0]}-{seeds[-1]}"
    return f"{dataset}_beta{beta}_gamma{gamma}_seed{seed}"


def _shortest(value: float) -> str:
    """4 for 4.0, and all digits where they are needed to tell runs apart."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def earlier_checkpoint(run_dir: Path, config: TrainConfig) -> dict | None:
    """The checkpoint to go on from; None where there is none, or --overwrite discards it.

    Raises:
        UserError: the run there has other settings, or its checkpoint is damaged.
    """
    # os.path: a name too long to exist is for make_run_dir to tell of
    if config.overwrite or not os.path.exists(run_dir / checkpoint.FILE_NAME):
        return None
    earlier = checkpoint.load_checkpoint(run_dir)
    differences = differing_flags(config, earlier["config"])
    if differences:
        raise UserError(f"{run_dir} holds another run: {'; '.join(differences)}. {WAYS_OUT}")
    return earlier


def differing_flags(config: TrainConfig, earlier: dict[str, object]) -> list[str]:
    """Of earlier settings, those that a run could only go on under if they were the config's."""
    differences = []
    for field in dataclasses.fields(config):
        there = earlier.get(field.name, field.default)
        here = getattr(config, field.name)
        if field.metadata["resume"] == "same" and there != here:
            differences.append(f"{flag_of(field)} is {there} there and {here} here")
    return differences


def check_same_data(run_dir: Path, earlier: dict, dataset: Dataset) -> None:
    """Raise UserError where the earlier run saw other data under the same name."""
    now = checkpoint.describe_dataset(dataset, earlier["dataset"].get("options", {}))
    differences = [
        f"{key} is {there} there and {now[key]} here"
        for key, there in earlier["dataset"].items()
        if there != now[key]
    ]
    if differences:
        raise UserError(
            f"{run_dir} holds a run on other data: {'; '.join(differences)}. {WAYS_OUT}"
        )


WAYS_OUT = "Begin anew with --overwrite, or elsewhere with --output_dir"


def make_run_dir(run_dir: Path, config: TrainConfig) -> None:
    """Make the folder and write config.json; with --overwrite, remove an earlier run's files.

    Raises:
        UserError: it cannot be written to.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if config.overwrite:
            for name in (checkpoint.FILE_NAME, runlog.FILE_NAME, runlog.TEXT_NAME, METRICS_NAME):
                (run_dir / name).unlink(missing_ok=True)
        for left_by_killed in run_dir.glob(f".{checkpoint.FILE_NAME}.*.tmp"):
            left_by_killed.unlink(missing_ok=True)
        settings = json.dumps(dataclasses.asdict(config), indent=2)
        (run_dir / "config.json").write_text(settings + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {run_dir}: {error.strerror or error}") from error


def writable_folder(name: str) -> Path:
    """The folder, made where it is missing; UserError where nothing can be written there."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--output_dir {name} cannot be written: {error.strerror}") from error
    return folder
