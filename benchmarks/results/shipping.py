"""Models that ship: the best run of a sweep, and its line in pretrained/README.md."""

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.results.rows import cell, key_of
from benchmarks.results.running import steps_done
from benchmarks.results.sweeps import Sweep, all_sweeps, spelled_flags
from factorvae.checkpoint import export_weights, load_checkpoint, load_model
from factorvae.datasets import FactorSpace, load_dataset
from factorvae.datasets.dsprites_drawing import DSPRITES
from factorvae.datasets.rooms import ROOMS
from factorvae.models import VAE
from factorvae.objective import recon_loss_per_image

SAMPLES = {"dsprites": (DSPRITES, (3, 6, 10, 4, 4)), "rooms": (ROOMS, (5, 5, 5, 2, 4, 3))}
SHIPPED_HEAD = """\
# Models that ship

Weights of the VAE in float16, with their settings, as `python -m benchmarks.results` exports them:
of the seeds trained, the one with the highest FactorVAE score (to two digits, then by MIG), so
these scores are a best of a few and docs/results.md has the means. evaluate.py and
visualize.py take them, and so does a notebook:

    python visualize.py --model_path pretrained/dsprites_factorvae.pt --output_dir results/
    python evaluate.py --model_path pretrained/rooms_factorvae.pt

    from factorvae import load_model
    vae = load_model("pretrained/dsprites_betavae.pt")

Scores are those of the run before its weights were rounded; recon is the reconstruction error in
nats of the mean codes of 1,000 images, with the file's own weights (`sample_images` in
benchmarks/results/shipping.py says which). Presets are spelled out: the flags are good at
that commit.

| file | flags of train.py | commit | steps | FactorVAE score | MIG | D, C, I (gbt) | recon |
|---|---|---|---|---|---|---|---|"""


def ship(rows: Sequence[dict], options: argparse.Namespace) -> None:
    """Put the best run of each sweep that ships into --pretrained, and tell of them.

    rows: of all runs known. A model whose run is not on this machine stays, and so does its line.
    """
    page = options.pretrained / "README.md"
    told = page.read_text().splitlines() if page.exists() else []
    lines = []
    for profile, sweep in all_sweeps():
        known = [row for row in rows if key_of(row)[:2] == (profile, sweep.name)]
        if not sweep.ships:
            continue
        path = options.pretrained / f"{sweep.ships}.pt"
        kept = [line for line in told if line.startswith(f"| `{path.name}`")]
        if not known:  # what ships is of an earlier sweep still
            lines += kept
            continue
        best = max(known, key=_merit)
        run = options.output_dir / profile / sweep.name / best["run"]
        if steps_done(run) < int(best["steps"]):
            of, flags = f"(of {len(known)} seeds)", spelled_flags(sweep, best["seed"])
            for line in kept:  # of this sweep, or of an earlier one still
                lines.append(re.sub(r"\(of \d+ seeds\)", of, line) if flags in line else line)
            continue
        options.pretrained.mkdir(parents=True, exist_ok=True)
        path.write_bytes(export_weights(load_checkpoint(run), torch.float16))
        with tempfile.TemporaryDirectory() as folder:
            images = sample_images(best["dataset"], Path(folder))
        sample = reconstruction(load_model(path), images)
        lines.append(shipped_line(path.name, sweep, best, sample, len(known)))
    if lines:
        page.write_text("\n".join([SHIPPED_HEAD, *lines, ""]))
        print(f"wrote {options.pretrained}: {len(lines)} models")


def _merit(row: dict) -> tuple[float, float]:
    """A run's score to two digits, more of which are chance, and then its MIG."""
    return round(float(row.get("factor_vae_score") or 0), 2), float(row.get("mig") or 0)


def shipped_line(file: str, sweep: Sweep, row: dict, sample: float, candidates: int) -> str:
    """A model's row in pretrained/README.md."""
    flags = spelled_flags(sweep, row["seed"])
    scores = [cell([row], name) for name in ("factor_vae_score", "mig")]
    scores.append(cell([row], ("D_gbt", "C_gbt", "I_gbt")))
    of_how_many = "" if candidates == 1 else f" (of {candidates} seeds)"
    cells = (f"`{file}`", f"`{flags}`{of_how_many}", row["commit"], f"{int(row['steps']):,}")
    return f"| {' | '.join([*cells, *scores, format(sample, '.1f')])} |"


def sample_images(dataset: str, folder: Path) -> Tensor:
    """1,000 images, evenly spaced in a grid of the set's factors; float32 [1000, C, H, W].

    folder: for the grid's cache.
    """
    space, sizes = SAMPLES[dataset]
    spread = zip(space.values, sizes, strict=True)
    values = [[v[int(place)] for place in np.linspace(0, len(v) - 1, n)] for v, n in spread]
    grid = load_dataset(dataset, folder, space=FactorSpace(space.names, sizes, values))
    return grid.batch(np.linspace(0, len(grid) - 1, 1000).round().astype(int))


def reconstruction(vae: VAE, images: Tensor) -> float:
    """Nats per image of the images [N, C, H, W] decoded from the means of their codes."""
    with torch.inference_mode():
        parts = [
            recon_loss_per_image(vae.decode(vae.encode(part)[0]), part)
            for part in images.split(100)
        ]
    return float(torch.cat(parts).mean())
