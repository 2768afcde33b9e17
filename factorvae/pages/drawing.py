"""What `visualize.py` does: pictures of a model from its checkpoint, its data and its log."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from factorvae.checkpoint import (
    default_checkpoint,
    load_checkpoint,
    resolve_checkpoint,
    restore_dataset,
    restore_vae,
    weights_digest,
)
from factorvae.config import TRAIN_FIELDS, VisualizeConfig
from factorvae.datasets import Dataset
from factorvae.device import choose_device, use_threads
from factorvae.errors import BadCheckpoint, UserError
from factorvae.files import CHECKPOINT_NAME, writable_folder
from factorvae.methods import idle_settings
from factorvae.pages.gallery import Gallery, write_gallery
from factorvae.pages.page import PAGE_NAME, PageTable, is_page
from factorvae.pages.sweep_gallery import SweepRun, write_sweep_gallery
from factorvae.pages.traversal import check_images, choose_images
from factorvae.plots.titles import TITLED, run_title, setting_title
from factorvae.run_log import log_until
from factorvae.saved_scores import SavedScores, Score, check_latents, saved_scores
from factorvae.setting import Setting, differing_fields, order_of, setting_of


def visualize(config: VisualizeConfig, known_scores: Sequence[Score]) -> None:
    """Write the page and pictures of a run, or of the runs of a sweep.

    known_scores: those that a table of scores shows, in its order.
    """
    device = choose_device(config.device)
    use_threads(config.threads)
    if config.model_path is not None and is_sweep(Path(config.model_path)):
        headline = [score for score in known_scores if score.headline]
        draw_sweep(Path(config.model_path), config, device, headline)
        return
    if config.model_path is not None:
        path, why = resolve_checkpoint(config.model_path), ""
    else:
        path, why = default_checkpoint()
    checkpoint = load_checkpoint(path)
    trained, step = checkpoint["config"], checkpoint["step"]
    state = "finished" if checkpoint["finished"] else "not finished"
    print(f"{why + ': ' if why else ''}{path}, step {step:,}, {state}")

    output_dir = folder_for_page(config.output_dir)
    dataset = restore_dataset(checkpoint, config.dataset, config.data_dir)
    if dataset.source != checkpoint["dataset"]["source"]:
        print(f"trained on {checkpoint['dataset']['source']} images, drawing {dataset.source} ones")
    base_index = base_images(dataset, config)
    scores = current_scores(path, step, weights_digest(checkpoint), dataset)
    if scores is not None:
        check_latents(scores, trained["latent_dim"])
    gallery = gallery_of(path, checkpoint, dataset, base_index, config, device, scores)
    settings = {
        "checkpoint": path,
        "step": step,
        "state": state,
        "images": f"{dataset.name}, {dataset.source}",
        **{name: value for name, value in trained.items() if name in fields_of(trained["method"])},
    }
    tables = [] if scores is None else [scores_table(scores, known_scores)]
    for line in write_gallery(gallery, output_dir, config.format, settings, tables):
        print(f"{output_dir}/{line}")


def folder_for_page(name: str) -> Path:
    """The folder, made where it is missing.

    Raises UserError where nothing can be written there, or its index.html is of something else.
    """
    folder = writable_folder(name)
    page = folder / PAGE_NAME
    if page.is_file() and not is_page(page):
        raise UserError(
            f"{page} is no page of these pictures, which would replace it: --output_dir"
        )
    return folder


def base_images(dataset: Dataset, config: VisualizeConfig) -> np.ndarray:
    """Indices int64 [B] of the images that are reconstructed and moved: those asked for, or drawn.

    Raises UserError where one is out of range, or they are too many.
    """
    if config.image_index is not None:
        return check_images(dataset, config.image_index)
    return choose_images(dataset, config.num_images, config.seed)


def current_scores(
    checkpoint: Path, step: int, weights: str, dataset: Dataset
) -> SavedScores | None:
    """Its scores, where they are of the checkpoint's weights and of the images that are drawn.

    A line tells of those that are not. step, weights: the checkpoint's, these by their digest.
    Raises UserError where the file of scores is damaged.
    """
    scores = saved_scores(checkpoint)
    if scores is None:
        return None
    drawn = dataset.name, dataset.source
    if scores.step != step:
        print(f"{scores.path} is of step {scores.step:,} and is left out; evaluate.py renews it")
        return None
    if scores.weights not in (weights, None):
        print(f"{scores.path} is of other weights and is left out; evaluate.py renews it")
        return None
    if scores.data != drawn:
        one, other = (", ".join(data) for data in (scores.data, drawn))
        print(f"{scores.path} is of {one} and is left out; the pictures are of {other}")
        return None
    return scores


def scores_table(scores: SavedScores, known: Sequence[Score]) -> PageTable:
    """A row for each known score that was measured, in their order, and what all are of."""
    rows = [["score", "value", "±", "how"]]
    told = None
    for score in known:
        found = scores.scores.get(score.name)
        if found is not None:
            error = "" if found.error is None else score.text(found.error)
            how = "" if found.how == told else found.how  # once for all that are made alike
            told = found.how
            rows.append([score.title, score.text(found.value), error, how])
    points = f"{scores.num_points:,} points, seed {scores.seed}"
    caption = f"By evaluate.py, on {', '.join(scores.data)}: {points}."
    if any(row[2] for row in rows[1:]):
        caption += " ±: standard error."
    return PageTable("scores", "Scores", caption, rows)


def ways_made(scores: SavedScores) -> dict[str, str]:
    """How each score was made and of how many points and which factors, for runs to be compared."""
    only = f", {', '.join(scores.factors)} only" if scores.factors else ""
    of = f", {scores.num_points:,} points{only}"
    return {name: score.how + of for name, score in scores.scores.items()}


def fields_of(method: str) -> frozenset[str]:
    """The training's settings that say something about a model of this method."""
    return TRAIN_FIELDS - idle_settings(method)


def gallery_of(
    path: Path,
    checkpoint: dict,
    dataset: Dataset,
    base_index: np.ndarray,
    config: VisualizeConfig,
    device: torch.device,
    scores: SavedScores | None = None,
) -> Gallery:
    """What there is to draw of one checkpoint."""
    trained, step = checkpoint["config"], checkpoint["step"]
    settings = (trained["beta"], trained["gamma"], trained["method"], trained.get("penalty"))
    return Gallery(
        vae=restore_vae(checkpoint, device),
        dataset=dataset,
        device=device,
        title=run_title(dataset.name, step, *settings),
        base_index=base_index,
        log=log_until(path.parent, step),
        seed=config.seed,
        measured={} if scores is None else scores.details,
        measured_factors=() if scores is None else scores.factor_names,
        name=str(path),
    )


def is_sweep(folder: Path) -> bool:
    """Whether the folder is no run's, and has runs below it."""
    return not (folder / CHECKPOINT_NAME).exists() and any(folder.glob(f"*/{CHECKPOINT_NAME}"))


def data_of(checkpoint: dict) -> tuple:
    """What a model was trained on, to be compared."""
    known = checkpoint["dataset"]
    return known["name"], known.get("options", {}), known["image_shape"]


def draw_sweep(
    folder: Path, config: VisualizeConfig, device: torch.device, known_scores: Sequence[Score]
) -> None:
    """The page of all runs in a folder, with pictures of the best and of the median one.

    A run whose checkpoint cannot be read is left out, with a line. Raises UserError where none can,
    and where they were trained on different data.
    """
    output_dir = folder_for_page(config.output_dir)
    paths = sorted(folder.glob(f"*/{CHECKPOINT_NAME}"))
    first = None
    found = []  # each run's setting, seed, checkpoint and its weights' digest
    for path in paths:
        try:
            checkpoint = load_checkpoint(path)
        except BadCheckpoint as error:
            print(f"left out: {error}")
            continue
        if first is None:
            first = checkpoint
        if data_of(checkpoint) != data_of(first):
            names = f"{found[0][2].parent.name} and {path.parent.name}"
            raise UserError(f"{folder}: {names} are of different data, which no page has together")
        seed = checkpoint["config"]["seed"]
        found.append((setting_of(checkpoint), seed, path, weights_digest(checkpoint)))
    if first is None:
        raise UserError(f"{folder}: none of its checkpoints can be read")
    dataset = restore_dataset(first, config.dataset, config.data_dir)
    base_index = base_images(dataset, config)
    found.sort(key=lambda run: (order_of(run[0]), run[1], run[2].parent.name))
    others = differing_fields([setting for setting, *_ in found], TITLED)

    def run_of(setting: Setting, path: Path, weights: str) -> SweepRun:
        step = setting["steps"]
        scores = current_scores(path, step, weights, dataset)
        return SweepRun(
            name=path.parent.name,
            setting=setting_title(setting, others),
            log=log_until(path.parent, step),
            scores={} if scores is None else {n: s.value for n, s in scores.scores.items()},
            made={} if scores is None else ways_made(scores),
            gallery=lambda: gallery_of(
                path, load_checkpoint(path), dataset, base_index, config, device
            ),
        )

    runs = [run_of(setting, path, weights) for setting, _, path, weights in found]
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    below = {path.parents[1] for path in folder.glob(f"*/*/{CHECKPOINT_NAME}")}
    more = f"; {len(below)} of its folders have runs, too, and pages of their own" if below else ""
    print(f"{folder}: {count}{more}")
    title = f"{folder.name}: {count} on {dataset.name}"
    for line in write_sweep_gallery(runs, output_dir, config.format, title, known_scores):
        print(f"{output_dir}/{line}")
