"""Flags, presets, ranges and --help."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import evaluate
import train
from factorvae.command_line import parse, parse_sweep
from factorvae.config import (
    DATASET_DEFAULTS,
    DATASET_NAMES,
    RECIPES,
    EvaluateConfig,
    TrainConfig,
    recipe_flags,
)
from factorvae.datasets import DATASETS
from factorvae.errors import UserError, run_script
from factorvae.evaluation.scores import METRICS

ROOT = Path(train.__file__).parent


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


def test_defaults_of_a_dataset_fill_only_what_is_unset():
    assert parsed("--dataset", "chairs").gamma == 3.2
    assert parsed("--dataset", "chairs").hidden_dim == 256
    assert parsed("--dataset", "chairs", "--gamma", "6.4").gamma == 6.4
    assert parsed("--dataset", "folder:/some/where").hidden_dim == 256
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert all(set(defaults) <= fields for defaults in DATASET_DEFAULTS.values())


def test_a_recipe_fills_what_flags_and_method_leave_unset():
    fast = parsed("--preset", "fast")
    assert dataclasses.replace(fast, preset=None) == TrainConfig(**RECIPES["fast"])
    assert (fast.beta, fast.gamma) == (1.0, 6.4)
    assert parsed("--preset", "fast", "--lr", "1e-3").lr == 1e-3
    assert parsed("--preset", "fast", "--dataset", "chairs").lr_disc == RECIPES["fast"]["lr_disc"]
    assert parsed("--preset", "fast", "--method", "betavae").beta == 4.0
    for name in RECIPES:
        recipe = dataclasses.replace(parsed("--preset", name), preset=None)
        assert recipe == parsed(*recipe_flags(name)) == TrainConfig(**RECIPES[name])
    for method in ("annealed", "dipvae1", "dipvae2"):  # gamma_start is of the total correlation
        assert parsed("--preset", "fast", "--method", method).gamma_start is None
    assert parsed("--preset", "fast", "--method", "btcvae").gamma_start == 100.0
    none = parsed("--preset", "fast", "--beta_start", "0", "--gamma_start", "0")
    assert (none.beta_start, none.gamma_start) == (None, None)
    assert (none.anneal_from, none.anneal_until) == (0, 0)
    flat = parsed("--preset", "fast", "--beta_start", "0")
    assert (flat.beta_start, flat.gamma_start, flat.anneal_until) == (None, 100.0, 10000)
    betavae = parsed("--preset", "fast", "--beta", "4", "--gamma", "0")
    assert (betavae.method, betavae.beta_start, betavae.beta) == ("betavae", 4.0, 4.0)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--anneal_from", "5"], "--anneal_until 0 is before --anneal_from 5"),
        (["--beta_start", "4"], "--beta_start and --gamma_start need --anneal_until"),
        (["--anneal_until", "9"], "--anneal_until needs a --beta_start or --gamma_start"),
        (["--beta_start", "-1"], "--beta_start must be at least 0, not -1.0"),
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
    assert_one_line(lambda: parsed(*argv), message)


def assert_one_line(read, message):
    """What is said where `read` reads a command line."""
    with pytest.raises(UserError) as caught:
        read()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def combinations(*argv):
    return [(one.beta, one.gamma, one.seed) for one in parse_sweep(TrainConfig, "", argv)]


def test_a_word_is_no_list_of_words():
    with pytest.raises(UserError, match="--metrics must be a list, not 'mig'"):
        EvaluateConfig(metrics="mig")
    assert EvaluateConfig(metrics=("mig",)).metrics == ("mig",)


def test_a_switch_of_a_recipe_can_be_turned_off():
    def standardizes(*flags):
        return parse(TrainConfig, "", ["--preset", "fast", *flags]).disc_standardize

    assert standardizes() and standardizes("--disc_standardize")
    assert not standardizes("--no-disc_standardize")


def test_several_values_make_a_config_of_each_combination_and_the_seed_is_fastest():
    assert combinations("--seed", "0", "1", "2") == [(1.0, 6.4, 0), (1.0, 6.4, 1), (1.0, 6.4, 2)]
    flags = ("--seed", "3", "1", "--gamma", "6.4", "1", "35", "--beta", "4", "1")
    assert combinations(*flags) == [
        (beta, gamma, seed) for beta in (4.0, 1.0) for gamma in (6.4, 1.0, 35.0) for seed in (3, 1)
    ]


def test_a_range_of_seeds_has_both_of_its_ends():
    seeds = [seed for _, _, seed in combinations("--seed", "0-9")]
    assert seeds == list(range(10))
    assert [seed for _, _, seed in combinations("--seed", "7-8", "4", "2-2")] == [7, 8, 4, 2]
    assert len(combinations("--seed", "0-9999")) == 10_000


def test_a_value_given_twice_counts_once():
    assert [seed for _, _, seed in combinations("--seed", "1", "0-2", "1")] == [1, 0, 2]
    assert [gamma for _, gamma, _ in combinations("--gamma", "1", "35", "1.0")] == [1.0, 35.0]


def test_the_configs_of_a_sweep_differ_in_what_was_given_several_values_only():
    flags = ("--beta", "1", "4", "--seed", "0-1", "--lr", "1e-3", "--max_steps", "9")
    for config in parse_sweep(TrainConfig, "", flags):
        same = TrainConfig(lr=1e-3, max_steps=9)
        assert dataclasses.replace(config, beta=1.0, seed=0) == same


def test_a_preset_fills_only_what_is_unset_in_a_sweep_too():
    chairs = ("--dataset", "chairs", "--seed", "0", "1")
    assert combinations(*chairs) == [(1.0, 3.2, 0), (1.0, 3.2, 1)]
    assert combinations(*chairs, "--gamma", "6.4", "10")[::2] == [(1.0, 6.4, 0), (1.0, 10.0, 0)]
    configs = parse_sweep(TrainConfig, "", [*chairs, "--gamma", "6.4", "10"])
    assert {config.lr_disc for config in configs} == {1e-5}


def test_one_value_of_each_flag_is_one_config():
    flags = ("--seed", "3", "--gamma", "35", "--beta", "2")
    assert parse_sweep(TrainConfig, "", flags) == [parsed(*flags)]
    assert parsed(*flags) == TrainConfig(seed=3, gamma=35.0, beta=2.0)
    assert parsed("--seed", "3-3", "--gamma", "35", "35").seed == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seed", "5-2"], "argument --seed: invalid range: '5-2'"),
        (["--seed", "0-99999999"], "argument --seed: invalid range: '0-99999999'"),
        (["--seed", "1-"], "argument --seed: invalid int value: '1-'"),
        (["--seed", "0,1"], "argument --seed: invalid int value: '0,1'"),
        (["--seed"], "argument --seed: expected at least one argument"),
        (["--seed", "0", "-1"], "--seed must be at least 0, not -1"),
        (["--seed", "9223372036854775807-9223372036854775808"], "--seed must be at most 92233"),
        (["--gamma", "1", "high"], "argument --gamma: invalid float value: 'high'"),
        (["--gamma", "1-5"], "argument --gamma: invalid float value: '1-5'"),
        (["--gamma", "1", "nan"], "--gamma must be a finite number, not nan"),
        (["--beta", "1", "-4"], "--beta must be at least 0, not -4.0"),
        (["--seed", "0-9999", "--gamma", "1", "2"], "these flags make a sweep of 20,000 runs; 10,"),
        (["--lr", "1e-4", "1e-3"], "unrecognized arguments: 1e-3"),
        (["--jobs", "-2"], "--jobs must be at least 0, not -2"),
    ],
)
def test_bad_values_of_a_sweep_are_one_line(argv, message):
    assert_one_line(lambda: parse_sweep(TrainConfig, "", argv), message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["0", "1"], "unrecognized arguments: 1"),
        (["0-9"], "argument --seed: invalid int value: '0-9'"),
    ],
)
def test_evaluate_takes_one_seed_only(values, message):
    assert parse(EvaluateConfig, "", ["--seed", "4"]).seed == 4
    assert_one_line(lambda: parse(EvaluateConfig, "", ["--seed", *values]), message)


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


def help_of(script, *flags):
    """What a script prints as a process of its own that cannot import torch."""
    run = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "sys.path.insert(0, ''); runpy.run_path(sys.argv[0], {}, '__main__')"
    )
    command = [sys.executable, "-c", run, script, *flags, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_help_lists_every_dataset_and_waits_for_no_torch():
    assert ", ".join(DATASET_NAMES) in help_of("train.py")
    assert "folder for the pictures and pages" in help_of("visualize.py")
    assert set(DATASET_NAMES) == set(DATASETS)


def test_help_lists_every_metric(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    told = "only these; scores of others that are there stay, if of the same weights and points "
    told += "(default: all that the data allow)"
    assert f"{told}: {', '.join(METRICS)} --factors" in shown


def test_help_shows_the_defaults_of_the_dataset_and_the_method():
    gamma = "0 trains no discriminator; several make a sweep (default: {})".format
    assert gamma(6.4) in help_of("train.py")
    shown = help_of("train.py", "--dataset", "chairs")
    assert gamma(3.2) in shown and "(default: dsprites)" in shown
    assert "learning rate of the discriminator (default: 1e-05)" in shown
    shown = help_of("train.py", "--method", "btcvae", "--dataset", "chairs")
    assert gamma(5.0) in shown


def test_what_makes_a_setting():
    """Models that differ in nothing else are compared over their seeds."""
    fields = {f.name for f in dataclasses.fields(TrainConfig) if not f.metadata["setting"]}
    assert fields >= {"dataset", "seed", "data_dir", "num_epochs", "max_steps", "log_every"}
    assert fields.isdisjoint({"beta", "gamma", "latent_dim", "lr", "batch_size", "precision"})
    free = {f.name for f in dataclasses.fields(TrainConfig) if f.metadata["resume"] == "free"}
    assert free <= fields
