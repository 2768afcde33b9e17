"""How fast a training step is: the textbook's, ours in float32 and bfloat16, and the floor.

    python -m benchmarks.step

Each contender runs in a process of its own and they take turns, a few steps each, so that a machine
whose speed drifts is the same for all; ratios are taken turn by turn. The first step of a turn is
not counted. A processor without instructions for bfloat16 emulates it, more than ten times slower
than float32: there it is left out. The floor is the arithmetic of the step as Algorithm 2 says it,
over the rate at which the same machine, in the same turns, multiplies matrices. Networks and batch
are those of the paper's dSprites runs.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.textbook import TextbookTrainer
from factorvae.config import TrainConfig
from factorvae.datasets import Dataset, load_dataset
from factorvae.device import emulates_bf16, keep_freed_memory
from factorvae.models import conv_channels
from factorvae.training.trainer import Trainer

MATRIX_SIDE = 2048
ROOT = Path(__file__).parent.parent


def flops_per_step(
    config: TrainConfig, image_size: int = 64, channels: int = 1
) -> dict[str, float]:
    """Multiplications and additions of matrix products and convolutions in one step."""
    widths = [channels, *conv_channels(image_size)]
    side, macs, first = image_size, 0, 0
    for c_in, c_out in zip(widths[:-1], widths[1:], strict=True):
        side //= 2
        layer = side * side * c_in * c_out * 16
        first = first or layer
        macs += layer
    features = 64 * 4 * 4
    encoder = macs + features * config.hidden_dim + config.hidden_dim * 2 * config.latent_dim
    decoder = macs + features * config.hidden_dim + config.hidden_dim * config.latent_dim
    hidden = (config.disc_depth - 1) * config.disc_width + config.latent_dim + 2
    per_code = hidden * config.disc_width
    B = config.batch_size
    return {
        # forward, and backward to inputs and weights; nothing is owed for the pixels' gradient
        "VAE, batch 1": 2 * B * (3 * (encoder + decoder) - first),
        "encoder, batch 2": 2 * B * encoder,
        # TC: forward, backward to z. Loss: on 2B codes, forward, backward to layers and weights
        "discriminator": 2 * B * per_code * (2 + 2 * 3),
    }


class SingleImages(torch.utils.data.Dataset):
    """What a DataLoader is usually given: one image at a time."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.dataset.batch([index])[0]


def textbook_stepper(
    config: TrainConfig, dataset: Dataset, device: str = "cpu"
) -> Callable[[], object]:
    """Calls of it make one step of the textbook's."""
    trainer = TextbookTrainer(device=device)
    images = SingleImages(dataset)

    def loader() -> Iterator[torch.Tensor]:
        sampler = RandomSampler(images, replacement=True, num_samples=10**9)
        return iter(DataLoader(images, config.batch_size, sampler=sampler))

    first, second = loader(), loader()
    return lambda: trainer.step(next(first).to(device), next(second).to(device))


def work(name: str, config: TrainConfig) -> None:
    """A contender's process: for each number on stdin, make so many steps and answer in seconds."""
    dataset = load_dataset(config.dataset, config.data_dir)
    if name == "textbook":
        step = textbook_stepper(config, dataset)
    elif name == "matrices":
        pair = [torch.randn(MATRIX_SIDE, MATRIX_SIDE) for _ in range(2)]
        half = [matrix.bfloat16() for matrix in pair]
        step = {"fp32": lambda: pair[0] @ pair[1], "bf16": lambda: half[0] @ half[1]}
    else:
        keep_freed_memory()
        step = Trainer(config, dataset, torch.device("cpu")).advance
    for line in sys.stdin:
        which, count = line.split()
        call = step[which] if name == "matrices" else step
        call()  # finds its data out of the caches again: not counted
        start = time.perf_counter()
        for _ in range(int(count)):
            call()
        print((time.perf_counter() - start) / int(count), flush=True)


def parts_of_a_step(config: TrainConfig, steps: int) -> dict[str, float]:
    """Milliseconds that each part of our step takes, the median over `steps`."""
    keep_freed_memory()
    trainer = Trainer(config, load_dataset(config.dataset, config.data_dir), torch.device("cpu"))
    spent: dict[str, list[float]] = {}

    def timed(owner: object, method: str, part: str) -> None:
        original = getattr(owner, method)

        def wrapper(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            result = original(*args, **kwargs)
            spent.setdefault(part, [0.0])[-1] += time.perf_counter() - start
            return result

        setattr(owner, method, wrapper)

    timed(trainer.dataset.table, "batch", "data")
    timed(trainer.vae, "encode", "VAE forward, both batches")
    timed(trainer.vae, "decode", "VAE forward, both batches")
    timed(trainer.discriminator, "forward", "discriminator forward, both batches")
    timed(trainer.vae_optimizer, "step", "optimisers")
    timed(trainer.disc_optimizer, "step", "optimisers")
    timed(trainer, "advance", "whole step")
    backward = torch.Tensor.backward
    timed(torch.Tensor, "backward", "backward, both losses")
    for _ in range(steps):
        trainer.advance()
        for part in spent.values():
            part.append(0.0)
    torch.Tensor.backward = backward
    median = {part: 1e3 * float(np.median(values[5:-1])) for part, values in spent.items()}
    whole = median.pop("whole step")
    return {**median, "the rest": whole - sum(median.values()), "whole step": whole}


class Contender:
    """A worker process that is asked for steps."""

    def __init__(self, name: str, threads: int, data_dir: str) -> None:
        flags = ["--worker", name, "--threads", str(threads), "--data_dir", data_dir]
        command = [sys.executable, "-m", "benchmarks.step", *flags]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen(command, cwd=ROOT, **pipes)

    def seconds(self, count: int, which: str = "step") -> float:
        """Of a step, the mean over `count` of them."""
        self.ask(count, which)
        return self.answer()

    def ask(self, count: int, which: str = "step") -> None:
        """Have it begin, and do not wait."""
        print(which, count, file=self.process.stdin, flush=True)

    def answer(self) -> float:
        """Seconds of a step, once it has made those that it was asked for."""
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def spread(values: np.ndarray, form: str) -> str:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:{form}}  ({low:{form}} to {high:{form}})"


def threads_of(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def whole_run(steps: int, data_dir: str) -> tuple[float, float]:
    """Wall seconds and peak MiB of `train.py --max_steps steps`."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--max_steps", str(steps), "--output_dir", f"{folder}/run", "--data_dir", data_dir]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "train.py", *flags], cwd=ROOT, capture_output=True, check=True
        )
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def take_turns(
    contenders: Mapping[str, Contender], precisions: Sequence[str], rounds: int, steps: int
) -> dict[str, np.ndarray]:
    """Seconds of a step in each turn, [rounds], by contender; of the matrices by precision."""
    seconds: dict[str, list[float]] = {}
    for turn in range(rounds + 1):  # the first is a warm-up
        measured = {name: contenders[name].seconds(steps) for name in ("textbook", *precisions)}
        for which in precisions:
            measured[f"matrices {which}"] = contenders["matrices"].seconds(3, which)
        if turn:
            for name, value in measured.items():
                seconds.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in seconds.items()}


def print_rates(took: Mapping[str, np.ndarray], precisions: Sequence[str], flops: float) -> None:
    """What `took`, from `take_turns`, says of steps of so many FLOP."""
    print("steps a second")
    for name in ("textbook", *precisions):
        print(f"  {name:10}{spread(1 / took[name], '.1f')}")
    print("as many times faster than the textbook's")
    for name in precisions:
        print(f"  {name:10}{spread(took['textbook'] / took[name], '.2f')}")
    print(
        f"times the floor: {flops / 1e9:.2f} GFLOP over the rate of {MATRIX_SIDE}-square products"
    )
    for name in precisions:
        rate = 2 * MATRIX_SIDE**3 / took[f"matrices {name}"]
        ratio = took[name] / (flops / rate)
        print(f"  {name:10}{spread(ratio, '.2f')}   at {np.median(rate) / 1e9:.0f} GFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="turns that each contender takes")
    parser.add_argument("--steps", type=int, default=25, help="steps a turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = TrainConfig(
        data_dir=args.data_dir, precision="bf16" if args.worker == "bf16" else "fp32"
    )
    if args.worker:
        work(args.worker, config)
        return

    precisions = ("fp32", "bf16")
    if emulates_bf16(torch.device("cpu")):
        precisions = ("fp32",)
        print("bf16 is left out: this processor has no instructions for it", flush=True)
    load_dataset(config.dataset, config.data_dir)  # drawn before anything is timed
    start_up, _ = whole_run(1, args.data_dir)
    _, memory = whole_run(40, args.data_dir)
    contenders = {
        name: Contender(name, args.threads, args.data_dir)
        for name in ("textbook", *precisions, "matrices")
    }
    took = take_turns(contenders, precisions, args.rounds, args.steps)
    for contender in contenders.values():
        contender.close()

    flops = flops_per_step(config)
    turns = f"{args.rounds} turns of {args.steps}"
    print(f"{threads_of(args.threads)}, batch {config.batch_size}, {turns}")
    print("medians and quartiles over the turns\n")
    print_rates(took, precisions, sum(flops.values()))
    print("GFLOP: " + ", ".join(f"{part} {value / 1e9:.2f}" for part, value in flops.items()))
    print(f"train.py: {start_up:.1f} s to the end of its first step, peak memory {memory:.0f} MiB")
    for precision in precisions:
        parts = parts_of_a_step(TrainConfig(data_dir=args.data_dir, precision=precision), 60)
        print(f"\nwhere a {precision} step goes, ms")
        for part, value in parts.items():
            print(f"  {part:36}{value:6.1f}")


if __name__ == "__main__":
    main()
