"""Every setting of the project, written once: its default, its range, its help and its flag.

A config is a frozen dataclass, which checks its values. The command line is built from its fields
(factorvae/command_line.py).
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from factorvae.errors import UserError
from factorvae.methods import METHODS

RGB = {"hidden_dim": 256}  # the paper's wider layer for data in colour
# what a dataset changes of the defaults; every dataset is listed
DATASET_DEFAULTS: dict[str, dict[str, object]] = {
    "dsprites": {},
    "shapes3d": {**RGB, "gamma": 7.0},
    "rooms": {**RGB, "gamma": 7.0},
    "chairs": {**RGB, "gamma": 3.2, "lr_disc": 1e-5},
    "celeba": {**RGB, "gamma": 6.4, "lr_disc": 1e-5},
    "cars3d": RGB,
    "smallnorb": {},
    "mpi3d_toy": RGB,
    "mpi3d_realistic": RGB,
    "mpi3d_real": RGB,
    "color_dsprites": RGB,
    "noisy_dsprites": RGB,
    "scream_dsprites": RGB,
    "folder": RGB,
    "npz": RGB,
}
PATHS = {"folder": "PATH", "npz": "FILE"}  # what stands behind the colon of those of a user's own
DATASET_NAMES = tuple(f"{n}:{PATHS[n]}" if n in PATHS else n for n in DATASET_DEFAULTS)
# what --preset changes of the defaults
RECIPES: dict[str, dict[str, object]] = {
    "fast": {
        **{"disc_width": 300, "disc_standardize": True, "lr": 6e-4, "lr_disc": 1e-3},
        **{"latent_scale": 0.1, "first_latents": 2, "add_at": (1500,)},
        **{"beta_start": 4.0, "gamma_start": 100.0, "anneal_from": 2500, "anneal_until": 10000},
        **{"turn_at": (1500, 2500, 5000), "wake_at": (5000, 8000, 10000, 12000)},
        **{"max_steps": 20000, "num_epochs": 1_000_000},  # so many steps of however little data
    },
}


def recipe_flags(name: str) -> list[str]:
    """The flags that say what `--preset NAME` fills."""
    spelled = []
    for field, value in RECIPES[name].items():
        spelled += [f"--{field}", *([] if value is True else as_given(value).split())]
    return spelled


EVENTS = ("add_at", "turn_at", "wake_at")  # fields with steps after which latents are changed

# A latent with no more nats of KL to the prior than this is dead: it tells the decoder nothing that
# can be seen (the threshold of UDR, Duan et al. 2020).
DEAD_KL = 0.01
# One whose means spread less is collapsed: disentanglement_lib's threshold, a standard deviation.
DEAD_STD = 0.05

MOST_STEPS = 2**53  # beyond which a step counted in floating point is not itself
IMAGE_SIZES = (32, 64, 128, 256)  # sides that the networks take
MOST_THREADS = 1024
MOST_CODES = 16  # beside which a latent is added: their cubic polynomials have 969 terms
WIDEST = 10**9  # of a layer: whether the memory suffices is asked later, of all layers together


def option(
    default: object,
    group: str,
    help: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: tuple[str | int, ...] | None = None,
    resume: str = "same",
    setting: bool | None = None,
    several: bool = False,
) -> typing.Any:
    """A config field that is a command-line flag too.

    Args:
        minimum, above: the least value allowed, or the bound that a value must exceed.
        maximum: the greatest value allowed.
        resume: 'same' where a run can only go on under the value it began with, 'free' otherwise.
        setting: whether models trained under other values are of another setting, over which no
            mean is taken; None: where `resume` is 'same'.
        several: whether the flag takes several values, of which each makes a run of a sweep.
    """
    metadata = dict(
        group=group,
        help=help,
        minimum=minimum,
        above=above,
        maximum=maximum,
        choices=choices,
        resume=resume,
        setting=resume == "same" if setting is None else setting,
        several=several,
    )
    return dataclasses.field(default=default, metadata=metadata)


def threads_option(otherwise: str = "") -> typing.Any:
    """--threads, of the same range in every script."""
    words = f"CPU threads; 0: {otherwise}as many as there are idle cores"
    return option(0, "run", words, minimum=0, maximum=MOST_THREADS, resume="free")


def seed_option(group: str, help: str, several: bool = False) -> typing.Any:
    """--seed, of the same range in every script."""
    return option(0, group, help, minimum=0, maximum=2**63 - 1, setting=False, several=several)


@dataclass(frozen=True)
class Config:
    """Checks every field of a subclass, its type and its range, when it is made.

    The values may come from anywhere, as a checkpoint's do. Raises UserError.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _check_type(flag_of(field), value, field.type)
            _check(flag_of(field), value, field.metadata)


@dataclass(frozen=True)
class TrainConfig(Config):
    """One training run."""

    # no field of the setting: the set that the name stands for is compared, with its source
    dataset: str = option(
        "dsprites", "data", f"what to train on: {', '.join(DATASET_NAMES)}", setting=False
    )
    data_dir: str = option("data", "data", "folder of the datasets and their caches", resume="free")
    image_size: int | None = option(
        None,
        "data",
        "side of the images, where the data may be resized",
        choices=IMAGE_SIZES,
    )
    crop: int | None = option(
        None, "data", "side of the centred square cut out first, in photos and renders", minimum=1
    )
    grayscale: bool = option(False, "data", "one channel, of photos and renders")
    split: str | None = option(None, "data", "part of the data, where it is published in parts")
    skip_bad_images: bool = option(False, "data", "leave out images that cannot be read")

    latent_dim: int = option(10, "model", "width of z", minimum=1, maximum=WIDEST)
    hidden_dim: int = option(
        128, "model", "fully connected layer of the VAE", minimum=1, maximum=WIDEST
    )
    disc_depth: int = option(
        6, "model", "hidden layers of the discriminator", minimum=1, maximum=1000
    )
    disc_width: int = option(1000, "model", "units in each of them", minimum=1, maximum=WIDEST)
    disc_standardize: bool = option(
        False,
        "model",
        "it sees codes of deviation 1 over the batch, as total correlation has no scale",
    )
    latent_scale: float = option(
        1.0,
        "model",
        "factor of the first weights into and out of the latents; below 1 they awake one by one",
        above=0,
        maximum=100,
    )
    first_latents: int = option(
        0,
        "model",
        "latents that are trained at first; the others wait for --add_at and --wake_at; 0: all",
        minimum=0,
        maximum=WIDEST,
    )

    preset: str | None = option(
        None,
        "objective",
        "a recipe, which fills what is left unset: fast, of 20,000 steps (docs/recipe.md)",
        choices=tuple(RECIPES),
        resume="free",
    )
    method: str = option(
        "factorvae",
        "objective",
        "what gamma weighs; factorvae with gamma 0 is betavae",
        choices=tuple(METHODS),
        several=True,
    )
    beta: float = option(
        1.0, "objective", "weight of the KL term (1 in FactorVAE)", minimum=0, several=True
    )
    gamma: float = option(
        6.4,
        "objective",
        "weight of the penalty, in factorvae of the total correlation; 0 trains no discriminator",
        minimum=0,
        several=True,
    )
    beta_start: float | None = option(
        None,
        "objective",
        "beta of the first steps, from which it goes to --beta, if that is not 0; 0: none",
        minimum=0,
    )
    gamma_start: float | None = option(
        None,
        "objective",
        "gamma of the first steps, from which it goes to --gamma, if that is not 0; 0: none",
        minimum=0,
    )
    anneal_from: int = option(
        0,
        "objective",
        "last step of --beta_start and --gamma_start; then geometric",
        minimum=0,
        maximum=MOST_STEPS,
    )
    anneal_until: int = option(
        0,
        "objective",
        "first step of --beta and --gamma themselves",
        minimum=0,
        maximum=MOST_STEPS,
    )
    capacity: float = option(
        25.0, "objective", "of annealed: nats that the KL grows to", minimum=0, several=True
    )
    capacity_steps: int = option(
        100_000,
        "objective",
        "of annealed: steps in which it grows",
        minimum=1,
        maximum=MOST_STEPS,
    )
    dip_ratio: float = option(
        10.0,
        "objective",
        "of dipvae1 and dipvae2 (there 1): weight of the diagonal, over gamma",
        minimum=0,
    )
    stratified: bool = option(
        False, "objective", "of btcvae: minibatch stratified sampling in place of weighted"
    )

    add_at: tuple[int, ...] | None = option(
        None,
        "optimisation",
        "steps after which one more latent than --first_latents begins, as the feature of the "
        "images of which those before it tell least; 0: never",
        minimum=0,
    )
    turn_at: tuple[int, ...] | None = option(
        None,
        "optimisation",
        "steps after which latents are turned among each other until independent; 0: never",
        minimum=0,
    )
    wake_at: tuple[int, ...] | None = option(
        None,
        "optimisation",
        "steps after which latents of at most a tenth of a nat begin anew; 0: never",
        minimum=0,
    )

    batch_size: int = option(
        64, "optimisation", "images in each of a step's two batches", minimum=1
    )
    num_epochs: int = option(
        50,
        "optimisation",
        "passes over as many images as the data has",
        minimum=1,
        maximum=MOST_STEPS,
        resume="free",
    )
    max_steps: int | None = option(
        None,
        "optimisation",
        "end earlier, after this many steps",
        minimum=1,
        maximum=MOST_STEPS,
        resume="free",
    )
    lr: float = option(1e-4, "optimisation", "learning rate of the VAE", above=0)
    lr_disc: float = option(1e-4, "optimisation", "learning rate of the discriminator", above=0)
    seed: int = seed_option("optimisation", "of the weights, the batches and the noise", True)

    device: str = option("auto", "run", "auto, cpu, cuda or cuda:N", resume="free")
    precision: str = option(
        "fp32",
        "run",
        "in which convolutions and products compute; fp32 is TF32 on CUDA",
        choices=("fp32", "bf16"),
    )
    compile: bool = option(False, "run", "fuse the step's kernels by torch.compile", resume="free")
    deterministic: bool = option(
        False,
        "run",
        "on CUDA, the same bits every time on the same device, in a sweep as alone, also where "
        "the library convolves; on the CPU that is always so",
        resume="free",
    )
    threads: int = threads_option("those that a run had, if it is gone on with, or ")
    output_dir: str | None = option(
        None,
        "run",
        "the run's or sweep's folder; runs/<dataset>[_<method>]_beta<B>_gamma<G>_seed<S>",
        resume="free",
    )
    jobs: int = option(
        0,
        "run",
        "runs of a sweep at a time; 0: one for each of --threads on the CPU, 16 on CUDA",
        minimum=0,
        maximum=1024,
        resume="free",
    )
    checkpoint_every: int = option(
        5000, "run", "steps between checkpoints", minimum=1, resume="free"
    )
    log_every: int = option(
        100, "run", "steps that a row of the log averages over", minimum=1, setting=False
    )
    overwrite: bool = option(
        False, "run", "begin anew: remove the checkpoint and log of an earlier run", resume="free"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in EVENTS:
            object.__setattr__(self, name, ordered_steps(getattr(self, name)))
        if 0 in (self.beta_start, self.gamma_start):  # none is asked for, of a preset's
            for name in ("beta_start", "gamma_start"):
                object.__setattr__(self, name, getattr(self, name) or None)
            if not self.anneals:
                for name in ("anneal_from", "anneal_until"):
                    object.__setattr__(self, name, 0)
        if self.anneal_until < self.anneal_from:
            raise UserError(
                f"--anneal_until {self.anneal_until} is before --anneal_from {self.anneal_from}"
            )
        if self.anneals and self.anneal_until == 0:
            raise UserError("--beta_start and --gamma_start need --anneal_until, where they end")
        if not self.anneals and self.anneal_until > 0:
            raise UserError("--anneal_until needs a --beta_start or --gamma_start to begin with")
        self._check_latents()
        if self.method == "factorvae" and self.gamma == 0:  # one name for one thing
            object.__setattr__(self, "method", "betavae")
        if self.method == "betavae" and self.gamma > 0:
            raise UserError(f"--gamma must be 0 with --method betavae, not {self.gamma}")
        if METHODS[self.method].compares and self.batch_size < 2:
            raise UserError(f"--method {self.method} needs a --batch_size of at least 2")

    @property
    def anneals(self) -> bool:
        """Whether beta or gamma has a start of its own."""
        return self.beta_start is not None or self.gamma_start is not None

    def _check_latents(self) -> None:
        """Raise UserError where latents that wait do not fit with when they begin."""
        first, added = self.first_latents, len(self.add_at or ())
        if added and not first:
            raise UserError("--add_at needs --first_latents, beside which latents are added")
        if first + added > self.latent_dim:
            more = f" and {added} more by --add_at are" if added else " is"
            raise UserError(
                f"--first_latents {first}{more} more than --latent_dim {self.latent_dim}; "
                "--first_latents 0 lets all begin at once"
            )
        if added and first + added - 1 > MOST_CODES:
            raise UserError(f"--add_at adds a latent beside {MOST_CODES} others at most")
        if added and self.wake_at and self.add_at[-1] >= self.wake_at[0]:
            raise UserError(
                f"--add_at {self.add_at[-1]} is not before --wake_at {self.wake_at[0]}, where all "
                "that wait begin"
            )

    def dataset_options(self) -> dict[str, object]:
        """What `load_dataset` takes besides the name and the folder."""
        return {name: getattr(self, name) for name in DATASET_OPTIONS}


def ordered_steps(given: Sequence[int] | int | None) -> tuple[int, ...] | None:
    """Steps in their order, each once; None for none, and for 0, as checkpoints once had it."""
    steps = given if isinstance(given, tuple | list) else (given,)
    return tuple(sorted({*steps} - {0, None})) or None


TRAIN_FIELDS = frozenset(field.name for field in dataclasses.fields(TrainConfig))
GONE = {"disc_batches": 1}  # settings of earlier versions, each with the value that did nothing


def unknown_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Those of another version that this one lacks, of a run in which they did something."""
    return {n: v for n, v in settings.items() if n not in TRAIN_FIELDS and v != GONE.get(n)}


DATASET_OPTIONS = ("image_size", "crop", "grayscale", "split", "skip_bad_images")


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """What to measure, of which models."""

    model_path: tuple[str, ...] | None = option(
        None,
        "models",
        "checkpoints, run folders, folders of these, globs (default: the newest run, or else a "
        "model that ships)",
    )
    dataset: str | None = option(None, "models", "in place of the one that each was trained on")
    data_dir: str | None = option(
        None, "models", "folder of the datasets (default: as in training)"
    )

    metrics: tuple[str, ...] | None = option(
        None,
        "metrics",
        "only these; scores of others that are there stay, if of the same weights and points "
        "(default: all that the data allow)",
    )
    factors: tuple[str, ...] | None = option(
        None, "metrics", "score these factors only; the others vary at random (default: all)"
    )
    num_batches: int = option(
        40,
        "metrics",
        "times --batch_size: points of each metric but the votes; half as many more are held out",
        minimum=1,
    )
    batch_size: int = option(256, "metrics", "points in a batch", minimum=1)
    protocol: str = option("dlib", "metrics", "of the FactorVAE score", choices=("dlib", "paper"))
    dci_estimator: str = option(
        "gbt", "metrics", "of DCI", choices=("gbt", "gbt_sklearn", "forest", "lasso")
    )
    repeats: int = option(
        1,
        "metrics",
        "samples, whose spread gives scores but UDR a standard error",
        minimum=1,
        maximum=1000,
    )
    seed: int = seed_option("metrics", "of the points, votes and trees")

    output: str | None = option(
        None, "output", "file for one model's results (default: beside it, metrics.json of a run)"
    )
    csv: str | None = option(None, "output", "file for a table with a row per model")
    markdown: bool = option(False, "output", "print a Markdown table, a row per setting")

    device: str = option("auto", "run", "auto, cpu, cuda or cuda:N")
    threads: int = threads_option()


@dataclass(frozen=True)
class VisualizeConfig(Config):
    """What to draw, and where."""

    model_path: str | None = option(
        None,
        "model",
        "checkpoint, run or sweep (default: the newest under runs/, or else a model that ships)",
    )
    dataset: str | None = option(None, "model", "in place of the one that the model was trained on")
    data_dir: str | None = option(None, "model", "folder of the datasets (default: as in training)")

    output_dir: str = option("results", "pictures", "folder for the pictures and pages")
    format: str = option(
        "png", "pictures", "of all pictures but the animation", choices=("png", "pdf", "svg")
    )
    num_images: int = option(3, "pictures", "images whose codes are traversed", minimum=1)
    image_index: tuple[int, ...] | None = option(
        None, "pictures", "these images, in place of --num_images", minimum=0
    )
    seed: int = seed_option("pictures", "of the images and samples that are drawn")

    device: str = option("auto", "run", "auto, cpu, cuda or cuda:N")
    threads: int = threads_option()


def as_given(value: object) -> str:
    """A setting's value as one would write it behind its flag: '2000 8000' for (2000, 8000)."""
    if value is None:
        return "unset"
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def flag_of(field: dataclasses.Field) -> str:
    """--batch_size for batch_size."""
    return f"--{field.name}"


def _check_type(flag: str, value: object, kind: typing.Any) -> None:
    """Raise UserError where a value is not of a field's type, or is text that no file can hold."""
    if isinstance(kind, types.UnionType):  # int | None
        if value is None:
            return
        kind = typing.get_args(kind)[0]
    values = (value,)
    if typing.get_origin(kind) is tuple:  # tuple[int, ...]
        if isinstance(value, str):  # whose letters would be taken for it
            raise UserError(f"{flag} must be a list, not {value!r}")
        kind = typing.get_args(kind)[0]
        values = value if isinstance(value, tuple | list) else values
    kinds = (int, float) if kind is float else kind
    for one in values:
        if not isinstance(one, kinds) or (isinstance(one, bool) and kind is not bool):
            raise UserError(f"{flag} must be of type {kind.__name__}, not {one!r}")
        if kind is str and not one.isascii() and _is_torn(one):
            raise UserError(f"{flag} {one} is not UTF-8")
        if kind is str and not one:
            raise UserError(f"{flag} must not be empty")
        if kind is str and "\0" in one:
            raise UserError(f"{flag} {one} holds a NUL character")


def _is_torn(text: str) -> bool:
    """Whether it came from bytes that are no UTF-8, of which Python keeps surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _check(flag: str, value: object, metadata: typing.Mapping[str, typing.Any]) -> None:
    choices, minimum, above = metadata["choices"], metadata["minimum"], metadata["above"]
    maximum = metadata["maximum"]
    for one in value if isinstance(value, tuple | list) else (value,):
        if one is None:
            continue
        if choices and one not in choices:
            raise UserError(f"{flag} must be one of {', '.join(map(str, choices))}, not {one}")
        if minimum is None and above is None:
            continue
        if isinstance(one, float) and not math.isfinite(one):
            raise UserError(f"{flag} must be a finite number, not {one}")
        if minimum is not None and one < minimum:
            raise UserError(f"{flag} must be at least {minimum}, not {one}")
        if above is not None and one <= above:
            raise UserError(f"{flag} must be greater than {above}, not {one}")
        if maximum is not None and one > maximum:
            raise UserError(f"{flag} must be at most {maximum}, not {one}")
