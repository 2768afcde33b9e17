"""A run's folder: where it is, whether its run can be gone on with, and the log in it.

`stats.csv` has a row of figures every so many steps, and `log.txt` says what happened when.
Columns of stats.csv, each the mean over the steps since the row before (losses in nats, summed over
pixels or latents and averaged over the batch):

    step                steps done
    recon               reconstruction loss
    kl                  KL divergence to the prior, summed over latents
    tc                  the discriminator's estimate of the total correlation
    disc_loss           the discriminator's cross-entropy; log 2 = .693 is chance
    disc_accuracy       the share of codes that it takes for what they are; .5 is chance
    penalty             in place of these three, of methods whose penalty is a function
    kl_0, kl_1, ...     the KL of each latent
    images_per_second   images of first batches per second of wall time

Without a discriminator and without a penalty (beta-VAE), the three columns are empty.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np

from factorvae.checkpoint import describe_dataset, load_checkpoint
from factorvae.config import TrainConfig, flag_of
from factorvae.datasets import Dataset
from factorvae.errors import UserError, printable
from factorvae.files import (
    CHECKPOINT_NAME,
    CONFIG_NAME,
    LOG_NAME,
    METRICS_NAME,
    STATS_NAME,
    whole_file,
    written_to,
)
from factorvae.methods import METHODS, TOLD_BY_GAMMA, settings_of_others
from factorvae.penalties import PENALTIES

SHOWN = {  # while training
    "recon": ".1f",
    "kl": ".2f",
    "tc": ".3f",
    "disc_accuracy": ".3f",
    "penalty": ".3f",
}
DISCRIMINATOR_COLUMNS = ("tc", "disc_loss", "disc_accuracy")
PENALTY_COLUMNS = ("penalty",)
SWEPT = [f.name for f in dataclasses.fields(TrainConfig) if f.metadata["several"]]


def run_dir_of(config: TrainConfig) -> Path:
    """--output_dir, or runs/dsprites_beta1_gamma6.4_seed0."""
    if config.output_dir is not None:
        return Path(config.output_dir)
    return Path("runs") / run_name([config])


def run_name(configs: Sequence[TrainConfig]) -> str:
    """Of a run or a sweep: dsprites_beta1_gamma6.4_seed0, dsprites_btcvae_beta1_gamma2+5_seed0-9.

    The capacity is named where it is a setting of the method.
    """
    methods = list(dict.fromkeys(c.method for c in configs))
    betas = list(dict.fromkeys(c.beta for c in configs))
    gammas = list(dict.fromkeys(c.gamma for c in configs))
    seeds = list(dict.fromkeys(c.seed for c in configs))
    with_capacity = [c for c in configs if "capacity" in METHODS[c.method].settings]
    capacities = list(dict.fromkeys(c.capacity for c in with_capacity))

    parts = [configs[0].dataset.replace(":", "_").replace("/", "_")]
    if not TOLD_BY_GAMMA.issuperset(methods):
        parts.append("+".join(methods))
    for name, values in (("beta", betas), ("gamma", gammas), ("capacity", capacities)):
        if values:
            parts.append(name + "+".join(map(_shortest, values)))
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        parts.append(f"seed{seeds[0]}-{seeds[-1]}")
    else:
        parts.append("seed" + "+".join(map(str, seeds)))
    return "_".join(parts)


def swept_settings(method: str) -> list[str]:
    """The fields in which runs of a sweep differ, but those of other methods."""
    others = settings_of_others(method)
    return [name for name in SWEPT if name not in others]


def _shortest(value: float) -> str:
    """4 for 4.0, and all digits where they are needed to tell runs apart."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def earlier_checkpoint(run_dir: Path, config: TrainConfig) -> dict | None:
    """The checkpoint to go on from; None where there is none, or --overwrite discards it.

    Raises:
        UserError: the run there has other settings, or its checkpoint is damaged.
    """
    # os.path: a name too long to exist is for locked_folder to tell of
    if config.overwrite or not os.path.exists(run_dir / CHECKPOINT_NAME):
        return None
    earlier = load_checkpoint(run_dir, to_resume=True)
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
    now = describe_dataset(dataset, earlier["dataset"].get("options", {}))
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
    with written_to(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        if config.overwrite:
            for name in (CHECKPOINT_NAME, STATS_NAME, LOG_NAME, METRICS_NAME):
                (run_dir / name).unlink(missing_ok=True)
        for name in (CHECKPOINT_NAME, STATS_NAME):
            for left_by_killed in run_dir.glob(f".{name}.*.tmp"):
                left_by_killed.unlink(missing_ok=True)
        settings = json.dumps(dataclasses.asdict(config), indent=2)
        (run_dir / CONFIG_NAME).write_text(settings + "\n")


def columns(latent_dim: int, method: str = "factorvae") -> list[str]:
    """The header of stats.csv."""
    kl_columns = [f"kl_{j}" for j in range(latent_dim)]
    of_method = PENALTY_COLUMNS if method in PENALTIES else DISCRIMINATOR_COLUMNS
    losses = ["recon", "kl", *of_method]
    return ["step", *losses, *kl_columns, "images_per_second"]


class RunLog:
    """Appends to the log of a run's folder; UserError where it cannot.

    Args:
        run_dir: the run's folder, which exists.
        header: the columns of stats.csv.
        steps_done: where the run goes on; rows of an earlier log up to there are kept.
        log_every: its rows' distance; a partial row that ended an earlier run is dropped.
    """

    def __init__(self, run_dir: Path, header: list[str], steps_done: int, log_every: int) -> None:
        self.header = header
        self.text_path = run_dir / LOG_NAME
        self.path = path = run_dir / STATS_NAME
        with written_to(path):
            self.file = self._begin(steps_done, log_every)
        self.writer = csv.DictWriter(self.file, header)

    def _begin(self, steps_done: int, log_every: int) -> TextIO:
        """The log with the rows that are kept, open for more."""
        path, header = self.path, self.header
        rows = list(_whole_rows(path)) if path.exists() else []
        rows = [
            row
            for row in rows
            if row.keys() == set(header)
            and int(row["step"]) <= steps_done
            and int(row["step"]) % log_every == 0
        ]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, header)
        writer.writeheader()
        writer.writerows(rows)
        with whole_file(path) as file:
            file.write(text.getvalue().encode())
        return open(path, "a", newline="")

    def row(self, figures: dict[str, float]) -> None:
        """Append a row; what `figures` lacks stays empty. A figure is written in full precision."""
        with written_to(self.path):
            self.writer.writerow({name: repr(value) for name, value in figures.items()})
            self.file.flush()

    def to_disk(self) -> None:
        """Have the rows so far survive a power cut."""
        with written_to(self.path):
            os.fsync(self.file.fileno())

    def note(self, text: str) -> None:
        """Append a line to log.txt, with the time."""
        with written_to(self.text_path), open(self.text_path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {printable(text)}\n")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UserError):
            with contextlib.suppress(UserError):  # it may be that nothing can be written
                self.note(f"error: {error}")
        with contextlib.suppress(OSError):  # what was not flushed has been told of
            self.file.close()


def _whole_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a log, without those that a power cut or another program tore.

    There are none where the header is not that of a log. Nothing in a log is quoted.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        header = _cells(next(file, ""))
        latents = sum(name.startswith("kl_") for name in header)
        if not any(header == columns(latents, method) for method in METHODS):
            return
        for line in file:
            cells = _cells(line)
            if (
                len(cells) == len(header)
                and all(map(_is_figure, cells))
                and re.fullmatch(r"[0-9]{1,15}", cells[0])
            ):
                yield dict(zip(header, cells, strict=True))


def _cells(line: str) -> list[str]:
    return line.replace("\0", "").rstrip("\r\n").split(",")


def _is_figure(cell: str) -> bool:
    figure = r"[-+]?([0-9]+\.?[0-9]*(e[-+]?[0-9]+)?|nan|inf)"
    return not cell or (len(cell) < 40 and re.fullmatch(figure, cell) is not None)


def read_log(run_dir: str | Path) -> dict[str, np.ndarray]:
    """The columns of a run's stats.csv, [num_rows] float64 each; what is empty is nan."""
    rows = list(_whole_rows(Path(run_dir) / STATS_NAME))
    names = rows[0] if rows else ["step"]
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def log_until(run_dir: Path, step: int) -> dict[str, np.ndarray] | None:
    """The run's log up to the checkpoint's step; None where it has no rows."""
    if not (run_dir / STATS_NAME).is_file():
        return None
    log = read_log(run_dir)
    rows = log["step"] <= step
    return {name: column[rows] for name, column in log.items()} if rows.any() else None


class ProgressOfRun(Protocol):
    """Where a run tells how it goes: `Progress` itself, or a run's part in that of its sweep."""

    def advance(self, count: int) -> None: ...
    def show(self, figures: str) -> None: ...
    def say(self, text: str) -> None: ...


def shown_figures(figures: dict[str, float]) -> str:
    """The losses of a row of the log, short enough to stand beside a progress bar."""
    known = {name: form for name, form in SHOWN.items() if name in figures}
    return " ".join(f"{n.removeprefix('disc_')} {figures[n]:{form}}" for n, form in known.items())
