"""On the CPU: is a sweep faster with a process of one thread per core, or with one for all cores?

    python -m benchmarks.jobs

`train.py` trains several runs on the CPU in processes of their own (`--jobs`). Here one process
with N threads and N processes with one thread each take turns at the step of the paper's dSprites
networks, so that a machine whose speed drifts is the same for both; a turn's first step is not
counted. The rate of the N processes is that of all their steps until the slowest has made its own,
and its ratio to the one process's is taken turn by turn. Who is not at work waits for its input.

Nothing else may run on the cores meanwhile: a thread too many makes the one process's step several
times slower. So before each pair of turns, with all waiting, the idle cores are counted.
"""

import argparse

import numpy as np
import torch

from benchmarks.step import Contender, spread, threads_of
from factorvae.datasets import load_dataset
from factorvae.device import idle_cores


def together(contenders: list[Contender], count: int) -> float:
    """Steps a second of all of them, each making `count` at the same time."""
    for contender in contenders:
        contender.ask(count)
    return len(contenders) / max([contender.answer() for contender in contenders])


def compare(
    precision: str, threads: int, turns: int, turn_seconds: float, data_dir: str
) -> tuple[np.ndarray, int]:
    """Of each turn idle cores, and steps a second of one process and of `threads`: [turns, 3].

    And how many steps each makes in a turn.
    """
    one = [Contender(precision, threads, data_dir)]
    several = [Contender(precision, 1, data_dir) for _ in range(threads)]
    for contenders in (one, several):  # a warm-up
        together(contenders, 1)
    count = max(1, round(turn_seconds * together(one, 1)))
    measured = [
        (idle_cores(), together(one, count), together(several, count)) for _ in range(turns)
    ]
    for contender in one + several:
        contender.close()
    return np.array(measured), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=20, help="turns of each")
    parser.add_argument("--turn_seconds", type=float, default=4.0, help="about how long each is")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--data_dir", default="data")
    args = parser.parse_args()
    load_dataset("dsprites", args.data_dir)  # drawn before anything is timed
    n = args.threads
    print(f"{args.turns} turns of each; medians and quartiles over the turns", flush=True)
    for precision in args.precisions:
        measured, count = compare(precision, n, args.turns, args.turn_seconds, args.data_dir)
        idle, one, several = measured.T
        quiet = np.count_nonzero(idle >= n)
        print(
            f"{precision}, {count} steps a turn and process; all idle before {quiet} of the turns"
        )
        print(f"  1 process of {threads_of(n)}, steps/s      {spread(one, '.2f')}")
        print(f"  {n} processes of 1 thread, steps/s     {spread(several, '.2f')}")
        print(f"  the second over the first           {spread(several / one, '.3f')}", flush=True)


if __name__ == "__main__":
    main()
