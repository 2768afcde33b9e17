"""Several starts, of which the best goes on."""

import copy
import dataclasses

import pytest
import torch

from factorvae.config import TrainConfig, parse
from factorvae.errors import UserError
from factorvae.models import VAE
from factorvae.objective import kl_divergence, recon_loss, reparameterize
from factorvae.training.starts import loss_of
from factorvae.training.trainer import Trainer
from tests.helpers import same_state

SMALL = TrainConfig(hidden_dim=16, disc_depth=2, disc_width=24, batch_size=8, log_every=4)
THREE = dataclasses.replace(SMALL, starts=3, start_steps=2)
NETWORKS = ("vae", "vae_optimizer", "discriminator", "disc_optimizer")


def networks_of(trainer):
    state = copy.deepcopy(trainer.state_dict())
    return {name: state[name] for name in NETWORKS}


@pytest.fixture
def losses(monkeypatch):
    """What the three starts are said to have, in place of their own; the second is the best."""
    told = [3.0, 1.0, 2.0]
    asked = []

    def loss(vae, parts, beta, generator):
        asked.append((beta, torch.cat([*parts])))
        return told[len(asked) - 1]

    monkeypatch.setattr("factorvae.training.starts.loss_of", loss)
    return asked


def test_the_loss_is_that_of_eq_2_without_the_total_correlation():
    generator = torch.Generator().manual_seed(0)
    vae = VAE((1, 32, 32), 3, 8, generator)
    x = torch.rand(6, 1, 32, 32, generator=generator)
    noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mu, logvar = vae.encode(x)
        recon = recon_loss(vae.decode(reparameterize(mu, logvar, noise)), x)
        whole = recon + 4 * kl_divergence(mu, logvar)
    found = loss_of(vae, x.split(2), 4.0, torch.Generator().manual_seed(1))
    assert found == pytest.approx(float(whole), rel=1e-5)


def test_the_start_of_the_lowest_loss_goes_on(sprites, losses):
    trainer = Trainer(THREE, sprites)
    ends = []
    for _ in range(3):
        trainer.advance(2)
        ends.append(networks_of(trainer))
    assert len(losses) == 2  # the last start is compared before the step that would follow
    assert not same_state(ends[0], ends[1]) and not same_state(ends[1], ends[2])
    as_chosen = Trainer(SMALL, sprites)
    as_chosen.load_state_dict({**copy.deepcopy(trainer.state_dict()), **ends[1]})
    for each in (trainer, as_chosen):
        each.advance(6)  # no start ends any more
    assert same_state(networks_of(trainer), networks_of(as_chosen))
    assert trainer.best_start is None and trainer.steps_done == 12

    assert [beta for beta, _ in losses] == [1.0] * 3
    images = [images for _, images in losses]  # the same for all
    assert images[0].shape == (4096, 1, 64, 64)
    assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])
    lines = trainer.take_news()
    assert lines[0] == "start 1 of 3: reconstruction + 1 KL = 3.0"
    assert lines[2] == "start 3 of 3: reconstruction + 1 KL = 2.0; start 2 goes on"
    assert len(lines) == 3 and trainer.take_news() == []


def test_the_first_start_is_the_run_of_one(sprites):
    one, several = Trainer(SMALL, sprites), Trainer(THREE, sprites)
    for trainer in (one, several):
        trainer.advance(2)
    assert same_state(networks_of(one), networks_of(several))
    assert one.starts_end_at == ()


def test_a_start_begins_with_weights_of_its_own_and_no_moments(sprites):
    config = dataclasses.replace(THREE, latent_scale=0.5, disc_batches=2)
    trainer = Trainer(config, sprites)
    first = networks_of(trainer)
    trainer.advance(2)
    trainer._end_start()
    second = networks_of(trainer)
    for name, weight in first["vae"].items():
        size = second["vae"][name].square().mean()
        assert weight.square().mean() == pytest.approx(size, rel=0.5), name
        assert torch.equal(weight, second["vae"][name]) == name.endswith("bias"), name
    recent = [state["discriminator"]["recent"] for state in (first, second)]
    assert recent[1].std() == pytest.approx(1, rel=0.2) and not torch.equal(*recent)
    assert second["vae_optimizer"]["state"] == second["disc_optimizer"]["state"] == {}


@pytest.mark.parametrize("gamma", [6.4, 0.0])
def test_a_run_that_is_gone_on_with_keeps_the_best_start(sprites, gamma):
    config = dataclasses.replace(THREE, gamma=gamma)
    whole = Trainer(config, sprites)
    whole.advance(9)
    for stop in (2, 3, 5, 6):
        parts, resumed = Trainer(config, sprites), Trainer(config, sprites)
        parts.advance(stop)
        resumed.load_state_dict(copy.deepcopy(parts.state_dict()))
        assert (resumed.best_start is None) == (stop == 2)
        resumed.advance(9 - stop)
        assert same_state(resumed.state_dict(), whole.state_dict()), stop


def test_starts_that_would_not_be_alike_are_refused():
    def refused(words):
        with pytest.raises(UserError) as raised:
            parse(TrainConfig, "", words.split())
        return str(raised.value)

    three = "--starts 3 --start_steps 100"
    told = "is before step 300, where the last of --starts 3 ends"
    assert refused(f"{three} --turn_at 400 299") == f"--turn_at 299 {told}"
    assert refused(f"{three} --wake_at 5") == f"--wake_at 5 {told}"
    annealed = f"{three} --beta_start 4 --anneal_until 900"
    assert refused(f"{annealed} --anneal_from 299") == f"--anneal_from 299 {told}"
    assert "another capacity in every one" in refused(f"{three} --method annealed")
    words = f"{annealed} --anneal_from 300 --turn_at 300 --wake_at 300".split()
    assert parse(TrainConfig, "", words).chosen_at() == 300
    assert parse(TrainConfig, "", "--turn_at 5 --start_steps 100".split()).chosen_at() == 0


def test_networks_of_ones_own_cannot_begin_anew(sprites):
    class Own(torch.nn.Module):
        pass

    vae = VAE((1, 64, 64), 10, encoder=Own(), decoder=Own())
    with pytest.raises(UserError, match="starts is for the paper's"):
        Trainer(THREE, sprites, vae=vae)


def test_the_discriminator_remembers_until_its_step(sprites, monkeypatch):
    config = dataclasses.replace(SMALL, disc_batches=3, disc_batches_until=2)
    trainer = Trainer(config, sprites)
    seen = []
    trainer.discriminator.register_forward_hook(lambda _, codes, __: seen.append(len(codes[0])))
    trainer.advance(4)
    assert seen[1::2] == [2 * 24, 2 * 24, 2 * 8, 2 * 8]  # those that it trains on
    assert trainer._steps_until(9) == 5
    fresh = Trainer(config, sprites)
    assert fresh._steps_until(9) == 2  # where a graph of steps must end
