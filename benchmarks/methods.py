"""How fast a step of each method is, as a ratio to beta-VAE's.

    python -m benchmarks.methods
    python -m benchmarks.methods --device cuda --compile

All methods are in one process, on the same table of images, and take turns of a few steps each, so
that a machine whose speed drifts is the same for all; ratios are taken turn by turn. The first step
of a turn is not counted. Networks and batch are those of the paper's dSprites runs. A method's
penalty may cost 5 % of beta-VAE's step; FactorVAE has the discriminator besides.
"""

import argparse
import time

import numpy as np
import torch

from benchmarks.step import spread, threads_of
from factorvae.command_line import parse
from factorvae.config import TrainConfig
from factorvae.datasets import load_dataset
from factorvae.device import keep_freed_memory
from factorvae.methods import METHODS
from factorvae.training.trainer import Trainer

LEAST = 0.95  # of beta-VAE's rate
CASES = [*((name,) for name in METHODS), ("btcvae", "--stratified")]


def step_seconds(trainer: Trainer, steps: int) -> float:
    """Of one step, the mean over `steps`."""
    trainer.advance()
    trainer.wait()
    start = time.perf_counter()
    trainer.advance(steps)
    trainer.wait()
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="turns that each method takes")
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--data_dir", default="data")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    dataset = load_dataset("dsprites", args.data_dir)
    shared = ["--precision", args.precision, *(["--compile"] if args.compile else [])]
    trainers = {
        " ".join(case): Trainer(
            parse(TrainConfig, "", ["--method", *case, *shared]), dataset, torch.device(args.device)
        )
        for case in CASES
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(args.rounds + 1):  # the first is a warm-up
        for name, trainer in trainers.items():
            took = step_seconds(trainer, args.steps)
            if turn:
                seconds[name].append(took)

    base = np.array(seconds["betavae"])
    print(f"{args.device}, {args.precision}, {threads_of(args.threads)}")
    print(f"{args.rounds} turns of {args.steps} steps, medians and quartiles over them")
    for name, values in seconds.items():
        ratio = base / np.array(values)
        allowed = np.median(ratio) >= LEAST or METHODS[name.split()[0]].discriminator
        slow = "" if allowed else f"   less than {LEAST:g}"
        print(f"  {name:20}{spread(ratio, '.3f')} times beta-VAE's steps a second{slow}")


if __name__ == "__main__":
    main()
