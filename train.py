"""Train FactorVAE, or, with --gamma 0, beta-VAE. The same command again resumes a run.

Several values of --seed, --gamma or --beta make a study: a run of each combination.
"""

import sys
from dataclasses import replace

from factorvae.config import TrainConfig, parse_study
from factorvae.datasets import load_dataset
from factorvae.errors import UserError, run_script
from factorvae.run import Run, train_one
from factorvae.runtime import choose_device, keep_freed_memory, use_device
from factorvae.study import is_study, train_study
from factorvae.world import join_world


def main() -> int:
    configs = parse_study(TrainConfig, __doc__)
    with join_world() as world:
        if world.restarts:  # by torchrun, with the flags of the first start
            configs = [replace(config, overwrite=False) for config in configs]
        config = configs[0]
        device = choose_device(config.device, world.local_rank)
        use_device(device)
        keep_freed_memory()
        with world.first_here_goes_ahead():
            dataset = load_dataset(config.dataset, config.data_dir, **config.dataset_options())
        if config.batch_size > len(dataset):
            raise UserError(f"--batch_size {config.batch_size} exceeds the {len(dataset)} images")
        if is_study(configs):
            return train_study(configs, dataset, device, world)
        if config.batch_size % world.size:
            raise UserError(
                f"--batch_size {config.batch_size} cannot be split over {world.size} processes"
            )
        return train_one(Run(config, dataset, world.on(device)), device)


if __name__ == "__main__":
    sys.exit(run_script(main))
