"""The log of a run, in its folder: training writes it, pictures and reports read it.

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
import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from factorvae.errors import UserError, printable
from factorvae.files import LOG_NAME, STATS_NAME, whole_file, written_to
from factorvae.methods import METHODS
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
LARGEST = 1e100  # of a figure, which no float32 reaches


def columns_of_method(method: str) -> tuple[str, ...]:
    """What a step of it tells besides recon, kl and the KL of each latent."""
    if method in PENALTIES:
        return PENALTY_COLUMNS
    return DISCRIMINATOR_COLUMNS if METHODS[method].discriminator else ()


def columns(latent_dim: int, method: str = "factorvae") -> list[str]:
    """The header of stats.csv."""
    kl_columns = [f"kl_{j}" for j in range(latent_dim)]
    losses = ["recon", "kl", *(columns_of_method(method) or DISCRIMINATOR_COLUMNS)]
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
        rows = list(_whole_rows(path, header)) if path.exists() else []
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


def _whole_rows(path: Path, expected: list[str] | None = None) -> Iterator[dict[str, str]]:
    """The rows of a log, without those that a power cut or another program tore.

    Where the header is not that of a log, it is taken for the one expected; there are no rows where
    none is. Nothing in a log is quoted.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        header = _cells(next(file, ""))
        if not _is_header(header):
            if expected is None:
                return
            header = expected
        for line in file:
            cells = _cells(line)
            if (
                len(cells) == len(header)
                and all(map(_is_figure, cells))
                and re.fullmatch(r"[0-9]{1,15}", cells[0])
            ):
                yield dict(zip(header, cells, strict=True))


def is_log(path: Path) -> bool:
    """Whether a file can be read and begins as a run's stats.csv does."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _is_header(_cells(file.readline(1 << 20)))
    except OSError:
        return False


def _is_header(cells: list[str]) -> bool:
    latents = sum(name.startswith("kl_") for name in cells)
    return any(cells == columns(latents, method) for method in METHODS)


def _cells(line: str) -> list[str]:
    return line.replace("\0", "").rstrip("\r\n").split(",")


def _is_figure(cell: str) -> bool:
    figure = r"[-+]?([0-9]+\.?[0-9]*(e[-+]?[0-9]+)?|nan|inf)"
    return not cell or (len(cell) < 40 and re.fullmatch(figure, cell) is not None)


def read_log(run_dir: str | Path) -> dict[str, np.ndarray]:
    """The columns of a run's stats.csv, [num_rows] float64 each.

    What is empty is nan, and so is what no training writes: it stops before.
    """
    rows = list(_whole_rows(Path(run_dir) / STATS_NAME))
    names = rows[0] if rows else ["step"]
    log = {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    return {name: np.where(np.abs(one) < LARGEST, one, np.nan) for name, one in log.items()}


def log_until(run_dir: Path, step: int) -> dict[str, np.ndarray] | None:
    """The run's log up to the checkpoint's step; None where it has no rows."""
    if not (run_dir / STATS_NAME).is_file():
        return None
    log = read_log(run_dir)
    rows = log["step"] <= step
    return {name: column[rows] for name, column in log.items()} if rows.any() else None


def shown_figures(figures: dict[str, float]) -> str:
    """The losses of a row of the log, short enough to stand beside a progress bar."""
    known = {name: form for name, form in SHOWN.items() if name in figures}
    return " ".join(f"{n.removeprefix('disc_')} {figures[n]:{form}}" for n, form in known.items())
