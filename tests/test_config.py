"""Flags, presets and ranges."""

import dataclasses

import pytest

from factorvae.config import PRESETS, TrainConfig, parse
from factorvae.errors import UserError, run_script


def parsed(*argv):
    return parse(TrainConfig, "", argv)


def test_defaults_are_the_dataclass():
    assert parsed() == TrainConfig()
    config = TrainConfig()
    assert (config.dataset, config.latent_dim, config.batch_size) == ("dsprites", 10, 64)
    assert (config.beta, config.gamma, config.lr, config.num_epochs) == (1.0, 6.4, 1e-4, 50)


def test_every_field_is_a_flag():
    config = parsed(
        *("--dataset", "dsprites", "--latent_dim", "6", "--beta", "4", "--gamma", "0"),
        *("--batch_size", "32", "--num_epochs", "7", "--max_steps", "9", "--lr", "5e-4"),
        *("--lr_disc", "1e-5", "--seed", "3", "--precision", "bf16", "--overwrite"),
    )
    assert config == TrainConfig(
        latent_dim=6,
        beta=4.0,
        gamma=0.0,
        batch_size=32,
        num_epochs=7,
        max_steps=9,
        lr=5e-4,
        lr_disc=1e-5,
        seed=3,
        precision="bf16",
        overwrite=True,
    )


def test_presets_fill_only_what_is_unset():
    assert parsed("--dataset", "chairs").gamma == 3.2
    assert parsed("--dataset", "chairs").hidden_dim == 256
    assert parsed("--dataset", "chairs", "--gamma", "6.4").gamma == 6.4
    assert parsed("--dataset", "folder:/some/where").hidden_dim == 256
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert all(set(preset) <= fields for preset in PRESETS.values())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gamma", "nan"], "--gamma must be a finite number, not nan"),
        (["--gamma", "inf"], "--gamma must be a finite number, not inf"),
        (["--gamma", "-1"], "--gamma must be at least 0, not -1.0"),
        (["--lr", "0"], "--lr must be greater than 0, not 0.0"),
        (["--batch_size", "0"], "--batch_size must be at least 1, not 0"),
        (["--seed", "9" * 400], "--seed must be at most 9223372036854775807"),
        (["--threads", "99999999999"], "--threads must be at most 1024"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--precision", "fp8"], "--precision must be one of fp32, bf16, not fp8"),
        (["--latent_dim", "ten"], "argument --latent_dim: invalid int value: 'ten'"),
        (["--gama", "1"], "unrecognized arguments: --gama 1"),
    ],
)
def test_bad_values_are_one_line(argv, message):
    with pytest.raises(UserError) as caught:
        parsed(*argv)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_scripts_exit_2_for_a_mistake_and_0_without(capsys):
    def fail():
        raise UserError("what is wrong")

    assert run_script(fail) == 2
    assert capsys.readouterr().err == "error: what is wrong\n"
    assert run_script(lambda: None) == 0
    assert run_script(lambda: 143) == 143


def test_help_shows_groups_and_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "objective:" in shown
    assert "(default: 6.4)" in shown
