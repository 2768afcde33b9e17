"""What several test files share.

Nothing here is imported before a test asks for it: pytest-xdist reads this file in its own process
too, which runs no test, and torch takes seconds to import.
"""

import os
from types import SimpleNamespace

import pytest

# Read when the libraries are loaded, here and in what the tests start. On small matrices the
# threads of BLAS take several times the processor's time, which they spend in waiting.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks run fastest so, and beside other work many times faster."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def same_convolutions(monkeypatch):
    """As `train.py --deterministic` sets up CUDA: products in TF32, for which there are kernels of
    our own, and of cuDNN's algorithms only those that give the same bits every time."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def few_images(monkeypatch):
    """Latents are added, turned and woken by 256 images, in a sixteenth of the time."""
    for module in ("adding", "turning", "waking"):
        monkeypatch.setattr(f"factorvae.training.{module}.NUM_IMAGES", 256)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """24 images of 32x32 to start scripts on: where they lie, the number, and the flags."""
    from tests.helpers import encoded, pictures, write_tree

    path = tmp_path_factory.mktemp("tiny")
    images = pictures(24, 32, 32, ())
    write_tree(path / "images", {f"{n:02}.png": encoded(image) for n, image in enumerate(images)})
    flags = ["--data_dir", str(path), "--dataset", "folder:images"]
    flags += ["--image_size", "32", "--grayscale"]
    return SimpleNamespace(path=path, num_images=24, flags=flags)


@pytest.fixture(scope="session")
def sprites(tmp_path_factory):
    """432 real dSprites images, of evenly spaced values of every factor."""
    from factorvae.datasets import FactorSpace, load_dataset
    from factorvae.datasets.dsprites_drawing import DSPRITES

    sizes = (3, 6, 6, 2, 2)
    values = [v[:: len(v) // size][:size] for v, size in zip(DSPRITES.values, sizes, strict=True)]
    space = FactorSpace(DSPRITES.names, sizes, values)
    return load_dataset("dsprites", tmp_path_factory.mktemp("sprites"), space=space)
