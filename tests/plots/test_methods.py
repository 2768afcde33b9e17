"""Titles and training curves of methods other than FactorVAE."""

import numpy as np

from factorvae.methods import METHODS
from factorvae.plots import titles, training_plots


def test_titles_name_the_method():
    assert titles.run_title("rooms", 5, 1.0, 5.0, "btcvae").startswith("β-TCVAE on rooms, step 5")
    assert titles.run_title("rooms", 5, 4.0, 0.0, "betavae").startswith("β-VAE on rooms")
    config = {"method": "annealed", "beta": 0.0, "gamma": 1000.0, "capacity": 25.0}
    setting = {**config, "steps": 20_000, "lr": 1e-4, "beta_start": None}
    title = titles.setting_title(setting)
    assert title == "AnnealedVAE, β = 0, γ = 1000, C = 25, 20,000 steps"
    of_two = {**setting, "method": "factorvae", "capacity": None, "steps": 5}
    assert titles.setting_title(of_two) == "β = 0, γ = 1000, 5 steps"
    title = titles.setting_title(of_two, ("lr", "beta_start"))
    assert title == "β = 0, γ = 1000, lr 0.0001, 5 steps"
    assert all(titles.run_title("rooms", 5, 1.0, 1.0, name) for name in METHODS)


def test_training_curves_draw_the_penalty_in_place_of_the_discriminators_figures():
    step = np.arange(10.0)
    log = {"step": step, "recon": step + 1, "kl": step, "kl_0": step, "penalty": 3 * step}
    figure = training_plots.training_curves(log)
    axes = {one.get_label(): one for one in figure.axes}
    assert "tc" not in axes
    assert "disc_accuracy" not in axes
    drawn = axes["penalty"].lines[0]
    np.testing.assert_array_equal(drawn.get_ydata(), 3 * step)
    del log["penalty"]
    assert {"tc", "disc_accuracy"} <= {
        one.get_label() for one in training_plots.training_curves(log).axes
    }
