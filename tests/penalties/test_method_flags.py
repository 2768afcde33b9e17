"""--method: what it fills in, what it refuses, and the runs of several."""

import dataclasses

import pytest

from factorvae.command_line import parse, parse_sweep
from factorvae.config import TrainConfig
from factorvae.errors import UserError
from factorvae.methods import DISCRIMINATOR_SETTINGS, METHOD_SETTINGS, METHODS
from factorvae.setting import differing_fields, setting_of, told_fields


def parsed(*argv):
    return parse(TrainConfig, "", argv)


def combinations(*argv):
    return parse_sweep(TrainConfig, "", argv)


def test_the_default_is_factorvae_and_gamma_0_is_betavae():
    assert (parsed().method, parsed().beta, parsed().gamma) == ("factorvae", 1.0, 6.4)
    assert parsed("--dataset", "dsprites", "--gamma", "6.4") == parsed()
    plain = parsed("--gamma", "0")
    assert (plain.method, plain.beta, plain.gamma) == ("betavae", 1.0, 0.0)
    assert parsed("--beta", "4", "--gamma", "0") == parsed("--method", "betavae")
    assert parsed("--method", "betavae") == TrainConfig(beta=4.0, gamma=0.0)


@pytest.mark.parametrize(
    ("method", "beta", "gamma", "ratio"),
    [
        ("factorvae", 1, 6.4, None),
        ("betavae", 4, 0, None),
        ("annealed", 0, 1000, None),
        ("dipvae1", 1, 10, 10),
        ("dipvae2", 1, 10, 1),
        ("btcvae", 1, 5, None),
    ],
)
def test_a_method_brings_its_defaults(method, beta, gamma, ratio):
    config = parsed("--method", method)
    assert (config.method, config.beta, config.gamma) == (method, beta, gamma)
    if ratio is not None:
        assert config.dip_ratio == ratio


def test_every_setting_of_a_method_is_a_field():
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert METHOD_SETTINGS - {"num_images"} <= fields
    assert all(set(method.defaults) <= fields for method in METHODS.values())


def test_flags_go_before_the_method_and_the_method_before_the_dataset():
    chairs = parsed("--dataset", "chairs", "--method", "btcvae")
    assert (chairs.gamma, chairs.hidden_dim, chairs.lr_disc) == (5.0, 256, 1e-5)
    assert parsed("--dataset", "chairs").gamma == 3.2
    assert parsed("--dataset", "chairs", "--method", "btcvae", "--gamma", "2").gamma == 2.0
    assert parsed("--method", "dipvae2", "--dip_ratio", "3").dip_ratio == 3.0
    assert parsed("--method", "annealed", "--capacity", "10").capacity == 10.0


def test_several_methods_have_their_own_defaults():
    configs = combinations("--method", "factorvae", "btcvae", "--seed", "0-4")
    assert [(c.method, c.beta, c.gamma, c.seed) for c in configs] == [
        *(("factorvae", 1.0, 6.4, seed) for seed in range(5)),
        *(("btcvae", 1.0, 5.0, seed) for seed in range(5)),
    ]


def test_settings_of_one_method_do_not_multiply_the_runs_of_another():
    configs = combinations("--method", "btcvae", "annealed", "--capacity", "10", "25")
    assert [(c.method, c.capacity) for c in configs] == [
        ("btcvae", TrainConfig.capacity),
        ("annealed", 10.0),
        ("annealed", 25.0),
    ]


def test_the_discriminators_flags_say_nothing_about_a_model_without_one():
    def setting(*argv):
        data = {"name": "dsprites", "source": "drawn"}
        return setting_of({"config": dataclasses.asdict(parsed(*argv)), "dataset": data, "step": 1})

    assert {name for name in DISCRIMINATOR_SETTINGS if name.startswith("disc_")} == {
        field.name
        for field in dataclasses.fields(TrainConfig)
        if field.name.startswith("disc_") and field.metadata["setting"]
    }
    narrow = ("--disc_width", "300", "--lr_disc", "1e-3")
    factorvae, other = setting(), setting(*narrow)
    assert differing_fields([factorvae, other], ()) == ["disc_width", "lr_disc"]
    for method in ("betavae", "btcvae"):
        plain, idle = setting("--method", method), setting("--method", method, *narrow)
        assert plain == idle
        assert told_fields(idle, DISCRIMINATOR_SETTINGS) == []
        assert not DISCRIMINATOR_SETTINGS & {*differing_fields([factorvae, idle], ())}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--method", "gan"], "--method must be one of factorvae, betavae, annealed"),
        (["--method", "betavae", "--gamma", "2"], "--gamma must be 0 with --method betavae, not 2"),
        (["--method", "factorvae", "betavae", "--gamma", "2"], "--gamma must be 0 with --method"),
        (["--stratified"], "--stratified is no setting of --method factorvae"),
        (["--method", "btcvae", "--capacity", "3"], "--capacity is no setting of --method btcvae"),
        (["--method", "btcvae", "--batch_size", "1"], "--method btcvae needs a --batch_size"),
        (["--batch_size", "1"], "--method factorvae needs a --batch_size of at least 2"),
        (["--method", "annealed", "--capacity", "-1"], "--capacity must be at least 0"),
        (["--method", "annealed", "--capacity_steps", "0"], "--capacity_steps must be at least 1"),
    ],
)
def test_what_cannot_be_is_one_line(argv, message):
    with pytest.raises(UserError) as caught:
        combinations(*argv)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
