"""Training, resuming, evaluation and pictures by the same commands for every kind of dataset.

The files are real ones of the published formats, made small; the networks are tiny.
"""

import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import train
import visualize
from factorvae.datasets import DATASETS, FactorSpace
from factorvae.datasets.dsprites_drawing import DSPRITES
from factorvae.datasets.rooms import ROOMS
from tests.helpers import (
    SMALL_CARS3D,
    SMALL_MPI3D,
    SMALL_SHAPES3D,
    SMALL_SMALLNORB,
    encoded,
    pictures,
    run_main,
    write_cars3d,
    write_celeba,
    write_chairs,
    write_mpi3d,
    write_shapes3d,
    write_smallnorb,
    write_tree,
)

TINY = "--hidden_dim 16 --disc_depth 1 --disc_width 16 --latent_dim 2 --batch_size 4 --threads 1"


def part(space, sizes):
    """The first few values of each factor."""
    values = [v[:n] for v, n in zip(space.values, sizes, strict=True)]
    return FactorSpace(space.names, sizes, values)


def write_folder(data_dir):
    images = pictures(40, 70, 90)
    names = [f"{n % 3}/{n}.{('png', 'jpeg')[n % 2]}" for n in range(40)]
    kinds = [name.rpartition(".")[2] for name in names]
    contents = zip(names, images, kinds, strict=True)
    write_tree(data_dir / "mine", {name: encoded(i, kind) for name, i, kind in contents})


def write_scream(data_dir):
    write_tree(data_dir / "scream", {"scream.jpg": encoded(pictures(1, 90, 80)[0], "jpeg")})


def write_nothing(data_dir):
    pass


SMALL_DSPRITES = {"space": part(DSPRITES, (3, 2, 3, 2, 2))}
SETS = {  # name: files, the loader's space, flags, image shape, number of images
    "shapes3d": (write_shapes3d, {"space": SMALL_SHAPES3D}, "", (3, 64, 64), 96),
    "chairs": (write_chairs, {}, "--grayscale --crop 420", (1, 64, 64), 18),
    "celeba": (
        functools.partial(write_celeba, n=40, packed=True),
        {},
        "--split all --image_size 32",
        (3, 32, 32),
        40,
    ),
    "cars3d": (
        functools.partial(write_cars3d, cars=1),
        {"space": part(SMALL_CARS3D, (4, 24, 1))},
        "",
        (3, 64, 64),
        96,
    ),
    "smallnorb": (write_smallnorb, {"space": SMALL_SMALLNORB}, "--split train", (1, 64, 64), 48),
    "mpi3d_toy": (write_mpi3d, {"spaces": SMALL_MPI3D}, "", (3, 64, 64), 108),
    "folder:mine": (write_folder, {}, "--skip_bad_images", (3, 64, 64), 40),
    "color_dsprites": (write_nothing, SMALL_DSPRITES, "", (3, 64, 64), 72),
    "noisy_dsprites": (write_nothing, SMALL_DSPRITES, "", (3, 64, 64), 72),
    "scream_dsprites": (write_scream, SMALL_DSPRITES, "", (3, 64, 64), 72),
    "rooms": (write_nothing, {"space": part(ROOMS, (2, 2, 2, 2, 2, 2))}, "", (3, 64, 64), 64),
}


BY_DEFAULT = ("shapes3d", "folder:mine")  # a grid of factors from a published file, and no factors


@pytest.fixture(
    params=[
        name if name in BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in SETS
    ]
)
def name(request, tmp_path, monkeypatch):
    """A dataset by name; its files are in the current folder, which is the test's own."""
    name = request.param
    write, space, *_ = SETS[name]
    key = "folder:PATH" if name.startswith("folder:") else name
    monkeypatch.setitem(DATASETS, key, functools.partial(DATASETS[key], **space))
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return name


def run(script, flags, expected_code=0):
    """Run a script as from the command line; what it says, or what it complains of."""
    code, out, err = run_main(script.main, *flags.split())
    assert code == expected_code, err
    return err if expected_code else out


def test_train_resume_evaluate_and_draw(name, tmp_path):
    *_, flags, shape, number = SETS[name]
    flags = f"--dataset {name} --data_dir . {flags} {TINY}"
    channels, height, width = shape
    out = run(train, f"{flags} --output_dir whole --max_steps 3")
    assert f"{name}: {number} images of {channels}x{height}x{width}, " in out

    # Batches are drawn by (seed, step): a run that was interrupted ends with the same weights.
    run(train, f"{flags} --output_dir parts --max_steps 1")
    assert "resuming at step 1 of 3" in run(train, f"{flags} --output_dir parts --max_steps 3")
    whole, parts = (torch.load(f"{d}/ckpt.pt", weights_only=True) for d in ("whole", "parts"))
    assert whole["vae"].keys() == parts["vae"].keys()
    assert all(torch.equal(whole["vae"][key], parts["vae"][key]) for key in whole["vae"])

    labelled = not name.startswith("folder:")
    metrics = "losses mig" if labelled else "losses"
    points = "--num_batches 1 --batch_size 64"
    run(evaluate, f"--model_path whole --metrics {metrics} {points} --threads 1")
    results = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert (results["data"]["name"], results["data"]["num_images"]) == (name, number)
    scores = {name: score["value"] for name, score in results["scores"].items()}
    assert scores.keys() >= {"recon_loss", "kl", *(["mig"] if labelled else [])}
    assert np.isfinite([scores["recon_loss"], scores["kl"]]).all() and scores["recon_loss"] > 0
    if labelled:
        assert 0 <= scores["mig"] <= 1

    run(visualize, "--model_path whole --output_dir pictures --num_images 1 --threads 1")
    drawn = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert drawn >= {"index.html", "traversals.png", "traversals.gif", "reconstructions.png"}
    assert ("factor_matrix.png" in drawn) == labelled
    assert ("latent_response.png" in drawn) == (labelled and name != "celeba")
    reconstructions = np.asarray(Image.open("pictures/reconstructions.png").convert("RGB"))
    assert reconstructions.std() > 5  # not a blank sheet
    assert (np.ptp(reconstructions.astype(int), axis=2).max() > 30) == (channels == 3)


def test_a_bad_image_ends_each_script_in_one_line_or_is_skipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path)
    flags = f"--dataset folder:mine --data_dir . {TINY} --output_dir run --max_steps 1"
    bad = tmp_path / "mine" / "0" / "3.jpeg"
    bad.write_bytes(bad.read_bytes()[:700])
    error = run(train, flags, expected_code=2)
    assert error.startswith(f"error: {bad}: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists() and not list(tmp_path.rglob("*.table"))

    assert "folder:mine: 39 images" in run(train, f"{flags} --skip_bad_images")
    (tmp_path / "mine" / "broken.png").symlink_to("nowhere.png")
    assert "folder:mine: 39 images" in run(train, f"{flags} --skip_bad_images --overwrite")
    run(visualize, "--model_path run --num_images 1 --threads 1")  # skips as training did
    points = "--metrics losses --num_batches 1 --threads 1"
    run(evaluate, f"--model_path run {points}")
    run(evaluate, f"--model_path run --dataset folder:mine {points}")  # the same set: as trained
    error = run(evaluate, f"--model_path run --dataset folder:./mine {points}", expected_code=2)
    assert error.splitlines()[-1].startswith(f"error: {bad}: ")
