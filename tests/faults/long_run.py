"""What shows only in a long run, with company, or on another machine.

`long:steps:N` trains N tiny steps, in which neither memory nor the number of open files grows;
`long:two:N` begins two processes on one folder, the second up to a second later; `long:threads:N`
goes on with N threads where there was one.
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

import train
from factorvae.device import usable_cores
from factorvae.files import LOG_NAME
from tests.faults.child import Child, Found, in_child
from tests.faults.tiny import fresh, run_of, same_run, train_flags

STEPS = 50_000
SECONDS = 3600  # of the processor
MOST_GROWTH = 0.05  # of the memory, from the first fifth of the steps to the last
TOGETHER = 1500  # steps of two processes on one folder: seconds of them


def cases(seed: int) -> Iterator[str]:
    """Two processes first, which takes seconds."""
    yield from (f"long:two:{seed * 10 + number}" for number in range(3))
    yield f"long:threads:{max(2, usable_cores())}"
    yield f"long:steps:{STEPS}"


def run(cases: Iterable[str]) -> Found:
    """Each case and what breaks the promise, in one line, if anything."""
    for case in cases:
        _, kind, number = case.split(":")
        yield case, KINDS[kind](int(number))


def many_steps(steps: int) -> str | None:
    folder = fresh("long") / "run"
    flags = train_flags(
        folder, steps, "--log_every", 100, "--checkpoint_every", max(1, steps // 50)
    )
    child = Child(lambda: train.main(flags), seconds=SECONDS, memory=None, wait=SECONDS)
    log = folder / "stats.csv"
    seen: dict[int, tuple[int, int]] = {}  # memory in bytes and open files by rows of the log
    while child.runs():
        rows = log.read_text().count("\n") if log.exists() else 0
        if rows and rows not in seen:
            seen[rows] = _memory(child.pid), len(list(Path(f"/proc/{child.pid}/fd").iterdir()))
        time.sleep(0.05)
    ended = child.end()
    if fault := ended.fault(codes=(0,)):
        return fault
    rows = max(seen)
    early = [one for row, one in seen.items() if rows * 0.1 < row < rows * 0.3]
    late = [one for row, one in seen.items() if rows * 0.8 < row]
    if not early or not late:
        return "too few looks at it: give it more steps"
    (memory_early, files_early), (memory_late, files_late) = (
        (float(np.median([m for m, _ in part])), int(np.median([f for _, f in part])))
        for part in (early, late)
    )
    if memory_late > (1 + MOST_GROWTH) * memory_early:
        return f"memory grew from {memory_early / 1e6:.0f} to {memory_late / 1e6:.0f} MB"
    if files_late > files_early:
        return f"open files grew from {files_early} to {files_late}"
    return None


def _memory(pid: int) -> int:
    """Resident bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def two_on_one_folder(number: int) -> str | None:
    """One has it; the other is refused in one line, or finds it finished."""
    folder = fresh("two") / "run"
    flags = train_flags(folder, TOGETHER, "--checkpoint_every", 500)
    rng = np.random.default_rng([number, *b"two"])
    children = []
    for _ in range(2):
        children.append(Child(lambda: train.main(flags)))
        time.sleep(rng.uniform(0, 1))
    ends = [child.end() for child in children]
    refused = [end for end in ends if end.code == 2]
    for end in ends:
        if fault := end.fault():
            return fault
    if len(refused) > 1 or any("is in use" not in end.err for end in refused):
        return f"both were refused, or one not for the other: {refused[-1].err.strip()}"
    log = (folder / LOG_NAME).read_text()
    if not refused and log.count("starting at step") != 1:
        return "both trained from the start"
    return same_run(folder, run_of(TOGETHER, "--checkpoint_every", 500))


def other_threads(number: int) -> str | None:
    """The same command goes on with as many threads as before; another number is told."""
    folder = fresh("threads") / "run"
    in_child(lambda: train.main(train_flags(folder, 4)))
    ended = in_child(lambda: train.main(train_flags(folder, 6, "--threads", 0)))
    if "other last digits" in ended.out:
        return "without --threads it goes on with another number than before"
    ended = in_child(lambda: train.main(train_flags(folder, 8, "--threads", number)))
    if fault := ended.fault(codes=(0,)):
        return fault
    if "it was trained with 1 threads so far" not in ended.out:
        return "it is not said that the last digits change"
    return None


KINDS = {"two": two_on_one_folder, "threads": other_threads, "steps": many_steps}
