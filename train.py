"""Train FactorVAE or another --method. The same command again resumes a run.

Several values of --method, --seed, --gamma, --beta or --capacity make a sweep: a run of each
combination.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from factorvae.command_line import parse_sweep
from factorvae.config import TrainConfig
from factorvae.errors import run_script


def main(argv: Sequence[str] | None = None) -> int:
    return train(parse_sweep(TrainConfig, __doc__, argv))


def train(configs: list[TrainConfig]) -> int:
    """The exit code of one run, or of the runs of a sweep."""
    # torch takes seconds to import, for which --help and a wrong flag do not wait
    from factorvae.datasets import load_dataset
    from factorvae.device import choose_device, keep_freed_memory, use_device
    from factorvae.training.distributed import join_world
    from factorvae.training.run import Run, train_one
    from factorvae.training.sweep import is_sweep, train_sweep

    with join_world() as world:
        if world.restarts:  # by torchrun, with the flags of the first start
            configs = [replace(config, overwrite=False) for config in configs]
        config = configs[0]
        device = choose_device(config.device, world.local_rank)
        use_device(device, config.deterministic)
        keep_freed_memory()
        with world.local_main_first():
            dataset = load_dataset(config.dataset, config.data_dir, **config.dataset_options())
        if is_sweep(configs):
            return train_sweep(configs, dataset, device, world)
        return train_one(Run(config, dataset, world.with_group_for(device)), device)


if __name__ == "__main__":
    sys.exit(run_script(main))
