"""evaluate.py from end to end, on small sets and checkpoints; known scores of known codes."""

import csv
import dataclasses
import errno
import functools
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

import evaluate
from factorvae.checkpoint import load_checkpoint, save_checkpoint
from factorvae.config import EvaluateConfig, TrainConfig
from factorvae.datasets import DATASETS, Dataset, FactorSpace
from factorvae.encoding import EncodedDataset
from factorvae.errors import run_script
from factorvae.evaluation import evaluate as evaluation
from factorvae.evaluation import scores
from factorvae.evaluation.models import find_checkpoints, group_by_setting, load_models
from factorvae.evaluation.outputs import as_dict, with_earlier
from factorvae.evaluation.scores import METRICS, SCORES
from factorvae.evaluation.tables import text_table
from factorvae.evaluation.trial import Result, draw_trial, generator_of
from factorvae.metrics.beta_vae import draw_pairs
from factorvae.metrics.factor_vae import draw_votes
from factorvae.metrics.mig import mig
from factorvae.models import VAE, Discriminator
from factorvae.saved_scores import Score, saved_scores
from factorvae.setting import setting_value

CPU = torch.device("cpu")
QUICK = "--metrics losses mig gaussian_total_correlation".split()
MIG = "--metrics mig --num_batches 1".split()
HOW = {  # a sweep's page tells scores of other words apart, so these stay
    "factor_vae_score": "protocol dlib: 10,000 votes of 64 images, 5,000 held out; "
    "latents of a standard deviation below .05 cast none",
    "beta_vae_score": "10,000 votes of 64 pairs, 5,000 held out; raw differences",
    "num_active": "those of a KL above .01 nats",
    "num_active_std": "those whose means have a standard deviation of .05 or more",
}
NEED_LABELS = {
    *("factor_vae_score", "beta_vae_score", "mig", "dci", "sap"),
    *("modularity", "explicitness", "irs", "infomec"),
}


@pytest.fixture(autouse=True)
def a_folder_and_datasets(tmp_path, monkeypatch, sprites):
    """Every test runs in its own folder, where dSprites is small; and with three more sets."""
    monkeypatch.chdir(tmp_path)
    every = np.arange(len(sprites))
    table = Dataset(
        "table",
        "drawn",
        sprites.table,
        factors=sprites.factor_space.factors_of(every)[:, :2],
        factor_names=("shape", "scale"),
        factor_sizes=(3, 6),
    )
    official = dataclasses.replace(sprites, source="official")
    plain = Dataset("plain", "drawn", sprites.table)
    for name, dataset in {
        "dsprites": sprites,
        "table": table,
        "plain": plain,
        "official": official,
    }.items():
        monkeypatch.setitem(DATASETS, name, lambda data_dir, dataset=dataset: dataset)


@pytest.fixture
def few_pairs(monkeypatch):
    """A BetaVAE score of a tenth of its votes, for tests that are not about it."""
    few = functools.partial(draw_pairs, num_train=1000, num_eval=500)
    monkeypatch.setattr(scores, "draw_pairs", few)


def write_checkpoint(
    folder, gamma=6.4, seed=0, name="ckpt.pt", channels=1, options=None, **changes
):
    """A run's folder as train.py leaves it, its weights drawn at random."""
    config = TrainConfig(gamma=gamma, seed=seed, hidden_dim=16, disc_depth=1, disc_width=16)
    config = dataclasses.replace(config, latent_dim=4, **changes)
    generator = torch.Generator().manual_seed(seed)
    vae = VAE((channels, 64, 64), 4, 16, generator)
    with torch.no_grad():
        vae.encoder.head.weight[:3] *= 50  # three latents live
    discriminator = Discriminator(4, 1, 16, generator).state_dict() if gamma else None
    known = {"name": config.dataset, "source": "rendered", "image_shape": [channels, 64, 64]}
    checkpoint = {
        "config": dataclasses.asdict(config),
        "dataset": {**known, "factor_names": [], "factor_sizes": [], "options": options or {}},
        "step": 2000,
        "finished": True,
        "vae": vae.state_dict(),
        "discriminator": discriminator,
        "vae_optimizer": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder / name, checkpoint)
    return folder / name


def run(*argv):
    """The exit code of the command line, as the shell would see it."""
    return run_script(lambda: evaluate.main([*map(str, argv), "--threads", "1"]))


def no_constant(text):
    raise AssertionError(f"{text} is no JSON")


def read_json(path):
    """Strictly: NaN and Infinity are no JSON."""
    return json.loads(path.read_text(), parse_constant=no_constant)


# --- Known codes ----------------------------------------------------------------------------------


class Oracle(VAE):
    """Its codes are looked up: an image's factors, each times its scale."""

    def __init__(self, dataset, scale=1.0, logvar=0.0):
        super().__init__(dataset.image_shape, 5, 16)
        index = np.arange(len(dataset))
        factors = dataset.factor_space.factors_of(index)
        self.codes = {
            image.tobytes(): codes
            for image, codes in zip(dataset.batch(index).numpy(), factors * scale, strict=True)
        }
        assert len(self.codes) == len(dataset)  # no two images are alike
        self.logvar = torch.tensor(logvar)

    def encode(self, x):
        mu = torch.tensor(np.stack([self.codes[image.tobytes()] for image in x.numpy()])).float()
        return mu, self.logvar.expand_as(mu)


def scores_of(monkeypatch, vae, **settings):
    monkeypatch.setattr(evaluation, "restore_vae", lambda checkpoint, device: vae)
    monkeypatch.setattr(evaluation, "restore_discriminator", lambda checkpoint, device: None)
    path = write_checkpoint(Path("known"), gamma=0)
    config = EvaluateConfig(**settings)
    models, _ = load_models([path], config)
    (model,) = evaluation.evaluate(models, config, CPU, 1)
    return model


def trial_of(vae, dataset, discriminator=None, **settings):
    config, encoded = EvaluateConfig(**settings), EncodedDataset(vae, dataset)
    return draw_trial(config, 0, encoded, discriminator, lambda name, text: None)


FEW = ("--num_batches", 2, "--batch_size", 50)
OF_MIG = {"mig", "mig_knn"}


def test_scores_of_other_metrics_stay(tmp_path):
    path = write_checkpoint(tmp_path / "model")

    def measured(*more):
        assert run("--model_path", path, *FEW, *more) == 0
        return read_json(path.with_name("metrics.json"))

    first = measured("--metrics", "mig", "dci", "--dci_estimator", "lasso")
    second = measured("--metrics", "losses", "mig")
    assert second["scores"].keys() > {*first["scores"], "recon_loss", "kl", "elbo"}
    assert second["scores"]["disentanglement"] == first["scores"]["disentanglement"]
    assert second["details"]["dci"] == first["details"]["dci"]
    assert second["settings"]["metrics"] == ["mig", "dci", "losses"]


@pytest.fixture
def measured_once(tmp_path):
    """The checkpoint of a model, and its metrics.json with the losses."""
    path = write_checkpoint(tmp_path / "model")
    assert run("--model_path", path, *FEW, "--metrics", "losses") == 0
    return path, path.with_name("metrics.json")


def test_full_scores_that_fewer_points_replace_are_told(measured_once, capsys):
    path, scores = measured_once
    assert "are gone" not in capsys.readouterr().err
    assert run("--model_path", path, *FEW, "--num_batches", 1) == 0
    assert f"{scores} had scores of other weights, data or points" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ("--num_batches", 1),
        ("--batch_size", 49),
        ("--repeats", 2),
        ("--seed", 1),
        ("--factors", "scale"),
        ("--dataset", "table"),
    ],
)
def test_scores_of_other_points_do_not_stay(measured_once, flags, capsys):
    path, scores = measured_once
    assert run("--model_path", path, *FEW, *flags, "--metrics", "mig") == 0
    assert read_json(scores)["scores"].keys() == OF_MIG
    told = f"{scores} had scores of other weights, data or points, which are gone; --output NAME"
    assert told in capsys.readouterr().err


def test_scores_of_other_weights_do_not_stay(measured_once):
    path, scores = measured_once
    checkpoint = load_checkpoint(path)
    checkpoint["vae"]["encoder.head.bias"] += 1
    save_checkpoint(path, checkpoint)
    assert run("--model_path", path, *FEW, "--metrics", "mig") == 0
    assert read_json(scores)["scores"].keys() == OF_MIG


def test_scores_of_other_images_do_not_stay(measured_once):
    _, scores = measured_once
    content = read_json(scores)
    asked = {**content, "scores": {}, "settings": {**content["settings"], "metrics": ["mig"]}}
    assert with_earlier(asked, scores)["scores"] == content["scores"]
    for key, other in {"name": "table", "source": "official", "num_images": 431}.items():
        changed = {**asked, "data": {**content["data"], key: other}}
        assert with_earlier(changed, scores)["scores"] == {}, key


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("details",), {"losses": 3}),
        (("details",), {"dci": {}}),
        (("details",), {"sap": {"scores": [["a"]], "gaps": [0]}}),
        (("scores", "kl", "value"), "much"),
        (("scores", "kl", "value"), float("nan")),
        (("scores", "kl", "how"), None),
        (("settings", "metrics"), 0),
        (("checkpoint",), []),
    ],
)
def test_scores_of_a_damaged_file_do_not_stay(measured_once, capsys, place, value):
    path, scores = measured_once
    content = read_json(scores)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    scores.write_text(json.dumps(content))
    assert run("--model_path", path, *FEW, "--metrics", "mig") == 0
    assert read_json(scores)["scores"].keys() == OF_MIG
    assert f"{scores} could not be read as scores, and what it had" in capsys.readouterr().err


def test_a_metric_whose_scores_stay_is_not_left_out(sweep):
    assert run("--model_path", sweep, *FEW, "--metrics", "udr") == 0
    assert run("--model_path", sweep / "a0", *FEW, "--metrics", "mig") == 0
    content = read_json(sweep / "a0" / "metrics.json")
    assert content["scores"].keys() == {"udr", *OF_MIG}
    assert "udr" not in content["left_out"]


@pytest.mark.usefixtures("few_pairs")
def test_codes_that_are_the_factors(monkeypatch, sprites):
    model = scores_of(monkeypatch, Oracle(sprites), dci_estimator="lasso", protocol="paper")
    scores = model.scores
    assert scores["factor_vae_score"] == 1
    assert scores["beta_vae_score"] > 0.97
    # all images are the points, so that the factors are independent of each other to the last
    for name in ("mig", "modularity", "irs"):
        assert scores[name] == pytest.approx(1, abs=1e-9), name
    for name in ("disentanglement", "completeness", "sap_continuous"):
        assert scores[name] > 0.95, name
    assert scores["informativeness"] > 0.9
    assert scores["explicitness"] > 0.9
    assert scores["infom"] > 0.9 and scores["infoc"] > 0.9
    assert scores["gaussian_total_correlation"] == pytest.approx(0, abs=1e-9)
    assert scores["num_active"] == scores["num_active_std"] == 5
    assert model.details["factor_vae_score"]["votes"].astype(bool).sum() == 5
    assert (model.num_points, model.num_held_out, model.num_encoded) == (432, 144, 432)
    assert model.missing.keys() == {"discriminator_total_correlation", "udr"}


def test_only_the_factors_asked_for_are_scored(monkeypatch, sprites, capsys):
    """Codes that know two of five factors: perfect of these, and not of all."""
    vae = Oracle(sprites)
    for codes in vae.codes.values():
        codes[:3] = 0
    settings = dict(metrics=("factor_vae_score", "mig", "sap"), protocol="paper")
    model = scores_of(monkeypatch, vae, factors=("posY", "posX"), **settings)
    assert model.scores["factor_vae_score"] == 1
    assert model.scores["mig"] == pytest.approx(1, abs=1e-9)
    held = model.details["factor_vae_score"]["votes"].any(axis=1)
    assert held.tolist() == [False, False, False, True, True]
    information = model.details["mig"]["mutual_information"]  # in the order asked for
    assert information.shape == (5, 2) and information.argmax(axis=0).tolist() == [4, 3]
    assert np.shape(model.details["sap"]["scores"]) == (5, 2)
    config = EvaluateConfig(factors=("posY", "posX"))
    assert as_dict(model, config)["data"]["factor_names"] == ["posY", "posX"]
    assert as_dict(model, config)["data"]["factor_sizes"] == [2, 2]
    assert "factors scored: posY, posX; the others vary" in text_table([model], config)
    everything = scores_of(monkeypatch, vae, **settings).scores
    assert everything["factor_vae_score"] < 0.7 and everything["mig"] < 0.5


@pytest.mark.usefixtures("few_pairs")
def test_codes_that_are_constant(monkeypatch, sprites):
    model = scores_of(monkeypatch, Oracle(sprites, scale=0), protocol="paper")
    scores = model.scores
    for name in ("factor_vae_score", "mig", "disentanglement", "completeness"):
        assert scores[name] == 0, name
    for name in ("mig_knn", "sap", "sap_continuous", "modularity", "irs", "infom", "infoc", "kl"):
        assert scores[name] == 0, name
    assert scores["num_active"] == scores["num_active_std"] == 0
    assert scores["gaussian_total_correlation"] == 0
    assert scores["explicitness"] == pytest.approx(0.5)
    assert scores["beta_vae_score"] < 0.3  # chance is one in five factors
    assert scores["informativeness"] < 0.6
    assert all(map(np.isfinite, scores.values()))


def test_only_the_images_that_are_used_are_encoded(monkeypatch, sprites):
    vae = Oracle(sprites)
    model = scores_of(monkeypatch, vae, metrics=("mig",), num_batches=1, batch_size=30)
    assert (model.num_points, model.num_encoded) == (30, 30)
    model = scores_of(monkeypatch, vae, metrics=("sap",), num_batches=1, batch_size=30)
    assert (model.num_points, model.num_held_out, model.num_encoded) == (30, 15, 45)


def test_all_images_that_the_votes_use_are_encoded_at_once(monkeypatch, sprites):
    """So that none is left to be encoded in small batches."""
    vae, encoded = Oracle(sprites), []
    encode = evaluation.EncodedDataset.encode

    def watched(self, index):
        before = self.num_encoded
        encode(self, index)
        if self.num_encoded > before:
            encoded.append(self.num_encoded - before)

    monkeypatch.setattr(evaluation.EncodedDataset, "encode", watched)
    scores_of(monkeypatch, vae, metrics=("factor_vae_score",), protocol="paper", repeats=2)
    assert encoded == [432]


def test_a_product_within_a_metric_has_one_thread(monkeypatch, sprites):
    def products_threads():
        return {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}

    seen, sap = [], METRICS["sap"]

    def watched(trial):
        seen.append(products_threads())
        return sap.function(trial)

    monkeypatch.setitem(METRICS, "sap", dataclasses.replace(sap, function=watched))
    with threadpool_limits(2, user_api="blas"):
        scores_of(monkeypatch, Oracle(sprites), metrics=("sap",))
        assert seen == [{1}] and products_threads() == {2}


def test_only_the_images_that_are_drawn_are_encoded(monkeypatch, sprites):
    few = functools.partial(draw_votes, num_train=2, num_variance=5)
    monkeypatch.setattr(scores, "draw_votes", few)
    settings = dict(metrics=("factor_vae_score",), num_batches=1, batch_size=4, protocol="paper")
    model = scores_of(monkeypatch, Oracle(sprites), **settings)
    assert 100 < model.num_encoded <= 4 + 5 + 2 * 100


# --- Known scores, of the functions that measure --------------------------------------------------

SOME = dict(num_batches=1, batch_size=30)


def test_losses_are_of_the_samples_own_images(monkeypatch, sprites):
    vae = Oracle(sprites, logvar=-60.0)  # its samples are its means

    def own_images(z):
        return 4 * sprites.batch(sprites.factor_space.index_of(z.numpy().round().astype(int))) - 2

    monkeypatch.setattr(vae, "decode", own_images)
    trial = trial_of(vae, sprites, num_batches=1, batch_size=150)
    result = scores.measure_losses(trial)
    assert result.scores["recon_loss"] == pytest.approx(64 * 64 * np.log1p(np.exp(-2)))
    kl = 0.5 * (trial.factors.astype(float) ** 2 + np.exp(-60) + 60 - 1)
    assert result.scores["kl"] == pytest.approx(kl.sum(axis=1).mean())
    np.testing.assert_allclose(result.details["kl_per_latent"], kl.mean(axis=0))
    # The reconstructions are all as good, so that the bound varies with the KL.
    error = kl.sum(axis=1).std(ddof=1) / np.sqrt(150)
    assert result.errors["recon_loss"] == pytest.approx(0, abs=1e-4)
    assert [result.errors[n] for n in ("kl", "elbo")] == pytest.approx([error] * 2)


def test_latents_are_active_by_their_kl_or_by_their_spread(monkeypatch, sprites):
    """One latent is sure of each image, though its means are all near 0."""
    vae = Oracle(sprites, scale=[0, 0.01, 0, 0, 0], logvar=[0.0, -9.0, 0.0, 0.0, 0.0])
    model = scores_of(monkeypatch, vae, metrics=("losses",), **SOME)
    assert (model.scores["num_active"], model.scores["num_active_std"]) == (1, 0)
    details = model.details["losses"]
    assert details["active_by_kl"].tolist() == [False, True, False, False, False]
    assert details["kl_per_latent"].sum() == pytest.approx(model.scores["kl"])
    row = text_table([model], EvaluateConfig()).partition("KL of each latent")[2]
    assert row.splitlines()[0].split() == ["0.00", "4.00", "0.00", "0.00", "0.00"]


def test_samples_are_of_the_posteriors_and_go_to_the_discriminator(sprites):
    vae = Oracle(sprites, scale=0, logvar=2 * np.log(2))
    trial = trial_of(vae, sprites, lambda codes: codes[:, :2])
    samples = trial.samples()
    assert samples.std().item() == pytest.approx(2, abs=0.1)
    result = scores.measure_discriminator_total_correlation(trial)
    expected = (samples[:, 0] - samples[:, 1]).mean().item()  # joint less permuted
    assert result.scores["discriminator_total_correlation"] == pytest.approx(expected) != 0
    gaussian = scores.measure_gaussian_total_correlation(trial).scores
    assert gaussian["gaussian_total_correlation"] == 0  # of the means, which are constant
    assert gaussian["gaussian_total_correlation_sampled"] > 0


def test_minibatch_estimates_are_told_how_many_images_there_are(monkeypatch, sprites):
    told = []

    def estimate(mu, logvar, dataset_size, generator):
        told.append((len(mu), dataset_size))
        return {"total_correlation_weighted": 0, "total_correlation_stratified": 0}

    monkeypatch.setattr(scores, "minibatch_total_correlation", estimate)
    scores.measure_minibatch_total_correlation(trial_of(Oracle(sprites), sprites, **SOME))
    assert told == [(30, 432)]


@pytest.mark.usefixtures("few_pairs")
@pytest.mark.parametrize("draw", [scores.draw_beta_vae, scores.draw_factor_vae])
def test_only_factors_asked_for_are_held_still(sprites, draw):
    trial = trial_of(Oracle(sprites), sprites, factors=("posX", "scale"), protocol="paper")
    held = np.concatenate([votes.held for votes in draw(trial).train])
    assert set(held.tolist()) == {1, 3}


def test_mig_has_a_second_estimate_without_bins(sprites):
    trial = trial_of(Oracle(sprites, scale=[1, 1, 1, 1, 0]), sprites, **SOME)
    measured = scores.measure_mig(trial).scores
    unbinned = mig(trial.codes, trial.factors, estimator="knn")["mig"]
    assert measured["mig_knn"] == unbinned != measured["mig"]


def test_udr_is_of_live_latents_and_what_the_others_say_of_a_model():
    """Of two latents of correlation 1/2 the second model has one; both have one that is dead."""
    one = np.array([1.0, 1, 1, 1, -1, -1, -1, -1])
    two = np.array([1.0, 1, 1, -1, -1, -1, -1, 1])
    dead = 0.01 * one * two
    codes = [np.column_stack([one, two, dead]), np.column_stack([one, dead])]
    results = scores.compare_by_udr([(mu, np.zeros_like(mu)) for mu in codes])
    # With the lasso's penalty of .1 the weights are .9 and .4 on the first, .9 and 0 from it.
    expected = [((0.9 + 0.4) / 2 + 0.9**2 / (0.9 + 0.4)) / 2, (0.9 + (0.9 + 0) / 2) / 2]
    assert [result.scores["udr"] for result in results] == pytest.approx(expected)
    pairwise = [result.details["pairwise"] for result in results]
    np.testing.assert_allclose(pairwise, np.transpose([expected]))


def test_seed_repeat_and_purpose_each_draw_anew():
    known = (0, 0, "points"), (1, 0, "points"), (0, 1, "points"), (0, 0, "samples")
    assert len({generator_of(*each).random() for each in known}) == 4


def test_a_mean_of_counts_is_told_as_no_whole_number():
    count = Score("num_active", "Active latents", "Active", 0)
    assert [count.text(value) for value in (4.0, 3.5)] == ["4", "3.5"]


# --- The script -----------------------------------------------------------------------------------


def test_everything_of_one_checkpoint(tmp_path, capsys):
    """With just the flags that the README shows."""
    path = write_checkpoint(tmp_path / "model")
    assert run("--model_path", path, "--dataset", "dsprites", "--num_batches", 50) == 0
    out, err = capsys.readouterr()
    assert "dsprites, rendered: 432 images, 432 encoded; 432 points and 144 held out" in out
    assert "beta 1, gamma 6.4, seed 0, step 2,000" in out
    result = read_json(path.with_name("metrics.json"))
    names = {score.name for score in SCORES} - {"udr"}
    assert result["scores"].keys() == names
    for score in SCORES:
        if score.name in names:
            assert np.isfinite(result["scores"][score.name]["value"])
            assert re.search(rf"^{re.escape(score.title)} +-?\d", out, re.M), score.title
    how = {name: score["how"] for name, score in result["scores"].items()}
    assert how.items() >= HOW.items()
    assert "gbt: boosted trees" in how["completeness"]
    assert "+-: standard error of this sample of points" in out
    assert "gbt: boosted trees" in out and "protocol dlib: 10,000 votes of 64 images" in out
    assert result["scores"]["factor_vae_score"]["standard_error"] is not None
    assert 0 < result["scores"]["informativeness"]["standard_error"] < 0.1
    assert result["data"]["source"] == "rendered"
    assert result["settings"]["seed"] == 0 and result["settings"]["num_batches"] == 50
    assert torch.__version__.startswith(result["versions"]["torch"])
    assert len(result["details"]["dci"]["importance"]) == 4  # [latent_dim, factors]
    assert result["left_out"] == {"udr": "it compares several checkpoints of one setting"}
    scores = {name: score["value"] for name, score in result["scores"].items()}
    assert scores["elbo"] == pytest.approx(-scores["recon_loss"] - scores["kl"])


def test_repeats_give_standard_errors_and_the_seed_all_points(tmp_path):
    path = write_checkpoint(tmp_path / "model")
    flags = ("--model_path", path, *QUICK, "--num_batches", 2, "--batch_size", 50)
    results = []
    for more in ((), (), ("--seed", 1), ("--repeats", 3)):
        assert run(*flags, *more) == 0
        results.append(read_json(path.with_name("metrics.json"))["scores"])
    first, again, other, repeated = results
    assert first == again
    assert first["mig"]["standard_error"] is None
    assert first["recon_loss"]["standard_error"] > 0
    assert other["recon_loss"]["value"] != first["recon_loss"]["value"]
    assert repeated["mig"]["standard_error"] > 0


def test_repeats_give_their_mean_and_its_standard_error(monkeypatch, sprites):
    values, sap = iter([0.1, 0.4, 0.7]), METRICS["sap"]

    def known(trial):
        return Result({"sap": next(values)}, {"sap": "known"}, {"sap": 5.0})

    monkeypatch.setitem(METRICS, "sap", dataclasses.replace(sap, function=known))
    settings = dict(metrics=("sap",), num_batches=1, batch_size=4, repeats=3)
    model = scores_of(monkeypatch, VAE(sprites.image_shape, 4, 16), **settings)
    assert model.scores["sap"] == pytest.approx(0.4)
    # Squares of .3, 0 and .3, over 3 - 1: a standard deviation of .3, and 3 repeats.
    assert model.errors["sap"] == pytest.approx(0.3 / np.sqrt(3))


@pytest.mark.usefixtures("few_pairs")
def test_four_points_are_enough(tmp_path):
    path = write_checkpoint(tmp_path / "model")
    flags = ("--num_batches", 1, "--batch_size", 4, "--protocol", "paper")
    assert run("--model_path", path, *flags) == 0
    result = read_json(path.with_name("metrics.json"))
    assert result["points"] == {"num_points": 4, "num_held_out": 2}
    # of four points four latents are linear functions of each other: infinite, which JSON has not
    unknown = {name for name, score in result["scores"].items() if score["value"] is None}
    assert unknown == {"gaussian_total_correlation", "gaussian_total_correlation_sampled"}


@pytest.fixture
def sweep(tmp_path):
    """Three runs of one setting and one of another."""
    for seed in range(3):
        write_checkpoint(tmp_path / "runs" / f"a{seed}", seed=seed)
    write_checkpoint(tmp_path / "runs" / "b", gamma=0.0)
    return tmp_path / "runs"


def test_many_checkpoints(sweep, capsys):
    argv = ("--model_path", sweep, "--csv", "all.csv", "--metrics", "losses", "mig", "udr")
    assert run(*argv, "--num_batches", 2) == 0
    out, _ = capsys.readouterr()
    with open("all.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1", "2", "0"]
    assert [row["gamma"] for row in rows] == ["6.4"] * 3 + ["0.0"]
    made = ("evaluation_seed", "protocol", "dci_estimator", "num_points", "repeats")
    assert [rows[0][name] for name in made] == ["0", "dlib", "gbt", "432", "1"]
    values = [float(row["recon_loss"]) for row in rows[:3]]
    expected = f"{np.mean(values):.2f} +- {np.std(values, ddof=1):.2f}"
    assert expected in out and "mean of 3 +- deviation" in out
    assert "deviation over the models of a setting, which differ in their seed\n" in out
    assert "left out: udr: it compares several checkpoints" in out  # of the setting of one run
    for run_dir, row in zip(("a0", "a1", "a2", "b"), rows, strict=True):
        saved = read_json(sweep / run_dir / "metrics.json")["scores"]
        assert float(row["mig"]) == saved["mig"]["value"]
        assert float(row["recon_loss_se"]) == saved["recon_loss"]["standard_error"]
        assert f"  {run_dir} " in out


@pytest.mark.parametrize(("terminal", "blocks"), [(60, 2), (300, 1)])
def test_columns_that_do_not_fit_go_on_below(sweep, capsys, monkeypatch, terminal, blocks):
    monkeypatch.setenv("COLUMNS", str(terminal))
    assert run("--model_path", sweep, *QUICK, "--num_batches", 1) == 0
    parts = capsys.readouterr().out.split("\n\n")
    tables = [part for part in parts if part.startswith("  ")]
    assert len(tables) == blocks
    for table in tables:
        headings, *rows = [line for line in table.splitlines() if line.startswith("  ")]
        assert [row.split()[0] for row in rows] == ["a0", "a1", "a2", "mean", "b"]
        assert {len(row) for row in rows} == {len(headings)} and len(headings) <= max(100, terminal)


def test_a_mean_over_fewer_models_than_a_setting_has_tells_of_how_many(sweep, capsys):
    for name in ("a1", "a2"):  # of three models one has its discriminator
        checkpoint = load_checkpoint(sweep / name)
        save_checkpoint(sweep / name / "ckpt.pt", {**checkpoint, "discriminator": None})
    metrics = ("--metrics", "mig", "discriminator_total_correlation", "--num_batches", 1)
    paths = ("--model_path", *(sweep / name for name in ("a0", "a1", "a2", "b")))
    assert run(*paths, *metrics) == 0
    out, _ = capsys.readouterr()
    (mean,) = re.findall(r"^  mean of 3 \+- deviation(.*)", out, re.M)
    cells = re.split("  +", mean.strip())
    assert ["+-" in cell for cell in cells] == [True, True, False]
    assert re.fullmatch(r"-?\d\.\d{3} \(of 1\)", cells[2])
    assert out.count("(of ") == 1
    assert run(*paths, *metrics, "--markdown") == 0
    first, second = capsys.readouterr().out.splitlines()[2:4]
    assert re.search(r"\| 3 \| \S+ ± \S+ \| \S+ ± \S+ \| \S+ \(of 1\) \|$", first)
    assert "(of" not in second and second.endswith("| - |")  # none of one model


def test_the_deviation_of_two_models_of_three_tells_that_it_is_of_two(sweep, capsys):
    checkpoint = load_checkpoint(sweep / "a1")
    save_checkpoint(sweep / "a1" / "ckpt.pt", {**checkpoint, "discriminator": None})
    metrics = ("--metrics", "discriminator_total_correlation", "--num_batches", 1)
    assert run("--model_path", sweep, *metrics) == 0
    mean = r"^  mean of 3 \+- deviation +-?\d\.\d+ \+- \d\.\d+ \(of 2\)$"
    assert re.search(mean, capsys.readouterr().out, re.M)


def test_udr_of_one_setting(sweep, capsys):
    paths = [sweep / f"a{seed}" for seed in range(3)]
    assert run("--model_path", *paths, "--metrics", "udr") == 0
    assert re.search(r"^ +UDR$", capsys.readouterr().out, re.M)
    for path in paths:
        result = read_json(path / "metrics.json")
        assert 0 < result["scores"]["udr"]["value"] <= 1
        assert len(result["details"]["udr"]["pairwise"]) == 2
        others = [str(other / "ckpt.pt") for other in paths if other != path]
        assert result["details"]["udr"]["compared_with"] == others


def test_equal_models_agree(sweep):
    same = sweep / "same"
    for name in ("one", "two"):
        write_checkpoint(same / name, seed=5)
    assert run("--model_path", same, "--metrics", "udr") == 0
    one, two = (read_json(same / n / "metrics.json")["scores"]["udr"] for n in ("one", "two"))
    assert one["value"] == pytest.approx(two["value"]) and 0.3 < one["value"] <= 0.9


def test_a_metric_named_twice_is_measured_once(tmp_path):
    path = write_checkpoint(tmp_path / "model")
    assert run("--model_path", path, *MIG, "--metrics", "mig", "mig") == 0
    assert read_json(path.with_name("metrics.json"))["scores"]["mig"]["standard_error"] is None


def test_a_seed_twice_in_a_setting_is_told(sweep, capsys):
    argv = (*MIG, "--model_path", sweep / "a0", sweep / "a1")
    assert run(*argv) == 0
    out, err = capsys.readouterr()
    assert "which differ in their seed\n" in out and "same seed" not in err
    shutil.copytree(sweep / "a1", sweep / "copy")
    for markdown in ((), ("--markdown",)):
        assert run(*argv, sweep / "copy", *markdown) == 0
        out, err = capsys.readouterr()
        assert "which differ in their seed, but for some of the same seed" in out
        twice = f"{sweep}/a1/ckpt.pt, {sweep}/copy/ckpt.pt"
        assert f"the same seed more than once in a setting: {twice}\n" in err


def test_any_seed_will_do_for_scikit_learn(tmp_path):
    path = write_checkpoint(tmp_path / "model")
    flags = ("--metrics", "dci", "--dci_estimator", "forest", "--num_batches", 1)
    assert run("--model_path", path, *flags, "--batch_size", 20, "--seed", 2**63 - 1) == 0


@pytest.mark.usefixtures("few_pairs")
def test_markdown(sweep, capsys):
    flags = ("--dci_estimator", "lasso", "--protocol", "paper", "--num_batches", 1)
    models = (sweep / "a0", sweep / "a1", sweep / "b")
    assert run("--model_path", *models, "--markdown", *flags) == 0
    table, _, below = capsys.readouterr().out.partition("\n\n")
    header, line, first, second = [row.strip("| ").split(" | ") for row in table.splitlines()]
    assert header[:4] == ["beta", "gamma", "steps", "n"]
    dci = ["DCI D, lasso", "DCI C, lasso", "DCI I, lasso"]
    assert header[4:10] == ["FactorVAE", "MIG", *dci, "SAP"]
    assert len(header) == len(line) == len(first) == len(second) <= 14
    assert first[:4] == ["1", "6.4", "2,000", "2"] and second[:4] == ["1", "0", "2,000", "1"]
    assert all(re.fullmatch(r"-?\d\S* ± \d\S*", cell) for cell in first[4:])
    assert all("±" not in cell for cell in second[4:])
    assert "mean ± standard deviation" in below
    assert "- dsprites, rendered: 432 images" in below
    assert "- FactorVAE: protocol paper: 800 votes of 100 images" in below
    assert "- DCI D, DCI C, DCI I: lasso: lasso regression" in below


def test_markdown_tells_rendered_from_official(sweep, capsys):
    write_checkpoint(sweep / "c", dataset="official")
    argv = ("--model_path", sweep / "a0", sweep / "c", "--markdown", *MIG)
    assert run(*argv) == 0
    out = capsys.readouterr().out
    assert "| dsprites, rendered |" in out and "| dsprites, official |" in out


def test_a_name_with_a_bar_leaves_a_markdown_table_whole(tmp_path, capsys, monkeypatch, sprites):
    odd = dataclasses.replace(sprites, name="we|ird")
    monkeypatch.setitem(DATASETS, "plain", lambda data_dir: odd)
    write_checkpoint(tmp_path / "a")
    write_checkpoint(tmp_path / "b", dataset="plain")
    assert run("--model_path", "a", "b", "--markdown", *MIG) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert any("we\\|ird" in row for row in rows)
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["runs/a1"], ["a1"]),
        (["runs/a1/ckpt.pt"], ["a1"]),
        (["runs"], ["a0", "a1", "a2", "b"]),
        (["runs/a*"], ["a0", "a1", "a2"]),
        (["runs/*/ckpt.pt", "runs/b"], ["a0", "a1", "a2", "b"]),
        (["runs/b", "runs/a0/../b"], ["b"]),
    ],
)
@pytest.mark.usefixtures("sweep")
def test_which_checkpoints_are_meant(names, found):
    assert [path.parent.name for path in find_checkpoints(names)] == found


def test_links_to_folders_are_followed_and_each_run_is_found_once(sweep, tmp_path):
    (tmp_path / "disk").mkdir()
    shutil.move(sweep / "a1", tmp_path / "disk" / "a1")
    (sweep / "a1").symlink_to(tmp_path / "disk" / "a1")
    (sweep / "again").symlink_to(sweep / "a0")
    (sweep / "a2" / "above").symlink_to(sweep)
    found = [str(path.relative_to(sweep)) for path in find_checkpoints([str(sweep)])]
    assert found == [f"{name}/ckpt.pt" for name in ("a0", "a1", "a2", "b")]
    later = write_checkpoint(tmp_path / "disk" / "later")
    (sweep / "later").symlink_to(later.parent)
    assert find_checkpoints(None) == [Path("runs/later/ckpt.pt")]


def test_the_newest_is_meant_by_default(sweep):
    write_checkpoint(sweep / "later")
    assert find_checkpoints(None) == [sweep.relative_to(sweep.parent) / "later" / "ckpt.pt"]


def test_files_beside_each_other_have_results_of_their_own(tmp_path):
    """However many are evaluated at a time; pictures find each one's own."""
    paths = [write_checkpoint(tmp_path / "flat", name=f"{n}.pt") for n in ("ckpt", "one", "two")]
    names = ["metrics.json", "one_metrics.json", "two_metrics.json"]
    for asked in (["flat/*.pt"], ["flat/ckpt.pt"], ["flat/one.pt"], ["flat/two.pt"]):
        for path in (tmp_path / "flat").glob("*.json"):
            path.unlink()
        assert run("--model_path", *asked, *MIG) == 0
        written = sorted(path.name for path in (tmp_path / "flat").glob("*.json"))
        assert written == [n for n, path in zip(names, paths, strict=True) if path.match(asked[0])]
        found = [path for path in paths if saved_scores(path) is not None]
        assert found == [path for path in paths if path.match(asked[0])]
    (tmp_path / "flat" / "two_metrics.json").rename(tmp_path / "flat" / "metrics.json")
    assert saved_scores(paths[2]) is not None  # as earlier versions wrote it
    assert saved_scores(paths[0]) is None


def test_output_is_where_it_is_asked_for(tmp_path):
    path = write_checkpoint(tmp_path / "model")
    assert run("--model_path", path, *MIG, "--output", "here.json") == 0
    assert "mig" in read_json(tmp_path / "here.json")["scores"]
    assert not path.with_name("metrics.json").exists()


def test_runs_of_another_precision_are_another_setting(sweep):
    write_checkpoint(sweep / "a3", precision="bf16")
    config = EvaluateConfig()
    groups = group_by_setting(load_models(find_checkpoints([str(sweep)]), config)[0])
    assert [len(group) for group in groups] == [1, 3, 1]  # bf16, fp32; gamma 0


def test_settings_are_told_as_people_write_them():
    values = (True, False, 20000, 6.4, 6.4000001, None, (2000, 8000))
    told = ["yes", "no", "20,000", "6.4", "6.4000001", "-", "2000 8000"]
    assert [setting_value(value) for value in values] == told


def test_settings_and_seeds_are_in_the_order_of_their_numbers(tmp_path, capsys):
    for gamma in (35.0, 2.0, 10.0):
        write_checkpoint(tmp_path / "runs" / f"gamma{gamma:g}", gamma=gamma)
    write_checkpoint(tmp_path / "runs" / "seed10", gamma=2.0, seed=10)
    write_checkpoint(tmp_path / "runs" / "seed9", gamma=2.0, seed=9)
    assert run("--model_path", "runs", *MIG, "--csv", "all.csv") == 0
    with open("all.csv") as file:
        rows = [(float(row["gamma"]), int(row["seed"])) for row in csv.DictReader(file)]
    assert rows == [(2, 0), (2, 9), (2, 10), (10, 0), (35, 0)]
    out = capsys.readouterr().out
    assert re.findall(r"gamma (\d+)", out) == ["2", "10", "35"]


# --- Files that cannot be replaced ----------------------------------------------------------------


def test_a_link_stays_a_link(tmp_path):
    path = write_checkpoint(tmp_path / "model")
    (tmp_path / "there.json").touch()  # empty, as a device is
    Path("link.json").symlink_to("there.json")
    Path("dangling.csv").symlink_to("there.csv")
    argv = ("--output", "link.json", "--csv", "dangling.csv")
    assert run("--model_path", path, *MIG, *argv) == 0
    assert Path("link.json").is_symlink() and Path("dangling.csv").is_symlink()
    assert "mig" in read_json(tmp_path / "there.json")["scores"]
    assert "mig" in (tmp_path / "there.csv").read_text()


def test_a_pipe_is_written_through(tmp_path):
    path = write_checkpoint(tmp_path / "model")
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert run("--model_path", path, *MIG, "--output", "pipe") == 0
    assert "mig" in json.loads(os.read(reader, 1 << 16))["scores"]
    os.close(reader)
    assert stat.S_ISFIFO(os.lstat("pipe").st_mode)


def test_an_empty_file_stays_where_another_flag_is_wrong(tmp_path):
    write_checkpoint(tmp_path / "model")
    Path("kept.json").touch()
    argv = ("--output", "kept.json", "--csv", "missing/all.csv")
    assert run("--model_path", "model", *argv) == 2
    assert Path("kept.json").exists()


def test_runs_in_a_folder_of_others_are_measured_into_a_table(tmp_path, capsys):
    for name in ("one", "other"):
        path = write_checkpoint(tmp_path / "theirs" / name, seed=len(name))
    path.with_name("metrics.json").mkdir()  # as if nothing could be written there
    assert run("--model_path", "theirs", *MIG) == 2
    err = capsys.readouterr().err
    assert err.endswith("; --csv has a table of them elsewhere\n") and "--output" not in err
    assert run("--model_path", "theirs", *MIG, "--csv", "mine.csv") == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("error: the results are printed, but")
    )
    assert len(Path("mine.csv").read_text().splitlines()) == 3


def test_a_full_disk_loses_no_table(tmp_path, monkeypatch, capsys):
    path = write_checkpoint(tmp_path / "model")
    path.with_name("metrics.json").write_text("{}")

    def full(path, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("factorvae.evaluation.outputs.write_text", full)
    assert run("--model_path", path, *MIG) == 2
    out, err = capsys.readouterr()
    assert re.search(r"^MIG  ", out, re.M)
    assert err.splitlines()[-1] == (
        f"error: the results are printed, but not written to {path.with_name('metrics.json')}: "
        "No space left on device"
    )
    assert path.with_name("metrics.json").read_text() == "{}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_device_is_told_after_the_table(tmp_path, capsys):
    path = write_checkpoint(tmp_path / "model")
    assert run("--model_path", path, *MIG, "--output", "/dev/full") == 2
    out, err = capsys.readouterr()
    assert re.search(r"^MIG  ", out, re.M)
    assert err.splitlines()[-1].endswith("/dev/full: No space left on device")


# --- Files that results must not replace ----------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "lost"),
    [
        (("--output", "run/ckpt.pt"), "a model that is measured"),
        (("--csv", "run/../run/ckpt.pt"), "a model that is measured"),
        (("--csv", "link"), "a model that is measured"),
        (("--csv", "linked/ckpt.pt"), "a model that is measured"),
        (("--output", "other/ckpt.pt"), "a run's own ckpt.pt"),
        (("--output", "run/config.json"), "a run's own config.json"),
        (("--csv", "run/stats.csv"), "a run's own stats.csv"),
        (("--csv", "link.csv"), "a run's own stats.csv"),
        (("--csv", "run/log.txt"), "a run's own log.txt"),
        (("--output", "study/study.json"), "a run's own study.json"),
        (("--csv", "run/metrics.json"), "a run's own metrics.json"),
        (("--csv", "other/metrics.json", "--output", "x"), "a run's own metrics.json"),
        (("--output", "x", "--csv", "run/../x"), "the scores of run/ckpt.pt"),
        (("--output", "x", "--csv", "to_x"), "the scores of run/ckpt.pt"),
        (("--output", "table.csv"), "what evaluate.py has not written"),
        (("--output", "package.json"), "what evaluate.py has not written"),
        (("--output", "image"), "what evaluate.py has not written"),
        (("--output", "to_image"), "what evaluate.py has not written"),
        (("--csv", "table.csv"), "what evaluate.py has not written"),
        (("--csv", "to_image"), "what evaluate.py has not written"),
    ],
)
def test_no_file_is_replaced_that_is_no_such_results(tmp_path, capsys, flags, lost):
    for name in ("run", "other"):
        write_checkpoint(tmp_path / name)
        (tmp_path / name / "stats.csv").write_text("step,recon\n1,2\n")
    (tmp_path / "study").mkdir()
    Path("study/study.json").write_text("{}")
    Path("table.csv").write_text("seed,mig\n0,.5\n")
    Path("package.json").write_text('{"name": "app"}')
    Path("image").write_bytes(b"\x89PNG\xff")
    links = {"link": "run/ckpt.pt", "link.csv": "run/stats.csv", "linked": "run"}
    for name, target in {**links, "to_x": "x", "to_image": "image"}.items():
        Path(name).symlink_to(target)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run("--model_path", "run", *MIG, *flags) == 2
    path = flags[flags.index("--csv" if "--csv" in flags else "--output") + 1]
    told = f"error: {flags[0] if len(flags) == 2 else '--csv'} {path} would replace {lost}; "
    out, err = capsys.readouterr()
    assert out == "" and err == f"{told}name another file\n"
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_two_models_have_no_scores_in_one_file(tmp_path, capsys):
    for name in ("a.pt", "a.ckpt"):
        write_checkpoint(tmp_path / "flat", name=name)
    assert run("--model_path", "flat/a.pt", "flat/a.ckpt", *MIG) == 2
    told = "flat/a.pt and flat/a.ckpt would both have their results in flat/a_metrics.json"
    assert told in capsys.readouterr().err
    assert not Path("flat/a_metrics.json").exists()


def test_a_file_of_a_models_own_folder_is_kept_whatever_the_models_name(tmp_path, capsys):
    """Pictures read stats.csv beside a model of any name."""
    write_checkpoint(tmp_path / "flat", name="one.pt")
    for name in ("flat/stats.csv", "./flat/../flat/stats.csv", tmp_path / "flat" / "stats.csv"):
        assert run("--model_path", "flat/one.pt", *MIG, "--csv", name) == 2
        assert "would replace a run's own stats.csv" in capsys.readouterr().err
    assert run("--model_path", "flat/one.pt", *MIG, "--csv", "flat/one_metrics.json") == 2
    assert "would replace the scores of flat/one.pt" in capsys.readouterr().err


def test_results_may_have_any_name_where_nothing_is_lost(tmp_path, capsys):
    path = write_checkpoint(tmp_path / "run")
    Path("empty.json").touch()
    for output, table in (
        ("metrics.json", "stats.csv"),  # in a folder that is no run's
        ("metrics.json", "stats.csv"),  # once more, over those
        ("run/metrics.json", "run/scores.csv"),
        ("empty.json", "/dev/null"),
        ("/dev/null", "/dev/null"),
    ):
        assert run("--model_path", path, *MIG, "--output", output, "--csv", table) == 0
    assert "mig" in read_json(Path("empty.json"))["scores"]
    assert "gone" not in capsys.readouterr().err


def test_results_go_to_the_end_of_the_programs_own_output(tmp_path, capfd):
    path = write_checkpoint(tmp_path / "run")
    print("what was said before", flush=True)
    assert run("--model_path", path, *MIG, "--output", "/dev/stdout", "--csv", "/dev/stdout") == 0
    out = capfd.readouterr().out
    assert out.startswith("what was said before\n")
    assert '"mig": {' in out and "\ncheckpoint,seed," in out


# --- The data of the training ---------------------------------------------------------------------


def test_no_folder_is_made_where_a_checkpoint_says(tmp_path, monkeypatch):
    asked = []
    load = DATASETS["dsprites"]
    monkeypatch.setitem(DATASETS, "dsprites", lambda data_dir: asked.append(data_dir) or load(""))
    elsewhere = tmp_path / "elsewhere"
    path = write_checkpoint(tmp_path / "model", data_dir=str(elsewhere))
    assert run("--model_path", path, *MIG) == 0
    elsewhere.mkdir()
    assert run("--model_path", path, *MIG) == 0
    assert run("--model_path", path, *MIG, "--data_dir", "given") == 0
    assert asked == ["data", str(elsewhere), "given"]


def test_the_trained_dataset_by_its_name_keeps_its_options(tmp_path, monkeypatch, sprites):
    asked = []

    def load(data_dir, *, split=None):
        asked.append(split)
        return sprites

    monkeypatch.setitem(DATASETS, "parted", load)
    path = write_checkpoint(tmp_path / "model", dataset="parted", options={"split": "test"})
    for flags in ((), ("--dataset", "parted"), ("--dataset", "dsprites")):
        assert run("--model_path", path, *MIG, *flags) == 0
    assert asked == ["test", "test"]


def test_only_models_of_the_same_images_share_them(tmp_path, monkeypatch, sprites):
    asked = []

    def load(data_dir, *, split=None):
        asked.append((data_dir, split))
        return sprites

    monkeypatch.setitem(DATASETS, "parted", load)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    trained = [("here", "a"), ("here", "b"), ("there", "b"), ("here", "a")]
    paths = [
        write_checkpoint(
            tmp_path / str(n), dataset="parted", data_dir=folder, options={"split": split}
        )
        for n, (folder, split) in enumerate(trained)
    ]
    load_models(paths, EvaluateConfig())
    assert asked == trained[:3]


# --- Data without a grid of factors ---------------------------------------------------------------


def test_a_folder_without_labels(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    path = write_checkpoint(tmp_path / "model", dataset="folder:photos", channels=3)
    assert run("--model_path", path) == 0
    out = capsys.readouterr().out
    result = read_json(path.with_name("metrics.json"))
    measured = {score["measure"] for score in result["scores"].values()}
    assert measured == set(METRICS) - NEED_LABELS - {"udr"}
    assert result["data"]["source"] == "folder" and result["points"]["num_points"] == 6
    assert "the factors of folder:photos are not known" in out


def test_a_table_of_labels(tmp_path, capsys):
    path = write_checkpoint(tmp_path / "model", dataset="table")
    assert run("--model_path", path, "--dci_estimator", "lasso") == 0
    assert "table has no image of every combination of its factors" in capsys.readouterr().out
    result = read_json(path.with_name("metrics.json"))
    measured = {score["measure"] for score in result["scores"].values()}
    assert measured == set(METRICS) - {"factor_vae_score", "beta_vae_score", "udr"}
    assert np.shape(result["details"]["dci"]["importance"]) == (4, 2)


def labelled(monkeypatch, sprites, factors, grid=False):
    """A dataset "labelled" of these factors [N, F], one column after the other."""
    names = [f"factor{column}" for column in range(factors.shape[1])]
    sizes = [int(size) for size in factors.max(axis=0) + 1]
    space = FactorSpace(names, sizes) if grid else None
    known = {} if grid else {"factors": factors, "factor_names": names, "factor_sizes": sizes}
    dataset = Dataset("labelled", "drawn", sprites.table, space, **known)
    monkeypatch.setitem(DATASETS, "labelled", lambda data_dir: dataset)


@pytest.mark.parametrize("grid", [False, True])
def test_metrics_of_factors_that_do_not_vary_are_left_out(
    tmp_path, monkeypatch, sprites, capsys, grid
):
    varying = np.arange(len(sprites)) if grid else np.arange(len(sprites)) % 3
    labelled(monkeypatch, sprites, np.stack([0 * varying, varying], axis=1), grid)
    path = write_checkpoint(tmp_path / "run", dataset="labelled")
    assert run("--model_path", path, "--factors", "factor0", "--num_batches", 1) == 0
    result = read_json(path.with_name("metrics.json"))
    measured = {score["measure"] for score in result["scores"].values()}
    assert measured == set(METRICS) - NEED_LABELS - {"udr"}
    constant = "no factor that is scored takes more than one value"
    assert result["left_out"]["mig"] == f"{constant} in the 256 points"
    assert f"explicitness, irs, infomec: {constant}" in capsys.readouterr().out
    assert (result["left_out"]["factor_vae_score"] == constant) == grid
    assert run("--model_path", path, "--factors", "factor0", "--metrics", "mig", "losses") == 2
    assert f"mig of {path}: {constant} in the 432 points" in capsys.readouterr().err


def test_a_value_that_the_points_lack_leaves_out_what_needs_it(tmp_path, monkeypatch, sprites):
    """One image of 432 is labelled: among the points of one batch it is not."""
    labelled(monkeypatch, sprites, (np.arange(len(sprites)) == 7)[:, None].astype(int))
    path = write_checkpoint(tmp_path / "run", dataset="labelled")
    assert run("--model_path", path, "--num_batches", 1, "--batch_size", 8) == 0
    assert {"mig", "sap"} <= read_json(path.with_name("metrics.json"))["left_out"].keys()


def test_a_model_that_cannot_be_measured_holds_up_no_other(sweep, capsys):
    path = sweep / "a1" / "ckpt.pt"
    checkpoint = load_checkpoint(path)
    checkpoint["vae"]["encoder.head.bias"][-1] = 800  # a log variance
    save_checkpoint(path, checkpoint)
    metrics = ("--metrics", "losses", "mig", "udr", "--num_batches", 1)
    assert run("--model_path", sweep, *metrics, "--csv", "all.csv") == 2
    out, err = capsys.readouterr()
    told = f"error: {path}: the model gives 256 of 256 images a mean or variance that is infinite"
    assert err.splitlines()[-1].startswith(told)
    assert set(re.findall(r"^  (a\d|b|mean of \d)", out, re.M)) == {"a0", "a2", "b", "mean of 2"}
    with open("all.csv") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "2", "0"]
    assert not path.with_name("metrics.json").exists()
    assert "udr" in read_json(sweep / "a0" / "metrics.json")["scores"]  # with a2
    assert run("--model_path", sweep / "a0", sweep / "a1", *metrics) == 2
    assert "it compares several" in read_json(sweep / "a0" / "metrics.json")["left_out"]["udr"]
    capsys.readouterr()
    assert run("--model_path", path, *MIG) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith(told)


def test_a_model_that_cannot_be_loaded_holds_up_no_other(sweep, capsys):
    torn, lost = sweep / "a1" / "ckpt.pt", write_checkpoint(sweep / "c", dataset="npz:lost.npz")
    torn.write_bytes(torn.read_bytes()[:1000])
    assert run("--model_path", sweep, *MIG, "--csv", "all.csv") == 2
    out, err = capsys.readouterr()
    assert f"left out: {torn} is damaged" in err and f"left out: {lost}: " in err
    assert err.splitlines()[-1].startswith(f"error: {torn} is damaged")
    assert "lost.npz" in err.splitlines()[-1]
    assert set(re.findall(r"^  (a\d|b|c)", out, re.M)) == {"a0", "a2", "b"}
    assert len(Path("all.csv").read_text().splitlines()) == 4
    assert run("--model_path", sweep / "a0", torn, *MIG, "--output", "x.json") == 2
    assert "--output names one file, and there are 2 models" in capsys.readouterr().err


def test_no_warning_of_factors_of_many_values(tmp_path, monkeypatch, sprites):
    labelled(monkeypatch, sprites, np.arange(len(sprites))[:, None] // 2)
    path = write_checkpoint(tmp_path / "run", dataset="labelled")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run("--model_path", path, "--metrics", "explicitness", "--num_batches", 1) == 0


def test_other_images_than_in_training_are_told(tmp_path, capsys):
    path = write_checkpoint(tmp_path / "model")
    assert run("--model_path", path, "--dataset", "official", *MIG) == 0
    out = capsys.readouterr().out
    assert "dsprites, official: 432 images" in out
    assert "trained on other images: dsprites, rendered" in out
    result = read_json(path.with_name("metrics.json"))
    assert result["checkpoint"]["trained_on"] == {"name": "dsprites", "source": "rendered"}
    assert result["data"]["source"] == "official"


def test_a_settings_line_tells_its_data_and_what_differs(tmp_path):
    paths = [write_checkpoint(tmp_path / f"m{beta}", beta=beta, lr=beta / 100) for beta in (1, 4)]
    config = EvaluateConfig(dataset="official")
    models, _ = load_models(paths, config)
    for model in models:
        model.scores["mig"], model.protocols["mig"] = 0.5, "known"
    lines = text_table(models, config).splitlines()
    assert [line for line in lines if "steps" in line] == [
        f"dsprites, official; beta {beta}; gamma 6.4; trained on dsprites, rendered; "
        f"lr {lr}; 2,000 steps"
        for beta, lr in ((1, 0.01), (4, 0.04))
    ]
    assert "not finished" not in text_table(models[:1], config)
    models[0].checkpoint["finished"] = False
    assert "step 2,000, not finished\n" in text_table(models[:1], config)


def test_models_of_a_set_that_grew_have_no_mean_in_common(tmp_path, capsys):
    for seed, num_images in ((0, 40), (1, 40), (2, 432)):
        path = write_checkpoint(tmp_path / f"m{seed}", seed=seed)
        checkpoint = load_checkpoint(path)
        checkpoint["dataset"]["num_images"] = num_images
        save_checkpoint(path, checkpoint)
    assert run("--model_path", tmp_path, *MIG) == 0
    out = capsys.readouterr().out
    assert "mean of 2" in out and "mean of 3" not in out
    assert "trained on other images: dsprites, rendered, 40 images" in out


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_metric_is_added_by_its_own_file_and_a_line_of_the_list(tmp_path):
    root = Path(evaluate.__file__).parent
    shutil.copytree(root / "factorvae", "factorvae", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "evaluate.py", "evaluate.py")
    Path("factorvae/metrics/breadth.py").write_text(
        "def breadth(codes, factors, times):\n"
        "    return {'breadth': times * float(codes.std() + factors.max())}\n"
    )
    list_of_metrics = Path("factorvae/evaluation/scores.py")
    text = list_of_metrics.read_text()
    text = text.replace("_ALL = (", '_ALL = (plain(breadth, "factors", "all", "B", "B", times=2),')
    before = "from factorvae.metrics.dci"
    text = text.replace(before, f"from factorvae.metrics.breadth import breadth\n{before}")
    list_of_metrics.write_text(text)
    images = np.random.default_rng(0).integers(0, 256, (16, 64, 64), dtype=np.uint8)
    np.savez("own.npz", images=images, factors=np.indices((4, 4)).reshape(2, -1).T)
    write_checkpoint(tmp_path / "run", dataset="npz:own.npz")
    command = [sys.executable, "evaluate.py", "--model_path", "run", "--metrics", "breadth"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (value,) = read_json(tmp_path / "run/metrics.json")["scores"].values()
    assert value["measure"] == "breadth" and value["how"] == "all" and value["value"] > 6
    assert f"{value['value']:.3f}" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_path", "nowhere.pt"], "no checkpoint at nowhere.pt"),
        (["--model_path", "foreign.pt"], "foreign.pt is no checkpoint of this project"),
        (["--model_path", "text.pt"], "text.pt is damaged, or is no checkpoint"),
        (["--model_path", "empty"], "no checkpoint at empty/ckpt.pt"),
        (["--model_path", "none/*"], "no checkpoint matches none/*"),
        (["--model_path", "run", "nowhere.pt"], "no checkpoint at nowhere.pt"),
        (["--model_path", "rgb"], "the model takes images of (channels, height, width) (3, 64"),
        (["--dataset", "mnist"], "unknown dataset 'mnist'; known are dsprites"),
        (["--metrics", "fid"], "unknown metric fid; known are factor_vae_score, beta_vae_score, "),
        (["--metrics", "udr"], "udr of run/ckpt.pt: it compares several checkpoints"),
        (["--dataset", "plain", "--metrics", "mig"], "mig of run/ckpt.pt: the factors of plain"),
        (["--dataset", "table", "--metrics", "beta_vae_score"], "beta_vae_score of run/ckpt.pt: "),
        (["--factors", "posZ"], "--factors posZ: dsprites has shape, scale, orientation, posX"),
        (["--factors", "scale", "scale"], "--factors names one twice: scale, scale"),
        (["--dataset", "plain", "--factors", "posX"], "--factors: the factors of plain are not"),
        (["--num_batches", "0"], "--num_batches must be at least 1, not 0"),
        (["--num_batches", "many"], "argument --num_batches: invalid int value: 'many'"),
        (["--batch_size", "-3"], "--batch_size must be at least 1, not -3"),
        (
            ["--num_batches", "1", "--batch_size", "1"],
            "--num_batches times --batch_size must be at least 4",
        ),
        (["--repeats", "0"], "--repeats must be at least 1, not 0"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--dci_estimator", "tree"], "--dci_estimator must be one of gbt, gbt_sklearn, forest"),
        (["--protocol", "mine"], "--protocol must be one of dlib, paper, not mine"),
        (["--device", "cuda:99"], "--device cuda:99: PyTorch sees"),
        (["--csv", "missing/all.csv"], "missing/all.csv cannot be written: No such file"),
        (["--output", "empty"], "empty cannot be written: Is a directory"),
        (["--model_path", "rgb", "--output", "x.json"], "the model takes images"),
        (["--model_path", "text.pt", "foreign.pt"], "text.pt is damaged, or is no checkpoint"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, capsys, flags, message):
    write_checkpoint(tmp_path / "run")
    write_checkpoint(tmp_path / "rgb", channels=3)
    torch.save({"vae": {}}, "foreign.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "empty").mkdir()
    if "--model_path" not in flags:
        flags = ["--model_path", "run", *flags]
    assert run(*flags) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("measuring ")]
    assert len(lines) == 1 and lines[0].startswith(f"error: {message}")
    assert out == ""
    assert not list(tmp_path.glob("**/metrics.json"))


def test_a_folder_of_files_is_all_of_them(tmp_path):
    for name in ("one.pt", "two.pt"):
        write_checkpoint(tmp_path / "shipped", name=name)
    assert run("--model_path", tmp_path / "shipped", *FEW, "--metrics", "losses") == 0
    assert sorted(path.name for path in (tmp_path / "shipped").glob("*.json")) == [
        "one_metrics.json",
        "two_metrics.json",
    ]
