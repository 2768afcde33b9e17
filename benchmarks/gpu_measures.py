"""What `benchmarks/gpu.py` measures, in groups; every group runs in a process of its own.

Networks, batch and objective are those of the paper's dSprites runs. A rate is given as one number
of each of several stretches of time, after a warm-up; the device has finished wherever the clock is
read.
"""

import gc
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.step import ROOT, flops_per_step, textbook_stepper
from benchmarks.textbook import TextbookTrainer
from factorvae.config import TrainConfig
from factorvae.datasets import Dataset, load_dataset
from factorvae.device import use_device
from factorvae.encoding import EncodedDataset
from factorvae.evaluation.scores import METRICS
from factorvae.files import LOG_NAME
from factorvae.models import VAE, conv_channels, discriminator_of
from factorvae.training.cuda_graphs import STEPS_PER_LAUNCH
from factorvae.training.loop import STEPS_AT_ONCE
from factorvae.training.trainer import DTYPES, Trainer

ONE_RUN_TARGET = "target: 3,000 steps/s, 8 times"
SWEEP_TARGET = 15_000  # steps of all runs together
BYTES_PER_SECOND = 3.0e12  # what copies on an H100 are expected to reach


@dataclass(frozen=True)
class Effort:
    """How much is done for a number.

    repeats: stretches, each of about so many seconds. steps: between two times that the host waits,
    as between two rows of a run's log. matrix_side and copied_bytes: of the floor's products and
    copies. stride: every so many-th image is encoded.
    """

    repeats: int = 5
    seconds: float = 0.5
    steps: int = 100
    loader_seconds: float = 1.0
    sweeps: tuple[int, ...] = (1, 4, 16)
    matrix_side: int = 8192
    copied_bytes: int = 1 << 30
    stride: int = 1
    train_steps: int = 20_000
    sweep_seeds: int = 16
    sweep_steps: int = 2_000
    checkpoint_steps: int = 500
    recipe_flags: tuple[str, ...] = ()
    evaluate_flags: tuple[str, ...] = ()


FULL = Effort()
QUICK = Effort(
    repeats=2,
    seconds=0.0,
    steps=1,
    loader_seconds=0.0,
    sweeps=(1, 2),
    matrix_side=256,
    copied_bytes=1 << 20,
    stride=1000,
    train_steps=3,
    sweep_seeds=2,
    sweep_steps=2,
    checkpoint_steps=2,
    recipe_flags=("--max_steps", "3"),
    evaluate_flags=("--num_batches", "1", "--protocol", "paper"),
)


@dataclass(frozen=True)
class Row:
    """One measurement.

    runs: that share the steps counted. precision: of a step that is compared with that precision's
    floor. floor_of: the precision whose floor, in microseconds, this is. failed: why there are no
    values.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    runs: int = 1
    precision: str = ""
    floor_of: str = ""
    note: str = ""
    failed: str = ""


class NeedsCuda(Exception):
    """There is nothing to measure on another device."""


@dataclass(frozen=True)
class Bench:
    """Where a group is measured, with how much effort, and who is told each row."""

    device: torch.device
    data_dir: str
    effort: Effort
    tell: Callable[[Row], None]

    def measure(
        self, name: str, unit: str, values: Callable[[], list[float]], **columns: str | int
    ) -> bool:
        """Tell the row of `values`, or why it failed; returns whether it did not."""
        try:
            row = Row(name, unit, values(), **columns)
        except NeedsCuda:
            row = Row(name, unit, failed="skipped: needs CUDA")
        except Exception as error:
            traceback.print_exc()
            row = Row(name, unit, failed=f"failed: {type(error).__name__}: {one_line(str(error))}")
        self.tell(row)
        return not row.failed

    @cached_property
    def dataset(self) -> Dataset:
        """dSprites, loaded once for all of a group, and one copy of it on the device."""
        return load_dataset("dsprites", self.data_dir)

    def config(self, **settings: object) -> TrainConfig:
        return TrainConfig(data_dir=self.data_dir, **settings)

    def trainer(self, graphs: bool = True, **settings: object) -> Trainer:
        """Ours, as train.py sets it up."""
        use_device(self.device)
        return Trainer(self.config(**settings), self.dataset, self.device, graphs=graphs)

    def rates(
        self, call: Callable[[], object], amount: float, seconds: float | None = None
    ) -> list[float]:
        """How much a second: `call` does `amount`, over and over for so long; one of each stretch.

        Of the warm-up, the first two calls are there to record, to compile and to allocate.
        """
        seconds = self.effort.seconds if seconds is None else seconds

        def timed(calls: int) -> float:
            start = time.perf_counter()
            for _ in range(calls):
                call()
            synchronize(self.device)
            return time.perf_counter() - start

        for _ in range(2):
            timed(1)
        calls, spent = 1, timed(1)
        while spent < seconds:
            calls, spent = calls + 1, spent + timed(1)
        return [calls * amount / timed(calls) for _ in range(self.effort.repeats)]


def one_line(text: str) -> str:
    """The beginning of a message, fit for a cell of a table."""
    return " ".join(text.split()).replace("|", "/")[:160]


def synchronize(device: torch.device) -> None:
    """Wait for all that the device was given; the CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_memory(device: torch.device) -> None:
    """Free what nothing uses any more, and count the peak of the device's memory from now on."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.init()  # without it there are no counts
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """MiB since `forget_memory`: what tensors took, and what PyTorch had taken from the device."""
    if device.type != "cuda":
        raise NeedsCuda
    return {
        "allocated": torch.cuda.max_memory_allocated(device) / 2**20,
        "reserved": torch.cuda.max_memory_reserved(device) / 2**20,
    }


# --- The yardstick and the floor --------------------------------------------------------------


def measure_textbook(bench: Bench) -> None:
    """The step as PyTorch gives it: eager, and `.item()` of four losses, as textbooks do."""
    dataset = bench.dataset

    def on_device(precision: str) -> list[float]:
        torch.set_float32_matmul_precision(precision)
        trainer = TextbookTrainer(device=str(bench.device))
        draw = partial(torch.randint, len(dataset), (64,))
        batches = [dataset.batch(draw(), bench.device) for _ in range(32)]
        pairs = itertools.cycle(zip(batches[::2], batches[1::2], strict=True))
        return bench.rates(lambda: trainer.step(*next(pairs)), 1)

    bench.measure(
        "textbook",
        "steps/s",
        partial(on_device, "highest"),
        note="eager, .item() of the losses, batches on the device; PyTorch's default precision:"
        " products in float32, convolutions in TF32",
    )
    note = "the same, products in TF32 too, as ours have them"
    bench.measure("textbook, TF32", "steps/s", partial(on_device, "high"), note=note)


def measure_loader(bench: Bench) -> None:
    """The textbook's step, fed as textbooks do too."""

    def from_loader() -> list[float]:
        torch.set_float32_matmul_precision("highest")
        step = textbook_stepper(bench.config(), bench.dataset, str(bench.device))
        return bench.rates(step, 1, bench.effort.loader_seconds)

    note = "the textbook's, fed by a DataLoader of single images"
    bench.measure("textbook, DataLoader", "steps/s", from_loader, note=note)


def bytes_per_step(
    config: TrainConfig, image_size: int = 64, channels: int = 1
) -> dict[str, float]:
    """Bytes to and from the device's memory in one step, if its caches keep nothing between passes.

    Weights are read once by each pass: the VAE's forward and backward, the encoder's on the second
    batch, the discriminator's forward and backward on either half of the codes. A layer's output is
    written and read once where a backward pass needs it. Adam writes and reads a gradient, and
    reads and writes a weight and its two moments, all float32; under bf16 it writes the weight in
    bfloat16 too. Not counted: gradients of activations, of which no fused step need keep any.
    """
    shape = (channels, image_size, image_size)
    vae = VAE(shape, config.latent_dim, config.hidden_dim)
    discriminator = discriminator_of(config)
    encoder, decoder, disc = map(numel, (vae.encoder, vae.decoder, discriminator))
    parameters = encoder + decoder + disc
    width = DTYPES[config.precision].itemsize
    copies = 0 if width == 4 else width * parameters

    widths = conv_channels(image_size)
    maps = [(image_size >> k) ** 2 * c for k, c in enumerate(widths, start=1)]
    up = maps[:-1] + [image_size**2 * channels, maps[-1]]  # expanded features, and back up
    of_image = sum(maps) + sum(up) + 2 * config.hidden_dim + 2 * config.latent_dim
    of_code = config.disc_depth * config.disc_width + 2
    B = config.batch_size
    return {
        "weights": width * (3 * encoder + 2 * decoder + 4 * disc),
        "activations": 2 * width * B * (of_image + 3 * of_code),
        "gradients and Adam": 8 * 4 * parameters + copies,
        "packed images": 2 * B * image_size**2 * channels / 8,
    }


def numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def measure_floor(bench: Bench) -> None:
    """What a step needs at the least, by the rates at which the device copies and multiplies."""
    use_device(bench.device)
    found: dict[str, float] = {}  # medians, bytes or operations a second

    def copies() -> list[float]:
        source = torch.randn(bench.effort.copied_bytes // 4, device=bench.device)
        target = torch.empty_like(source)
        amount = 2 * source.nbytes
        rates = bench.rates(lambda: target.copy_(source), amount)
        found["copies"] = float(np.median(rates))
        return [rate / 1e9 for rate in rates]

    def products(precision: str) -> list[float]:
        side = bench.effort.matrix_side
        a, b = (
            torch.randn(side, side, device=bench.device).to(DTYPES[precision]) for _ in range(2)
        )
        c = torch.empty_like(a)
        rates = bench.rates(lambda: torch.mm(a, b, out=c), 2 * side**3)
        found[precision] = float(np.median(rates))
        return [rate / 1e12 for rate in rates]

    def floor(precision: str) -> list[float]:
        config = bench.config(precision=precision)
        moved, computed = bytes_per_step(config), flops_per_step(config)
        seconds = (
            sum(moved.values()) / found["copies"],
            sum(computed.values()) / found[precision],
        )
        return [1e6 * max(seconds)]

    note = "bytes read and written"
    bench.measure("copies on the device", "GB/s", copies, note=note)
    for precision in DTYPES:
        name = {"fp32": "TF32", "bf16": "bfloat16"}[precision]
        side = bench.effort.matrix_side
        note = f"{side} x {side}"
        bench.measure(f"products in {name}", "TFLOP/s", partial(products, precision), note=note)
    for precision in DTYPES:
        config = bench.config(precision=precision)
        moved = ", ".join(f"{k} {v / 1e6:.1f}" for k, v in bytes_per_step(config).items())
        computed = sum(flops_per_step(config).values()) / 1e9
        bench.measure(
            f"floor of a step, {precision}",
            "us",
            partial(floor, precision),
            floor_of=precision,
            note=f"the longer of MB ({moved}) over copies and {computed:.2f} GFLOP over products",
        )


# --- Ours -------------------------------------------------------------------------------------


def step_rates(bench: Bench, trainer: Trainer, steps_per_launch: int | None = None) -> list[float]:
    """Steps a second; the host waits every `effort.steps`, as train.py does."""
    if steps_per_launch is not None:
        if trainer.launcher.graphs is None:
            raise NeedsCuda
        trainer.launcher.graphs.sizes = tuple(sorted({steps_per_launch, 1}, reverse=True))
    steps = bench.effort.steps

    def call() -> None:
        trainer.advance(steps)
        trainer.wait()

    return bench.rates(call, steps)


def measure_steps(bench: Bench, precision: str) -> None:
    """One run: eager, with graphs as train.py has them, with other numbers of steps a launch."""
    columns = dict(precision=precision)

    def row(name: str, values: Callable[[], list[float]], note: str = "") -> None:
        bench.measure(f"ours, {precision}{name}", "steps/s", values, note=note, **columns)
        forget_memory(bench.device)

    def ours(steps_per_launch: int | None = None, graphs: bool = True) -> list[float]:
        return step_rates(bench, bench.trainer(graphs, precision=precision), steps_per_launch)

    row(", eager", partial(ours, graphs=False))  # first: nothing that fails to record disturbs it
    row("", ours, f"{STEPS_PER_LAUNCH[0]} a launch; {ONE_RUN_TARGET}")
    for count in (1, 50):
        row(f", {count} a launch", partial(ours, count))


def measure_compiled(bench: Bench, precision: str) -> None:
    """One run with --compile; its first steps, which compile, count as the warm-up."""

    def compiled() -> list[float]:
        return step_rates(bench, bench.trainer(precision=precision, compile=True))

    name = f"ours, {precision}, --compile"
    bench.measure(name, "steps/s", compiled, precision=precision)


def measure_sweep(bench: Bench, precision: str) -> None:
    """Several runs in turns, as in `factorvae.training.sweep`, but without their logs."""
    device, steps = bench.device, bench.effort.steps
    at_once = min(steps, STEPS_AT_ONCE[device.type])
    use_device(device)
    moved = sum(bytes_per_step(bench.config(precision=precision)).values())
    target = (
        f"target: {SWEEP_TARGET:,}; but {moved / 1e6:.0f} MB a step, at {BYTES_PER_SECOND / 1e12} "
        f"TB/s, allow {BYTES_PER_SECOND / moved:,.0f}"
    )

    def together(runs: int) -> list[float]:
        trainers = [bench.trainer(precision=precision, seed=seed) for seed in range(runs)]

        def turn() -> None:
            for _ in range(0, steps, at_once):
                for trainer in trainers:
                    trainer.advance(at_once)
            for trainer in trainers:
                trainer.wait()

        return bench.rates(turn, runs * steps)

    for runs in bench.effort.sweeps:
        forget_memory(device)
        bench.measure(
            f"{runs} at a time, {precision}",
            "model-steps/s",
            partial(together, runs),
            runs=runs,
            precision=precision,
            note=target if runs == 16 else "",
        )
        if runs in (bench.effort.sweeps[0], bench.effort.sweeps[-1]):
            for kind in ("allocated", "reserved"):
                bench.measure(
                    f"memory {kind}, {runs} at a time, {precision}",
                    "MiB",
                    lambda kind=kind: [peak_memory(device)[kind]],
                    note="the peak; 360 MiB are the images",
                )


def measure_encoding(bench: Bench) -> None:
    """Images of all of dSprites to posteriors, in float32 proper, as evaluate.py encodes them."""
    dataset = bench.dataset
    index = np.arange(0, len(dataset), bench.effort.stride)

    def encoded() -> list[float]:
        config = bench.config()
        weights = torch.Generator().manual_seed(0)
        vae = VAE(dataset.image_shape, config.latent_dim, config.hidden_dim, weights)
        vae.to(bench.device).eval()
        threads = torch.get_num_threads()

        def call() -> None:
            EncodedDataset(vae, dataset, bench.device, threads).encode(index)

        return bench.rates(call, len(index))

    note = f"{len(index):,} images, float32"
    bench.measure("encoding", "images/s", encoded, note=note)


# --- The scripts ------------------------------------------------------------------------------


def run_script(bench: Bench, script: str, *flags: str) -> list[float]:
    """Wall seconds of a script on the device, from its call to its end."""
    command = [sys.executable, script, *flags]
    command += ["--device", str(bench.device), "--data_dir", bench.data_dir]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{script} ended with {done.returncode}: {lines[-1]}")
    return [seconds]


def measure_training(bench: Bench) -> None:
    """train.py, one run and a sweep, with everything that it writes."""
    effort = bench.effort
    steps, runs, sweep_steps = effort.train_steps, effort.sweep_seeds, effort.sweep_steps
    seeds = f"0-{runs - 1}"
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")

        def alone() -> list[float]:
            flags = ("--max_steps", str(steps), "--output_dir", str(run))
            return run_script(bench, "train.py", *flags)

        def own_rate() -> list[float]:
            found = re.findall(r"finished .* at ([\d.,]+) steps/s", (run / LOG_NAME).read_text())
            return [float(found[-1].replace(",", ""))]

        def sweep() -> list[float]:
            flags = ("--seed", seeds, "--max_steps", str(sweep_steps))
            return run_script(bench, "train.py", *flags, "--output_dir", f"{folder}/sweep")

        name = f"train.py --max_steps {steps}"
        if bench.measure(name, "s", alone, note="from the call to the end"):
            bench.measure("as it says itself", "steps/s", own_rate, precision="fp32")
        name = f"train.py --seed {seeds} --max_steps {sweep_steps}"
        bench.measure(name, "s", sweep, note=f"{runs * sweep_steps:,} model-steps")


def measure_recipe(bench: Bench) -> None:
    """train.py --preset fast to its end, and the score it is made for, by evaluate.py."""
    with tempfile.TemporaryDirectory() as folder:
        run, scores = Path(folder, "run"), Path(folder, "scores.json")
        flags = ("--preset", "fast", "--gamma", "6.4", "--seed", "16")  # a seed of docs/results.md
        train = partial(run_script, bench, "train.py", *flags, *bench.effort.recipe_flags)
        train = partial(train, "--output_dir", str(run))
        note = "from the call to the end; target: 60 s on an H100"
        if not bench.measure("train.py --preset fast", "s", train, note=note):
            return

        def score() -> list[float]:
            flags = ("--model_path", str(run), "--metrics", "factor_vae_score")
            flags += ("--output", str(scores), *bench.effort.evaluate_flags)
            run_script(bench, "evaluate.py", *flags)
            found = json.loads(scores.read_text())["scores"]
            return [found["factor_vae_score"]["value"]]

        note = "10,000 votes; docs/results.csv: .803 of this seed in bfloat16 on a CPU"
        bench.measure("its FactorVAE score", "", score, note=note)


def measure_evaluation(bench: Bench) -> None:
    """evaluate.py on a checkpoint, all scores that one checkpoint has, without DCI and with it."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder, "run"))
        steps = str(bench.effort.checkpoint_steps)
        train = partial(run_script, bench, "train.py", "--max_steps", steps, "--output_dir", run)
        if not bench.measure(f"train.py --max_steps {steps}", "s", train):
            return
        names = [name for name in METRICS if name not in ("dci", "udr")]
        flags = ("--model_path", run, *bench.effort.evaluate_flags)
        evaluate = partial(run_script, bench, "evaluate.py", *flags)
        bench.measure("evaluate.py without DCI", "s", partial(evaluate, "--metrics", *names))
        bench.measure("evaluate.py", "s", evaluate, note="DCI by gbt on the CPU")


@dataclass(frozen=True)
class Group:
    """measure: tells all rows of the group. limit: the seconds after which it is given up."""

    measure: Callable[[Bench], None]
    limit: float


# In the order of their worth, since the time may be up before the last; but first the two by which
# the others' rows are divided.
GROUPS = {
    "textbook": Group(measure_textbook, 60),
    "floor": Group(measure_floor, 60),
    "fp32": Group(partial(measure_steps, precision="fp32"), 90),
    "recipe": Group(measure_recipe, 150),
    "bf16": Group(partial(measure_steps, precision="bf16"), 90),
    "sweep_fp32": Group(partial(measure_sweep, precision="fp32"), 90),
    "sweep_bf16": Group(partial(measure_sweep, precision="bf16"), 90),
    "train": Group(measure_training, 120),
    "evaluate": Group(measure_evaluation, 150),
    "encode": Group(measure_encoding, 60),
    "compile_fp32": Group(partial(measure_compiled, precision="fp32"), 240),
    "compile_bf16": Group(partial(measure_compiled, precision="bf16"), 240),
    "loader": Group(measure_loader, 60),
}
