"""How fast images come: from table to batch, from files to table; and how much memory that takes.

    python -m benchmarks.datasets            all three measurements, some two minutes on two cores
    python -m benchmarks.datasets --only batches|preparation|memory

Nothing is downloaded: files of the kind and size of the published ones are made in a temporary
folder (`--folder` for another place; 4 GB). dSprites and rooms are drawn there. Each figure is the
median of several, with the least and the largest beside it.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.step import threads_of
from factorvae.config import TrainConfig
from factorvae.datasets import Dataset, load_dataset
from factorvae.datasets.cache import cached_array
from factorvae.datasets.images import Preparation, decode
from factorvae.datasets.table import Pixels
from factorvae.device import usable_cores
from factorvae.training.trainer import Trainer

BATCH = 64
REPEATS = 5
SECONDS = 1.0  # of one repeat
CELEBA, CHAIRS = Preparation(crop=148), Preparation(crop=400)
LARGE = 250_000  # images of the large table: 3.1 GB
ALLOWED = 1 << 30  # bytes of memory of its own for the process that trains on it
TRAINING_STEPS = 1200


class Files(TorchDataset):
    """What a plain DataLoader reads: one file an item, decoded, cropped and resized each time."""

    def __init__(self, folder: Path, preparation: Preparation) -> None:
        self.paths, self.preparation = sorted(folder.iterdir()), preparation

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        pixels = decode(self.paths[number].read_bytes(), self.preparation)
        return torch.tensor(pixels).float() / 255


def spread(figures: list[float], unit: str = "") -> str:
    low, middle, high = min(figures), statistics.median(figures), max(figures)
    return f"{middle:9,.0f}{unit} ({low:,.0f} to {high:,.0f})"


def loader_rates(folder: Path, preparation: Preparation) -> list[float]:
    """Images per second of the faster of no workers and one for each core; start-up not counted."""
    by_workers = []
    for workers in (0, usable_cores()):
        loader = DataLoader(Files(folder, preparation), BATCH, shuffle=True, num_workers=workers)
        rates = []
        for _ in range(REPEATS):
            batches = iter(loader)
            next(batches)
            start, images = time.perf_counter(), 0
            for batch in batches:
                images += len(batch)
            rates.append(images / (time.perf_counter() - start))
        by_workers.append(rates)
    return max(by_workers, key=statistics.median)


def table_rates(dataset: Dataset, device: str) -> list[float]:
    """Images per second of `dataset.batch`, at random indices."""
    generator = torch.Generator(device).manual_seed(0)

    def take() -> None:
        index = torch.randint(len(dataset), (BATCH,), generator=generator, device=device)
        dataset.batch(index, device)

    take()  # on CUDA this copies the table
    rates = []
    for _ in range(REPEATS):
        images, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            take()
            images += BATCH
        if device != "cpu":
            torch.cuda.synchronize()
        rates.append(images / (time.perf_counter() - start))
    return rates


def write_pictures(folder: Path, n: int, height: int, width: int, kind: str) -> Path:
    """Files with about the detail of CelebA's (JPEG), or of 3D Chairs' on white (PNG)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width][..., None]  # [H, W, 1] each
    outside = ((x - width / 2) ** 2 + (y - height / 2) ** 2 > (height / 4) ** 2)[..., 0]
    for number in range(n):
        along, down, phase = generator.uniform(0.01, 0.2, (3, 3))
        pixels = 128 + 90 * np.sin(along * x + down * y + 30 * phase)  # [H, W, 3]
        if kind == "png":
            pixels[outside] = 255
        else:
            pixels += generator.normal(0, 6, pixels.shape)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:06}.{kind}", quality=90)
    return folder


def write_images(folder: Path, dataset: Dataset, n: int = 2000) -> Path:
    """n of a dataset's images as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    index = np.random.default_rng(0).integers(0, len(dataset), n)
    for number, image in enumerate(dataset.images(index).numpy()):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{number:06}.png")
    return folder


def celeba_like(folder: Path) -> Path:
    return write_pictures(folder / "celeba_like", 2000, 218, 178, "jpg")


def chairs_like(folder: Path) -> Path:
    return write_pictures(folder / "chairs_like", 300, 600, 600, "png")


def large_set(folder: Path) -> Dataset:
    """LARGE images of 64x64 RGB: noise in which blocks repeat, for what counts is the size."""
    block = np.random.default_rng(0).integers(0, 256, (1000, 3, 64, 64), np.uint8)
    pixels = cached_array(
        folder / "large.table",
        (LARGE, 3, 64, 64),
        {"of": "noise"},
        lambda: (block for _ in range(LARGE // len(block))),
    )
    return Dataset("large", "made up", Pixels(pixels))


def measure_batches(folder: Path, devices: list[str]) -> None:
    grey, colour = Preparation(grayscale=True), Preparation()
    drawn = ("dsprites", "color_dsprites", "noisy_dsprites", "rooms")
    kinds = []
    for name in drawn:
        dataset = load_dataset(name, folder)
        preparation = grey if dataset.image_shape[0] == 1 else colour
        kinds.append((name, dataset, write_images(folder / "files" / name, dataset), preparation))
    rooms_files = kinds[-1][2]
    large = large_set(folder)
    large.table.pixels.max()  # reads it all: what is measured is the way from memory, not the disk
    kinds.append(("64x64 RGB, table of 3.1 GB", large, rooms_files, colour))
    for name, files, preparation in (
        ("178x218 JPEG, as CelebA", celeba_like(folder), CELEBA),
        ("600x600 PNG, as 3D Chairs", chairs_like(folder), CHAIRS),
    ):
        dataset = load_dataset(f"folder:{files}", folder, crop=preparation.crop)
        kinds.append((name, dataset, files, preparation))

    print(f"\nImages per second, batches of {BATCH}, {threads_of(torch.get_num_threads())}:")
    for name, dataset, files, preparation in kinds:
        plain = loader_rates(files, preparation)
        print(f"  {name:27} DataLoader over files {spread(plain)}")
        for device in devices:
            fast = table_rates(dataset, device)
            times = statistics.median(fast) / statistics.median(plain)
            print(f"  {'':27} table to batch, {device:5} {spread(fast)}: {times:,.0f} times")


def measure_preparation(folder: Path) -> None:
    every_core = sorted(os.sched_getaffinity(0))
    print("\nImages per second from files to a table:")
    for name, files, crop in (
        ("178x218 JPEG, as CelebA", celeba_like(folder), CELEBA.crop),
        ("600x600 PNG, as 3D Chairs", chairs_like(folder), CHAIRS.crop),
    ):
        n = len(list(files.iterdir()))
        for used in {1, len(every_core)}:
            os.sched_setaffinity(0, every_core[:used])
            rates = []
            for _ in range(REPEATS):
                with tempfile.TemporaryDirectory(dir=folder) as cache:
                    start = time.perf_counter()
                    load_dataset(f"folder:{files}", cache, crop=crop)
                    rates.append(n / (time.perf_counter() - start))
            print(f"  {name:27} {used} core{'s' * (used > 1):1} {spread(rates)}")
        os.sched_setaffinity(0, every_core)


def measure_memory(folder: Path) -> None:
    size = large_set(folder).table.pixels.nbytes
    print(f"\nTraining on a table of {size / 1e6:,.0f} MB in a process that may have ", end="")
    print(f"{ALLOWED / 1e6:,.0f} MB of its own (RLIMIT_DATA):", flush=True)
    child = [sys.executable, "-m", "benchmarks.datasets", "--train_under_limit"]
    subprocess.run([*child, "--folder", str(folder)], check=True)


def train_under_limit(folder: Path) -> None:
    """The limit is on all that is private to the process; the mapped table is the page cache's."""
    resource.setrlimit(resource.RLIMIT_DATA, (ALLOWED, ALLOWED))
    torch.set_num_threads(1)
    dataset = large_set(folder)
    try:
        bytearray(dataset.table.pixels.nbytes)
        print("  the limit does not hold: the table would fit into memory")
    except MemoryError:
        print("  a copy of the table in memory is refused: the limit holds")
    config = TrainConfig(hidden_dim=16, disc_depth=1, disc_width=16, batch_size=BATCH)
    trainer = Trainer(config, dataset, torch.device("cpu"))
    for step in range(TRAINING_STEPS + 1):
        if step % (TRAINING_STEPS // 6) == 0:
            own, mapped = (f"{megabytes:6,.0f} MB" for megabytes in resident())
            read = 1 - np.exp(-2 * BATCH * step / LARGE)  # of the table, expected
            print(f"  step {step:5,}: resident {own} of its own and {mapped} of files,", end=" ")
            print(f"{read:3.0%} of the table read", flush=True)
        trainer.advance()


def resident() -> tuple[float, float]:
    """MB of this process' own memory (RssAnon), and of mapped files, which the kernel can drop."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(lines[key].split()[0]) * 1024 / 1e6 for key in ("RssAnon", "RssFile"))
    return own, mapped


MEASUREMENTS: dict[str, Callable[[Path], None]] = {
    "batches": lambda folder: measure_batches(
        folder, ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    ),
    "preparation": measure_preparation,
    "memory": measure_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=MEASUREMENTS)
    parser.add_argument("--folder", type=Path, help="kept afterwards; default: a temporary one")
    parser.add_argument("--train_under_limit", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.train_under_limit:
            train_under_limit(folder)
            return
        for name, measure in MEASUREMENTS.items():
            if arguments.only in (None, name):
                measure(folder)


if __name__ == "__main__":
    main()
