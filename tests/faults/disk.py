"""A disk that is full, read-only, limited or gone, at every file that is written.

First a script runs undisturbed, and what it writes is noted. A case `disk:SCRIPT:FAULT:N` is the
same with a fault at the N-th of these calls:

    full       no space left: the call fails, a write after half of its data
    broken     the same with an input/output error
    readonly   the call and all later ones fail as on a file system that is read-only
    vanished   the output folder is removed right before the call
    quota      no file may be larger than so many bytes (a limit of the system's, which C code that
               writes meets too): N is a number of bytes
    locked     by the rights of another user's folder: N is none of its files, or 1 where all exist

The script ends with exit code 0, or with 2 and one clear line; what it had measured it has printed;
an earlier checkpoint is as good as before; and once the fault is gone, the same command ends with
the right bits.
"""

import codecs
import dataclasses
import errno
import functools
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import evaluate
import train
import visualize
from factorvae.checkpoint import load_checkpoint
from factorvae.datasets import load_dataset
from factorvae.files import CHECKPOINT_NAME, METRICS_NAME
from factorvae.pages import gallery
from tests.faults.calls import Watch, recorded
from tests.faults.child import Ended, Found, in_child
from tests.faults.kill import ONE_CAR, sweep_flags
from tests.faults.tiny import data_dir, fresh, once, run_of, same_run, train_flags
from tests.helpers import write_cars3d

STEPS = 8
QUOTAS = (0, 1, 100, 1000, 5000, 20_000, 100_000, 400_000)
NOBODY = 65534


def cases(seed: int) -> Iterator[str]:
    """Every fault at the first and at one other of each kind of call at each file."""
    rng = np.random.default_rng([seed, *b"disk"])
    every = []
    for script in SCRIPTS:
        places: dict[tuple[str, str], list[int]] = {}
        for number, call in enumerate(calls_of(script)):
            places.setdefault(call, []).append(number)
        chosen = {n for same in places.values() for n in (same[0], int(rng.choice(same)))}
        every += [f"disk:{script}:{fault}:{n}" for fault in FAULTS for n in sorted(chosen)]
        every += [f"disk:{script}:quota:{size}" for size in QUOTAS]
        every += [f"disk:{script}:locked:{n}" for n in range(2)]
    yield from (every[place] for place in rng.permutation(len(every)))


def run(cases: Iterable[str]) -> Found:
    """Each case and what breaks the promise, in one line, if anything."""
    for case in cases:
        _, script, fault, number = case.split(":")
        yield case, SCRIPTS[script](fault, int(number))


# The faults


def faulty(fault: str, number: int, folder: Path) -> None:
    """Have the fault happen in this process, to what it writes below the folder."""
    if fault == "quota":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
        return
    if fault == "locked":
        codecs.lookup("utf-8-sig")  # another user may not read Python's own files
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return
    count = [0]

    def look(name: str, path: str, made: bool) -> None:
        if name == "write" and fault in ("full", "broken", "readonly"):
            if not made:  # it fails between its halves
                return
        elif made:
            return
        count[0] += 1
        if fault == "vanished":
            if count[0] == number + 1:
                shutil.rmtree(folder, ignore_errors=True)
        elif count[0] == number + 1 or (fault == "readonly" and count[0] > number):
            code = FAULTS[fault]
            raise OSError(code, os.strerror(code), None if name in ("write", "fsync") else path)

    Watch(folder, look)


FAULTS = {"full": errno.ENOSPC, "broken": errno.EIO, "readonly": errno.EROFS, "vanished": 0}


@functools.cache
def calls_of(script: str) -> list[tuple[str, str]]:
    """The calls, each with its file, of the script undisturbed."""
    folder = fresh(f"calls-{script}")
    work = PREPARED[script](folder)
    noted = fresh("noted") / "calls"

    def note() -> None:
        calls: list[tuple[str, str]] = []
        recorded(folder / "out", calls)
        work()
        noted.write_text("\n".join(" ".join(call) for call in calls))

    ended = in_child(note)
    if ended.code:
        raise RuntimeError(f"{script}, which nothing disturbs, fails: {ended.err}")
    lines = re.sub(r"\.[0-9a-f]{3,}\.(tmp|partial)", r".\1", noted.read_text()).splitlines()
    return [tuple(line.split(" ", 1)) for line in lines]


def disturbed(script: str, fault: str, number: int, folder: Path) -> Ended:
    """How the script ends under a fault in the folder `out` below the folder."""
    work = PREPARED[script](folder)
    out = folder / "out"
    if fault == "locked":
        out.mkdir(exist_ok=True)
        for path in (out, *out.rglob("*")):
            os.chmod(path, 0o555 if path.is_dir() else 0o444)

    def disturb() -> int | None:
        faulty(fault, number, out)
        return work()

    return in_child(disturb)


# The scripts; each `prepare` returns the work, which writes below folder / "out"


def _prepare_train(folder: Path) -> Callable[[], int | None]:
    return lambda: train.main(train_flags(folder / "out" / "run", STEPS))


def of_train(fault: str, number: int) -> str | None:
    folder = fresh("disk-train")
    run_dir = folder / "out" / "run"
    if fault == "locked" and number == 1:
        shutil.copytree(run_of(4), run_dir)
    ended = disturbed("train", fault, number, folder)
    if wrong := ended.fault():
        return wrong
    if (run_dir / CHECKPOINT_NAME).exists():
        load_checkpoint(run_dir)
    for path in folder.rglob("*"):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
    again = in_child(PREPARED["train"](folder))
    return again.fault(codes=(0,)) or same_run(run_dir, run_of(STEPS))


def _prepare_evaluate(folder: Path, *more: str) -> Callable[[], int | None]:
    (folder / "out").mkdir(exist_ok=True)
    shutil.copytree(run_of(4), folder / "out" / "run", dirs_exist_ok=True)
    flags = f"--model_path {folder}/out/run --csv {folder}/out/table.csv --metrics mig losses"
    return lambda: evaluate.main([*f"{flags} --threads 1 --device cpu".split(), *more])


def _prepare_output(folder: Path) -> Callable[[], int | None]:
    return _prepare_evaluate(folder, "--output", str(folder / "out" / "own.json"))


def of_evaluate(fault: str, number: int) -> str | None:
    return _evaluated("evaluate", f"run/{METRICS_NAME}", fault, number)


def of_output(fault: str, number: int) -> str | None:
    return _evaluated("output", "own.json", fault, number)


def _evaluated(script: str, scores: str, fault: str, number: int) -> str | None:
    folder = fresh(f"disk-{script}")
    ended = disturbed(script, fault, number, folder)
    if wrong := ended.fault():
        return wrong
    measured = "measuring" in ended.err
    if measured and "MIG" not in ended.out:
        return "what was measured was not printed"
    written = (folder / "out" / "table.csv", folder / "out" / scores)
    for path in written:
        if fault != "vanished" and ended.code == 0 and not path.exists():
            return f"exit code 0, and no {path.name}"
    left = [path.name for path in folder.rglob(".*")]
    if left and fault not in ("readonly", "broken", "vanished"):
        return f"{left[0]} is left"
    if written[1].exists() and not written[1].read_text().endswith("}\n"):
        return f"half of {written[1].name}"
    return None


def _prepare_visualize(folder: Path) -> Callable[[], int | None]:
    (folder / "out").mkdir(exist_ok=True)
    model = run_of(4)
    flags = f"--model_path {model} --output_dir {folder}/out/results --format pdf --num_images 1"

    def draw() -> None:
        gallery.EXHIBITS = tuple(map(_blank, gallery.EXHIBITS))  # in a child
        visualize.main(f"{flags} --threads 1 --device cpu".split())

    return draw


def _blank(exhibit: gallery.Exhibit) -> gallery.Exhibit:
    """The same file with nothing on it: it is about what writes it."""
    needs = {"needs_factors": False, "needs_grid": False, "needs_log": False, "needs_metric": None}
    if exhibit.make is gallery.Gallery.animation:
        frames = [Image.new("RGB", (80, 80), color) for color in ("white", "black")]
        return dataclasses.replace(exhibit, make=lambda _: frames, caption="", **needs)
    return dataclasses.replace(exhibit, make=lambda _: Figure(figsize=(1, 1)), caption="", **needs)


def _prepare_sweep_page(folder: Path) -> Callable[[], int | None]:
    """Two runs side by side."""
    (folder / "out").mkdir(exist_ok=True)
    sweep = once("sweep-of-two", lambda made: in_child(lambda: train.main(sweep_flags(made, 1))))
    flags = f"--model_path {sweep} --output_dir {folder}/out/results --num_images 1"
    return lambda: visualize.main(f"{flags} --threads 1 --device cpu".split())


def of_sweep_page(fault: str, number: int) -> str | None:
    return of_visualize(fault, number, "sweep_page")


def of_visualize(fault: str, number: int, script: str = "visualize") -> str | None:
    folder = fresh(f"disk-{script}")
    ended = disturbed(script, fault, number, folder)
    if wrong := ended.fault():
        return wrong
    told = ended.err.strip().splitlines()[-1:]
    if ended.code == 2 and str(folder) not in told[0]:
        return f"no file is named: {told[0]}"
    left = [path.name for path in folder.rglob(".*")]
    if left and fault not in ("readonly", "broken", "vanished"):
        return f"{left[0]} is left"
    return None


def _prepare_data(folder: Path) -> Callable[[], int | None]:
    images = data_dir() / "images"
    return lambda: print(len(load_dataset(f"folder:{images}", folder / "out", image_size=32)))


def _prepare_archive(folder: Path) -> Callable[[], int | None]:
    """One that is unpacked first."""
    sound = once("one-car", lambda made: write_cars3d(made, cars=1))
    shutil.copytree(sound, folder / "out", dirs_exist_ok=True)
    return lambda: print(len(load_dataset("cars3d", folder / "out", image_size=32, space=ONE_CAR)))


def of_data(fault: str, number: int, script: str = "data") -> str | None:
    folder = fresh(f"disk-{script}")
    if wrong := disturbed(script, fault, number, folder).fault():
        return wrong
    left = [path.name for path in folder.rglob("*.partial")]
    if left and fault not in ("readonly", "broken"):
        return f"{left[0]} is left"
    for path in folder.rglob("*"):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
    return in_child(PREPARED[script](folder)).fault(codes=(0,))


def of_archive(fault: str, number: int) -> str | None:
    return of_data(fault, number, "archive")


PREPARED = {
    "train": _prepare_train,
    "evaluate": _prepare_evaluate,
    "output": _prepare_output,
    "visualize": _prepare_visualize,
    "sweep_page": _prepare_sweep_page,
    "data": _prepare_data,
    "archive": _prepare_archive,
}
SCRIPTS = {
    "train": of_train,
    "evaluate": of_evaluate,
    "output": of_output,
    "visualize": of_visualize,
    "sweep_page": of_sweep_page,
    "data": of_data,
    "archive": of_archive,
}
