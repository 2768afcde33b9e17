"""Our speed on a CUDA device, all of it, as a table for a README.

    bash benchmarks/gpu.sh FOLDER                      (the CUDA tests, then all of this)
    python -m benchmarks.gpu --only textbook sweep     (groups whose names begin so)
    python -m benchmarks.gpu --device cpu --quick      (a rehearsal: its numbers mean nothing)

Every group of `benchmarks/gpu_measures.py` is measured in a process of its own: one that fails or
hangs costs its own rows only. A row is told on stderr as soon as it is known, --table keeps the
table so far in a file, and at the end it is printed. What does not fit into --seconds is left out,
and the table says so.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_measures import FULL, GROUPS, QUICK, Bench, Row
from benchmarks.step import ROOT
from factorvae.datasets import load_dataset
from factorvae.device import choose_device
from factorvae.errors import run_script

SIGN = "row: "  # begins the lines of a group's process that are rows
LEAST_SECONDS = 10.0  # that a group is begun with
PAPER_STEPS = 300_000
STEP_UNITS = ("steps/s", "model-steps/s")
COLUMNS = (
    "measurement",
    "median",
    "min to max",
    "times the textbook's",
    "times the floor",
    "300,000 steps",
    "note",
)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


class Table:
    """Rows, and what relates them: the textbook's rate and the floors, once they are known.

    title: a line above. path: where the table so far is kept.
    """

    def __init__(self, title: str, path: Path | None = None) -> None:
        self.title, self.path = title, path
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(self.line(row), file=sys.stderr, flush=True)
        if self.path:
            self.path.write_text(f"{self}\n")

    def _median(self, **wanted: str) -> float | None:
        """Of the first row whose fields are those."""
        for row in self.rows:
            if row.values and all(getattr(row, name) == value for name, value in wanted.items()):
                return float(np.median(row.values))
        return None

    def line(self, row: Row) -> str:
        if row.failed:
            return f"| {row.name} | {row.failed} |" + " |" * (len(COLUMNS) - 2)
        median = float(np.median(row.values))
        spread = over_textbook = over_floor = paper = ""
        if len(row.values) > 1:
            spread = f"{number(min(row.values))} to {number(max(row.values))}"
        if row.unit in STEP_UNITS:
            textbook = self._median(name="textbook")
            floor = self._median(floor_of=row.precision) if row.precision else None  # us
            over_textbook = f"{median / textbook:.2f}" if textbook else ""
            over_floor = f"{1e6 / (median * floor):.2f}" if floor else ""
            paper = f"{number(PAPER_STEPS * row.runs / median)} s"
        value = f"{number(median)} {row.unit}"
        cells = (row.name, value, spread, over_textbook, over_floor, paper, row.note)
        return "| " + " | ".join(cells) + " |"

    def __str__(self) -> str:
        head = f"{self.title}\n\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"
        return "\n".join([head, *map(self.line, self.rows)])


def rows_of(group: str, flags: list[str], limit: float) -> Iterator[Row]:
    """The rows of a group, measured by a process that is ended after `limit` seconds."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--worker", group, *flags]
    pipe = dict(stdout=subprocess.PIPE, text=True, start_new_session=True)
    process = subprocess.Popen(command, cwd=ROOT, **pipe)
    late = threading.Event()

    def end() -> None:
        late.set()
        kill(process)

    timer = threading.Timer(limit, end)
    timer.start()
    try:
        for line in process.stdout:
            if line.startswith(SIGN):
                yield Row(**json.loads(line.removeprefix(SIGN)))
            else:
                print(line, end="", file=sys.stderr)
        if process.wait():
            why = f"not done in {limit:.0f} s" if late.is_set() else f"exit {process.returncode}"
            yield Row(f"{group}: the rest", "", failed=f"failed: {why}")
    finally:
        timer.cancel()
        kill(process)
        process.wait()


def kill(process: subprocess.Popen) -> None:
    """End it and all that it started, where they have not ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def tell(row: Row) -> None:
    """What a group's process says to `rows_of`."""
    print(SIGN + json.dumps(asdict(row)), flush=True)


def chosen(words: list[str] | None) -> list[str]:
    """The groups whose names begin with one of the words; all by default."""
    if words is None:
        return list(GROUPS)
    return [name for name in GROUPS if name.startswith(tuple(words))]


def describe(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, a rehearsal"
    return f"{name}; torch {torch.__version__}, CUDA {torch.version.cuda}; batch 64, dSprites"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--quick", action="store_true", help="tiny counts, for a rehearsal")
    parser.add_argument("--seconds", type=float, default=420, help="for everything")
    parser.add_argument("--table", type=Path, help="file that has the table after every row")
    parser.add_argument("--only", nargs="+", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--worker", choices=GROUPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not chosen(args.only):
        parser.error(f"--only: no group begins with {' or '.join(args.only)}")
    return args


def main() -> None:
    start = time.monotonic()
    args = parse()
    device = choose_device(args.device)
    if args.worker:
        effort = QUICK if args.quick else FULL
        GROUPS[args.worker].measure(Bench(device, args.data_dir, effort, tell))
        return
    load_dataset("dsprites", args.data_dir)  # drawn before anything is timed
    table = Table(describe(device), args.table)
    flags = ["--device", args.device, "--data_dir", args.data_dir, *["--quick"][: args.quick]]
    for group in chosen(args.only):
        left = args.seconds - (time.monotonic() - start)
        if left < LEAST_SECONDS:
            table.add(Row(group, "", failed="skipped: the time is up"))
            continue
        for row in rows_of(group, flags, min(left, GROUPS[group].limit)):
            table.add(row)
    print(f"{table}\n\n{time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    sys.exit(run_script(main))
