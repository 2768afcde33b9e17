"""Every method through the trainer, a run, a sweep and a world of several processes."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
import train
import visualize
from benchmarks.results.sweeps import PROFILES
from factorvae.checkpoint import load_checkpoint, load_model
from factorvae.command_line import parse, parse_sweep
from factorvae.config import TrainConfig, VisualizeConfig
from factorvae.datasets import DATASETS
from factorvae.errors import run_script
from factorvae.files import CHECKPOINT_NAME, METRICS_NAME, SWEEP_NAME
from factorvae.methods import METHODS
from factorvae.objective import kl_divergence, recon_loss, reparameterize
from factorvae.pages.drawing import gallery_of
from factorvae.penalties import PENALTIES, bind_penalty
from factorvae.run_log import columns, read_log
from factorvae.setting import setting_of
from factorvae.training.distributed import World
from factorvae.training.run_folder import differing_flags, folder_of, run_name
from factorvae.training.sweep_folder import sweep_table
from factorvae.training.trainer import Trainer
from tests.helpers import rows_but_speed, same_state

ROOT = Path(train.__file__).parent
CPU = torch.device("cpu")
SMALL = dict(hidden_dim=16, disc_depth=1, disc_width=16, batch_size=8, log_every=4, lr=1e-3)
FLAGS = [f"--{name}={value}" for name, value in SMALL.items()]
FLAGS += ["--device=cpu", "--threads=1"]
WITH_FUNCTION = [*PENALTIES]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def config_of(method, **changes):
    return TrainConfig(**{"method": method, **METHODS[method].defaults, **SMALL, **changes})


def step_of(trainer, x, seed=0):
    trainer.generator.manual_seed(seed)
    return dict(zip(trainer.figures.names, trainer.step(x, None).tolist(), strict=True))


@pytest.mark.parametrize("method", WITH_FUNCTION)
def test_a_step_goes_down_the_gradient_of_the_one_line(sprites, method):
    config = config_of(method, beta=0.5, gamma=2.0, capacity_steps=10)
    trainer = Trainer(config, sprites, CPU)
    assert trainer.discriminator is None
    x = sprites.batch(torch.arange(8) * 50)
    mu, logvar = trainer.vae.encode(x)
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(0))
    z = reparameterize(mu, logvar, eps)
    recon, kl = recon_loss(trainer.vae.decode(z), x), kl_divergence(mu, logvar)
    settings = {**dataclasses.asdict(config), "num_images": len(sprites)}
    penalty = bind_penalty(method, settings)(mu, logvar, z, torch.tensor(0))
    loss = recon + 0.5 * kl + 2.0 * penalty
    expected = torch.autograd.grad(loss, list(trainer.vae.parameters()))
    figures = step_of(trainer, x)
    for parameter, gradient in zip(trainer.vae.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-3)
    for name, value in (("recon", recon), ("kl", kl), ("penalty", penalty)):
        assert figures[name] == pytest.approx(value.item(), rel=1e-5)


def test_penalties_weighed_by_0_train_the_same_vae_as_none(sprites):
    trained = []
    for method in ("betavae", *WITH_FUNCTION):
        trainer = Trainer(config_of(method, beta=4.0, gamma=0.0), sprites, CPU)
        trainer.advance(3)
        trained.append(trainer.vae.state_dict())
    assert all(same_state(trained[0], state) for state in trained[1:])


def test_only_factorvae_has_a_discriminator_and_a_second_batch(sprites):
    for method in METHODS:
        trainer = Trainer(config_of(method), sprites, CPU)
        assert (trainer.discriminator is not None) == (method == "factorvae")
        assert trainer.batches.count == (2 if method == "factorvae" else 1)


def test_the_capacity_grows_by_the_steps_made_and_goes_on_after_a_resume(sprites):
    config = config_of("annealed", capacity=1000.0, capacity_steps=10, lr=1e-12)
    trainer = Trainer(config, sprites, CPU)
    distance = []  # of a KL that hardly moves: what the capacity is
    for step in range(4):
        if step == 2:
            state = trainer.state_dict()
            trainer = Trainer(config, sprites, CPU)
            trainer.load_state_dict(state)
        trainer.figures.reset()
        trainer.advance()
        figures = trainer.figures.means()
        distance.append(figures["penalty"] + (-1 if step == 0 else 1) * figures["kl"])
    assert distance == pytest.approx([0, 100, 200, 300], abs=1e-2)


ANNEALED = {"beta_start": 20.0, "gamma_start": 50.0, "anneal_from": 1, "anneal_until": 5}


def test_annealed_weights_go_on_after_a_resume(sprites):
    config = config_of("factorvae", **ANNEALED)
    unbroken, first, second = (Trainer(config, sprites, CPU) for _ in range(3))
    unbroken.advance(6)
    first.advance(3)
    second.load_state_dict(first.state_dict())
    second.advance(3)
    assert same_state(unbroken.vae.state_dict(), second.vae.state_dict())


def test_weights_annealed_from_what_they_end_at_are_constant(sprites):
    constant = config_of("factorvae", beta=1.0, gamma=6.4)
    flat = {**ANNEALED, "beta_start": 1.0, "gamma_start": 6.4}
    changing = config_of("factorvae", beta=1.0, gamma=6.4, **ANNEALED)
    trained = []
    for config in (constant, dataclasses.replace(constant, **flat), changing):
        trainer = Trainer(config, sprites, CPU)
        trainer.advance(3)
        trained.append(trainer.vae.state_dict())
    assert same_state(trained[0], trained[1])
    assert not same_state(trained[0], trained[2])


def test_penalties_are_float32_where_the_networks_are_bfloat16(sprites):
    seen = []

    def penalty(mu, logvar, z, step):
        seen.extend(each.dtype for each in (mu, logvar, z))
        return mu.square().sum()

    trainer = Trainer(config_of("factorvae", precision="bf16"), sprites, CPU, penalty=penalty)
    trainer.advance()
    assert seen == [torch.float32] * 3
    assert trainer.discriminator is None


class OneOfTwo(World):
    """A process of two, of which the other's codes are known."""

    def __init__(self, rank, codes):
        super().__init__(rank=rank, size=2)
        object.__setattr__(self, "codes", codes)

    def all_gather_rows(self, part):
        assert torch.equal(part, self.codes[self.shard(len(self.codes))])
        return self.codes


@pytest.mark.parametrize("method", WITH_FUNCTION)
def test_two_processes_have_the_penalty_and_gradient_of_the_whole_batch(method):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(8, 6, generator=generator, requires_grad=True)  # mu, logvar and z
    penalty = bind_penalty(method, {**dataclasses.asdict(config_of(method)), "num_images": 50})
    expected = penalty(*whole.chunk(3, dim=1), torch.tensor(1))
    (gradient,) = torch.autograd.grad(expected, whole)
    for rank in range(2):
        world = OneOfTwo(rank, whole.detach())
        part = whole.detach()[world.shard(8)].requires_grad_()
        value = penalty(*world.all_gather_codes(*part.chunk(3, dim=1)), torch.tensor(1))
        torch.testing.assert_close(value, expected)
        value.backward()
        # averaged over the processes, of which each has a part of the rows
        torch.testing.assert_close(part.grad / 2, gradient[world.shard(8)])


# Folders and logs


def test_folders_name_the_method_but_of_the_two_that_gamma_tells():
    assert run_name([TrainConfig()]) == "dsprites_beta1_gamma6.4_seed0"
    assert run_name([config_of("betavae")]) == "dsprites_beta4_gamma0_seed0"
    assert folder_of([config_of("btcvae", seed=3)]).name == "dsprites_btcvae_beta1_gamma5_seed3"
    annealed = [config_of("annealed", capacity=c) for c in (10.0, 25.0)]
    assert run_name(annealed) == "dsprites_annealed_beta0_gamma1000_capacity10+25_seed0"
    both = [config_of(m, seed=s) for m in ("factorvae", "btcvae") for s in range(5)]
    both = [dataclasses.replace(c, gamma=6.4) if c.method == "factorvae" else c for c in both]
    assert run_name(both) == "dsprites_factorvae+btcvae_beta1_gamma6.4+5_seed0-4"


def test_the_log_has_a_column_for_the_penalty_only_where_there_is_a_function():
    old = columns(2)
    assert old == "step recon kl tc disc_loss disc_accuracy kl_0 kl_1 images_per_second".split()
    assert columns(2, "betavae") == old
    assert columns(2, "btcvae") == "step recon kl penalty kl_0 kl_1 images_per_second".split()


@pytest.fixture
def in_tiny_folder(tiny_folder, monkeypatch):
    """The flags of its images, which are found from where they lie."""
    monkeypatch.chdir(tiny_folder.path)
    return tiny_folder.flags


def run_train(*argv):
    return run_script(lambda: train.main(list(map(str, argv))))


@pytest.mark.parametrize("method", ["annealed", "btcvae"])
def test_a_stopped_run_ends_with_the_bits_of_a_whole_one(method, in_tiny_folder, tmp_path, capsys):
    flags = [*FLAGS, *in_tiny_folder, "--method", method]
    for folder, stops in (("whole", [10]), ("parts", [3, 10])):
        for steps in stops:
            where = ["--output_dir", tmp_path / folder, "--max_steps", steps]
            assert run_train(*flags, *where) == 0
    one, other = (load_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    for part in ("vae", "vae_optimizer"):
        assert same_state(one[part], other[part])
    assert rows_but_speed(tmp_path / "whole") == rows_but_speed(tmp_path / "parts")
    assert len(read_log(tmp_path / "whole")["penalty"]) == 3
    code = run_train(*FLAGS, *in_tiny_folder, *where, "--method=dipvae1")
    assert code == 2
    assert f"--method is {method} there and dipvae1 here" in capsys.readouterr().err


def test_a_checkpoint_from_before_there_were_methods_goes_on(in_tiny_folder, tmp_path, capsys):
    for gamma, method in (("6.4", "factorvae"), ("0", "betavae")):
        flags = [*FLAGS, *in_tiny_folder, "--gamma", gamma]
        flags += ["--output_dir", tmp_path / gamma]
        assert run_train(*flags, "--max_steps", 4) == 0
        path = tmp_path / gamma / CHECKPOINT_NAME
        old = torch.load(path, weights_only=True)
        assert old["config"]["method"] == method
        for name in ("method", "capacity", "capacity_steps", "dip_ratio", "stratified"):
            del old["config"][name]
        torch.save(old, path)
        assert load_checkpoint(path)["config"]["method"] == method
        assert run_train(*flags, "--max_steps", 8) == 0
        assert "resuming at step 4 of 8" in capsys.readouterr().out
        assert read_log(tmp_path / gamma)["step"].tolist() == [4, 8]


def test_a_method_of_a_sweep_over_methods_goes_on_by_itself(in_tiny_folder, tmp_path, capsys):
    flags = [*FLAGS, *in_tiny_folder, "--output_dir", tmp_path, "--jobs", 1, "--seed", "0-1"]
    flags += ["--preset", "fast", "--max_steps", 2, "--method", "annealed"]
    assert run_train(*flags, "factorvae") == 0  # whose preset has a gamma_start
    assert run_train(*flags) == 0
    assert f"sweep of 2 runs in {tmp_path}: 2 finished" in capsys.readouterr().out
    assert len(json.loads((tmp_path / SWEEP_NAME).read_text())["runs"]) == 4


def test_a_sweep_is_not_joined_under_another_setting_of_its_method(
    in_tiny_folder, tmp_path, capsys
):
    flags = [*FLAGS, *in_tiny_folder, "--output_dir", tmp_path, "--jobs", 1, "--max_steps", 2]
    assert run_train(*flags, "--method", "btcvae", "--seed", "0-1") == 0
    before = (tmp_path / SWEEP_NAME).read_text()
    assert run_train(*flags, "--method", "btcvae", "--seed", "2-3", "--stratified") == 2
    told = "holds another sweep: --stratified is False there and True here. "
    assert told in capsys.readouterr().err
    assert (tmp_path / SWEEP_NAME).read_text() == before
    assert run_train(*flags, "--method", "dipvae1", "--dip_ratio", 3, "--seed", 0) == 0
    assert run_train(*flags, "--method", "dipvae1", "--seed", 1) == 2
    assert "--dip_ratio is 3.0 there and 10.0 here" in capsys.readouterr().err
    assert run_train(*flags, "--method", "btcvae", "--seed", 2) == 0


@pytest.mark.slow
def test_a_sweep_over_methods(in_tiny_folder, tmp_path, capsys):
    flags = [*FLAGS, *in_tiny_folder, "--output_dir", tmp_path, "--jobs", 1]
    sweep = ["--method", "dipvae1", "dipvae2", "factorvae", "--seed", "0-1", "--max_steps", 4]
    assert run_train(*flags, *sweep) == 0
    out = capsys.readouterr().out
    assert "dipvae2, beta 1, gamma 10, 2 seeds" in out
    assert "\nbeta 1, gamma 6.4, 2 seeds" in out
    content = json.loads((tmp_path / SWEEP_NAME).read_text())
    assert [(r["method"], r["gamma"], r["seed"], r["state"]) for r in content["runs"]] == [
        *(("dipvae1", 10.0, seed, "finished") for seed in (0, 1)),
        *(("dipvae2", 10.0, seed, "finished") for seed in (0, 1)),
        *(("factorvae", 6.4, seed, "finished") for seed in (0, 1)),
    ]
    for method, ratio in (("dipvae1", 10.0), ("dipvae2", 1.0)):
        folder = tmp_path / f"folder_images_{method}_beta1_gamma10_seed0"
        assert load_checkpoint(folder)["config"]["dip_ratio"] == ratio
    assert run_train(*flags, *sweep) == 0  # nothing is left to do
    assert "sweep of 6 runs" in (out := capsys.readouterr().out)
    assert "6 finished" in out

    measure = ["--model_path", tmp_path, "--num_batches", 1, "--batch_size", 8, "--device", "cpu"]
    measure += ["--metrics", "losses", "udr", "--threads", 1]
    evaluate.main(list(map(str, [*measure, "--markdown"])))
    heading, _, *rows = capsys.readouterr().out.splitlines()[:5]
    assert heading.startswith("| method | beta | gamma | steps | n | Recon")
    settings = [row.split(" | ")[:5] for row in rows]
    assert settings == [  # in the order of METHODS, whatever that of the folders
        ["| factorvae", "1", "6.4", "4", "2"],
        ["| dipvae1", "1", "10", "4", "2"],
        ["| dipvae2", "1", "10", "4", "2"],
    ]
    evaluate.main(list(map(str, measure)))
    assert "; dipvae2; beta 1; gamma 10; 4 steps" in capsys.readouterr().out
    metrics = json.loads((folder / METRICS_NAME).read_text())
    assert "udr" in metrics["scores"]

    pages = ["--output_dir", tmp_path / "pages", "--device", "cpu", "--threads", 1]
    visualize.main(list(map(str, ["--model_path", tmp_path, *pages])))
    assert "DIP-VAE-II, β = 1, γ = 10, 4 steps" in (tmp_path / "pages/index.html").read_text()


def test_a_sweeps_table_has_the_column_only_where_it_is_filled():
    run = dict(folder="a", method="betavae", beta=4.0, gamma=0.0, seed=0, state="finished")
    run |= dict(steps=5, error="", figures={"recon": 1.0, "kl": 2.0})
    assert "penalty" not in sweep_table([run])
    other = {**run, "folder": "b", "method": "annealed", "capacity": 25.0}
    other["figures"] = {"recon": 1.0, "kl": 2.0, "penalty": 3.0}
    assert "3.000" in sweep_table([run, other])
    named = sweep_table([other, {**other, "seed": 1}])
    assert "annealed, beta 4, gamma 0, capacity 25, 2 seeds" in named


# What is written of them


def test_the_page_of_methods_says_what_the_table_of_methods_does():
    lines = (ROOT / "docs/methods.md").read_text().splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| `")]
    rows = [[cell.strip() for cell in row] for row in rows]
    told = {row[0].strip("`"): row for row in rows if len(row) == 6}
    del told["--method"]  # the headings
    assert list(told) == list(METHODS)
    for name, method in METHODS.items():
        config = parse(TrainConfig, "", ["--method", name])
        row = told[name]
        assert (row[1], row[2], row[-1]) == (method.title, method.penalises, method.source)
        assert row[3] == f"{config.beta:g}, {config.gamma:g}"


def test_the_penalty_of_ones_own_on_the_page_trains(sprites, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/methods.md").read_text(), re.S)
    monkeypatch.setitem(DATASETS, "dsprites", lambda data_dir: sprites)
    names = {}
    exec(compile(code, "docs/methods.md", "exec"), names)
    assert float(capsys.readouterr().out) > 0
    assert names["trainer"].discriminator is None
    assert names["trainer"].steps_done == 5
    assert load_model("sparse.pt").latent_dim == 6
    checkpoint = load_checkpoint("sparse.pt")  # and is taken for no FactorVAE
    assert setting_of(checkpoint)["another version's"] == "penalty sparsity"
    (told,) = differing_flags(names["config"], checkpoint["config"])
    assert told == "--penalty is sparsity there and no setting of this version"
    gallery = gallery_of(
        Path("sparse.pt"), checkpoint, sprites, np.arange(2), VisualizeConfig(), "cpu"
    )
    assert gallery.title.startswith("VAE with sparsity on dsprites, step 5, β = 1, γ = 2")


def test_the_profile_of_the_results_has_every_method_with_five_seeds():
    sweeps = PROFILES["methods"]
    configs = [c for s in sweeps for c in parse_sweep(TrainConfig, "", s.flags.split())]
    assert {config.method for config in configs} == set(METHODS)
    settings = {(c.method, c.beta, c.gamma, c.capacity) for c in configs}
    assert len(configs) == 5 * len(settings)
    for name in METHODS:
        default = parse(TrainConfig, "", ["--method", name])
        assert (name, default.beta, default.gamma, default.capacity) in settings


# CUDA and torchrun


@needs_cuda
@pytest.mark.parametrize("method", WITH_FUNCTION)
def test_cuda_graphs_replay_the_same_steps(sprites, same_convolutions, method):
    config = config_of(method, capacity=500.0, capacity_steps=40)
    graphed, eager = (Trainer(config, sprites, "cuda", graphs=graphs) for graphs in (True, False))
    graphed.launcher.graphs.sizes = (2, 1)
    for trainer in (graphed, eager):
        trainer.advance(6)
        trainer.wait()
        assert int(trainer.steps_on_device) == 6
    assert set(graphed.launcher.graphs.recordings) == {2, 1}
    assert same_state(graphed.state_dict(), eager.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["btcvae", "dipvae2"])
def test_torchrun_splits_a_batch_and_has_the_losses_of_one_process(
    method, in_tiny_folder, tmp_path
):
    flags = [*FLAGS, *in_tiny_folder, "--method", method, "--max_steps", 8]
    assert run_train(*flags, "--output_dir", tmp_path / "alone") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [ROOT / "train.py", *flags, "--output_dir", tmp_path / "two"]
    done = subprocess.run(
        list(map(str, command)), env={**os.environ}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    alone, two = (read_log(tmp_path / name) for name in ("alone", "two"))
    for name in ("recon", "kl", "penalty"):
        assert two[name] == pytest.approx(alone[name], rel=1e-3), name
