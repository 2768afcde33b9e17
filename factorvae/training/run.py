"""One run from its settings to its last checkpoint, alone or as one of a sweep."""

import contextlib
import dataclasses
import math
import shlex
import time
from collections.abc import Iterator

import torch

from factorvae.checkpoint import load_checkpoint
from factorvae.config import TrainConfig
from factorvae.datasets import Dataset
from factorvae.device import (
    compiles_kernels,
    describe_device,
    emulates_bf16,
    memory_of,
    use_threads,
)
from factorvae.errors import BadCheckpoint, UserError
from factorvae.files import CHECKPOINT_NAME, STATS_NAME, version_of
from factorvae.methods import METHODS
from factorvae.models import model_on_meta
from factorvae.progress import Progress
from factorvae.run_log import SHOWN, RunLog, columns, read_log
from factorvae.training.distributed import ALONE, World
from factorvae.training.loop import ProgressOfRun, fit, shortfalls, total_steps
from factorvae.training.run_folder import (
    check_same_data,
    earlier_checkpoint,
    folder_of,
    make_run_dir,
    swept_settings,
)
from factorvae.training.signals import StopSignals
from factorvae.training.trainer import Trainer


class Run:
    """A run: its settings, its folder, and how far it is.

    state: 'new', 'stopped', 'finished' or 'failed', and then `error` says why. steps are done of
    `until`. threads: what an earlier command trained it with, 0 if none did: the sums of
    floating-point numbers depend on them. world: the processes that train it together.

    Args:
        soon: whether it trains next, and keeps the checkpoint that it looked up till then; a sweep
            of many runs has no memory for all of theirs.

    Raises:
        UserError: its folder holds another run, or one on other data; or its batches are larger
            than the data, or not to be split over the processes. A damaged checkpoint makes the
            run 'failed'; where several processes share it, it is a UserError in all of them.
    """

    def __init__(
        self, config: TrainConfig, dataset: Dataset, world: World = ALONE, soon: bool = True
    ) -> None:
        check_batches(config, len(dataset), world)
        self.config, self.dataset, self.world = config, dataset, world
        self._kept: tuple[object, dict] | None = None  # of that version of the file
        self.folder = folder_of([config])
        self.until = total_steps(config, len(dataset))
        self.error = ""
        try:
            self.steps, self.threads = world.broadcast_from_rank0(lambda: self._look_up(soon))
        except BadCheckpoint as error:
            self.steps, self.threads, self.state, self.error = 0, 0, "failed", str(error)
            return
        self.state = ("stopped" if self.steps else "new") if self.steps < self.until else "finished"

    def _look_up(self, soon: bool) -> tuple[int, int]:
        """Steps and threads of the checkpoint; 0, 0 where there is none to go on from."""
        version = version_of(self.folder / CHECKPOINT_NAME)
        earlier = self._read()
        if earlier is None:
            return 0, 0
        if soon:
            self._kept = version, earlier
        return earlier["step"], earlier.get("threads", 0)  # weights alone have none

    def _earlier(self) -> dict | None:
        """The checkpoint to go on from: what was looked up, or another that is there by now."""
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == version_of(self.folder / CHECKPOINT_NAME):
            return kept[1]
        return self._read()

    def _read(self) -> dict | None:
        earlier = earlier_checkpoint(self.folder, self.config, self.until)
        if earlier is not None:
            check_same_data(self.folder, earlier, self.dataset)
        return earlier

    def train(
        self, device: torch.device, threads: int, stop: StopSignals, bar: ProgressOfRun
    ) -> Iterator[None]:
        """Train to the end, or to the step at which `stop` has a signal; see `fit` for the yields.

        threads: CPU threads; 0: as many as there are idle cores.
        """
        config, dataset, world = self.config, self.dataset, self.world
        check_memory(config, dataset.image_shape, device)
        threads = use_threads(threads)
        with world.locked(self.folder):
            trainer = Trainer(config, dataset, device, world)
            earlier = world.broadcast_from_rank0(self._earlier)
            self.steps = 0
            if earlier is not None:
                trainer.load_state_dict(earlier)
                self.steps = earlier["step"]
            world.broadcast_from_rank0(lambda: make_run_dir(self.folder, config))
            try:
                yield from self._train(trainer, threads, stop, bar)
            finally:
                trainer.close()

    def _train(
        self, trainer: Trainer, threads: int, stop: StopSignals, bar: ProgressOfRun
    ) -> Iterator[None]:
        config, dataset, world, device = self.config, self.dataset, self.world, trainer.device
        if world.rank > 0:
            yield from self._fit(trainer, None, stop, bar)
            self._ended(trainer)
            return

        header = columns(config.latent_dim, config.method)
        with RunLog(self.folder, header, self.steps, config.log_every) as log:

            def say(text: str) -> None:
                log.note(text)
                bar.say(text)

            shape = "x".join(map(str, dataset.image_shape))
            shared = "" if world.alone else f", {world.size} processes with a part of every batch"
            say(f"{dataset.name}: {len(dataset):,} images of {shape}, {dataset.source}")
            cores = "1 thread" if threads == 1 else f"{threads} threads"
            say(f"{device}, {config.precision}, {cores}{shared}; run folder {self.folder}")
            if self.steps and threads != self.threads:
                say(
                    f"it was trained with {self.threads} threads so far: with another number, sums "
                    "are rounded otherwise, and it ends with other last digits"
                )
            for line in about_device(device, config.precision, trainer.launcher.graphs is not None):
                say(line)
            verb = "resuming" if self.steps else "starting"
            say(f"{verb} at step {self.steps:,} of {self.until:,}")
            if self.steps < self.until:
                for line in shortfalls(config, self.until):
                    say(line)
            first, start = self.steps, time.monotonic()
            yield from self._fit(trainer, log, stop, bar)
            rate = (trainer.steps_done - first) / (time.monotonic() - start)
            self._ended(trainer)
            if self.state == "finished":
                say(f"finished {self.steps:,} steps at {rate:.1f} steps/s")
            else:
                say(f"stopped at step {self.steps:,}; {how_to_go_on(config)}")

    def _fit(
        self, trainer: Trainer, log: RunLog | None, stop: StopSignals, bar: ProgressOfRun
    ) -> Iterator[None]:
        fitting = fit(trainer, log, self.folder, self.until, stop, bar)
        if not self.config.compile:
            yield from fitting
            return
        try:
            yield from fitting
        except torch._dynamo.exc.TorchDynamoException as error:  # no compiler on this machine, say
            raise UserError(f"--compile failed: {str(error).strip().splitlines()[0]}") from error

    def _ended(self, trainer: Trainer) -> None:
        self.steps = trainer.steps_done
        self.state = "finished" if self.steps >= self.until else "stopped"

    def fail(self, error: str) -> None:
        """It cannot go on, and stands where its last checkpoint does."""
        self.put_back()
        self.state, self.error = "failed", error

    def put_back(self) -> None:
        """It was broken off, and stands where its last checkpoint does, from which it may go on."""
        self.config = dataclasses.replace(self.config, overwrite=False)
        self.steps = 0
        if (self.folder / CHECKPOINT_NAME).is_file():
            with contextlib.suppress(UserError):  # it cannot be read
                self.steps = load_checkpoint(self.folder)["step"]
        self.state = "stopped" if self.steps else "new"

    def summary(self) -> dict[str, object]:
        """What is known of the run, as plain values; its figures are those of its last row."""
        rows = read_log(self.folder) if (self.folder / STATS_NAME).is_file() else {}
        known = [name for name in SHOWN if self.steps and len(rows.get(name, ()))]
        return {
            "folder": self.folder.name,
            **{name: getattr(self.config, name) for name in swept_settings(self.config.method)},
            "state": self.state,
            "steps": self.steps,
            "until": self.until,
            "error": self.error,
            "figures": {n: float(rows[n][-1]) for n in known if math.isfinite(rows[n][-1])},
        }


def check_batches(config: TrainConfig, num_images: int, world: World = ALONE) -> None:
    """Raise UserError where batches are larger than the data, or not to be split."""
    if config.batch_size > num_images:
        raise UserError(f"--batch_size {config.batch_size} exceeds the {num_images} images")
    if config.batch_size % world.size:
        raise UserError(
            f"--batch_size {config.batch_size} cannot be split over {world.size} processes"
        )


def about_device(device: torch.device, precision: str, graphed: bool) -> list[str]:
    """Lines about the device that a console and a log should have.

    graphed: whether steps on CUDA are replayed from CUDA graphs.
    """
    lines = []
    if device.type == "cuda":
        how = "from CUDA graphs" if graphed else "one by one"
        kernels = "kernels of our own" if compiles_kernels(device) else "the library"
        lines.append(f"{describe_device(device)}; steps are made {how}, convolutions by {kernels}")
    if precision == "bf16" and emulates_bf16(device):
        lines.append(f"{device} has no bfloat16 instructions and emulates them: fp32 is faster")
    return lines


def check_memory(
    config: TrainConfig, image_shape: tuple[int, int, int], device: torch.device
) -> None:
    """Raise UserError where the networks alone are too large for the device.

    Each weight has a gradient and two moments beside it, all float32.
    """
    networks = model_on_meta(image_shape, config)
    networks = networks[: 2 if METHODS[config.method].discriminator else 1]
    needed = 4 * sum(weight.nbytes for network in networks for weight in network.parameters())
    there = memory_of(device)
    if needed > there:
        raise UserError(
            f"a model of --latent_dim {config.latent_dim}, --hidden_dim {config.hidden_dim}, "
            f"--disc_depth {config.disc_depth} and --disc_width {config.disc_width} takes "
            f"{needed / 2**30:,.1f} GiB to train; {device} has {there / 2**30:,.1f} GiB"
        )


def how_to_go_on(config: TrainConfig) -> str:
    """With what was stopped."""
    command = "the same command" + " without --overwrite" * config.overwrite
    return f"{command} goes on from there"


def train_one(run: Run, device: torch.device) -> int:
    """Train a run, and say how it goes; what the script exits with."""
    shown = run.world.rank == 0
    if run.state == "failed":
        raise UserError(run.error)
    if run.state == "finished":
        if shown:
            print(f"{run.folder} is finished: {run.steps:,} steps are done")
        return 0
    with StopSignals() as stop, Progress(run.until, run.steps, shown=shown) as bar:
        for _ in run.train(device, run.config.threads or run.threads, stop, bar):
            pass
        if run.state == "stopped":
            return 128 + stop.signal
        path = shlex.quote(str(run.folder / CHECKPOINT_NAME))
        bar.say(f"next: python evaluate.py --model_path {path}")
        bar.say(f"      python visualize.py --model_path {path}")
    return 0
