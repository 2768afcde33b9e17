"""A tiny data set, the flags of a tiny run on it, and whether two runs are the same to the bit."""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch._dynamo  # noqa: F401  # Adam's first step would import it, in seconds, in every child

import train
from factorvae.checkpoint import load_checkpoint
from factorvae.files import STATS_NAME
from tests.faults.child import in_child
from tests.helpers import encoded, pictures, rows_but_speed, same_state, write_tree

NUM_IMAGES = 24
NETWORKS = "--hidden_dim 8 --latent_dim 3 --disc_depth 1 --disc_width 8 --batch_size 4".split()
OTHERS = "--threads 1 --device cpu --log_every 2 --num_epochs 1000000".split()


@functools.cache
def workshop() -> Path:
    """A folder for all that is made once and for the cases; it lives as long as this process."""
    folder = tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True)
    _KEPT.append(folder)
    os.chmod(folder.name, 0o755)  # for children that give up root's rights
    return Path(folder.name).resolve()


_KEPT: list[tempfile.TemporaryDirectory] = []


def once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name in the workshop, made by `make` when first asked for."""
    folder = workshop() / name
    if not folder.exists():
        unfinished = workshop() / f"{name}.unfinished"
        unfinished.mkdir()
        make(unfinished)
        unfinished.rename(folder)
    return folder


def data_dir() -> Path:
    """24 images of 32x32 with the factors that number them, prepared already."""

    def make(folder: Path) -> None:
        images = pictures(NUM_IMAGES, 32, 32, ())
        files = {f"{n:02}.png": encoded(image) for n, image in enumerate(images)}
        grid = [f"{n:02}.png,{n // 8},{n // 4 % 2},{n % 4}" for n in range(NUM_IMAGES)]
        files["factors.csv"] = "\n".join(["name,row,column,hue", *grid]).encode()
        write_tree(folder / "images", files)

    return once("data", make)


def train_flags(output_dir: Path, steps: int, *more: object) -> list[str]:
    """A tiny run of so many steps; `more` go last, and so before others."""
    data = f"--data_dir {data_dir()} --dataset folder:{data_dir() / 'images'} --image_size 32"
    flags = [*data.split(), "--grayscale", *NETWORKS, *OTHERS, "--output_dir", output_dir]
    return [*map(str, (*flags, "--max_steps", steps, "--checkpoint_every", 3, *more))]


def run_of(steps: int, *more: object) -> Path:
    """The folder of a run that nothing disturbed, trained when first asked for."""

    def make(folder: Path) -> None:
        ended = in_child(lambda: train.main(train_flags(folder, steps, *more)))
        if ended.code:
            raise RuntimeError(f"a run that nothing disturbs fails: {ended.err}")

    return once("-".join(["run", str(steps), *map(str, more)]), make)


def same_run(one: Path, other: Path) -> str | None:
    """In which way two runs differ, but for their speed and their folder; None: in none."""
    states = []
    for run_dir in (one, other):
        state = load_checkpoint(run_dir)
        state["config"] = state["config"] | {"output_dir": None, "max_steps": None, "jobs": 0}
        states.append(state)
    for name in states[1]:
        if not same_state(states[0].get(name), states[1][name]):
            return f"the checkpoint's {name} differs from an undisturbed run's"
    if rows_but_speed(one) != rows_but_speed(other):
        return f"{STATS_NAME} differs from an undisturbed run's"
    return None


def fresh(name: str) -> Path:
    """An empty folder for a case, in place of one that an earlier case left."""
    folder = workshop() / "cases" / name.replace(":", "_")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
