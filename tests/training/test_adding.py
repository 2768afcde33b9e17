"""Latents that wait, and begin one after the other."""

import copy
import dataclasses

import pytest
import torch

from factorvae.command_line import parse
from factorvae.config import TrainConfig
from factorvae.errors import UserError
from factorvae.models import VAE
from factorvae.objective import kl_per_latent
from factorvae.training.adding import add_latent, least_explained, residual_direction
from factorvae.training.trainer import Trainer
from factorvae.training.waking import STD
from tests.helpers import same_state

pytestmark = pytest.mark.usefixtures("few_images")
SMALL = TrainConfig(hidden_dim=16, disc_depth=1, disc_width=16, batch_size=8, log_every=4)
WAITING = dataclasses.replace(SMALL, first_latents=2, add_at=(3, 5), wake_at=(7,))


def weights_of(vae):
    """Those of each latent, [latent_dim, all of them]."""
    head, hidden = vae.encoder.head, vae.decoder.hidden
    rows = torch.cat([head.weight, head.bias[:, None]], dim=1).chunk(2)
    return torch.cat([*rows, hidden.weight.T], dim=1).detach().clone()


def explained_by(codes, values):
    """The share of the variance of values [N] that a cubic polynomial of codes [N, 2] tells."""
    a, b = codes.double().T
    terms = torch.stack([a**i * b**j for i in range(4) for j in range(4 - i)], dim=1)
    values = (values - values.mean()).double()
    told = terms @ torch.linalg.lstsq(terms, values[:, None]).solution
    return float(told.square().sum() / values.square().sum())


def test_the_direction_that_codes_tell_least_of_is_found():
    generator = torch.Generator().manual_seed(0)
    a, b, c, noise = torch.randn(4, 2000, generator=generator)
    hidden = 0.3 * c  # small, but no function of a and b
    sources = torch.stack([a, b, a * b, a.square() * b, b.square() - a, hidden], dim=1)
    mixed = sources @ torch.randn(6, 8, generator=generator) + 5
    mixed = torch.cat([mixed, 1e-3 * noise[:, None]], dim=1)  # of no variance to speak of
    codes = torch.stack([2 * a + b, b - 3], dim=1)

    def agreement(row, source):
        return float(torch.corrcoef(torch.stack([mixed @ row, source]))[0, 1].abs())

    row = least_explained(mixed, codes)
    assert agreement(row, hidden) > 0.95
    assert row.abs().max() == row.max()  # the sign is no matter of chance
    assert torch.allclose(row, least_explained(mixed, -codes), atol=1e-4)
    assert (
        agreement(least_explained(mixed, codes[:, 1:]), hidden) < 0.9
    )  # a is unexplained, and wider
    assert not least_explained(torch.ones(2000, 8), codes).any()  # nothing is left
    assert not least_explained(mixed[:8].repeat(20, 1), codes[:8].repeat(20, 1)).any()
    still = torch.ones(2000, 1)  # a code that tells nothing
    assert least_explained(mixed, still).norm() == pytest.approx(1)


def test_a_latent_is_added_and_the_others_stay(sprites):
    vae = VAE((1, 64, 64), 5, 16, torch.Generator().manual_seed(0), first_latents=2)
    images = sprites.batch(torch.arange(0, 432))
    before = weights_of(vae)
    others = {name: weight.clone() for name, weight in vae.state_dict().items()}
    assert not before[2:].any() and before[:2].any(dim=1).all()
    row, bias = residual_direction(vae, 2, images.split(100))
    add_latent(vae, 2, row, bias, torch.Generator().manual_seed(1))
    after = weights_of(vae)
    rest = [0, 1, 3, 4]
    assert torch.equal(after[rest], before[rest])
    with torch.no_grad():
        mu, logvar = vae.encode(images)
        features = vae.encoder.features(images)
    assert abs(float(mu[:, 2].mean())) < 1e-4
    assert float(mu[:, 2].std()) == pytest.approx(STD, rel=1e-3)
    assert not logvar[:, 2:].any() and not mu[:, 3:].any()
    assert vae.decoder.hidden.weight[:, 2].all()
    for name in {*others} - {"encoder.head.weight", "encoder.head.bias", "decoder.hidden.weight"}:
        assert torch.equal(vae.state_dict()[name], others[name])
    assert torch.allclose(row / row.norm(), least_explained(features, mu[:, :2]), atol=1e-3)
    generator = torch.Generator().manual_seed(2)
    at_random = features @ torch.randn(16, 20, generator=generator)
    shares = [explained_by(mu[:, :2], values) for values in at_random.T]
    assert explained_by(mu[:, :2], mu[:, 2]) < min(shares)


def test_where_the_others_tell_everything_the_new_one_says_nothing(sprites):
    vae = VAE((1, 64, 64), 5, 16, torch.Generator().manual_seed(0), first_latents=2)
    row, bias = residual_direction(vae, 2, [sprites.batch(torch.zeros(300, dtype=torch.long))])
    assert not row.any() and bias == 0


def test_latents_wait_until_they_are_added_or_woken(sprites):
    trainer = Trainer(WAITING, sprites)
    begun = []
    for _ in range(9):
        trainer.advance()
        begun.append(int(weights_of(trainer.vae).any(dim=1).sum()))
    assert begun == [2, 2, 2, 3, 3, 4, 4, 10, 10]
    trainer = Trainer(WAITING, sprites)
    trainer.advance(3)
    mu, logvar = trainer.vae.encode(sprites.batch(torch.arange(64)))
    assert not kl_per_latent(mu, logvar)[2:].any()
    before = weights_of(trainer.vae)
    trainer.advance(4)
    assert (weights_of(trainer.vae)[:2] != before[:2]).any(dim=1).all()
    only = Trainer(dataclasses.replace(SMALL, first_latents=3, add_at=(2,)), sprites)
    only.advance(6)  # without a waking the others never begin
    assert weights_of(only.vae).any(dim=1).tolist() == 4 * [True] + 6 * [False]


def test_all_of_a_step_happens_in_its_order(sprites, monkeypatch):
    done = []
    for name in ("turning.turn_latents", "adding.add_latent"):
        monkeypatch.setattr(
            f"factorvae.training.{name}", lambda *given, name=name: done.append((name, given[1]))
        )
    config = dataclasses.replace(SMALL, first_latents=2, add_at=(2, 1), turn_at=(2,))
    Trainer(config, sprites).advance(4)
    assert [name.partition(".")[0] for name, _ in done] == ["adding", "turning", "adding"]
    assert [latent for name, latent in done if "add" in name] == [2, 3]


@pytest.mark.parametrize("stop", [3, 4, 7])  # where one begins, between, and where all do
def test_a_run_that_is_gone_on_with_knows_who_waits(sprites, stop):
    whole, parts, resumed = (Trainer(WAITING, sprites) for _ in range(3))
    whole.advance(9)
    parts.advance(stop)
    resumed.load_state_dict(copy.deepcopy(parts.state_dict()))
    resumed.advance(9 - stop)
    assert same_state(resumed.state_dict(), whole.state_dict())


def test_what_does_not_fit_is_refused():
    def refused(words):
        with pytest.raises(UserError) as raised:
            parse(TrainConfig, "", words.split())
        return str(raised.value)

    assert "--add_at needs --first_latents" in refused("--add_at 5")
    assert "more than --latent_dim 3" in refused("--latent_dim 3 --first_latents 2 --add_at 5 6")
    assert refused("--first_latents 11").startswith("--first_latents 11 is more than --latent_dim")
    wide = "--latent_dim 40 --first_latents 16 --add_at 5"
    assert "beside 16 others at most" in refused(f"{wide} 6")
    assert parse(TrainConfig, "", wide.split()).first_latents == 16
    told = refused("--first_latents 2 --add_at 5 9 --wake_at 20 9")
    assert told == "--add_at 9 is not before --wake_at 9, where all that wait begin"
    config = parse(TrainConfig, "", "--first_latents 2 --add_at 8 5 --wake_at 9".split())
    assert config.add_at == (5, 8)
    assert parse(TrainConfig, "", "--preset fast --first_latents 0".split()).add_at is None


def test_a_run_that_has_diverged_ends_with_a_word(sprites):
    trainer = Trainer(WAITING, sprites)
    trainer.advance(3)
    with torch.no_grad():
        trainer.vae.encoder.hidden.bias[0] = torch.nan
    with pytest.raises(UserError, match="the VAE is not finite after step 3"):
        trainer.advance()


def test_a_vae_of_ones_own_has_none_that_wait(sprites):
    vae = VAE((1, 64, 64), 10, 16)  # the paper's, but its weights are not 0
    with pytest.raises(UserError, match="first_latents is for a VAE that begins here"):
        Trainer(dataclasses.replace(SMALL, first_latents=2), sprites, vae=vae)
