"""Latents that are turned to where they are independent."""

import copy
import dataclasses
import math

import pytest
import torch

from factorvae.config import TrainConfig
from factorvae.models import VAE, Discriminator
from factorvae.objective import kl_per_latent, recon_loss, reparameterize, total_correlation
from factorvae.training.trainer import Trainer
from factorvae.training.turning import independent_directions, turn_latents
from tests.helpers import same_state

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SMALL = TrainConfig(hidden_dim=16, disc_depth=1, disc_width=16, batch_size=8, log_every=4)


def draws(seed=0):
    """Codes [4096, 4]: two uniform ones, a die's throws and a normal one, of variance 1."""
    generator = torch.Generator().manual_seed(seed)
    uniform = math.sqrt(12) * (torch.rand(4096, 2, generator=generator) - 0.5)
    die = torch.randint(6, (4096, 1), generator=generator) - 2.5
    return torch.cat([uniform, die / die.std(), torch.randn(4096, 1, generator=generator)], dim=1)


def turned_by(degrees, i, j, size=4):
    """The rotation that turns latents i and j."""
    angle = math.radians(degrees)
    turn = torch.eye(size)
    turn[i, i] = turn[j, j] = math.cos(angle)
    turn[i, j], turn[j, i] = math.sin(angle), -math.sin(angle)
    return turn


@pytest.mark.parametrize(("degrees", "pair"), [(30, (0, 1)), (-40, (0, 2)), (20, (1, 2))])
def test_independent_latents_that_were_turned_are_turned_back(degrees, pair):
    away = turned_by(degrees, *pair)
    back = independent_directions(draws() @ away.T)
    assert torch.allclose(back @ back.T, torch.eye(4), atol=1e-5)
    assert torch.allclose(back @ away, torch.eye(4), atol=math.radians(2))


def test_latents_of_unequal_variances_are_turned_back_and_stay_there():
    scales = torch.tensor([1.0, 0.8, 0.6, 0.3])
    independent = draws() * scales
    assert torch.equal(independent_directions(independent), torch.eye(4))
    for narrow in (0.4, 0.3):  # turned by 45 degrees, both would tell of the wide one
        pair = draws()[:, [0, 3]] * torch.tensor([1.0, narrow])
        assert torch.equal(independent_directions(pair), torch.eye(2))
    away = turned_by(30, 0, 1)
    assert torch.allclose(
        independent_directions(independent @ away.T) @ away, torch.eye(4), atol=math.radians(2)
    )


def test_all_latents_at_once_are_turned_back():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        away, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
        found = independent_directions(draws() @ away.T) @ away
        assert (found.abs().amax(dim=1) > 0.99).all()  # each of one source, whichever


def test_what_no_direction_makes_more_independent_stays():
    independent = draws(1)
    assert torch.equal(independent_directions(independent), torch.eye(4))
    normal = torch.randn(4096, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(independent_directions(normal), torch.eye(4))
    angle = 2 * math.pi * draws(2)[:, 0]
    circle = torch.stack([angle.sin(), angle.cos()], dim=1)  # as an orientation is told by two
    assert torch.equal(independent_directions(circle), torch.eye(2))


@pytest.fixture
def networks(sprites):
    """A VAE with four live latents, a discriminator, and images."""
    generator = torch.Generator().manual_seed(0)
    vae, disc = VAE((1, 64, 64), 4, 16, generator), Discriminator(4, 2, 16, generator)
    with torch.no_grad():  # none is faint, and their variances differ
        vae.encoder.head.weight.mul_(20)
        vae.encoder.head.bias.copy_(torch.linspace(-3, 1, 8))
    return vae, disc, sprites.batch(torch.arange(0, 400, 5))


def after_a_step(vae, disc, images):
    """Their optimisers, at a rate of 0: only the moments have changed."""
    optimizers = [torch.optim.Adam(network.parameters(), 0.0) for network in (vae, disc)]
    gradients(vae, disc, images)
    for optimizer in optimizers:
        optimizer.step()
    return optimizers


def gradients(vae, disc, images):
    """Of the reconstruction from the means and of their total correlation."""
    for network in (vae, disc):
        network.zero_grad()
    mu, _ = vae.encode(images)
    (recon_loss(vae.decode(mu), images) + total_correlation(disc(mu))).backward()


def test_a_turn_changes_neither_pictures_nor_what_the_discriminator_says(networks, monkeypatch):
    vae, disc, images = networks
    optimizers = after_a_step(vae, disc, images)
    turn = turned_by(30, 0, 2)
    monkeypatch.setattr("factorvae.training.turning.independent_directions", lambda *_: turn)
    with torch.no_grad():
        mu, logvar = vae.encode(images)
        pictures, logits = vae.decode(mu), disc(mu)
        assert (kl_per_latent(mu, logvar) > 1.0).all()
    found = turn_latents(vae, optimizers[0], disc, optimizers[1], mu, logvar)

    assert torch.equal(found, turn)
    with torch.no_grad():
        mu2, logvar2 = vae.encode(images)
        assert torch.allclose(mu2, mu @ turn.T, atol=1e-4)
        assert torch.allclose(vae.decode(mu2), pictures, atol=1e-4)
        assert torch.allclose(disc(mu2), logits, atol=1e-4)
    assert torch.equal(logvar2[:, [1, 3]], logvar[:, [1, 3]])
    mixed = 0.75 * logvar[:, 0] + 0.25 * logvar[:, 2]  # squares of cos 30 and sin 30
    assert torch.allclose(logvar2[:, 0], mixed, atol=1e-4)

    gradients(vae, disc, images)
    for network, optimizer in zip((vae, disc), optimizers, strict=True):
        for parameter in network.parameters():
            first = optimizer.state[parameter]["exp_avg"] / 0.1  # what one step puts there
            assert torch.allclose(first, parameter.grad, rtol=1e-2, atol=1e-3)
            assert (optimizer.state[parameter]["exp_avg_sq"] >= 0).all()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_a_turn_leaves_the_weights_of_other_latents_to_the_bit(
    networks, device, monkeypatch, request
):
    usual = torch.get_float32_matmul_precision()
    request.addfinalizer(lambda: torch.set_float32_matmul_precision(usual))
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA, as training has it
    vae, disc, images = networks
    vae, disc, images = vae.to(device), disc.to(device), images.to(device)
    optimizers = after_a_step(vae, disc, images)
    before = vae.encoder.head.weight.clone(), vae.decoder.hidden.weight.clone()
    turn = turned_by(30, 0, 2).to(device)
    monkeypatch.setattr("factorvae.training.turning.independent_directions", lambda *_: turn)
    with torch.no_grad():
        codes = vae.encode(images)
    turn_latents(vae, optimizers[0], disc, optimizers[1], *codes)
    after = vae.encoder.head.weight, vae.decoder.hidden.weight.T
    for one, other in zip((before[0], before[1].T), after, strict=True):
        same = (one == other).all(dim=1).tolist()
        assert same == [False, True, False, True] * (len(same) // 4)


def squared_gradients(vae, images):
    """Of the head's biases, by the noise of 200 samples, on average: [2 latent_dim]."""
    generator = torch.Generator().manual_seed(0)
    total = 0
    for _ in range(200):
        mu, logvar = vae.encode(images)
        z = reparameterize(mu, logvar, torch.randn(mu.shape, generator=generator))
        (gradient,) = torch.autograd.grad(recon_loss(vae.decode(z), images), vae.encoder.head.bias)
        total = total + gradient.square()
    return total / 200


@pytest.mark.slow
def test_second_moments_after_a_turn_add_up_to_those_of_the_new_gradients(networks, monkeypatch):
    vae, disc, images = networks
    with torch.no_grad():  # one noise for all latents, which no turn changes
        vae.encoder.head.weight[4:] = 0
        vae.encoder.head.bias[4:] = -3
    optimizers = after_a_step(vae, disc, images)
    moments = optimizers[0].state[vae.encoder.head.bias]["exp_avg_sq"]
    moments.copy_(squared_gradients(vae, images[:4]))
    seen = []
    turn = turned_by(45, 0, 2)
    monkeypatch.setattr("factorvae.training.turning.independent_directions", lambda *_: turn)
    with torch.no_grad():
        turn_latents(vae, optimizers[0], disc, optimizers[1], *vae.encode(images))
    for measured in (moments, squared_gradients(vae, images[:4])):  # of the turned, by their sum
        of_mu, of_logvar = measured.view(2, 4)[:, [0, 2]].sum(dim=1).tolist()
        seen.append((of_mu, of_logvar))
    assert seen[0] == pytest.approx(seen[1], rel=0.2)


def moments_of_latents(vae, disc, optimizers, moment):
    """What Adam keeps of each latent's weights, [4, ...]: of those that turn, and of variances'."""
    of_vae, of_disc = (optimizer.state for optimizer in optimizers)
    head = {
        name: of_vae[getattr(vae.encoder.head, name)][moment].clone() for name in ("weight", "bias")
    }
    of_means = {name: kept[:4] for name, kept in head.items()}
    of_means["decoder"] = of_vae[vae.decoder.hidden.weight][moment].clone().T
    of_means["discriminator"] = of_disc[disc.hidden[0].weight][moment].clone().T
    return of_means, {name: kept[4:] for name, kept in head.items()}


def test_moments_of_each_latent_are_turned_and_the_second_ones_by_the_squares(
    networks, monkeypatch
):
    vae, disc, images = networks
    optimizers = after_a_step(vae, disc, images)
    generator = torch.Generator().manual_seed(0)
    for optimizer in optimizers:  # one step from the means leaves the variances' at 0
        for kept in optimizer.state.values():
            kept["exp_avg"].normal_(generator=generator)
            kept["exp_avg_sq"].uniform_(generator=generator)
    turn = turned_by(30, 0, 2)
    monkeypatch.setattr("factorvae.training.turning.independent_directions", lambda *_: turn)
    with torch.no_grad():
        codes = vae.encode(images)
    moments = ("exp_avg", "exp_avg_sq")
    before = [moments_of_latents(vae, disc, optimizers, moment) for moment in moments]
    turn_latents(vae, optimizers[0], disc, optimizers[1], *codes)
    after = [moments_of_latents(vae, disc, optimizers, moment) for moment in moments]

    cos, sin = math.sqrt(0.75), 0.5  # of 30 degrees
    rotation = torch.tensor([[cos, 0, sin, 0], [0, 1, 0, 0], [-sin, 0, cos, 0], [0, 0, 0, 1]])
    squares = torch.tensor([[0.75, 0, 0.25, 0], [0, 1, 0, 0], [0.25, 0, 0.75, 0], [0, 0, 0, 1]])
    factors = [[rotation, squares], [squares, squares]]  # log variances do not turn but mix
    for moment, *parts in zip(moments, before, after, factors, strict=True):
        for olds, news, factor in zip(*parts, strict=True):
            for name, old in olds.items():
                assert torch.allclose(news[name], factor @ old, atol=1e-5), (moment, name)


def test_latents_of_less_than_a_nat_stay(networks):
    vae, disc, images = networks
    optimizers = after_a_step(vae, disc, images)
    away = turned_by(30, 0, 1) @ turned_by(30, 1, 2)
    mu, logvar = draws() @ away.T, torch.full((4096, 4), -3.0)
    turn = turn_latents(vae, optimizers[0], disc, optimizers[1], mu, logvar)
    assert (turn[:3, :3] - torch.eye(3)).abs().amax(dim=1).min() > 0.1
    logvar[:, 1] = 0.0
    mu[:, 1] /= 10
    turn = turn_latents(vae, optimizers[0], disc, optimizers[1], mu, logvar)
    assert torch.equal(turn[1], torch.eye(4)[1]) and torch.equal(turn[:, 1], torch.eye(4)[:, 1])
    assert turn[0, 2].abs() > 0.1


@pytest.mark.usefixtures("few_images")
def test_a_run_turns_at_its_steps_and_wakes_latents_afterwards(sprites, monkeypatch):
    done = []

    def note(vae, optimizer, discriminator, disc_optimizer, mu, logvar):
        done.append((trainer.steps_done, "turned", tuple(mu.shape), tuple(logvar.shape)))

    monkeypatch.setattr("factorvae.training.turning.turn_latents", note)
    monkeypatch.setattr(
        "factorvae.training.waking.wake_latents",
        lambda *_: done.append((trainer.steps_done, "woken")),
    )
    for gamma in (6.4, 0.0):
        done.clear()
        config = dataclasses.replace(SMALL, turn_at=(5, 3), wake_at=(3,), gamma=gamma)
        trainer = Trainer(config, sprites)
        trainer.advance(4)
        trainer.advance(1)
        assert [what[:2] for what in done] == [(3, "turned"), (3, "woken")]
        trainer.advance(1)
        assert done[-1] == (5, "turned", (256, 10), (256, 10))


@pytest.mark.usefixtures("few_images")
def test_a_turn_that_finds_nothing_to_turn_leaves_a_run_as_it_is(sprites):
    turned = Trainer(dataclasses.replace(SMALL, turn_at=(2,)), sprites)  # none is live as yet
    never = Trainer(SMALL, sprites)
    for trainer in (turned, never):
        trainer.advance(3)
    states = [copy.deepcopy(trainer.state_dict()["vae"]) for trainer in (turned, never)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


@pytest.fixture
def every_latent_turns(monkeypatch):
    """After a few steps none has a nat as yet."""
    monkeypatch.setattr("factorvae.training.turning.LEAST_KL", 0.0)
    monkeypatch.setattr("factorvae.training.turning.LEAST_GAIN", 0.0)


@pytest.mark.usefixtures("few_images", "every_latent_turns")
def test_a_run_that_is_gone_on_with_turns_as_if_it_had_not_stopped(sprites):
    config = dataclasses.replace(SMALL, turn_at=(3,))
    whole, parts, resumed, never = (
        Trainer(each, sprites) for each in (config, config, config, SMALL)
    )
    whole.advance(6)
    never.advance(6)
    parts.advance(3)  # it ends where it is to turn
    resumed.load_state_dict(copy.deepcopy(parts.state_dict()))
    resumed.advance(3)
    assert same_state(resumed.state_dict(), whole.state_dict())
    assert not torch.equal(whole.vae.encoder.head.weight, never.vae.encoder.head.weight)


@needs_cuda
def test_cuda_finds_the_directions_that_the_cpu_does():
    codes = draws() @ turned_by(30, 0, 1).T @ turned_by(-20, 0, 2).T
    found = independent_directions(codes.cuda())
    assert found.is_cuda
    assert torch.allclose(found.cpu(), independent_directions(codes), atol=math.radians(2))
