"""Latents that begin small, and faint ones that begin anew."""

import dataclasses

import pytest
import torch

from factorvae.command_line import parse_sweep
from factorvae.config import TrainConfig
from factorvae.errors import UserError
from factorvae.models import VAE
from factorvae.objective import kl_per_latent
from factorvae.training.trainer import Trainer
from factorvae.training.waking import STD, wake_latents

SMALL = TrainConfig(hidden_dim=16, disc_depth=1, disc_width=16, batch_size=8, log_every=4)
FAINT = [1, 4]  # of 5 latents


@pytest.fixture
def asleep(sprites):
    """A VAE with two latents that say nothing, its optimiser after a step, and images."""
    vae = VAE((1, 64, 64), 5, 16, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(vae.parameters())
    images = sprites.batch(torch.arange(0, 400, 2))
    sum(map(torch.sum, (*vae.encode(images), vae.decode(torch.ones(2, 5))))).backward()
    optimizer.step()
    with torch.no_grad():
        vae.encoder.head.weight.mul_(100).view(2, 5, 16)[:, FAINT] = 0
        vae.encoder.head.bias.view(2, 5)[:, FAINT] = 0.1  # .008 nats
    return vae, optimizer, images.split(64)


def test_faint_latents_begin_anew_and_the_others_stay(asleep):
    vae, optimizer, parts = asleep
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    moments = {p: optimizer.state[p]["exp_avg"].clone() for p in vae.parameters()}
    found = wake_latents(vae, optimizer, parts, torch.Generator().manual_seed(1))
    assert found.nonzero().flatten().tolist() == FAINT

    with torch.no_grad():
        mu, logvar = vae.encode(torch.cat(parts))
    assert mu[:, FAINT].mean(dim=0).abs().max() < 1e-4
    assert torch.allclose(mu[:, FAINT].std(dim=0), torch.tensor(STD), rtol=1e-3)
    assert not logvar[:, FAINT].any()
    assert (kl_per_latent(mu, logvar)[FAINT] > 0.1).all()
    alive = [j for j in range(5) if j not in FAINT]
    for name, shape in (("weight", (2, 5, 16)), ("bias", (2, 5))):
        now, then = (
            x.view(shape) for x in (getattr(vae.encoder.head, name), before[f"encoder.head.{name}"])
        )
        assert torch.equal(now[:, alive], then[:, alive])
    hidden = vae.decoder.hidden.weight
    assert torch.equal(hidden[:, alive], before["decoder.hidden.weight"][:, alive])
    assert (hidden[:, FAINT] != before["decoder.hidden.weight"][:, FAINT]).all()
    for name in {*before} - {"encoder.head.weight", "encoder.head.bias", "decoder.hidden.weight"}:
        assert torch.equal(vae.state_dict()[name], before[name])

    for parameter, then in moments.items():
        now = optimizer.state[parameter]["exp_avg"]
        if parameter is hidden:
            assert torch.equal(now[:, alive], then[:, alive]) and not now[:, FAINT].any()
        elif parameter.shape[0] == 10:  # the head's rows
            now, then = now.view(2, 5, -1), then.view(2, 5, -1)
            assert torch.equal(now[:, alive], then[:, alive]) and not now[:, FAINT].any()
        else:
            assert torch.equal(now, then)


def test_where_none_is_faint_nothing_changes(asleep):
    vae, optimizer, parts = asleep
    wake_latents(vae, optimizer, parts, torch.Generator().manual_seed(1))
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    assert not wake_latents(vae, optimizer, parts, torch.Generator().manual_seed(2)).any()
    assert all(torch.equal(weight, before[name]) for name, weight in vae.state_dict().items())


def test_a_run_wakes_latents_at_its_steps_and_at_no_others(sprites, monkeypatch):
    woken = []

    def note(vae, optimizer, parts, generator):
        shape = torch.cat([*parts]).shape
        woken.append((trainer.steps_done, shape, generator.initial_seed()))

    monkeypatch.setattr("factorvae.training.waking.wake_latents", note)
    trainer = Trainer(dataclasses.replace(SMALL, wake_at=(7, 3, 4)), sprites)
    for until in (2, 4, 7):
        trainer.advance(until - trainer.steps_done)
    assert [step for step, _, _ in woken] == [3, 4]  # 7: no step would train them any more
    trainer.advance()
    assert [step for step, _, _ in woken] == [3, 4, 7]
    assert {shape for _, shape, _ in woken} == {(1024, 1, 64, 64)}
    assert len({seed for _, _, seed in woken}) == 3

    never = Trainer(SMALL, sprites)
    never.advance(4)
    assert len(woken) == 3


def test_steps_of_waking_are_in_order_and_as_checkpoints_once_had_them():
    for given, known in ((None, None), (0, None), (5, (5,)), ([9, 2, 9], (2, 9)), ((), None)):
        config = dataclasses.replace(SMALL, wake_at=given)
        assert config.wake_at == known
        assert hash(config) == hash(dataclasses.replace(SMALL, wake_at=known))
    (config,) = parse_sweep(TrainConfig, "", ["--wake_at", "9", "2"])
    assert config.wake_at == (2, 9)


def test_first_weights_of_the_latents_are_scaled_and_no_others():
    def weights(scale):
        generator = torch.Generator().manual_seed(0)
        return VAE((1, 32, 32), 4, 8, generator, latent_scale=scale).state_dict()

    whole, small = weights(1.0), weights(0.25)
    scaled = {name for name in whole if not torch.equal(whole[name], small[name])}
    assert scaled == {"encoder.head.weight", "decoder.hidden.weight"}
    assert all(torch.equal(small[name], whole[name] / 4) for name in scaled)
    own = torch.nn.Linear(2, 2)  # weights of one's own are left as they are
    mine = VAE((1, 32, 32), 4, 8, latent_scale=0.25, encoder=own, decoder=own)
    assert mine.encoder is own


def test_networks_of_ones_own_cannot_be_woken(sprites):
    class Own(torch.nn.Module):
        pass

    vae = VAE((1, 64, 64), 10, encoder=Own(), decoder=Own())
    with pytest.raises(UserError, match="wake_at is for the paper's"):
        Trainer(dataclasses.replace(SMALL, wake_at=(3,)), sprites, vae=vae)
