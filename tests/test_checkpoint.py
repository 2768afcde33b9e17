"""Checkpoints: whole, self-describing, and distrusted when they are not ours."""

import copy
import os
import zipfile

import numpy as np
import pytest
import torch

from factorvae import checkpoint
from factorvae.config import TrainConfig
from factorvae.datasets import FactorSpace, load_dataset
from factorvae.datasets.dsprites_drawing import DSPRITES
from factorvae.errors import UserError
from factorvae.files import CHECKPOINT_NAME
from factorvae.training.trainer import Trainer
from tests.helpers import encoded, pictures, write_tree


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


def test_a_digest_is_of_the_weights_of_both_networks(saved):
    loaded = checkpoint.load_checkpoint(saved)
    digest = checkpoint.weights_digest(loaded)
    assert checkpoint.weights_digest(copy.deepcopy(loaded)) == digest
    for network in ("vae", "discriminator"):
        changed = copy.deepcopy(loaded)
        [*changed[network].values()][-1].view(-1)[-1] += 1
        assert checkpoint.weights_digest(changed) != digest, network


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


def test_the_newest_checkpoint_is_the_default(saved, tmp_path):
    other = tmp_path / "sweep" / "run" / CHECKPOINT_NAME
    other.parent.mkdir(parents=True)
    other.write_bytes(saved.read_bytes())
    os.utime(saved, (1, 1))
    assert checkpoint.default_checkpoint(tmp_path) == (other, f"the newest under {tmp_path}/")


def test_without_a_run_a_model_that_ships_is_the_default(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "DEFAULT_MODEL", tmp_path / "nothing.pt")
    with pytest.raises(UserError, match="no checkpoint under"):
        checkpoint.default_checkpoint(tmp_path / "empty")
    monkeypatch.setattr(checkpoint, "DEFAULT_MODEL", saved)
    monkeypatch.chdir(tmp_path)
    path, why = checkpoint.default_checkpoint("runs")
    assert path.resolve() == saved.resolve()
    assert why == "no run under runs/ yet, so a model that ships"


def one_number_for_all(tensor):
    return torch.zeros(()).expand(tensor.shape)


# Of each: the way to it, what it becomes (None: it is left out), and what the answer says.
MISFITS = [
    (
        "vae_optimizer state 0 exp_avg",
        lambda t: t[:3].clone(),
        "vae_optimizer.0.exp_avg is float32 [3",
    ),
    ("vae_optimizer state 0 exp_avg", lambda t: t.double(), "is float64"),
    ("vae_optimizer state 3 exp_avg_sq", None, "vae_optimizer.3 lacks exp_avg_sq"),
    ("vae_optimizer state 3 exp_avg_sq", lambda t: t - 1, "exp_avg_sq is below 0"),
    ("vae_optimizer state 5", None, "vae_optimizer lacks 5"),
    ("vae_optimizer state", lambda _: {}, "vae_optimizer lacks 0"),
    ("vae_optimizer", None, "it lacks vae_optimizer"),
    ("vae_optimizer", lambda _: [], "it lacks vae_optimizer"),
    ("disc_optimizer", lambda _: None, "it lacks disc_optimizer"),
    ("disc_optimizer state 0 step", lambda t: t * torch.nan, "disc_optimizer.0.step is not finite"),
    ("vae encoder.head.weight", lambda t: t * torch.nan, "vae.encoder.head.weight is not finite"),
    ("vae encoder.head.weight", lambda t: t.T, "is float32 [16x20], and should be float32 [20x16]"),
    ("vae encoder.head.weight", one_number_for_all, "has fewer numbers than its shape says"),
    ("vae encoder.head.weight", lambda t: t.to_sparse(), "is no tensor"),
    ("vae encoder.head.weight", lambda t: 1.0, "is no tensor"),
    ("vae encoder.head.bias", None, "vae lacks encoder.head.bias"),
    ("vae more", lambda _: torch.zeros(1), "vae has 'more' besides"),
    ("vae", lambda _: 3, "its vae is of type int"),
    ("discriminator", lambda _: None, "it lacks discriminator"),
    ("discriminator out.bias", lambda t: t.half(), "discriminator.out.bias is float16"),
    ("config", lambda _: [1], "its config is of type list"),
    ("config latent_dim", lambda _: 10**9, "a model of its settings takes"),
    ("config latent_dim", lambda _: 10**600, "--latent_dim must be at most"),
    ("config latent_dim", lambda _: "ten", "--latent_dim must be of type int, not 'ten'"),
    ("config disc_depth", lambda _: 0, "--disc_depth must be at least 1"),
    ("config lr", lambda _: float("nan"), "--lr must be a finite number"),
    ("config dataset", lambda _: None, "--dataset must be of type str"),
    ("config gamma", lambda _: 0.0, "its method is betavae"),
    ("dataset", lambda _: None, "its dataset is of type NoneType"),
    ("dataset name", None, "it lacks name"),
    ("dataset image_shape", lambda _: [1, 64, 63], "its images' shape"),
    ("dataset image_shape", lambda _: [10**9, 64, 64], "its images' shape"),
    ("dataset options", lambda _: {"exec": "ls"}, "the unknown option exec"),
    ("dataset options", lambda _: {"crop": -5}, "--crop must be at least 1"),
    ("dataset factor_sizes", lambda _: [3], "its factors' names and sizes do not fit"),
    ("config disc_batches", lambda _: torch.zeros(3), "its setting disc_batches is of type Tensor"),
    ("config later", lambda _: [[1]], "its setting later is of type list"),
    ("step", lambda _: -1, "its step is out of range"),
    ("step", lambda _: True, "its step is of type bool"),
    ("finished", lambda _: "yes", "its finished is of type str"),
    ("threads", lambda _: 10**600, "its threads are out of range"),
    ("sums", lambda t: t[:-1].clone(), "sums is float64 [14]"),
    ("finite_steps", lambda t: t.float(), "finite_steps is float32"),
    ("generator", lambda t: t * 0 + 255, "generator is no state"),
]


@pytest.mark.parametrize(("way", "change", "told"), MISFITS)
def test_what_does_not_fit_its_settings_is_refused_by_name(trainer, tmp_path, way, change, told):
    state = copy.deepcopy({**trainer.state_dict(), "finished": False})
    *sections, name = [int(key) if key.isdecimal() else key for key in way.split()]
    section = state
    for key in sections:
        section = section[key]
    if change is None:
        del section[name]
    else:
        section[name] = change(section.get(name))
    path = tmp_path / CHECKPOINT_NAME
    torch.save({"format": checkpoint.FORMAT, "version": checkpoint.VERSION, **state}, path)
    with pytest.raises(UserError) as raised:
        checkpoint.load_checkpoint(path, resume_until=10**9)
    assert told in str(raised.value)
    assert str(raised.value).startswith(f"{path} is no checkpoint that this version wrote: ")
    assert len(str(raised.value)) < 1000


def test_another_set_is_prepared_for_the_models_shape(tmp_path):
    images = {f"{n}.png": encoded(image) for n, image in enumerate(pictures(4, 48, 40))}
    write_tree(tmp_path / "one", images)
    write_tree(tmp_path / "other", images)
    np.savez(tmp_path / "own.npz", images=pictures(4, 48, 48))
    options = {"image_size": 32, "grayscale": True, "crop": 8, "split": None}
    made = {
        "config": {"dataset": f"folder:{tmp_path}/one", "data_dir": str(tmp_path)},
        "dataset": {"options": options, "image_shape": [1, 32, 32]},
    }
    names = (None, f"folder:{tmp_path}/other", f"npz:{tmp_path}/own.npz")
    own, alike, unlike = (checkpoint.restore_dataset(made, name).batch([0]) for name in names)
    assert own.shape == unlike.shape == (1, 1, 32, 32)
    assert torch.equal(own, alike)
    assert unlike.std() > 2 * own.std()  # --crop is of data of its kind
    with pytest.raises(UserError, match="unknown dataset 'mnist'"):
        checkpoint.restore_dataset(made, "mnist")


def test_a_checkpoint_of_an_older_version_is_completed_by_defaults(trainer, tmp_path):
    state = copy.deepcopy({**trainer.state_dict(), "finished": False})
    del state["config"]["precision"], state["config"]["jobs"]
    state["config"] |= {"no_longer_known": 1, "preset": "no longer a recipe"}
    checkpoint.save_checkpoint(tmp_path / CHECKPOINT_NAME, state)
    loaded = checkpoint.load_checkpoint(tmp_path, resume_until=10**9)
    assert (loaded["config"]["precision"], loaded["config"]["jobs"]) == ("fp32", 0)
    assert loaded["config"]["preset"] is None
    for name in ("vae_optimizer", "disc_optimizer", "generator", "sums"):
        del state[name]  # which only training needs
    checkpoint.save_checkpoint(tmp_path / CHECKPOINT_NAME, state)
    assert checkpoint.load_checkpoint(tmp_path)["step"] == 1


def test_a_run_that_stopped_before_its_first_step_goes_on(sprites, tmp_path):
    config = TrainConfig(hidden_dim=16, disc_depth=2, disc_width=24, batch_size=4)
    at_start = Trainer(config, sprites, torch.device("cpu"))
    checkpoint.save_checkpoint(
        tmp_path / CHECKPOINT_NAME, {**at_start.state_dict(), "finished": False}
    )
    assert checkpoint.load_checkpoint(tmp_path, resume_until=10**9)["step"] == 0


def test_a_packed_archive_is_not_unpacked(saved):
    packed = saved.with_name("packed.pt")
    with zipfile.ZipFile(saved) as one, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as two:
        for name in one.namelist():
            two.writestr(name, one.read(name))
    with pytest.raises(UserError, match="is packed"):
        checkpoint.load_checkpoint(packed)
