"""The page for notebooks runs as it is printed; what a notebook can get wrong is told."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import factorvae
from factorvae import VAE, TrainConfig, Trainer, load_model
from factorvae.checkpoint import save_checkpoint
from factorvae.datasets import DATASETS
from factorvae.errors import UserError

ROOT = Path(factorvae.__file__).parents[1]
SMALL = TrainConfig(latent_dim=4, batch_size=4, hidden_dim=16, disc_depth=1, disc_width=16)


class Own:
    """The least that training asks for."""

    def __init__(self, shape=(1, 32, 32), **attributes):
        self.images = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0))
        vars(self).update(attributes)

    def __len__(self):
        return len(self.images)

    def batch(self, index, device):
        return self.images[index].to(device)


def test_the_page_runs_as_it_is_printed(tmp_path, monkeypatch, sprites, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DATASETS, "dsprites", lambda data_dir: sprites)
    run_dir = tmp_path / "runs" / "dsprites_beta1_gamma6.4_seed0"
    run_dir.mkdir(parents=True)
    trainer = Trainer(dataclasses.replace(SMALL, latent_dim=10), sprites)
    save_checkpoint(run_dir / "ckpt.pt", {**trainer.state_dict(), "finished": True})

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(blocks) == 10
    assert names["fast"].lr == 6e-4
    assert names["mu"].shape == names["logvar"].shape == (3, 10)
    assert names["pictures"].shape == (7, 1, 64, 64)
    assert 0 <= names["pictures"].min() < names["pictures"].max() <= 1
    assert names["represent"](names["factors"][:5]).shape == (5, 10)
    assert "'recon'" in capsys.readouterr().out
    assert names["trainer"].steps_done == 10
    assert Path("mine.pt").exists()


def test_every_exported_name_is_there_and_no_other():
    assert {name for name in factorvae.__all__ if getattr(factorvae, name) is None} == set()
    assert set(factorvae.__all__) <= set(dir(factorvae))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = factorvae.no_such_name


def test_levels_are_encoded_as_their_images_are(sprites):
    vae = VAE(sprites.image_shape, 4, 16, torch.Generator().manual_seed(0)).eval()
    index = np.arange(0, 432, 60)
    of_levels, of_images = (vae.encode(x)[0] for x in (sprites.images(index), sprites.batch(index)))
    torch.testing.assert_close(of_levels, of_images)
    assert of_levels.std() > 0
    with pytest.raises(ValueError, match="floats in .* or uint8 .* not torch.int64"):
        vae.encode(sprites.images(index).long())
    with pytest.raises(ValueError, match="1x64x64, not 2x1x32x32"):
        vae.encode(torch.zeros(2, 1, 32, 32))


def test_own_images_and_factors_are_kept_in_the_checkpoint():
    own = Own(factors=np.array([[i // 4, i % 4] for i in range(8)]), factor_names=("a", "b"))
    trainer = Trainer(SMALL, own)
    trainer.advance(2)
    known = trainer.state_dict()["dataset"]
    assert known["image_shape"] == [1, 32, 32] and known["num_images"] == 8
    assert known["factor_names"] == ["a", "b"] and known["factor_sizes"] == [2, 4]
    assert np.isfinite(list(trainer.figures.means().values())).all()
    assert torch.equal(
        trainer.dataset.images(np.array([3])), (own.images[3:4] * 255).round().byte()
    )


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (Own(factors=np.zeros((7, 1), int)), r"factors are \[8, F\]"),
        (Own(factors=np.zeros((8, 1), int), factor_names=("a", "b")), "2 factor_names for 1"),
        (Own(batch=lambda index, device: np.zeros((1, 1, 32, 32))), "not <class 'numpy.ndarray'>"),
        (Own(batch=lambda index, device: torch.zeros(1, 32, 32)), r"float32 \[1, 32, 32\]"),
        (Own(batch=lambda index, device: torch.full((1, 1, 32, 32), 255.0)), r"in \[0, 1\]"),
        (Own(batch=lambda index, device: torch.full((1, 1, 32, 32), -0.5)), r"in \[0, 1\]"),
        (Own(batch=lambda index, device: index.float().view(-1, 1, 1, 1)), r"in \[0, 1\]"),
        (Own(images=torch.zeros(0, 1, 32, 32)), "has at least one image"),
    ],
)
def test_a_dataset_of_another_form_is_refused(own, told):
    with pytest.raises(UserError, match=told):
        Trainer(SMALL, own)


def test_the_images_that_are_checked_of_a_large_dataset_are_there():
    class Large(Own):
        def __len__(self):
            return 20_000_000  # more than float32 counts

        def batch(self, index, device):
            asked.extend(index.tolist())
            return self.images[index % 8].to(device)

    asked = []
    Trainer(SMALL, Large())
    assert (min(asked), max(asked)) == (0, 19_999_999)


def test_a_vae_for_other_images_codes_or_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="takes images"):
        Trainer(SMALL, Own(), vae=VAE((1, 64, 64), 4, 16))
    with pytest.raises(UserError, match="3 latents"):
        Trainer(SMALL, Own(), vae=VAE((1, 32, 32), 3, 16))
    decoder = nn.Sequential(nn.Linear(4, 32 * 32), nn.Unflatten(1, (1, 32, 32)))
    trainer = Trainer(SMALL, Own(), vae=VAE((1, 32, 32), 4, 16, decoder=decoder))
    save_checkpoint(tmp_path / "own.pt", {**trainer.state_dict(), "finished": True})
    with pytest.raises(UserError, match="own.pt is no checkpoint that this version wrote"):
        load_model(tmp_path / "own.pt")


def test_the_package_alone_does_not_import_torch():
    script = "import sys, factorvae, factorvae.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
