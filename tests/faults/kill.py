"""Killed at any moment and told to stop in every way, the same command ends with the same bits.

`kill:train:CALL:N` kills within the N-th such call (see `calls`), `kill:train:moment:N` after a
time drawn from N, `kill:train:NAME` sends signals; `kill:sweep:...` and `kill:parallel:...` do so
to a sweep in one process and in several, `kill:data:...` to the preparation of data.
"""

import functools
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

import train
from factorvae.checkpoint import load_checkpoint
from factorvae.datasets import Dataset, load_dataset
from factorvae.files import CHECKPOINT_NAME, LOG_NAME, SWEEP_NAME
from factorvae.training.sweep_folder import read_sweep
from tests.faults.calls import Watch, at_call
from tests.faults.child import Child, Found, in_child, wait_until
from tests.faults.tiny import fresh, once, run_of, same_run, train_flags
from tests.helpers import SMALL_CARS3D, encoded, pictures, write_cars3d, write_tree

STEPS = 14
SWEEP_STEPS = 8
CALLS = ("open", "write", "fsync", "replace", "unlink")
SIGNALS = {
    "term": [signal.SIGTERM],
    "int": [signal.SIGINT],
    "int-twice": [signal.SIGINT, signal.SIGINT],
    "hup": [signal.SIGHUP],
    "quit": [signal.SIGQUIT],
    "stop-cont": [signal.SIGSTOP, signal.SIGCONT],
    "term-kill": [signal.SIGTERM, signal.SIGKILL],
}
STOPPED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}  # that end a run in order
SOME_STEPS = 100_000  # more than are made


def cases(seed: int) -> Iterator[str]:
    """Signals, then calls and moments in turn; 100 moments of a run."""
    rng = np.random.default_rng([seed, *b"kill"])
    yield from (f"kill:train:{name}" for name in SIGNALS)
    yield from (f"kill:sweep:{name}" for name in ("term", "int", "hup"))
    yield from ("kill:parallel:parent", "kill:parallel:child", "kill:parallel:term")
    for number in range(100):
        yield f"kill:train:moment:{seed * 10_000 + number}"
        for kind in ("train", "data") if number % 4 else ("train", "sweep", "data"):
            call = CALLS[number % len(CALLS)]
            if kind == "data" and call == "unlink":  # it makes none
                call = "mkdir"
            yield f"kill:{kind}:{call}:{rng.integers(2**31)}"
    yield from (f"kill:parallel:moment:{seed * 10_000 + number}" for number in range(5))


def run(cases: Iterable[str]) -> Found:
    """Each case and what breaks the promise, in one line, if anything."""
    for case in cases:
        _, kind, how, *number = case.split(":")
        yield case, KINDS[kind](how, int(number[0]) if number else 0)


def kill_here() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# A run


def of_train(how: str, number: int) -> str | None:
    expected, folder = run_of(STEPS), fresh("killed") / "run"
    if how in SIGNALS:
        return _told(SIGNALS[how], folder)
    fault = _killed(_train, folder, how, number)
    return fault or _resumed(folder) or same_run(folder, expected)


def _killed(work: Callable[[Path], int | None], folder: Path, how: str, number: int) -> str | None:
    """Begin the work, and kill it within a call below the folder, or at a moment.

    number: counts the places before, in and after calls, or draws the moment; it is taken modulo
    the places that there are.
    """
    places, seconds = _undisturbed(work)
    if how == "moment":
        child = Child(lambda: work(folder))
        time.sleep(float(np.random.default_rng([number, 1]).uniform(0, seconds)))
        child.kill()
        ended = child.end()
    else:
        place = number % places.count(how)

        def doomed() -> int | None:
            at_call(folder, how, place, kill_here)
            return work(folder)

        ended = in_child(doomed)
        if ended.code == 0:
            return f"it never came to the {how} {place}"
    if ended.code not in (-signal.SIGKILL, 0):
        return ended.fault(codes=()) or f"exit code {ended.code} before it was killed"
    return None


@functools.cache
def _undisturbed(work: Callable[[Path], int | None]) -> tuple[list[str], float]:
    """The calls that the work comes to below its folder, and how many seconds it takes.

    A call is there before it is made and again afterwards, if it does not fail.
    """
    folder, noted = fresh("undisturbed"), fresh("noted") / "calls"
    _sound_data(folder)

    def note() -> None:
        places: list[str] = []
        Watch(folder, lambda name, path, made: places.append(name))
        work(folder)
        noted.write_text(" ".join(places))

    start = time.monotonic()
    ended = in_child(note)
    if ended.code:
        raise RuntimeError(f"what nothing disturbs fails: {ended.err}")
    return noted.read_text().split(), time.monotonic() - start


def _train(folder: Path) -> int:
    return train.main(train_flags(folder, STEPS))


def _resumed(folder: Path, steps: int = STEPS) -> str | None:
    """The same command again, to the end."""
    fault = in_child(lambda: train.main(train_flags(folder, steps))).fault(codes=(0,))
    litter = [path.name for path in folder.glob(".*")]
    return fault or (f"{litter[0]} is left" if litter else None)


def _told(numbers: list[int], folder: Path) -> str | None:
    """Signals to a long run once it trains; then it goes on for a few steps."""
    child = Child(lambda: train.main(train_flags(folder, SOME_STEPS)))
    log = folder / "stats.csv"
    if not wait_until(lambda: not child.runs() or _rows(log) > 3):
        child.kill()
    for number in numbers:
        child.kill(number)
        time.sleep(0.05)
    if numbers[-1] == signal.SIGCONT:  # as if nothing had been
        rows = _rows(log)
        if not wait_until(lambda: not child.runs() or _rows(log) > rows):
            child.kill()
        numbers = [signal.SIGTERM]
        child.kill(signal.SIGTERM)
    ended = child.end()
    wanted = 128 + numbers[0] if numbers[0] in STOPPED else -numbers[0]
    allowed = {wanted, -signal.SIGKILL} if signal.SIGKILL in numbers else {wanted}
    if ended.code not in allowed or "Traceback" in ended.err:
        return ended.fault(codes=()) or f"exit code {ended.code}, not {wanted}"
    if ended.code > 0 and "stopped at step" not in (folder / LOG_NAME).read_text():
        return "it did not stop in order"
    steps = _rounded_up(_steps(folder))
    return _resumed(folder, steps) or same_run(folder, run_of(steps))


def _rounded_up(steps: int) -> int:
    """A little further than it came; few different ends, for few undisturbed runs."""
    return (steps // 20 + 1) * 20


def _rows(log: Path) -> int:
    return log.read_text().count("\n") if log.exists() else 0


def _steps(folder: Path) -> int:
    return load_checkpoint(folder)["step"] if (folder / CHECKPOINT_NAME).exists() else 0


# A sweep


def sweep_flags(folder: Path, jobs: int, steps: int = SWEEP_STEPS) -> list[str]:
    return train_flags(folder, steps, "--seed", 0, 1, "--jobs", jobs)


def of_sweep(how: str, number: int) -> str | None:
    """A sweep whose runs take turns in one process."""
    folder = fresh("killed") / "sweep"
    if how in SIGNALS:
        child = Child(lambda: train.main(sweep_flags(folder, 1, SOME_STEPS)))
        wait_until(
            lambda: not child.runs() or any(_rows(p) > 3 for p in folder.glob("*/stats.csv"))
        )
        child.kill(SIGNALS[how][0])
        ended = child.end()
        if ended.code != 128 + SIGNALS[how][0]:
            return ended.fault(codes=()) or f"exit code {ended.code}"
        steps = _rounded_up(max(run["steps"] for run in read_sweep(folder)["runs"]))
        return _swept(folder, 1, steps)
    return _killed(_train_sweep, folder, how, number) or _swept(folder, 1)


def _train_sweep(folder: Path) -> int:
    return train.main(sweep_flags(folder, 1))


def of_parallel(how: str, number: int) -> str | None:
    """A sweep of two processes, of which one, or the one that began them, is killed."""
    folder = fresh("killed") / "sweep"
    child = Child(lambda: train.main(sweep_flags(folder, 2, SOME_STEPS)), memory=None)
    if not wait_until(
        lambda: (
            not child.runs()
            or len([1 for log in folder.glob("*/stats.csv") if _rows(log) > 3]) == 2
        )
    ):
        child.kill_all()
        return "two runs did not begin"
    workers = _workers(child.pid)
    if how == "moment":
        time.sleep(float(np.random.default_rng([number, 1]).uniform(0, 1)))
        child.kill_all()
    elif how == "child":
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: "died" in (folder / SWEEP_NAME).read_text())
        child.kill(signal.SIGTERM)
    else:
        child.kill(signal.SIGTERM if how == "term" else signal.SIGKILL)
    ended = child.end()
    if not wait_until(lambda: not any(map(_lives, workers))):
        child.kill_all()
        return "orphans are left"
    fault = ended.fault(codes=(-signal.SIGKILL, 143))
    if fault and ended.code != -signal.SIGKILL:
        return fault
    steps = _rounded_up(max(_steps(path.parent) for path in folder.glob("*/stats.csv")))
    return _swept(folder, 1, steps)


def _swept(folder: Path, jobs: int, steps: int = SWEEP_STEPS) -> str | None:
    """The sweep to its end, each run as if it had been alone."""
    ended = in_child(lambda: train.main(sweep_flags(folder, jobs, steps)))
    if fault := ended.fault(codes=(0,)):
        return fault
    runs = read_sweep(folder)["runs"]
    if [run["state"] for run in runs] != ["finished", "finished"]:
        return f"{SWEEP_NAME} tells of {[run['state'] for run in runs]}"
    for run in runs:
        expected = run_of(steps, "--seed", run["seed"])
        if fault := same_run(folder / run["folder"], expected):
            return f"{run['folder']}: {fault}"
    return None


def _workers(pid: int) -> list[int]:
    """The processes of the runs that a process began."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = {int(one): Path(f"/proc/{one}/cmdline").read_bytes() for one in below}
    return [one for one, name in names.items() if b"spawn_main" in name]


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# Data


def of_data(how: str, number: int) -> str | None:
    """Two sets: a folder of images, and an archive that is unpacked first."""
    folder = fresh("killed")
    _sound_data(folder)
    load, prepare = SETS[number % 2]
    if fault := _killed(prepare, folder, how, number // 2):
        return fault
    expected = once(f"prepared-{number % 2}", lambda made: _keep(load, _sound_copy(), made))
    kept = fresh("kept")
    _keep(load, folder, kept)
    if (kept / "images").read_bytes() != (expected / "images").read_bytes():
        return "other images than undisturbed"
    return None


def _sound_data(folder: Path) -> None:
    shutil.copytree(once("unprepared", _unprepared), folder, dirs_exist_ok=True)


def _sound_copy() -> Path:
    folder = fresh("undisturbed")
    _sound_data(folder)
    return folder


def _keep(load: Callable[[Path], np.ndarray], folder: Path, made: Path) -> None:
    """The images as a child reads them, in a file."""

    def read() -> None:
        (made / "images").write_bytes(load(folder).tobytes())

    ended = in_child(read)
    if ended.code:
        (made / "images").write_text(ended.err)


def _unprepared(folder: Path) -> None:
    images = pictures(70, 40, 32)
    write_tree(folder / "images", {f"{n}.png": encoded(image) for n, image in enumerate(images)})
    write_cars3d(folder, cars=1)


def _load_images(folder: Path) -> np.ndarray:
    """uint8 [N, C, 32, 32]."""
    return _images(load_dataset(f"folder:{folder}/images", folder, image_size=32))


def _load_cars(folder: Path) -> np.ndarray:
    return _images(load_dataset("cars3d", folder, image_size=32, space=ONE_CAR))


def _prepare_images(folder: Path) -> None:
    _load_images(folder)


def _prepare_cars(folder: Path) -> None:
    _load_cars(folder)


def _images(dataset: Dataset) -> np.ndarray:
    return dataset.images(np.arange(len(dataset))).numpy()


SETS = ((_load_images, _prepare_images), (_load_cars, _prepare_cars))
ONE_CAR = SMALL_CARS3D.__class__(SMALL_CARS3D.names, (4, 24, 1), (*SMALL_CARS3D.values[:2], (0,)))
KINDS = {"train": of_train, "sweep": of_sweep, "parallel": of_parallel, "data": of_data}
