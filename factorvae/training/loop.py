"""The loop around the training step: rows of the log, checkpoints, and where it stops."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Protocol

from factorvae.checkpoint import save_checkpoint
from factorvae.config import EVENTS, TrainConfig
from factorvae.files import CHECKPOINT_NAME
from factorvae.methods import METHODS
from factorvae.run_log import RunLog, shown_figures
from factorvae.training.cuda_graphs import STEPS_PER_LAUNCH
from factorvae.training.signals import StopSignals
from factorvae.training.trainer import Trainer

# That the host starts before it looks for a signal, and before other runs on the device have their
# turn. On CUDA one launch: a second one would keep the host waiting for the first.
STEPS_AT_ONCE = {"cpu": 1, "cuda": STEPS_PER_LAUNCH[0]}
SECONDS_TO_ASK = 2.0  # after which processes that share a run ask each other for a signal


class ProgressOfRun(Protocol):
    """Where a run tells how it goes: `Progress` itself, or a run's part in that of its sweep."""

    def advance(self, count: int) -> None: ...
    def show(self, figures: str) -> None: ...
    def say(self, text: str) -> None: ...


def total_steps(config: TrainConfig, num_images: int) -> int:
    """Steps of a whole run: `num_epochs` times the data's images, or `max_steps` if that is less.

    An epoch is as many steps as a pass over the data would be; batches are drawn at random, as in
    Algorithm 2.
    """
    steps = config.num_epochs * max(1, num_images // config.batch_size)
    return min(steps, config.max_steps or steps)


def shortfalls(config: TrainConfig, until: int) -> list[str]:
    """What is asked for and a run of so many steps does not do, a line each."""
    lines = []
    if config.max_steps and until < config.max_steps:
        lines.append(
            f"--num_epochs {config.num_epochs} ends it before --max_steps {config.max_steps}"
        )
    if flags := beyond(config, until):
        lines.append(f"it ends before {', '.join(flags)}")
    if waiting := never_begin(config):
        lines.append(f"{waiting} of {config.latent_dim} latents never begin: --wake_at is unset")
    return lines


def beyond(config: TrainConfig, until: int) -> list[str]:
    """The flags, with their steps, of events that lie beyond the end of a run of so many steps."""
    steps = {"anneal_until": (config.anneal_until,)}
    steps |= {name: getattr(config, name) or () for name in EVENTS}
    if "capacity_steps" in METHODS[config.method].settings:
        steps["capacity_steps"] = (config.capacity_steps,)
    missed = {}
    for name, each in steps.items():
        # the first step of what it comes to; what the others do comes after their step
        last = until if name == "anneal_until" else until - 1
        missed[name] = [str(step) for step in each if step > last]
    return [f"--{name} {' '.join(each)}" for name, each in missed.items() if each]


def never_begin(config: TrainConfig) -> int:
    """The latents that wait for a waking where there is none."""
    if config.wake_at or not config.first_latents:
        return 0
    return config.latent_dim - config.first_latents - len(config.add_at or ())


def fit(
    trainer: Trainer,
    log: RunLog | None,
    run_dir: Path,
    until: int,
    stop: StopSignals,
    bar: ProgressOfRun,
) -> Iterator[None]:
    """Train until so many steps are done, or `stop` has a signal, which then ends every process.

    Rows of the log and checkpoints are written on the way, and a checkpoint at the end. It yields
    whenever it has started steps, and waits for them only where it writes: several runs share a
    device so.

    log: None in a process that leaves all writing to another.
    """
    config, world = trainer.config, trainer.world
    rows = _Rows(trainer, log, bar)

    def save() -> None:
        trainer.wait()
        trainer.check_finite()
        trainer.check_weights()
        state = {**trainer.state_dict(), "finished": trainer.steps_done >= until}
        world.broadcast_from_rank0(lambda: _save(state, log, run_dir))

    stopping = _Stopping(stop, trainer)
    while trainer.steps_done < until and not stopping.now():
        steps = _steps_to_next(config, trainer.steps_done, until)
        steps = min(steps, STEPS_AT_ONCE[trainer.device.type])
        trainer.advance(steps)
        yield
        bar.advance(steps)
        fault = trainer.launcher.take_fault()
        if fault and log:
            text = f"steps are made one by one: they could not be recorded ({fault})"
            log.note(text)
            bar.say(text)
        at_row = trainer.steps_done % config.log_every == 0 or trainer.steps_done == until
        if at_row:
            trainer.wait()
            trainer.check_finite()
            rows.add()
        if trainer.steps_done % config.log_every == 0:  # a last, partial row is not begun anew
            trainer.figures.reset()
        if trainer.steps_done % config.checkpoint_every == 0 and trainer.steps_done < until:
            save()
    save()


class _Stopping:
    """Whether a signal ends the run, whichever of its processes has it.

    All of them end after the same step, or one would wait for a gradient of another for ever. They
    ask each other at least at every row of the log, and every SECONDS_TO_ASK as far as the pace
    of the first tells.
    """

    def __init__(self, stop: StopSignals, trainer: Trainer) -> None:
        self.stop, self.trainer = stop, trainer
        self.asked_after, self.asked_at = trainer.steps_done, monotonic()
        self.next = trainer.steps_done

    def now(self) -> bool:
        done, world = self.trainer.steps_done, self.trainer.world
        if world.alone:
            return bool(self.stop.signal)
        if done < self.next:
            return False
        share = SECONDS_TO_ASK / max(1e-9, monotonic() - self.asked_at)
        ahead = max(1, int((done - self.asked_after) * share))  # steps in SECONDS_TO_ASK
        told = world.all_gather((self.stop.signal, min(ahead, self.trainer.config.log_every)))
        self.stop.signal = max(signal for signal, _ in told)
        self.asked_after, self.asked_at = done, monotonic()
        self.next = done + told[0][1]
        return bool(self.stop.signal)


class _Rows:
    """The rows of a run's log, which its bar shows too, timed from one to the next."""

    def __init__(self, trainer: Trainer, log: RunLog | None, bar: ProgressOfRun) -> None:
        self.trainer, self.log, self.bar = trainer, log, bar
        self.first_step, self.start = trainer.steps_done, monotonic()

    def add(self) -> None:
        """Of the steps since the trainer's figures were reset; the rate, of those made here."""
        trainer = self.trainer
        figures = trainer.figures.means()
        timed = min(trainer.figures.steps, trainer.steps_done - self.first_step)
        now = monotonic()
        rate = timed * trainer.config.batch_size / (now - self.start)
        self.start = now
        if self.log:
            self.log.row({"step": trainer.steps_done, **figures, "images_per_second": rate})
        self.bar.show(shown_figures(figures))


def _steps_to_next(config: TrainConfig, done: int, until: int) -> int:
    """Steps until there is something to write, or the end."""
    every = (config.log_every, config.checkpoint_every)
    return min(until - done, *(each - done % each for each in every))


def _save(state: dict[str, object], log: RunLog, run_dir: Path) -> None:
    log.to_disk()  # a checkpoint's rows are there if it is
    save_checkpoint(run_dir / CHECKPOINT_NAME, state)
