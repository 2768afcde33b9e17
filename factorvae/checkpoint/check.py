"""Whether a checkpoint is what it says: its settings, and every tensor of the model they make.

A file may be damaged, of another version, or written by somebody else. Nothing of it is used, and
no memory is taken for its model, before all of it has been found to fit together.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from factorvae.config import (
    DATASET_OPTIONS,
    IMAGE_SIZES,
    MOST_STEPS,
    MOST_THREADS,
    RECIPES,
    TRAIN_FIELDS,
    TrainConfig,
)
from factorvae.errors import BadCheckpoint, UserError
from factorvae.methods import METHODS
from factorvae.models import model_on_meta
from factorvae.run_log import columns_of_method

Names = Mapping[str, Tensor]  # on the meta device: names, shapes and dtypes, without any memory

DATASET_TYPES = {
    "name": str,
    "source": str,
    "options": dict,
    "num_images": int,
    "image_shape": list,
    "factor_names": list,
    "factor_sizes": list,
}
RESUMING = ("vae_optimizer", "generator", "sums", "finite_steps", "threads")


def check_contents(path: Path, checkpoint: dict, resume_until: int) -> None:
    """Check every section, and complete `config` by defaults.

    resume_until: steps to which its run is to go on. Where it has made fewer, the sections that
        only training needs must be there; if they are there, they must be right in either case.

    Raises:
        BadCheckpoint: a section is missing or of another type; a setting is out of its range; a
            tensor is missing, left over, of another shape or dtype, or not finite. The message
            names it.
    """
    try:
        config = _settings(checkpoint)
        checkpoint["config"] = {**checkpoint["config"], **dataclasses.asdict(config)}
        _check_plain(checkpoint)
        _check_tensors(path, checkpoint, config)
        if checkpoint["step"] < resume_until:
            _check_resumable(checkpoint, config)
    except _Misfit as error:
        raise BadCheckpoint(f"{path} is no checkpoint that this version wrote: {error}") from error


class _Misfit(UserError):
    """What does not fit, without the file's name."""


def _settings(checkpoint: dict) -> TrainConfig:
    """The settings, checked as flags are; what an older version lacked is at its default.

    A recipe that there is no more is not named: what it filled is there.
    """
    given = _of_type(checkpoint, "config", dict)
    for name, value in given.items():  # also of those that are known no more: they are told
        if not (isinstance(name, str) and _is_plain(value)):
            raise _Misfit(f"its setting {name} is of type {type(value).__name__}")
    if isinstance(given.get("preset"), str) and given["preset"] not in RECIPES:
        given = {**given, "preset": None}
    try:
        return config_of(given)
    except UserError as error:
        raise _Misfit(f"in its settings, {error}") from error


def _is_plain(value: object) -> bool:
    values = value if isinstance(value, tuple | list) else (value,)
    return all(one is None or isinstance(one, bool | int | float | str) for one in values)


def config_of(settings: Mapping[str, object]) -> TrainConfig:
    """The config of a checkpoint's settings, without those that are known no more."""
    return TrainConfig(**{name: v for name, v in settings.items() if name in TRAIN_FIELDS})


def _check_plain(checkpoint: dict) -> None:
    """Numbers and names."""
    if not 0 <= _of_type(checkpoint, "step", int) <= MOST_STEPS:
        raise _Misfit("its step is out of range")
    _of_type(checkpoint, "finished", bool)
    if "threads" in checkpoint and not 1 <= _of_type(checkpoint, "threads", int) <= MOST_THREADS:
        raise _Misfit("its threads are out of range")

    known = _of_type(checkpoint, "dataset", dict)
    for name, kind in DATASET_TYPES.items():
        if name in known or name in ("name", "source", "image_shape"):
            _of_type(known, name, kind)
    names, sizes = known.get("factor_names", []), known.get("factor_sizes", [])
    if not all(isinstance(name, str) for name in names) or len(names) != len(sizes):
        raise _Misfit("its factors' names and sizes do not fit")
    if not all(_is_int(size) and size > 0 for size in sizes):
        raise _Misfit("its factors' sizes are no numbers of values")
    shape = known["image_shape"]
    if not any(shape == [channels, side, side] for channels in (1, 3) for side in IMAGE_SIZES):
        raise _Misfit("its images' shape is none that a model takes")
    options = known.get("options", {})
    unknown = [name for name in options if name not in DATASET_OPTIONS]
    if unknown:
        raise _Misfit(f"its dataset has the unknown option {unknown[0]}")
    try:
        TrainConfig(**options)
    except UserError as error:
        raise _Misfit(f"in its dataset's options, {error}") from error


def _check_tensors(path: Path, checkpoint: dict, config: TrainConfig) -> None:
    """The networks and their moments, against networks on the meta device."""
    shape = tuple(checkpoint["dataset"]["image_shape"])
    vae, discriminator = model_on_meta(shape, config)
    sizes = sum(t.nbytes for model in (vae, discriminator) for t in model.state_dict().values())
    has_discriminator = checkpoint["discriminator"] is not None
    if has_discriminator and not METHODS[config.method].discriminator:
        raise _Misfit(f"it has a discriminator, and its method is {config.method}")
    if not has_discriminator:
        sizes -= sum(t.nbytes for t in discriminator.state_dict().values())
    exported = not checkpoint.get("vae_optimizer")  # to be used only: half the precision may do
    if sizes // (2 if exported else 1) > path.stat().st_size:
        raise _Misfit(f"a model of its settings takes {sizes:,} bytes, and it has fewer")

    networks = [("vae", "vae_optimizer", vae)]
    if has_discriminator:
        networks.append(("discriminator", "disc_optimizer", discriminator))
    for section, optimizer, network in networks:
        weights = _of_type(checkpoint, section, dict)
        dtypes = {w.dtype for w in weights.values() if isinstance(w, Tensor)}
        if exported and dtypes in ({torch.float16}, {torch.bfloat16}):
            network.to(*dtypes)
        _check_names(section, weights, network.state_dict())
        if checkpoint.get(optimizer):
            _check_moments(checkpoint, optimizer, network)


def _check_moments(checkpoint: dict, section: str, network: nn.Module) -> None:
    """Adam's state: for the number of each parameter its step and its two moments."""
    states = _of_type(_of_type(checkpoint, section, dict), "state", dict, f"{section}.")
    if not states and checkpoint["step"] == 0:  # it begins with the first step
        return
    wanted = {
        number: {"step": torch.empty((), device="meta"), "exp_avg": p, "exp_avg_sq": p}
        for number, p in enumerate(network.parameters())
    }
    _check_same_keys(section, states, wanted)
    for number, moments in wanted.items():
        state = _of_type(states, number, dict, f"{section}.")
        _check_names(f"{section}.{number}", state, moments)
        for name in ("step", "exp_avg_sq"):
            if bool((state[name] < 0).any()):
                raise _Misfit(f"{section}.{number}.{name} is below 0")


def _check_resumable(checkpoint: dict, config: TrainConfig) -> None:
    """What `Trainer.load_state_dict` takes besides."""
    method = METHODS[config.method]
    sections = [*RESUMING, *(("discriminator", "disc_optimizer") if method.discriminator else ())]
    missing = [
        name for name in sections if not isinstance(checkpoint.get(name), int | dict | Tensor)
    ]
    missing += [n for n in sections if n.endswith("_optimizer") and not checkpoint.get(n)]
    if missing:
        raise _Misfit(f"it lacks {', '.join(dict.fromkeys(missing))}")
    figures = 2 + len(columns_of_method(config.method)) + config.latent_dim
    sums = torch.empty(figures, dtype=torch.float64, device="meta")
    counts = torch.empty(figures, dtype=torch.int64, device="meta")
    _check_tensor("sums", checkpoint["sums"], sums)
    _check_tensor("finite_steps", checkpoint["finite_steps"], counts)
    generator = checkpoint["generator"]
    if not isinstance(generator, Tensor) or generator.dtype != torch.uint8 or generator.dim() != 1:
        raise _Misfit("generator is no state of a generator")
    if generator.shape == torch.Generator().get_state().shape:
        try:
            torch.Generator().set_state(generator)
        except RuntimeError as error:
            raise _Misfit("generator is no state of a generator") from error


def _check_names(section: str, there: dict, wanted: Names) -> None:
    """The same names, and under each a tensor like the one that is wanted."""
    _check_same_keys(section, there, wanted)
    for name, like in wanted.items():
        _check_tensor(f"{section}.{name}", there[name], like)


def _check_same_keys(section: str, there: Mapping, wanted: Mapping) -> None:
    for name in wanted:
        if name not in there:
            raise _Misfit(f"{section} lacks {name}")
    for name in there:
        if name not in wanted:
            raise _Misfit(f"{section} has {name!r} besides")


def _check_tensor(name: str, tensor: object, like: Tensor) -> None:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_meta:
        raise _Misfit(f"{name} is no tensor")
    if tensor.shape != like.shape or tensor.dtype != like.dtype:
        raise _Misfit(f"{name} is {_kind(tensor)}, and should be {_kind(like)}")
    if tensor.untyped_storage().nbytes() < tensor.nbytes:  # one number that stands for many
        raise _Misfit(f"{name} has fewer numbers than its shape says")
    if not bool(tensor.isfinite().all()):
        raise _Misfit(f"{name} is not finite")


def _kind(tensor: Tensor) -> str:
    sizes = "x".join(map(str, tensor.shape))
    return f"{str(tensor.dtype).removeprefix('torch.')} [{sizes}]"


def _of_type(section: dict, name: object, kind: type, prefix: str = "") -> object:
    """`section[name]`, where it is of that type."""
    if name not in section:
        raise _Misfit(f"it lacks {prefix}{name}")
    value = section[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise _Misfit(f"its {prefix}{name} is of type {type(value).__name__}, not {kind.__name__}")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
