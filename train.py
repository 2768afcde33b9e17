"""Train FactorVAE, or, with --gamma 0, beta-VAE. The same command again resumes a run."""

import sys
import time

from factorvae.checkpoint import FILE_NAME
from factorvae.config import TrainConfig, parse
from factorvae.datasets import load_dataset
from factorvae.errors import UserError, run_script
from factorvae.rundir import check_same_data, earlier_checkpoint, make_run_dir, run_dir_of
from factorvae.runlog import RunLog, columns
from factorvae.runtime import choose_device, keep_freed_memory, use_threads
from factorvae.trainer import Trainer, fit, total_steps


def main() -> int:
    config = parse(TrainConfig, __doc__)
    device = choose_device(config.device)
    run_dir = run_dir_of(config)
    earlier = earlier_checkpoint(run_dir, config)
    # the sums of floating-point numbers depend on the threads: resume with as many
    threads = use_threads(config.threads or (earlier["threads"] if earlier else 0))
    keep_freed_memory()
    dataset = load_dataset(config.dataset, config.data_dir, **config.dataset_options())
    if config.batch_size > len(dataset):
        raise UserError(f"--batch_size {config.batch_size} exceeds the {len(dataset)} images")
    until = total_steps(config, len(dataset))
    if earlier:
        check_same_data(run_dir, earlier, dataset)
        if earlier["step"] >= until:
            print(f"{run_dir} is finished: {earlier['step']:,} steps are done")
            return 0

    trainer = Trainer(config, dataset, device)
    if earlier:
        trainer.load_state_dict(earlier)
    make_run_dir(run_dir, config)
    first = trainer.steps_done
    with RunLog(run_dir, columns(config.latent_dim), first, config.log_every) as log:
        shape = "x".join(map(str, dataset.image_shape))
        log.say(f"{dataset.name}: {len(dataset):,} images of {shape}, {dataset.source}")
        log.say(f"{device}, {config.precision}, {threads} threads; run folder {run_dir}")
        log.say(f"{'resuming' if first else 'starting'} at step {first:,} of {until:,}")
        start = time.monotonic()
        signal = fit(trainer, log, run_dir, until)
        done = trainer.steps_done
        rate = (done - first) / (time.monotonic() - start)
        if signal and done < until:
            log.say(f"stopped at step {done:,}; the same command goes on from there")
            return 128 + signal
        log.say(f"finished {done:,} steps at {rate:.1f} steps/s")
        print(f"next: python evaluate.py --model_path {run_dir / FILE_NAME}")
        print(f"      python visualize.py --model_path {run_dir / FILE_NAME}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
