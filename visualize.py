"""Pictures of a trained model: traversals, reconstructions, samples, latents against factors.

python visualize.py --output_dir results/
python visualize.py --model_path runs/NAME/ckpt.pt --output_dir results/
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factorvae.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    resolve_checkpoint,
    restore_vae,
)
from factorvae.config import Config, option, parse
from factorvae.datasets import Dataset, load_dataset
from factorvae.errors import UserError, run_script
from factorvae.factor_roles import check_images, choose_images
from factorvae.gallery import Gallery, write_gallery
from factorvae.plots import run_title
from factorvae.runlog import FILE_NAME as LOG_NAME
from factorvae.runlog import read_log
from factorvae.runtime import choose_device, use_threads


@dataclass(frozen=True)
class VisualizeConfig(Config):
    """What to draw, and where."""

    model_path: str | None = option(
        None, "model", "checkpoint, or a run's folder (default: the newest under runs/)"
    )
    dataset: str | None = option(None, "model", "in place of the one that the model was trained on")
    data_dir: str | None = option(None, "model", "folder of the datasets (default: as in training)")

    output_dir: str = option("results", "pictures", "folder for the pictures and index.html")
    format: str = option(
        "png", "pictures", "of all pictures but the animation", choices=("png", "pdf", "svg")
    )
    num_images: int = option(3, "pictures", "images whose codes are traversed", minimum=1)
    image_index: tuple[int, ...] | None = option(
        None, "pictures", "these images, in place of --num_images", minimum=0
    )
    seed: int = option(0, "pictures", "of the images and samples that are drawn", minimum=0)

    device: str = option("auto", "run", "auto, cpu, cuda or cuda:N")
    threads: int = option(0, "run", "CPU threads; 0: as many as there are idle cores", minimum=0)


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(VisualizeConfig, __doc__.splitlines()[0], argv)
    device = choose_device(config.device)
    use_threads(config.threads)
    if config.model_path is not None:
        path = resolve_checkpoint(config.model_path)
    else:
        path = newest_checkpoint("runs")
    checkpoint = load_checkpoint(path)
    trained, step = checkpoint["config"], checkpoint["step"]
    state = "finished" if checkpoint["finished"] else "not finished"
    newest = "" if config.model_path is not None else "the newest under runs/: "
    print(f"{newest}{path}, step {step:,}, {state}")

    output_dir = writable_folder(config.output_dir)
    dataset = dataset_for(checkpoint, config)
    if config.image_index is not None:
        base_index = check_images(dataset, config.image_index)
    else:
        base_index = choose_images(dataset, config.num_images, config.seed)
    gallery = Gallery(
        vae=restore_vae(checkpoint, device),
        dataset=dataset,
        device=device,
        title=run_title(dataset.name, step, trained["beta"], trained["gamma"]),
        base_index=base_index,
        log=log_until(path.parent, step),
        seed=config.seed,
    )
    settings = {
        "checkpoint": path,
        "step": step,
        "state": state,
        "images": f"{dataset.name}, {dataset.source}",
        **trained,
    }
    for line in write_gallery(gallery, output_dir, config.format, settings):
        print(f"{output_dir}/{line}")


def writable_folder(name: str) -> Path:
    """The folder, made where it is missing; UserError where nothing can be written there."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--output_dir {name} cannot be written: {error.strerror}") from error
    return folder


def dataset_for(checkpoint: dict, config: VisualizeConfig) -> Dataset:
    """The images that the model was trained on, or --dataset; UserError where these do not fit."""
    known = checkpoint["dataset"]
    options = known.get("options", {}) if config.dataset is None else {}
    data_dir = config.data_dir or checkpoint["config"]["data_dir"]
    name = config.dataset or checkpoint["config"]["dataset"]
    dataset = load_dataset(name, data_dir, **options)
    expected = tuple(known["image_shape"])
    if tuple(dataset.image_shape) != expected:
        raise UserError(
            f"the model takes images of (channels, height, width) {expected}, "
            f"{dataset.name} has {tuple(dataset.image_shape)}"
        )
    if dataset.name == known["name"] and dataset.source != known["source"]:
        print(f"trained on {known['source']} images, drawing {dataset.source} ones")
    return dataset


def log_until(run_dir: Path, step: int) -> dict[str, np.ndarray] | None:
    """The run's log up to the checkpoint's step; None where it has no rows."""
    if not (run_dir / LOG_NAME).is_file():
        return None
    log = read_log(run_dir)
    rows = log["step"] <= step
    return {name: column[rows] for name, column in log.items()} if rows.any() else None


if __name__ == "__main__":
    sys.exit(run_script(main))
