"""Every number of the results, by one command: train what is missing, evaluate it, write it down.

    python -m benchmarks.results --profile laptop
    python -m benchmarks.results --profile paper --minutes 8.5 --carry parts/

A profile is a list of sweeps: `laptop`, what README compares, and every recipe before the fast one;
`long`, one seed each of the paper's 300,000 steps, hours of a core; `paper` and `methods`, five
seeds of these, for a GPU; `explored`, experiments on the way. Each is trained by train.py itself,
into OUTPUT_DIR/PROFILE/NAME, and every finished run is measured by evaluate.py: all metrics, with
DCI by `gbt`, then DCI by `forest` and by `lasso`; some are measured on their way, too, for the
score over steps and minutes. Then docs/results.md, results.csv and results.png,
results_on_the_way.csv and .png are drawn from what is there. Stopped at any moment, or by
--minutes, the same command goes on; with nothing left to do it only draws.

--carry DIR serves machines that are lent for minutes: what was made is also put there, in files of
at most 16 MiB, and taken from there where OUTPUT_DIR lacks it. `finished-N.zip` holds the finished
runs (log, scores and the weights of the VAE); `RUN.ckpt.N` are the consecutive parts of the
checkpoint of a run under way (weights and moments of the VAE and the discriminator, and its log).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import sweeps
from benchmarks.results.carrying import carry_from, carry_to
from benchmarks.results.pages import write_results
from benchmarks.results.running import ROOT, Budget, evaluate, steps_done, train
from benchmarks.results.shipping import ship
from benchmarks.results.sweeps import length_of, runs_of
from factorvae.checkpoint import PRETRAINED
from factorvae.command_line import Parser
from factorvae.errors import UserError, run_script


def work(options: argparse.Namespace, budget: Budget) -> None:
    """Train and measure, in the order of the profile, until all is done or the budget is spent."""
    for sweep in sweeps.PROFILES[options.profile]:
        folder = options.output_dir / options.profile / sweep.name
        done = train(sweep, folder, options, budget)
        for run in runs_of(sweep, folder):
            steps = steps_done(run)
            if steps >= length_of(sweep) and not evaluate(run, steps, options, budget):
                return
        if not done:
            return


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("python -m benchmarks.results", description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", choices=sweeps.PROFILES, required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/results"))
    parser.add_argument("--minutes", type=float, help="end before so many have passed")
    parser.add_argument("--carry", type=Path, help="folder of small files to go on from elsewhere")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="for the tables")
    parser.add_argument("--pretrained", type=Path, default=PRETRAINED, help="for models that ship")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--draw", action="store_true", help="only write down what is done")
    options = parser.parse_args(argv)
    if options.minutes is not None and not options.minutes > 0:
        raise UserError(f"--minutes must be greater than 0, not {options.minutes}")
    options.output_dir = options.output_dir.resolve()
    budget = (
        Budget() if options.minutes is None else Budget(time.monotonic() + options.minutes * 60)
    )
    if options.carry and options.carry.is_dir():
        carry_from(options.carry, options.output_dir)
    if not options.draw:
        work(options, budget)
    if options.carry:
        carry_to(options.carry, options.output_dir)
    ship(write_results(options), options)


if __name__ == "__main__":
    sys.exit(run_script(main))
