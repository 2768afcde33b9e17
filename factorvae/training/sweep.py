"""A sweep: the runs of every combination of the values asked for, of seeds and gammas say.

On one CUDA device the runs train at the same time, each by graphs on a stream of its own; on the
CPU, in a process each, several at a time. Under torchrun every process has a share of the runs.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import shlex
import signal
import typing
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from factorvae.config import TrainConfig
from factorvae.datasets import Dataset, load_dataset
from factorvae.device import keep_freed_memory, use_threads
from factorvae.errors import UserError
from factorvae.files import SWEEP_NAME, locked_folder
from factorvae.progress import Progress
from factorvae.training.distributed import World
from factorvae.training.loop import shortfalls
from factorvae.training.run import Run, about_device, check_batches, how_to_go_on
from factorvae.training.run_folder import folder_of, make_run_dir, run_name
from factorvae.training.signals import SIGNALS, StopSignals, end_with_parent
from factorvae.training.sweep_folder import check_same_sweep, sweep_table, write_sweep

RUNS_PER_DEVICE = 16  # on CUDA at a time, by default
CPU = torch.device("cpu")


def is_sweep(configs: Sequence[TrainConfig]) -> bool:
    """Whether there are several runs, or one that joins the sweep in its --output_dir."""
    return len(configs) > 1 or os.path.exists(folder_of(configs) / SWEEP_NAME)


def runs_of(configs: Sequence[TrainConfig]) -> list[TrainConfig]:
    """The same, each with its own folder in the sweep's."""
    folder = folder_of(configs)
    return [
        dataclasses.replace(config, output_dir=str(folder / run_name([config])))
        for config in configs
    ]


def train_sweep(
    configs: Sequence[TrainConfig], dataset: Dataset, device: torch.device, world: World
) -> int:
    """Train this process's share of the runs, and tell of all; what the script exits with.

    Finished runs are left as they are and stopped ones go on. One that fails, or whose process
    dies, does not stop the others.

    Raises:
        UserError: another command trains in the folder, or what `check_same_sweep` does.
    """
    if not world.alone:
        end_with_parent()  # torchrun's process of this machine
    check_batches(configs[0], len(dataset))  # before a folder is made
    folder = folder_of(configs)
    with world.locked(folder):
        return _train_sweep(folder, runs_of(configs), dataset, device, world)


def _train_sweep(
    folder: Path,
    configs: Sequence[TrainConfig],
    dataset: Dataset,
    device: torch.device,
    world: World,
) -> int:
    """`train_sweep` in a folder that no other command writes to; each config has its own there."""
    runs = world.run_everywhere(lambda: _look_up(folder, configs, dataset, world))
    to_do = [run for run in runs if run.state not in ("finished", "failed")]
    threads = use_threads(configs[0].threads)
    jobs = configs[0].jobs or (threads if device.type == "cpu" else RUNS_PER_DEVICE)
    jobs = max(1, min(jobs, len(to_do)))

    record = _Record(folder, configs, world, runs)
    finished = sum(summary["state"] == "finished" for summary in record.write())
    first = sum(run.steps for run in to_do)
    total = sum(run.until for run in to_do)
    told = world.all_gather([line for run in to_do for line in shortfalls(run.config, run.until)])
    fallen_short = Counter(itertools.chain.from_iterable(told))
    with StopSignals() as stop, Progress(total, first, shown=world.rank == 0) as bar:
        bar.say(f"sweep of {len(configs)} runs in {folder}: {finished} finished")
        for run in runs:
            if run.state == "failed":
                bar.say(f"failed {run.folder.name}: {run.error}")
        among = "" if world.alone else f", {world.size} processes with a share of the runs each"
        bar.say(f"{device}, {jobs} at a time{among}; {dataset.name}, {dataset.source}")
        for line in about_device(device, configs[0].precision, graphed=True):
            bar.say(line)
        for line, count in fallen_short.items():
            bar.say(line if count == len(configs) else f"{count} of {len(configs)} runs: {line}")

        def ended(run: Run) -> None:
            record.note([run])
            told = {"finished": f"{run.steps:,} steps", "failed": run.error}
            how = told.get(run.state, f"at step {run.steps:,}")
            bar.say(f"{run.state} {run.folder.name}: {how}")
            if world.alone:
                record.write()

        if device.type == "cpu" and jobs > 1:
            _in_processes(to_do, jobs, threads // jobs, stop, bar, ended)
        else:
            _in_turns(to_do, jobs, device, threads, stop, bar, ended)

    record.note(to_do)  # also those put back at the end
    summaries = record.write()
    if world.rank == 0:
        print(sweep_table(summaries))
        if any(summary["state"] == "finished" for summary in summaries):
            print(f"next: python evaluate.py --model_path {shlex.quote(str(folder))}")
    states = {summary["state"] for summary in summaries}
    if states & {"new", "stopped"}:  # also where one process alone was told to stop
        if world.rank == 0:
            print(how_to_go_on(configs[0]))
        return 128 + (stop.signal or signal.SIGTERM)
    return 2 if "failed" in states else 0


def _look_up(
    folder: Path, configs: Sequence[TrainConfig], dataset: Dataset, world: World
) -> list[Run]:
    """This process's share of the runs, in whatever state they are."""
    check_same_sweep(folder, configs)
    found = [Run(config, dataset, soon=False) for config in configs[world.rank :: world.size]]
    for run in found:
        if run.config.overwrite:  # now: torchrun may begin anew before the run's turn comes
            with locked_folder(run.folder):
                make_run_dir(run.folder, run.config)
    return found


class _Record:
    """What is known of every run of a sweep, for `study.json` and the table at the end.

    runs: this process's share of those of `configs`.
    """

    def __init__(
        self, folder: Path, configs: Sequence[TrainConfig], world: World, runs: Sequence[Run]
    ) -> None:
        self.folder, self.configs, self.world = folder, configs, world
        self.here: dict[str, dict[str, object]] = {}
        self.note(runs)

    def note(self, runs: Sequence[Run]) -> None:
        """The state that these of this process's runs are in now."""
        self.here |= {run.folder.name: run.summary() for run in runs}

    def write(self) -> list[dict[str, object]]:
        """Every process's runs, in the order of the flags, also into study.json."""
        shares = self.world.all_gather(self.here)
        known = {name: summary for share in shares for name, summary in share.items()}
        summaries = [known[Path(config.output_dir).name] for config in self.configs]
        self.world.broadcast_from_rank0(lambda: write_sweep(self.folder, self.configs, summaries))
        return summaries


class RunBar:
    """A run's part in the bar of its sweep."""

    def __init__(self, bar: Progress, run: Run) -> None:
        self.bar, self.name = bar, run.folder.name
        self.left = run.until - run.steps

    def advance(self, steps: int) -> None:
        self.left -= steps
        self.bar.advance(steps)

    def show(self, figures: str) -> None:
        self.bar.show(figures, of=self.name)

    def say(self, text: str) -> None:
        """Nothing: the run's log.txt has it."""

    def close(self) -> None:
        """The run has ended: what it has left will not be done."""
        self.bar.change_total(-self.left)


def _threads_for(run: Run, threads: int) -> int:
    """--threads' part, or, without it, as many as the run began with."""
    return threads if run.config.threads else run.threads or threads


def _attempt(
    run: Run,
    device: torch.device,
    threads: int,
    stop: StopSignals,
    bar: "RunBar | PipedBar",
) -> Iterator[None]:
    """Train a run as alone, but note a failure rather than raise it."""
    try:
        yield from run.train(device, _threads_for(run, threads), stop, bar)
    except UserError as error:
        run.fail(str(error))


def _in_turns(
    runs: Sequence[Run],
    jobs: int,
    device: torch.device,
    threads: int,
    stop: StopSignals,
    bar: Progress,
    ended: Callable[[Run], None],
) -> None:
    """Train in this process: on CUDA, while one run's steps are awaited, others' are under way.

    A run that does not fit into the device's memory beside the others waits for its turn among
    fewer; one that does not fit alone fails.
    """
    waiting = deque(runs)
    active: list[tuple[Run, RunBar, Iterator[None]]] = []
    while waiting or active:
        while waiting and len(active) < jobs and not stop.signal:
            run = waiting.popleft()
            run_bar = RunBar(bar, run)
            active.append((run, run_bar, _attempt(run, device, threads, stop, run_bar)))
        if stop.signal:
            waiting.clear()
        for one in list(active):
            run, run_bar, steps = one
            turn = _turn(steps)
            if turn == "goes on":
                continue
            active.remove(one)
            run_bar.close()
            if turn == "ended":
                ended(run)
            elif active:
                jobs = len(active)
                run.put_back()
                waiting.appendleft(run)
                bar.change_total(run.until - run.steps)
                bar.say(
                    f"no room on {device} for {run.folder.name} too: from now on {jobs} at a time"
                )
            else:
                run.fail(f"out of memory on {device}, even alone: try a smaller model or batch")
                ended(run)


def _turn(steps: Iterator[None]) -> str:
    """Let a run go on for a while: whether it 'goes on', has 'ended' or is 'out of memory'."""
    try:
        next(steps)
    except StopIteration:
        return "ended"
    except torch.OutOfMemoryError:
        return "out of memory"
    return "goes on"


class Shown(typing.NamedTuple):
    """What a run in a process of its own sends on its way: steps since the last, and figures."""

    steps: int
    figures: str


class Ended(typing.NamedTuple):
    """What it sends last."""

    state: str
    error: str
    steps: int


class PipedBar:
    """What a run in a process of its own tells the sweep, and is told by it."""

    def __init__(self, connection: Connection, stop: StopSignals) -> None:
        self.connection, self.stop = connection, stop
        self.steps = 0

    def advance(self, steps: int) -> None:
        self.steps += steps
        if self.connection.poll():  # it is told to stop, or the sweep's process is gone
            self.stop.signal = signal.SIGTERM

    def show(self, figures: str) -> None:
        self.send(Shown(self.steps, figures))
        self.steps = 0

    def send(self, message: Shown | Ended | UserError) -> None:
        with contextlib.suppress(ConnectionError):  # the sweep's process is gone
            self.connection.send(message)

    def say(self, text: str) -> None:
        """Nothing: the run's log.txt has it."""


def _train_in_process(config: TrainConfig, threads: int, connection: Connection) -> None:
    """A process's work: one run. Sends its progress, and how it ended or why it did not begin."""
    end_with_parent()
    keep_freed_memory()
    with StopSignals() as stop:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        bar = PipedBar(connection, stop)
        try:
            dataset = load_dataset(config.dataset, config.data_dir, **config.dataset_options())
            run = Run(config, dataset)
        except UserError as error:
            bar.send(error)
            return
        for _ in _attempt(run, CPU, threads, stop, bar):
            pass
    bar.send(Ended(run.state, run.error, run.steps))


def _in_processes(
    runs: Sequence[Run],
    jobs: int,
    threads: int,
    stop: StopSignals,
    bar: Progress,
    ended: Callable[[Run], None],
) -> None:
    """Train each in a process of its own, so many at a time."""
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # now: its start would let the signals blocked below through
    told_to_stop = False
    waiting = deque(runs)
    active: dict[Connection, tuple[Run, RunBar, BaseProcess]] = {}
    while waiting or active:
        while waiting and len(active) < jobs and not stop.signal:
            run = waiting.popleft()
            connection, end = context.Pipe()
            arguments = (run.config, max(1, threads), end)
            process = context.Process(target=_train_in_process, args=arguments, daemon=True)
            # It starts with these blocked, not to die of them before it can save: SIGTERM until it
            # trains, and Ctrl-C for good, which is for this process to pass on.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            process.start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            end.close()  # the process has its own: when it ends, the pipe does
            active[connection] = run, RunBar(bar, run), process
        if stop.signal and not told_to_stop:
            told_to_stop = True
            waiting.clear()
            for connection in active:
                with contextlib.suppress(ConnectionError):  # it has just ended
                    connection.send("stop")
        for connection in wait(list(active), timeout=0.2):
            run, run_bar, process = active[connection]
            message = _received(connection)
            if isinstance(message, Shown):
                run_bar.advance(message.steps)
                run_bar.show(message.figures)
                continue
            process.join()
            _note_end(run, message, process.exitcode)
            del active[connection]
            connection.close()
            run_bar.close()
            ended(run)


def _note_end(run: Run, message: Ended | UserError | None, exit_code: int | None) -> None:
    """How a run's process ended; if it could not begin, or died, its last checkpoint stands."""
    if isinstance(message, Ended):
        run.state, run.error, run.steps = message
    else:
        died = f"its process died (exit code {exit_code})"
        run.fail(died if message is None else str(message))


def _received(connection: Connection) -> Shown | Ended | UserError | None:
    """The next message; None where the process at the other end is gone."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None
