"""Checkpoints: whole, self-describing, and distrusted when they are not ours."""

import os

import pytest
import torch

from factorvae import checkpoint
from factorvae.config import TrainConfig
from factorvae.datasets import FactorSpace, load_dataset
from factorvae.datasets.dsprites_drawing import DSPRITES
from factorvae.errors import UserError
from factorvae.files import CHECKPOINT_NAME
from factorvae.training.trainer import Trainer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    sizes = (3, 2, 2, 2, 2)
    values = [v[:size] for v, size in zip(DSPRITES.values, sizes, strict=True)]
    space = FactorSpace(DSPRITES.names, sizes, values)
    sprites = load_dataset("dsprites", tmp_path_factory.mktemp("data"), space=space)
    config = TrainConfig(hidden_dim=16, disc_depth=2, disc_width=24, batch_size=4)
    trainer = Trainer(config, sprites, torch.device("cpu"))
    trainer.advance()
    return trainer


@pytest.fixture
def saved(trainer, tmp_path):
    path = tmp_path / CHECKPOINT_NAME
    checkpoint.save_checkpoint(path, {**trainer.state_dict(), "finished": False})
    return path


def test_a_checkpoint_describes_itself(saved):
    loaded = torch.load(saved, weights_only=True)
    assert loaded["format"] == "factorvae"
    assert loaded["config"]["gamma"] == 6.4
    assert loaded["dataset"]["source"] == "rendered"
    assert loaded["dataset"]["factor_names"] == ["shape", "scale", "orientation", "posX", "posY"]
    assert loaded["dataset"]["image_shape"] == [1, 64, 64]
    assert loaded["step"] == 1
    assert loaded["finished"] is False


def test_models_come_back_as_they_were(saved, trainer):
    x = trainer.dataset.batch([0, 5])
    vae = checkpoint.restore_vae(checkpoint.load_checkpoint(saved))
    discriminator = checkpoint.restore_discriminator(checkpoint.load_checkpoint(saved.parent))
    assert not vae.training
    mu, _ = trainer.vae.encode(x)
    assert torch.equal(vae.encode(x)[0], mu)
    assert torch.equal(discriminator(mu), trainer.discriminator(mu))


def test_a_failed_write_leaves_the_earlier_checkpoint(saved, trainer):
    before = saved.read_bytes()
    with pytest.raises(AttributeError):
        checkpoint.save_checkpoint(saved, {"step": lambda: None})  # cannot be pickled
    assert saved.read_bytes() == before
    checkpoint.save_checkpoint(saved, {**trainer.state_dict(), "finished": True})
    assert checkpoint.load_checkpoint(saved)["finished"] is True


def test_damage_is_found_wherever_it_is(saved):
    whole = saved.read_bytes()
    for place in (100, len(whole) // 2, len(whole) - 300):
        damaged = bytearray(whole)
        damaged[place : place + 8] = bytes(8 * [255])
        saved.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load_checkpoint(saved)
    saved.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load_checkpoint(saved)


def test_foreign_files_are_told_apart(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"state_dict": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="no checkpoint of this project"):
        checkpoint.load_checkpoint(path)
    torch.save(Trainer, path)  # pickled code is not run
    with pytest.raises(UserError, match="no checkpoint of this project"):
        checkpoint.load_checkpoint(path)
    torch.save({"format": "factorvae", "version": 1}, path)
    with pytest.raises(UserError, match="it lacks config"):
        checkpoint.load_checkpoint(path)
    torch.save({"format": "factorvae"}, path)
    with pytest.raises(UserError, match="version None"):
        checkpoint.load_checkpoint(path)
    path.write_text("hello")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load_checkpoint(path)
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.load_checkpoint(tmp_path / "nothing.pt")


def test_the_newest_checkpoint_is_found(saved, tmp_path):
    with pytest.raises(UserError, match="no checkpoint under"):
        checkpoint.newest_checkpoint(tmp_path / "empty")
    other = tmp_path / "sweep" / "run" / CHECKPOINT_NAME
    other.parent.mkdir(parents=True)
    other.write_bytes(saved.read_bytes())
    os.utime(saved, (1, 1))
    assert checkpoint.newest_checkpoint(tmp_path) == other
