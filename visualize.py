"""Pictures of a trained model: traversals, reconstructions, samples, latents against factors.

python visualize.py --output_dir results/
python visualize.py --model_path runs/NAME/ckpt.pt --output_dir results/
"""

import sys
from collections.abc import Sequence

from factorvae.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    resolve_checkpoint,
    restore_dataset,
    restore_vae,
)
from factorvae.config import VisualizeConfig, parse
from factorvae.device import choose_device, use_threads
from factorvae.errors import run_script
from factorvae.figures.gallery import Gallery, write_gallery
from factorvae.figures.plots import run_title
from factorvae.figures.traversal import check_images, choose_images
from factorvae.files import writable_folder
from factorvae.training.run_folder import log_until


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(VisualizeConfig, __doc__, argv)
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
    dataset = restore_dataset(checkpoint, config.dataset, config.data_dir)
    if dataset.source != checkpoint["dataset"]["source"]:
        print(f"trained on {checkpoint['dataset']['source']} images, drawing {dataset.source} ones")
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


if __name__ == "__main__":
    sys.exit(run_script(main))
