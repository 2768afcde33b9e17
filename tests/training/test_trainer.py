"""The step against the textbook's, exact resumption, and the run's bookkeeping."""

import copy
import dataclasses
import gc
import math
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.textbook import TextbookTrainer
from factorvae import checkpoint
from factorvae.config import TrainConfig
from factorvae.datasets import table
from factorvae.errors import UserError
from factorvae.files import CHECKPOINT_NAME, LOG_NAME, STATS_NAME
from factorvae.objective import (
    discriminator_loss,
    kl_divergence,
    permute_dims,
    recon_loss,
    reparameterize,
    total_correlation,
)
from factorvae.progress import Progress
from factorvae.run_log import RunLog, columns, read_log
from factorvae.training import loop
from factorvae.training.batches import Batches
from factorvae.training.distributed import ALONE
from factorvae.training.loop import beyond, fit, shortfalls, total_steps
from factorvae.training.signals import StopSignals
from factorvae.training.trainer import Trainer, derive_seed
from tests.helpers import no_wait_for_the_device, rows_but_speed, same_state

SMALL = TrainConfig(hidden_dim=16, disc_depth=2, disc_width=24, batch_size=8, log_every=4)
CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def batches(dataset, batch_size, device="cpu"):
    generator = torch.Generator().manual_seed(3)
    index = torch.randint(len(dataset), (2 * batch_size,), generator=generator)
    return dataset.batch(index.to(device), device).split(batch_size)


def train(dataset, run_dir, config, until):
    """What train.py does between the flags and the last line."""
    run_dir.mkdir(exist_ok=True)
    trainer = Trainer(config, dataset, CPU)
    if (run_dir / CHECKPOINT_NAME).exists():
        trainer.load_state_dict(checkpoint.load_checkpoint(run_dir))
    header = columns(config.latent_dim)
    with RunLog(run_dir, header, trainer.steps_done, config.log_every) as log:
        run_fit(trainer, log, run_dir, until)
    return trainer


def run_fit(trainer, log, run_dir, until):
    for _ in fit(trainer, log, run_dir, until, StopSignals(), Progress(until, trainer.steps_done)):
        assert trainer.steps_done <= until


def test_between_two_launches_others_have_their_turn_and_it_waits_only_to_write(
    sprites, tmp_path, monkeypatch
):
    monkeypatch.setitem(loop.STEPS_AT_ONCE, "cpu", 3)
    trainer = Trainer(SMALL, sprites, CPU)  # a row every four steps
    waits, turns = [], []
    monkeypatch.setattr(trainer, "wait", lambda: waits.append(trainer.steps_done))
    with RunLog(tmp_path, columns(10), 0, SMALL.log_every) as log:
        for _ in fit(trainer, log, tmp_path, 10, StopSignals(), Progress(10, 0)):
            turns.append(trainer.steps_done)
    assert turns == [3, 4, 7, 8, 10]
    assert waits == [4, 8, 10, 10]  # the rows, and the checkpoint at the end


@pytest.mark.parametrize("gamma", [6.4, 35.0])
def test_three_steps_are_the_textbooks(sprites, gamma):
    config = dataclasses.replace(SMALL, gamma=gamma, beta=2.0, lr=1e-3, lr_disc=3e-4)
    ours = Trainer(config, sprites, CPU)
    book = TextbookTrainer(1, 10, 16, 2, 24, beta=2.0, gamma=gamma, lr=1e-3, lr_disc=3e-4)
    pairs = [
        *zip(ours.vae.parameters(), book.vae.parameters(), strict=True),
        *zip(ours.discriminator.parameters(), book.discriminator.parameters(), strict=True),
    ]
    for parameter, twin in pairs:
        twin.data.copy_(parameter.data)
    start = [parameter.detach().clone() for parameter, _ in pairs]
    x1, x2 = batches(sprites, 8)
    generator = torch.Generator()
    for step in range(3):
        ours.generator.manual_seed(step)
        figures = ours.step(x1, x2)
        expected = book.step(x1, x2, generator.manual_seed(step))
        shown = dict(zip(ours.figures.names, figures.tolist(), strict=True))
        for name, value in zip(("recon", "kl", "tc", "disc_loss"), expected, strict=True):
            assert shown[name] == pytest.approx(value, rel=1e-3, abs=1e-5)
    for (parameter, twin), before in zip(pairs, start, strict=True):
        moved = (twin - before).norm()
        assert moved > 0
        assert (parameter - twin).norm() < 0.02 * moved


def test_a_step_leaves_only_the_vaes_loss_in_the_vaes_gradients(sprites):
    trainer = Trainer(SMALL, sprites, CPU)
    x1, x2 = batches(sprites, 8)
    draws = torch.Generator().manual_seed(0)
    mu, logvar = trainer.vae.encode(x1)
    z = reparameterize(mu, logvar, torch.randn(mu.shape, generator=draws))
    recon = recon_loss(trainer.vae.decode(z), x1)
    tc = total_correlation(trainer.discriminator(z))
    loss = recon + SMALL.beta * kl_divergence(mu, logvar) + SMALL.gamma * tc
    expected = torch.autograd.grad(loss, list(trainer.vae.parameters()))
    trainer.generator.manual_seed(0)
    trainer.step(x1, x2)
    for parameter, gradient in zip(trainer.vae.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gamma", [1e-12, 6.4])
def test_a_step_leaves_only_the_discriminators_loss_in_its_gradients(sprites, gamma):
    trainer = Trainer(dataclasses.replace(SMALL, gamma=gamma), sprites, CPU)
    x1, x2 = batches(sprites, 8)
    discriminator = copy.deepcopy(trainer.discriminator)
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 10, generator=draws)
    z = reparameterize(*trainer.vae.encode(x1), noise).detach()
    trainer.generator.manual_seed(0)
    trainer.step(x1, x2)
    # the second batch is encoded by the encoder that the first has updated
    z2 = reparameterize(*trainer.vae.encode(x2), torch.randn(8, 10, generator=draws)).detach()
    z_perm = permute_dims(z2, draws)
    loss = discriminator_loss(discriminator(z), discriminator(z_perm))
    expected = torch.autograd.grad(loss, list(discriminator.parameters()))
    for parameter, gradient in zip(trainer.discriminator.parameters(), expected, strict=True):
        assert gradient.any()
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)


def test_every_step_draws_two_batches_by_seed_and_step(sprites):
    """Independent of one another, of the steps before, and of what the generator did since."""
    seen = []

    def record(trainer):
        def step(x1, x2):
            seen.append((x1, x2))
            return torch.zeros(len(trainer.figures.names))

        return step

    for before in (0, 1):
        trainer = Trainer(SMALL, sprites, CPU)
        trainer.step = record(trainer)
        for _ in range(before):
            torch.randn(100, generator=trainer.generator)
        trainer.advance()
        torch.randn(7 * before, generator=trainer.generator)
        trainer.advance()
    for (x1, x2), (again1, again2) in zip(seen[:2], seen[2:], strict=True):
        assert torch.equal(x1, again1)
        assert torch.equal(x2, again2)
        assert x1.shape == x2.shape == (8, 1, 64, 64)
        assert not torch.equal(x1, x2)
    assert not torch.equal(seen[0][0], seen[1][0])


def test_every_image_is_drawn(sprites):
    index = Batches(sprites, 2, 4096, CPU, ALONE)._index(torch.Generator().manual_seed(0))
    assert index.unique().tolist() == [*range(len(sprites))]


def test_the_discriminators_loss_leaves_the_vae_alone(sprites):
    """With the TC term's weight next to nothing, the VAE moves as if it were not there."""
    trainers = [
        Trainer(dataclasses.replace(SMALL, gamma=gamma), sprites, CPU) for gamma in (0.0, 1e-12)
    ]
    x1, x2 = batches(sprites, 8)
    for trainer in trainers:
        trainer.generator.manual_seed(0)
    trainers[0].step(x1, None)
    trainers[1].step(x1, x2)
    without, with_it = (trainer.vae.state_dict() for trainer in trainers)
    for name in without:
        torch.testing.assert_close(with_it[name], without[name], atol=1e-7, rtol=1e-4)


def test_the_vaes_loss_leaves_the_discriminator_alone(sprites):
    """The discriminator's first step does not depend on how much its estimate weighs."""
    states = []
    for gamma in (1e-12, 1.0):
        trainer = Trainer(dataclasses.replace(SMALL, gamma=gamma, lr=1e-12), sprites, CPU)
        trainer.generator.manual_seed(0)
        trainer.step(*batches(sprites, 8))
        states.append(trainer.discriminator.state_dict())
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], atol=1e-7, rtol=1e-4)


def test_gamma_zero_has_no_discriminator(sprites, tmp_path):
    trainer = train(sprites, tmp_path, dataclasses.replace(SMALL, gamma=0.0, beta=4.0), 4)
    assert trainer.discriminator is None
    assert int(trainer.steps_on_device) == 4  # counted whether a term of the loss asks or not
    assert checkpoint.load_checkpoint(tmp_path)["discriminator"] is None
    log = read_log(tmp_path)
    assert math.isnan(log["tc"][0])
    assert log["recon"][0] > 0


@pytest.fixture(scope="module")
def whole(sprites, tmp_path_factory):
    """The folder of a run of 14 steps that was never stopped."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    train(sprites, folder, SMALL, 14)
    return folder


@pytest.mark.parametrize("stops", [(9,), (4, 8), (3, 5, 11)])
def test_stopping_and_resuming_changes_no_bit(sprites, whole, tmp_path, stops):
    parts = tmp_path / "parts"
    for until in (*stops, 14):
        train(sprites, parts, SMALL, until)
    one, other = (checkpoint.load_checkpoint(run_dir) for run_dir in (whole, parts))
    assert same_state(one, other)
    assert rows_but_speed(whole) == rows_but_speed(parts)
    assert len(rows_but_speed(whole)) == 1 + 4  # the header; steps 4, 8, 12 and 14


def test_a_log_longer_than_its_checkpoint_is_cut_back(sprites, tmp_path):
    """A killed run has logged rows that its last checkpoint does not know of."""
    run_dir = tmp_path / "run"
    train(sprites, run_dir, SMALL, 8)
    early = (run_dir / CHECKPOINT_NAME).read_bytes()
    train(sprites, run_dir, SMALL, 16)
    expected = rows_but_speed(run_dir)
    (run_dir / CHECKPOINT_NAME).write_bytes(early)
    train(sprites, run_dir, SMALL, 16)
    assert rows_but_speed(run_dir) == expected


def test_seeds_give_different_streams_and_the_same_seed_the_same(sprites, tmp_path):
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        runs[name] = train(sprites, tmp_path / name, dataclasses.replace(SMALL, seed=seed), 3)
    weights = {name: trainer.vae.encoder.head.weight for name, trainer in runs.items()}
    assert torch.equal(weights["a"], weights["b"])
    assert not torch.equal(weights["a"], weights["c"])
    seeds = {derive_seed(seed, step) for seed in range(30) for step in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_log_tells_the_pace_of_the_steps_made_here(sprites, tmp_path, monkeypatch):
    """Of a clock on which every step takes a second."""
    seconds = [0.0]
    advance = Trainer.advance

    def timed(trainer, steps):
        advance(trainer, steps)
        seconds[0] += steps

    monkeypatch.setattr(Trainer, "advance", timed)
    monkeypatch.setattr(loop, "monotonic", lambda: seconds[0])
    for until in (6, 12):  # it goes on within a row
        train(sprites, tmp_path, SMALL, until)
    log = read_log(tmp_path)
    assert log["step"].tolist() == [4, 8, 12]
    assert log["images_per_second"].tolist() == [8.0] * 3


def test_the_log_holds_means_over_its_window(sprites, tmp_path):
    train(sprites, tmp_path / "every", dataclasses.replace(SMALL, log_every=1), 4)
    train(sprites, tmp_path / "fourth", SMALL, 4)
    every, fourth = (read_log(tmp_path / name) for name in ("every", "fourth"))
    for column in ("recon", "kl", "tc", "disc_loss", "disc_accuracy", "kl_3"):
        assert fourth[column][0] == pytest.approx(every[column].mean(), rel=1e-9)
    kl_sum = sum(fourth[f"kl_{j}"][0] for j in range(10))
    assert kl_sum == pytest.approx(fourth["kl"][0], rel=1e-5)
    assert every["step"].tolist() == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_stops_the_run(sprites, tmp_path):
    train(sprites, tmp_path, SMALL, 4)
    good = (tmp_path / CHECKPOINT_NAME).read_bytes()
    trainer = Trainer(SMALL, sprites, CPU)
    trainer.load_state_dict(checkpoint.load_checkpoint(tmp_path))
    for _ in range(2):
        trainer.advance()
    trainer.vae.decoder.upconvs[-1].bias.data.fill_(math.nan)  # poison the seventh step
    with (
        RunLog(tmp_path, columns(10), 6, SMALL.log_every) as log,
        pytest.raises(UserError, match="recon is not finite at step 7.*--lr"),
    ):
        run_fit(trainer, log, tmp_path, 12)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == good


@pytest.mark.parametrize("part", ["VAE", "discriminator"])
def test_moments_that_are_not_finite_are_not_saved(sprites, tmp_path, part):
    """The square of a gradient overflows where weights and losses do not, and no run resumes it."""
    train(sprites, tmp_path, SMALL, 4)
    good = (tmp_path / CHECKPOINT_NAME).read_bytes()
    trainer = Trainer(SMALL, sprites, CPU)
    trainer.load_state_dict(checkpoint.load_checkpoint(tmp_path))
    optimizer = trainer.vae_optimizer if part == "VAE" else trainer.disc_optimizer
    next(iter(optimizer.state.values()))["exp_avg_sq"][0] = math.inf
    with (
        RunLog(tmp_path, columns(10), 4, SMALL.log_every) as log,
        pytest.raises(UserError, match=f"Adam's moments of the {part} are not finite after step 6"),
    ):
        run_fit(trainer, log, tmp_path, 6)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == good


def test_weights_that_are_not_finite_are_not_saved(sprites, tmp_path):
    """The figures of a step are those before its update, which may be what fails."""
    train(sprites, tmp_path, SMALL, 4)
    good = (tmp_path / CHECKPOINT_NAME).read_bytes()
    config = dataclasses.replace(SMALL, lr_disc=1e39)
    trainer = Trainer(config, sprites, CPU)
    with (
        pytest.raises(
            UserError,
            match="the discriminator is not finite after step 1.*--lr_disc, --beta or --gamma",
        ),
        RunLog(tmp_path, columns(10), 0, 1) as log,
    ):
        run_fit(trainer, log, tmp_path, 1)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == good
    assert "error: the discriminator is not finite" in (tmp_path / LOG_NAME).read_text()


BF16 = pytest.param({"precision": "bf16"}, marks=pytest.mark.slow)  # emulated on most processors


WOKEN = {"latent_scale": 1e-3, "wake_at": (4,), "turn_at": (5,)}


OF_ALL_CODES = {"disc_standardize": True, "turn_at": (2,)}


WAITING = {"first_latents": 2, "add_at": (2,), "wake_at": (4,)}


@pytest.mark.parametrize("changes", [BF16, {"gamma": 0.0}, WOKEN, OF_ALL_CODES, WAITING])
@pytest.mark.usefixtures("few_images")
def test_other_kinds_of_runs_resume_exactly_too(sprites, tmp_path, changes):
    config = dataclasses.replace(SMALL, **changes)
    train(sprites, tmp_path / "whole", config, 6)
    for until in (3, 6):
        train(sprites, tmp_path / "parts", config, until)
    one, other = (checkpoint.load_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert same_state(one, other)


def test_a_torn_log_is_read_as_far_as_it_is_whole(sprites, tmp_path):
    train(sprites, tmp_path, SMALL, 8)
    path = tmp_path / STATS_NAME
    whole = path.read_text()
    path.write_text(whole + "12,3.0\n\0\0\0\nabc,1\n16")
    assert read_log(tmp_path)["step"].tolist() == [4, 8]
    train(sprites, tmp_path, SMALL, 12)
    assert read_log(tmp_path)["step"].tolist() == [4, 8, 12]
    path.write_text(path.read_text().replace("recon", "rec0n", 1))
    assert len(read_log(tmp_path)["step"]) == 0
    train(sprites, tmp_path, SMALL, 16)  # which knows its columns
    assert read_log(tmp_path)["step"].tolist() == [4, 8, 12, 16]


def test_losses_fall(sprites, tmp_path):
    config = dataclasses.replace(SMALL, lr=3e-3, log_every=10)
    train(sprites, tmp_path, config, 60)
    log = read_log(tmp_path)
    assert log["recon"][-1] < 0.5 * log["recon"][0]
    assert 0.3 < log["disc_accuracy"][0] < 0.7


def test_a_run_ends_with_its_epochs_or_its_steps():
    assert total_steps(TrainConfig(), 737_280) == 576_000
    assert total_steps(TrainConfig(num_epochs=2, batch_size=100), 250) == 4
    assert total_steps(TrainConfig(max_steps=300_000), 737_280) == 300_000
    assert total_steps(TrainConfig(max_steps=10**9), 737_280) == 576_000


def test_what_a_run_of_so_many_steps_does_not_come_to():
    config = TrainConfig(beta_start=4.0, anneal_until=5, turn_at=(2, 4), wake_at=(6,))
    assert beyond(config, 7) == beyond(TrainConfig(), 1) == []
    assert beyond(config, 6) == ["--wake_at 6"]
    assert beyond(config, 5) == ["--wake_at 6"]  # its last step has beta itself
    assert beyond(config, 4) == ["--anneal_until 5", "--turn_at 4", "--wake_at 6"]
    annealed = TrainConfig(method="annealed", capacity_steps=5)
    assert beyond(annealed, 5) == ["--capacity_steps 5"]
    assert beyond(annealed, 6) == []
    assert beyond(TrainConfig(turn_at=(2, 4, 9)), 4) == ["--turn_at 4 9"]
    assert shortfalls(TrainConfig(num_epochs=2, max_steps=9), 4) == [
        "--num_epochs 2 ends it before --max_steps 9"
    ]


class OperationNames(TorchDispatchMode):
    """The names of all operations called within."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", [{}, {"gamma": 0.0}, {"precision": "bf16"}])
def test_a_step_calls_nothing_that_waits_or_whose_shape_is_not_known(sprites, changes):
    """What a CUDA graph cannot hold: numbers read by the host, and shapes that depend on values."""
    trainer = Trainer(dataclasses.replace(SMALL, **changes), sprites, CPU)
    trainer.advance()
    with OperationNames() as called:
        trainer._draw_and_step()
    assert any("convolution" in name for name in called.names)
    forbidden = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
    assert not [name for name in called.names if name.split(".")[1] in forbidden]


def test_a_table_that_stays_with_the_host_gives_the_images_of_seed_and_step(sprites):
    class OnHost:
        """The sprites, as if the device had no room for them."""

        image_shape = sprites.image_shape
        batch = staticmethod(sprites.batch)

        def __len__(self):
            return len(sprites)

        def index_device(self, device):
            return torch.device("meta")

    seen = []
    for dataset in (OnHost(), sprites):
        trainer = Trainer(SMALL, dataset, CPU)

        def step(x1, x2):
            seen.append(torch.cat([x1, x2]))
            return torch.zeros(15)

        trainer.step = step
        trainer.advance(2)
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_a_checkpoint_of_another_device_goes_on_here(sprites):
    """Its optimisers have other settings there, and its generator another state."""
    one, other = Trainer(SMALL, sprites, CPU), Trainer(SMALL, sprites, CPU)
    one.advance(3)
    state = copy.deepcopy(one.state_dict())
    for optimizer in ("vae_optimizer", "disc_optimizer"):
        state[optimizer]["param_groups"][0]["capturable"] = True
    state["generator"] = torch.zeros(16, dtype=torch.uint8)  # as long as CUDA's
    other.load_state_dict(state)
    for trainer in (one, other):
        trainer.advance(2)
    assert same_state(one.state_dict(), other.state_dict())


def test_two_trainers_of_one_state_do_not_train_each_others_moments(sprites):
    whole, first, second = (Trainer(SMALL, sprites, CPU) for _ in range(3))
    whole.advance(2)
    state = whole.state_dict()  # its tensors are the trainer's own, on the same device
    for trainer in (first, second):
        trainer.load_state_dict(state)
    for trainer in (whole, first, second):
        trainer.advance(2)
    for trainer in (first, second):
        assert same_state(trainer.state_dict(), whole.state_dict())


@pytest.mark.parametrize("changes", [{}, {"gamma": 0.0}])
def test_a_trainer_that_ended_is_gone_without_a_garbage_collection(sprites, changes):
    gc.collect()
    gc.disable()
    try:
        trainer = Trainer(dataclasses.replace(SMALL, **changes), sprites, CPU)
        trainer.advance(2)
        kept = weakref.ref(trainer), weakref.ref(trainer.vae), weakref.ref(trainer.launcher)
        trainer.close()
        del trainer
        assert [reference() for reference in kept] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.slow
def test_compiled_steps_are_the_same(sprites):
    """As far as torch.compile traces them; making code of that takes minutes."""
    plain = Trainer(SMALL, sprites, CPU)
    traced = Trainer(SMALL, sprites, CPU)
    compiler = dict(backend="aot_eager", fullgraph=True)
    traced.vae.compile(**compiler)
    traced.vae.encoder.compile(**compiler)
    for trainer in (plain, traced):
        trainer.advance(2)
    for network in ("vae", "discriminator"):
        one, other = (getattr(trainer, network).state_dict() for trainer in (plain, traced))
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-5)


CUDA = torch.device("cuda", 0)


def on_cuda(config, dataset, graphs=True):
    """A trainer that, with graphs, needs six steps to record both of its sizes."""
    trainer = Trainer(config, dataset, CUDA, graphs=graphs)
    if trainer.launcher.graphs and not trainer.batches.on_host:
        trainer.launcher.graphs.sizes = (2, 1)
    return trainer


def assert_same_bits(one, other):
    """Networks, moments, generators and figures, once all steps are made."""
    for trainer in (one, other):
        trainer.wait()
    assert same_state(one.state_dict(), other.state_dict())


@needs_cuda
def test_cuda_steps_agree_with_the_cpu_and_wait_for_nothing(sprites):
    config = dataclasses.replace(SMALL, lr=1e-3)
    cpu, gpu = Trainer(config, sprites, CPU), Trainer(config, sprites, CUDA)
    x1, x2 = batches(sprites, 8)
    for trainer in (cpu, gpu):  # both draw the same noise, on the host
        draws = torch.Generator().manual_seed(1)
        trainer._noise = lambda g=draws, d=trainer.device: torch.randn(8, 10, generator=g).to(d)
    on_cpu = cpu.step(x1, x2)
    on_gpu = gpu.step(x1.to(CUDA), x2.to(CUDA)).cpu()
    torch.testing.assert_close(on_gpu[:3], on_cpu[:3], rtol=1e-2, atol=1e-3)
    gpu = Trainer(config, sprites, CUDA, graphs=False)
    gpu.advance()
    with no_wait_for_the_device():
        gpu.advance()
    gpu.wait()
    assert gpu.figures.means()["recon"] > 0


@needs_cuda
@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"gamma": 0.0}, WOKEN, WAITING])
def test_cuda_graphs_make_the_steps_that_the_eager_path_makes(sprites, same_convolutions, changes):
    config = dataclasses.replace(SMALL, lr=1e-3, **changes)
    eager, graphed = (on_cuda(config, sprites, graphs) for graphs in (False, True))
    for trainer in (eager, graphed):
        trainer.advance(6)
    assert_same_bits(eager, graphed)
    assert set(graphed.launcher.graphs.recordings) == {2, 1}
    assert graphed.figures.finite_steps.tolist() == [6] * len(graphed.figures.names)


@needs_cuda
@pytest.mark.parametrize("changes", [{}, OF_ALL_CODES])
def test_cuda_a_resumed_graphed_run_continues_its_stream(sprites, same_convolutions, changes):
    config = dataclasses.replace(SMALL, **{**changes, "turn_at": None})
    whole, parts, resumed = (on_cuda(config, sprites) for _ in range(3))
    whole.advance(12)
    parts.advance(6)
    parts.wait()
    state = copy.deepcopy(parts.state_dict())
    for trainer in (parts, resumed):  # both one that has recorded already, and a fresh one
        trainer.load_state_dict(state)
        trainer.advance(6)
        assert_same_bits(trainer, whole)
    assert set(resumed.launcher.graphs.recordings) == {2, 1}


@needs_cuda
def test_cuda_runs_at_the_same_time_are_as_alone(sprites, same_convolutions):
    configs = [dataclasses.replace(SMALL, seed=seed, lr=1e-3) for seed in range(3)]
    alone, together = ([on_cuda(config, sprites) for config in configs] for _ in range(2))
    for trainer in alone:
        trainer.advance(6)
        trainer.advance(4)
        trainer.wait()
    for steps in (6, 4):
        for trainer in together:
            trainer.advance(steps)
    for one, other in zip(alone, together, strict=True):
        assert_same_bits(one, other)


@needs_cuda
def test_cuda_graphs_read_a_table_that_stays_with_the_host(monkeypatch, same_convolutions):
    monkeypatch.setattr(table, "LARGEST_SHARE_OF_DEVICE", 0.0)
    levels = np.random.default_rng(0).integers(0, 256, (64, 1, 64, 64), dtype=np.uint8)
    trainers = []
    for graphs in (False, True):
        dataset = table.Dataset("noise", "made", table.Pixels(levels))
        trainers.append(on_cuda(SMALL, dataset, graphs))
        assert trainers[-1].batches.on_host
        trainers[-1].advance(6)
    assert_same_bits(*trainers)


@needs_cuda
def test_cuda_a_run_from_start_to_end(sprites, tmp_path):
    trainer = Trainer(SMALL, sprites, CUDA)
    with RunLog(tmp_path, columns(10), 0, SMALL.log_every) as log:
        run_fit(trainer, log, tmp_path, 26)
    assert read_log(tmp_path)["step"].tolist() == [4, 8, 12, 16, 20, 24, 26]
    saved = checkpoint.load_checkpoint(tmp_path)
    on_cpu = Trainer(SMALL, sprites, CPU)
    on_cpu.load_state_dict(saved)
    on_cpu.advance()
    on_cpu.check_weights()
    assert on_cpu.steps_done == 27
