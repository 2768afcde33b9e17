"""benchmarks/results: what it writes down of runs, without training any."""

import argparse
import csv
import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train
from benchmarks.results import running, sweeps
from benchmarks.results.__main__ import main
from benchmarks.results.carrying import PART_BYTES, carry_from, carry_to
from benchmarks.results.pages import curves_of, markdown
from benchmarks.results.rows import cell, compared, curve_rows, groups_of, seconds_of
from benchmarks.results.running import ESTIMATORS, ROOT, Budget, metrics_file
from benchmarks.results.shipping import _merit, reconstruction, sample_images
from benchmarks.results.sweeps import Sweep, runs_of, spelled_flags
from factorvae.checkpoint import export_weights, load_checkpoint, load_model
from factorvae.command_line import parse_sweep
from factorvae.config import TrainConfig
from factorvae.datasets.table import as_dataset
from factorvae.errors import UserError
from factorvae.files import CHECKPOINT_NAME
from factorvae.run_log import RunLog, columns
from factorvae.training.trainer import Trainer
from tests.helpers import run_main

SHORT = "--gamma 6.4 --max_steps 5000"
SWEEPS = [
    Sweep("factorvae", "FactorVAE", f"{SHORT} --seed 0-1", "dsprites_factorvae"),
    Sweep("constant", "FactorVAE, constant", f"{SHORT} --seed 0-1"),
]


@pytest.fixture
def laptop(tmp_path, monkeypatch, sprites):
    """A profile of two sweeps whose runs have the same names; the first one is finished."""
    monkeypatch.setattr(sweeps, "PROFILES", {"laptop": SWEEPS})
    for seed in (0, 1):
        folder = tmp_path / "runs" / "laptop" / "factorvae" / f"dsprites_beta1_gamma6.4_seed{seed}"
        folder.mkdir(parents=True)
        trainer = Trainer(TrainConfig(seed=seed, disc_width=8, batch_size=8), as_dataset(sprites))
        trainer.steps_done = 5000
        state = trainer.state_dict()
        weights = export_weights({**state, "finished": True})
        (folder / CHECKPOINT_NAME).write_bytes(weights)
        with RunLog(folder, columns(10), 0, 100) as log:
            log.row({"step": 5000, "images_per_second": 320.0})
        scores = {"disentanglement": 0.25, "completeness": 0.5, "informativeness": 0.75}
        scores |= {"factor_vae_score": 0.5 + 0.25 * seed, "mig": 0.125, "sap": 0.0}
        scores |= {"recon_loss": 60.0, "kl": 10.0, "num_active": 4.0}
        content = {
            "checkpoint": {"config": state["config"], "step": 5000},
            "versions": {"torch": "2.14"},
            "scores": {name: {"value": value} for name, value in scores.items()},
        }
        for estimator in ESTIMATORS:
            metrics_file(folder, estimator).write_text(json.dumps(content))
    return tmp_path


def run(folder):
    flags = ["--profile", "laptop", "--draw", "--output_dir", str(folder / "runs")]
    main([*flags, "--docs", str(folder / "docs"), "--pretrained", str(folder / "shipped")])


def test_the_tables_tell_means_over_seeds_and_what_is_missing(laptop):
    run(laptop)
    text = (laptop / "docs" / "results.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| dsprites")]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2:7] == ["FactorVAE (laptop)", "1", "6.4", "5,000", "0, 1"]
    assert cells[7] == ".625 ± .177"
    assert cells[10] == cells[11] == ".250 ± .000, .500 ± .000, .750 ± .000"
    assert "python -m benchmarks.results --profile laptop  # 2 of 4 runs are done" in text


@pytest.mark.parametrize("seeds", ["5", "5-9", "5-9 12 14", "22 5"])
def test_the_flags_of_one_run_have_its_seed_alone(seeds):
    sweep = Sweep("some", "FactorVAE", f"{SHORT} --seed {seeds} --gamma 3")
    assert spelled_flags(sweep, 5) == f"{SHORT} --seed 5 --gamma 3"


def test_rows_of_runs_that_are_not_here_stay(laptop):
    run(laptop)
    before = (laptop / "docs" / "results.csv").read_text()
    (laptop / "runs").rename(laptop / "elsewhere")
    run(laptop)
    assert (laptop / "docs" / "results.csv").read_text() == before
    assert len(before.splitlines()) == 3


def test_a_run_measured_anew_replaces_its_row(laptop):
    run(laptop)
    for path in laptop.rglob("*seed1/metrics.json"):
        path.write_text(path.read_text().replace('{"value": 0.125}', '{"value": 0.5}'))
    run(laptop)
    rows = list(csv.DictReader((laptop / "docs" / "results.csv").read_text().splitlines()))
    assert [row["mig"] for row in rows] == ["0.125", "0.5"]


def test_of_alike_scores_the_higher_mig_ships():
    runs = [(0.751, 0.1), (0.749, 0.2), (0.70, 0.9)]
    rows = [{"factor_vae_score": str(score), "mig": str(mig)} for score, mig in runs]
    assert max(rows, key=_merit) == rows[1]


def test_minutes_of_a_curve_are_by_the_least_disturbed_run():
    def row(seed, steps, seconds):
        known = {"profile": "laptop", "sweep": "fast", "run": seed, "steps": steps}
        return known | {"seconds": seconds, "factor_vae_score_paper": 0.5, "recon_loss": 60}

    rows = [row("a", 1000, 100), row("a", 2000, 200), row("b", 1000, 50)]
    ((one, other),) = curves_of(rows).values()
    np.testing.assert_allclose(one, [[1000, 5 / 6, 0.5, 60], [2000, 5 / 3, 0.5, 60]])
    np.testing.assert_allclose(other, [[1000, 5 / 6, 0.5, 60]])


def test_seconds_are_of_the_steps_until_then(tmp_path):
    with RunLog(tmp_path, columns(10), 0, 100) as log:
        log.row({"step": 100, "images_per_second": 64.0})
        log.row({"step": 200, "images_per_second": 32.0})
    assert seconds_of(tmp_path, 64) == 300
    assert seconds_of(tmp_path, 64, until=100) == 100


def test_a_finished_run_is_measured_by_each_estimator(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(running, "call", lambda command, budget: commands.append(command) or True)
    options = argparse.Namespace(data_dir="data", device="cpu")
    assert running.evaluate(tmp_path, 20, options, Budget())
    given = [command[command.index("--dci_estimator") + 1] for command in commands]
    assert given == ["gbt", "forest", "lasso"]
    assert [command[-2:] == ["--metrics", "dci"] for command in commands] == [False, True, True]


def test_a_table_of_others_is_not_replaced(laptop):
    table = laptop / "docs" / "results.csv"
    table.parent.mkdir()
    table.write_text("gene,expression\nA,1\n")
    with pytest.raises(UserError, match="results.csv is no table of results"):
        run(laptop)
    assert table.read_text() == "gene,expression\nA,1\n"


def test_the_best_run_ships_with_its_reconstruction(laptop):
    run(laptop)
    path = laptop / "shipped" / "dsprites_factorvae.pt"
    assert load_checkpoint(path)["config"]["seed"] == 1
    assert path.stat().st_size < 1_100_000
    (row,) = [
        line
        for line in (laptop / "shipped" / "README.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    images = sample_images("dsprites", laptop / "grid")
    assert images.shape == (1000, 1, 64, 64) and 0 < images.mean() < 0.2
    told = float(row.split("|")[-2])
    assert reconstruction(load_model(path), images) == pytest.approx(told, abs=0.06)
    assert torch.equal(images, sample_images("dsprites", laptop / "grid"))

    before = path.read_bytes()  # where the best run is elsewhere, what ships stays
    shutil.rmtree(laptop / "runs" / "laptop" / "factorvae" / "dsprites_beta1_gamma6.4_seed1")
    run(laptop)
    assert path.read_bytes() == before
    assert row in (laptop / "shipped" / "README.md").read_text().splitlines()


def test_what_ships_of_an_earlier_sweep_keeps_its_line(laptop, monkeypatch):
    run(laptop)
    before = (laptop / "shipped" / "README.md").read_text()
    new = Sweep("new", "FactorVAE", f"{SHORT} --seed 7", "dsprites_factorvae")
    first = dataclasses.replace(SWEEPS[0], ships="another")
    monkeypatch.setattr(sweeps, "PROFILES", {"laptop": [new, first]})
    run(laptop)
    after = (laptop / "shipped" / "README.md").read_text().splitlines()
    assert [line for line in after if "`another.pt`" not in line] == before.splitlines()
    assert len(after) == len(before.splitlines()) + 1


DOCS = ROOT / "docs"


def rows_of(name):
    return list(csv.DictReader((DOCS / name).read_text().splitlines()))


def test_the_page_is_what_these_rows_and_sweeps_make():
    rows, curve = rows_of("results.csv"), rows_of("results_on_the_way.csv")

    def lines(text):
        return [line for line in text.splitlines() if not line.startswith("Drawn at commit")]

    assert lines((DOCS / "results.md").read_text()) == lines(markdown(rows, curve))


def test_the_readme_tells_the_numbers_of_these_rows():
    names = ("D_gbt", "C_gbt", "I_gbt", "factor_vae_score", "mig", "recon_loss")
    told = [
        [cell.strip() for cell in line.split("|")[3:-1]]  # from the seeds on
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith(("| FactorVAE, gamma", "| beta-VAE, beta", "| VAE, no penalty"))
    ]
    rows = [row for row in rows_of("results.csv") if row["dataset"] == "dsprites"]
    for cells, (_, group) in zip(told, groups_of(compared(rows)), strict=True):
        seeds = sorted(int(row["seed"]) for row in group)
        given = cells[0].removesuffix(", unseen").split(", ")
        assert [one.seed for one in parse_sweep(TrainConfig, "", ["--seed", *given])] == seeds
        assert cells[1:] == [cell(group, name) for name in names]


def test_the_readme_tells_how_far_the_long_runs_have_come():
    names = {"factor_vae_score_paper": 3, "mig": 3, "recon_loss": 1}
    text = (ROOT / "README.md").read_text()
    rows = [row for row in rows_of("results_on_the_way.csv") if row["profile"] == "long"]
    for sweep, model in (("factorvae", "FactorVAE"), ("betavae", "beta-VAE")):
        told = [
            ", ".join(f"{float(row[name]):.{n}f}".removeprefix("0") for name, n in names.items())
            for row in sorted(rows, key=lambda row: int(row["steps"]))
            if row["sweep"] == sweep
        ]
        assert len(told) >= 3 and f"| {model} | {' | '.join(told)} |" in text


def test_the_recipe_page_tells_the_numbers_of_these_rows():
    text = (DOCS / "recipe.md").read_text()
    names = ("factor_vae_score", "mig", "D_gbt", "D_lasso", "recon_loss")
    names += ("num_active", "gaussian_total_correlation_sampled")
    decimals = {"recon_loss": 1, "num_active": 0}
    rows = [row for row in rows_of("results.csv") if "fast" in row["sweep"]]
    assert len(rows) >= 14
    for row in rows:
        cells = [
            f"{float(row[name]):.{decimals.get(name, 3)}f}".removeprefix("0") for name in names
        ]
        minutes = f"{float(row['seconds']) / 60:.0f}"
        told = " | ".join([row["seed"], f"{int(row['steps']):,}", minutes, *cells])
        assert f"| {told} |" in text


def test_runs_are_measured_on_their_way_and_the_curve_is_drawn(laptop, monkeypatch):
    flags = "--gamma 6.4 --seed 0-1 --max_steps 5000"
    sweep = Sweep("factorvae", "FactorVAE", flags, on_the_way=(1000, 9000))
    monkeypatch.setattr(sweeps, "PROFILES", {"laptop": [sweep]})
    done, commands = {}, []

    def call(command, budget):
        """As if the scripts ran; a training ends at the last --max_steps given."""
        commands.append(command[1])
        if command[1] == "train.py":
            steps = int(command[-1])
            done.update((run, steps) for run in runs_of(sweep, folder))
        else:
            run, output = (
                command[command.index(name) + 1] for name in ("--model_path", "--output")
            )
            config = {"dataset": "dsprites", "beta": 1.0, "gamma": 6.4, "seed": run[-1]}
            config["batch_size"] = 64
            steps = done[Path(run)]
            scores = {"factor_vae_score": steps / 10_000, "mig": 0.125, "recon_loss": 60.0}
            content = {"checkpoint": {"config": config, "step": steps}}
            content["scores"] = {name: {"value": value} for name, value in scores.items()}
            Path(output).write_text(json.dumps(content))
        return True

    monkeypatch.setattr(running, "call", call)
    monkeypatch.setattr(running, "steps_done", lambda run: done.get(run, 0))
    seconds_of = "benchmarks.results.rows.seconds_of"
    monkeypatch.setattr(seconds_of, lambda run, batch_size, steps=0: steps / 100)
    folder = laptop / "runs" / "laptop" / "factorvae"
    options = argparse.Namespace(data_dir="data", device="cpu", output_dir=laptop / "runs")
    assert running.train(sweep, folder, options, Budget())
    assert commands == ["train.py", "evaluate.py", "evaluate.py"] * 2  # at 1,000 and 5,000
    assert running.train(sweep, folder, options, Budget())
    assert len(commands) == 6

    run(laptop)
    lines = (laptop / "docs" / "results_on_the_way.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[1].endswith("1000,10,0.1,0.125,60.0")
    (curve,) = curves_of(curve_rows(laptop / "runs")).values()
    assert [points[:, 2].tolist() for points in curve] == [[0.1, 0.5]] * 2
    assert (laptop / "docs" / "results_on_the_way.png").stat().st_size > 5000


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The flags of a training of moments, and how a profile of it is made in a folder."""
    images = np.random.default_rng(0).integers(0, 256, (96, 32, 32), dtype=np.uint8)
    factors = np.stack(np.meshgrid(range(8), range(12), indexing="ij"), -1).reshape(96, 2)
    np.savez(tmp_path / "own.npz", images=images, factors=factors, names=["row", "column"])

    def run_in(folder, *flags):
        where = ["--output_dir", str(tmp_path / folder), "--docs", str(tmp_path / f"{folder}_docs")]
        main(["--profile", "laptop", *where, "--device", "cpu", *flags])
        return (tmp_path / f"{folder}_docs" / "results.csv").read_text()

    flags = f"--dataset npz:{tmp_path / 'own.npz'} --disc_width 8 --batch_size 8 --gamma 6.4"
    return SimpleNamespace(flags=f"{flags} --jobs 1 --threads 1", run_in=run_in)


def test_what_is_carried_replaces_no_file_of_others(laptop):
    parts = laptop / "parts"
    parts.mkdir()
    foreign = ("model.ckpt.index", "finished-all.zip", "notes.txt")
    for name in (*foreign, "finished-7.zip"):  # the last one of an earlier call
        (parts / name).write_text(name)
    carry_to(parts, laptop / "runs")
    assert {path.name for path in parts.iterdir()} == {*foreign, "finished-0.zip"}
    there = laptop / "there"
    carry_from(parts, there)
    runs = {path.parent.name for path in there.rglob(CHECKPOINT_NAME)}
    assert runs == {f"dsprites_beta1_gamma6.4_seed{seed}" for seed in (0, 1)}
    (parts / "finished-0.zip").write_text("torn")
    with pytest.raises(UserError, match="finished-0.zip is damaged"):
        carry_from(parts, there)


@pytest.mark.slow
def test_a_sweep_of_one_run_is_measured_and_a_longer_one_anew(tiny, monkeypatch):
    for steps in (4, 8):
        sweep = Sweep("tiny", "FactorVAE", f"{tiny.flags} --seed 3 --max_steps {steps}")
        monkeypatch.setattr(sweeps, "PROFILES", {"laptop": [sweep]})
        rows = list(csv.DictReader(tiny.run_in("here").splitlines()))
        assert [(row["seed"], row["steps"]) for row in rows][-1] == ("3", str(steps))
    assert rows[0]["recon_loss"] != rows[1]["recon_loss"]


@pytest.mark.slow
def test_a_sweep_of_which_one_run_is_finished_is_gone_on_with_elsewhere(
    tiny, tmp_path, monkeypatch
):
    sweep = Sweep("tiny", "FactorVAE", f"{tiny.flags} --seed 0-1 --max_steps 6")
    monkeypatch.setattr(sweeps, "PROFILES", {"laptop": [sweep]})
    first, second = runs_of(sweep, tmp_path / "here" / "laptop" / "tiny")
    for run_dir, seed, steps in ((first, "0", "6"), (second, "1", "3")):
        flags = [*tiny.flags.split(), "--seed", seed, "--max_steps", steps]
        assert run_main(train.main, *flags, "--output_dir", run_dir)[0] == 0
    carry_to(tmp_path / "parts", tmp_path / "here")
    table = tiny.run_in("there", "--carry", str(tmp_path / "parts"))
    assert [row["steps"] for row in csv.DictReader(table.splitlines())] == ["6", "6"]
    log = tmp_path / "there" / "laptop" / "tiny" / second.name / "log.txt"
    assert "resuming at step 3 of 6" in log.read_text()


@pytest.mark.slow
def test_training_measuring_and_carrying_come_to_the_same_tables(
    tiny, tmp_path, monkeypatch, capfd
):
    sweep = Sweep("tiny", "FactorVAE", f"{tiny.flags} --seed 0-1 --max_steps 6")
    monkeypatch.setattr(sweeps, "PROFILES", {"laptop": [sweep]})
    run_in = tiny.run_in
    parts = str(tmp_path / "parts")
    main(  # no time for anything
        ["--profile", "laptop", "--output_dir", str(tmp_path / "none"), "--minutes", "0.01"]
        + ["--docs", str(tmp_path / "none_docs"), "--device", "cpu"]
    )
    assert not (tmp_path / "none_docs").exists()
    table = run_in("here", "--carry", parts)
    assert len(table.splitlines()) == 3
    assert all(path.stat().st_size <= PART_BYTES for path in (tmp_path / "parts").iterdir())
    capfd.readouterr()
    assert run_in("there", "--carry", parts) == table
    assert "python train.py" not in capfd.readouterr().out  # all was carried there
