"""A run's log: `stats.csv`, a row of figures every so many steps, and `log.txt`, what happened.

Columns of stats.csv, each the mean over the steps since the row before (losses in nats, summed over
pixels or latents and averaged over the batch):

    step                steps done
    recon               reconstruction loss
    kl                  KL divergence to the prior, summed over latents
    tc                  the discriminator's estimate of the total correlation
    disc_loss           the discriminator's cross-entropy; log 2 = .693 is chance
    disc_accuracy       the share of codes that it takes for what they are; .5 is chance
    kl_0, kl_1, ...     the KL of each latent
    images_per_second   images of first batches per second of wall time

With gamma 0 there is no discriminator, and its three columns are empty.
"""

import csv
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from factorvae.errors import UserError

FILE_NAME = "stats.csv"
TEXT_NAME = "log.txt"
SHOWN = {"recon": ".1f", "kl": ".2f", "tc": ".3f", "disc_accuracy": ".3f"}  # beside the bar
SECONDS_BETWEEN_LINES = 10
DISCRIMINATOR_COLUMNS = ("tc", "disc_loss", "disc_accuracy")


def columns(latent_dim: int) -> list[str]:
    """The header of stats.csv."""
    kl_columns = [f"kl_{j}" for j in range(latent_dim)]
    losses = ["recon", "kl", *DISCRIMINATOR_COLUMNS]
    return ["step", *losses, *kl_columns, "images_per_second"]


class RunLog:
    """Appends to the log of a run's folder.

    Args:
        run_dir: the run's folder, which exists.
        header: the columns of stats.csv.
        steps_done: where the run goes on; rows of an earlier log up to there are kept.
        log_every: its rows' distance; a partial row that ended an earlier run is dropped.
    """

    def __init__(self, run_dir: Path, header: list[str], steps_done: int, log_every: int) -> None:
        self.header = header
        self.text_path = run_dir / TEXT_NAME
        path = run_dir / FILE_NAME
        rows = list(_whole_rows(path)) if path.exists() else []
        rows = [
            row
            for row in rows
            if row.keys() == set(header)
            and int(row["step"]) <= steps_done
            and int(row["step"]) % log_every == 0
        ]
        temporary = path.with_name(f".{FILE_NAME}.tmp")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
        self.file = open(path, "a", newline="")
        self.writer = csv.DictWriter(self.file, header)

    def row(self, figures: dict[str, float]) -> None:
        """Append a row; what `figures` lacks stays empty. A figure is written in full precision."""
        self.writer.writerow({name: repr(value) for name, value in figures.items()})
        self.file.flush()

    def to_disk(self) -> None:
        """Have the rows so far survive a power cut."""
        os.fsync(self.file.fileno())

    def note(self, text: str) -> None:
        """Append a line to log.txt, with the time."""
        with open(self.text_path, "a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UserError):
            self.note(f"error: {error}")
        self.file.close()


def _whole_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a log, without those that a power cut tore."""
    with open(path, newline="", errors="replace") as file:
        reader = csv.reader(line.replace("\0", "") for line in file)
        header = next(reader, [])
        for cells in reader:
            if len(cells) == len(header) and all(map(_is_figure, cells)) and cells[0].isdecimal():
                yield dict(zip(header, cells, strict=True))


def _is_figure(cell: str) -> bool:
    return not cell or re.fullmatch(r"[-+]?(\d+\.?\d*(e[-+]?\d+)?|nan|inf)", cell) is not None


def read_log(run_dir: str | Path) -> dict[str, np.ndarray]:
    """The columns of a run's stats.csv, [num_rows] float64 each; what is empty is nan."""
    rows = list(_whole_rows(Path(run_dir) / FILE_NAME))
    names = rows[0] if rows else ["step"]
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def log_until(run_dir: Path, step: int) -> dict[str, np.ndarray] | None:
    """The run's log up to the checkpoint's step; None where it has no rows."""
    if not (run_dir / FILE_NAME).is_file():
        return None
    log = read_log(run_dir)
    rows = log["step"] <= step
    return {name: column[rows] for name, column in log.items()} if rows.any() else None


class Progress(Protocol):
    """Where a run tells how it goes."""

    def advance(self, steps: int) -> None: ...
    def show(self, figures: dict[str, float]) -> None: ...
    def say(self, text: str) -> None: ...


class StepBar:
    """The progress of a run or a study: a bar on a terminal, lines every few seconds elsewhere.

    Args:
        done, total: steps, of all runs together.
        shown: False in a process that leaves it to another to tell.
    """

    def __init__(self, done: int, total: int, shown: bool = True) -> None:
        self.first = self.done = done
        self.total = total
        self.start = self.said = time.monotonic()
        self.shown = shown
        self.bar = None
        if shown and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True)

    def __enter__(self) -> "StepBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""
        self.done += steps
        if self.bar is not None:
            self.bar.update(steps)

    def drop(self, steps: int) -> None:
        """So many steps fewer are to be done."""
        self.total -= steps
        if self.bar is not None:
            self.bar.total = self.total
            self.bar.refresh()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.shown:
            tqdm.write(text)
            sys.stdout.flush()

    def show(self, figures: dict[str, float], name: str = "") -> None:
        """The latest row of the log of the run of that name, beside the bar or in a line."""
        shown = " ".join(
            f"{key} {figures[key]:{form}}" for key, form in SHOWN.items() if key in figures
        )
        shown = f"{name}: {shown}" if name else shown
        now = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(shown)
        elif self.shown and (now - self.said >= SECONDS_BETWEEN_LINES or self.done == self.total):
            self.said = now
            rate = (self.done - self.first) / (now - self.start)
            left = tqdm.format_interval((self.total - self.done) / rate)
            progress = f"step {self.done:,} of {self.total:,}, {left} left"
            print(f"{progress}  {shown}  {rate:.1f} steps/s", file=sys.stderr, flush=True)
