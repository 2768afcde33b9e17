"""Checkpoints: one file that describes itself and loads with `torch.load(weights_only=True)`.

It is a dict of plain values and tensors: `format`, `version`, `config` (the fields of TrainConfig),
`dataset` (what `describe_dataset` gives), `step`, `finished`, `vae`, `discriminator` (None in
methods without one), the optimisers' states, and what resuming needs besides.
"""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import torch

from factorvae.checkpoint.check import check_contents, config_of
from factorvae.config import TrainConfig
from factorvae.datasets import Dataset, load_dataset, options_of
from factorvae.errors import BadCheckpoint, UserError
from factorvae.files import CHECKPOINT_NAME, RUNS, whole_file
from factorvae.models import VAE, Discriminator, discriminator_of, vae_of

PRETRAINED = Path(__file__).parents[2] / "pretrained"  # the models that ship
DEFAULT_MODEL = PRETRAINED / "dsprites_factorvae.pt"
FORMAT = "factorvae"
VERSION = 1
KEYS = ("config", "dataset", "step", "finished", "vae", "discriminator")
MOST_BYTES_OF_PLAIN_VALUES = 64 << 20  # of a checkpoint's `data.pkl`, which has all but the tensors


def save_checkpoint(path: Path, checkpoint: dict[str, object]) -> None:
    """Write the checkpoint whole; UserError, and the old one as it was, where that cannot be."""
    checkpoint = _on_cpu({"format": FORMAT, "version": VERSION, **checkpoint})
    try:
        with whole_file(path) as file:
            torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:  # torch tells a full disk by a RuntimeError
        reason = getattr(error, "strerror", None) or "the disk may be full"
        raise UserError(f"cannot write {path}: {reason}; what it held is as it was") from error


def _on_cpu(value: object) -> object:
    """`value` with every tensor in it on the CPU, so that any machine can read the file."""
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(one) for one in value)
    return value


def load_checkpoint(path: str | Path, resume_until: int = 0) -> dict:
    """The checkpoint at `path`, a file or a run's folder, on the CPU, checked throughout.

    Its settings are complete: those that its version did not have are at their defaults.

    resume_until: steps to which its run is to go on; where it has made fewer, what only training
        needs has to be in it, too.

    Raises:
        UserError: it is missing; a BadCheckpoint: it is damaged, another program's, or not what
            it says, see `check_contents`.
    """
    path = resolve_checkpoint(path)
    try:
        damage = _damage(path)
        checkpoint = None if damage else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint fail in ways without number
        raise BadCheckpoint(f"{path} is damaged, or is no checkpoint of this project") from error
    if damage:
        raise BadCheckpoint(f"{path} is damaged: {damage}")
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise BadCheckpoint(f"{path} is no checkpoint of this project")
    if checkpoint.get("version") != VERSION:
        version = checkpoint.get("version")
        raise BadCheckpoint(f"{path} is of checkpoint version {version}; this code reads {VERSION}")
    missing = [key for key in KEYS if key not in checkpoint]
    if missing:
        raise BadCheckpoint(
            f"{path} is no checkpoint of this project: it lacks {', '.join(missing)}"
        )
    check_contents(path, checkpoint, resume_until)
    return checkpoint


def _damage(path: Path) -> str | None:
    """What is wrong with the archive, if anything. Raises what reading it raises."""
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():  # before any is read: a packed one could be of any size
            if part.compress_type != zipfile.ZIP_STORED:
                return f"{part.filename} is packed, and this project packs nothing"
            name = part.filename.rpartition("/")[2]
            if name == "data.pkl" and part.file_size > MOST_BYTES_OF_PLAIN_VALUES:
                return f"{part.filename} has {part.file_size:,} bytes"
        wrong = archive.testzip()  # every part against its checksum
    return wrong and f"{wrong} does not match its checksum"


def resolve_checkpoint(path: str | Path) -> Path:
    """`path` itself, or the checkpoint in the run's folder `path`; UserError where none is."""
    path = Path(path)
    file = path / CHECKPOINT_NAME if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"no checkpoint at {file}")
    return file


def checkpoints_below(folder: str | Path) -> list[Path]:
    """The checkpoints of all runs at any depth, in order, also where links to folders lead."""
    found, seen = [], set()
    for here, folders, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link led here before, or leads to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        path = Path(here) / CHECKPOINT_NAME
        if path.is_file():
            found.append(path)
    return sorted(found)


def default_checkpoint(runs_dir: str | Path = RUNS) -> tuple[Path, str]:
    """The checkpoint last written anywhere under `runs_dir`, or else the model that ships.

    Returns:
        The file, and the words that tell of the choice.

    Raises:
        UserError: there is neither.
    """
    found = checkpoints_below(runs_dir)
    if found:
        newest = max(found, key=lambda path: path.stat().st_mtime)
        return newest, f"the newest under {runs_dir}/"
    if DEFAULT_MODEL.is_file():
        return relative_to_here(
            DEFAULT_MODEL
        ), f"no run under {runs_dir}/ yet, so a model that ships"
    raise UserError(f"no checkpoint under {runs_dir}/; train one first, or name it: --model_path")


def relative_to_here(path: Path) -> Path:
    """The path as one would name it from the working folder, where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


WEIGHTS_ONLY = ("config", "dataset", "step", "finished", "vae")


def export_weights(checkpoint: dict, dtype: torch.dtype = torch.float32) -> bytes:
    """A checkpoint to ship: the VAE's weights in `dtype`, what describes them, and nothing else.

    `load_checkpoint` reads it as any other; a finished run so exported is still a finished one.
    """
    kept = {key: checkpoint[key] for key in WEIGHTS_ONLY}
    folders = {"output_dir": None, "data_dir": TrainConfig.data_dir}  # not of this machine
    kept["config"] = {**kept["config"], **folders}
    kept["vae"] = {name: weight.to(dtype) for name, weight in checkpoint["vae"].items()}
    stream = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, **kept, "discriminator": None}, stream)
    return stream.getvalue()


def weights_digest(checkpoint: dict) -> str:
    """Of the weights of its networks; by it, scores know what they are of."""
    digest = hashlib.sha256()
    for network in (checkpoint["vae"], checkpoint["discriminator"] or {}):
        for name, weight in network.items():
            data = weight.cpu().flatten().view(torch.uint8)  # of any dtype
            digest.update(name.encode() + data.numpy().tobytes())
    return digest.hexdigest()


def restore_vae(checkpoint: dict, device: torch.device | str = "cpu") -> VAE:
    """The checkpoint's VAE, in evaluation mode."""
    image_shape = tuple(checkpoint["dataset"]["image_shape"])
    vae = vae_of(config_of(checkpoint["config"]), image_shape)
    vae.load_state_dict(checkpoint["vae"])
    return vae.to(device).eval()


def load_model(path: str | Path, device: torch.device | str = "cpu") -> VAE:
    """The VAE of a checkpoint, a file or a run's folder, on `device` and in evaluation mode.

    Raises:
        UserError: there is no checkpoint, it is damaged, or its weights are of other networks.
    """
    return restore_vae(load_checkpoint(path), device)


def restore_discriminator(
    checkpoint: dict, device: torch.device | str = "cpu"
) -> Discriminator | None:
    """The checkpoint's discriminator, in evaluation mode; None for a run without one."""
    if checkpoint["discriminator"] is None:
        return None
    discriminator = discriminator_of(config_of(checkpoint["config"]))
    discriminator.load_state_dict(checkpoint["discriminator"])
    return discriminator.to(device).eval()


def describe_dataset(dataset: Dataset, options: dict[str, object]) -> dict[str, object]:
    """What a checkpoint keeps of its data, as plain values."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "options": options,
        "num_images": len(dataset),
        "image_shape": list(dataset.image_shape),
        "factor_names": list(dataset.factor_names),
        "factor_sizes": list(dataset.factor_sizes),
    }


SHAPING = ("image_size", "grayscale")  # options that make images of a model's shape


def restore_dataset(
    checkpoint: dict, name: str | None = None, data_dir: str | None = None
) -> Dataset:
    """The data that the model was trained on, prepared as then, or another set by its name.

    data_dir: None stands for that of the training where it is there, or else for the default.

    Raises:
        UserError: its images are not of the shape that the model takes, or they cannot be loaded.
    """
    known, trained = checkpoint["dataset"], checkpoint["config"]
    same = name is None or name == trained["dataset"]
    options = known.get("options", {})
    if not same:  # of another set, what makes images as the model knows them
        alike = name.partition(":")[0] == trained["dataset"].partition(":")[0]  # two folders, say
        kept = (*SHAPING, "crop") if alike else SHAPING
        options = {n: v for n, v in options.items() if n in kept and n in options_of(name)}
    if data_dir is None:
        # a file from elsewhere must not have folders made at a path that it names
        there = Path(trained["data_dir"]).is_dir()
        data_dir = trained["data_dir"] if there else TrainConfig.data_dir
    dataset = load_dataset(name or trained["dataset"], data_dir, **options)
    expected = tuple(known["image_shape"])
    if tuple(dataset.image_shape) != expected:
        raise UserError(
            f"the model takes images of (channels, height, width) {expected}, "
            f"{dataset.name} has {tuple(dataset.image_shape)}"
        )
    return dataset
