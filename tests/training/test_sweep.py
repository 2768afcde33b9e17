"""Many runs in one command: in turns, in processes, cut short and gone on with, under torchrun."""

import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import train
from factorvae import training
from factorvae.checkpoint import load_checkpoint
from factorvae.command_line import parse_sweep
from factorvae.config import EvaluateConfig, TrainConfig
from factorvae.datasets import load_dataset
from factorvae.errors import UserError
from factorvae.evaluation.models import find_checkpoints, group_by_setting, load_models
from factorvae.run_log import read_log
from factorvae.training.run import Run
from factorvae.training.run_folder import folder_of
from factorvae.training.sweep import (
    Ended,
    _in_turns,
    _note_end,
    _threads_for,
    _train_in_process,
    runs_of,
)
from factorvae.training.sweep_folder import check_same_sweep, read_sweep, write_sweep
from factorvae.training.trainer import Trainer
from tests.helpers import meanwhile, rows_but_speed, run_main, same_state

ROOT = Path(train.__file__).parent
SMALL = "--hidden_dim 16 --disc_depth 1 --disc_width 16 --batch_size 4 --threads 1".split()
SMALL += ["--device", "cpu", "--log_every", "5"]
TOO_LARGE = "1e39"  # a gamma: infinite in float32
ENDLESS = "100000"  # steps
FIGURES = ("recon", "kl", "tc", "disc_accuracy")
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")


@pytest.fixture(scope="module", autouse=True)
def tiny_data(tiny_folder):
    """The flags of the data; scripts run where their folder lies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny_folder.path)
        yield tiny_folder.flags


def run_train(data, *flags):
    """train.py in this process: its exit code, stdout and stderr."""
    return run_main(train.main, *data, *SMALL, *flags)


@pytest.fixture
def sweep(tiny_data, tmp_path):
    """Train a sweep in `sweep.folder`, by the flags given."""

    def run(*flags):
        return run_train(tiny_data, "--output_dir", run.folder, *flags)

    run.folder = tmp_path / "sweep"
    return run


@pytest.fixture(scope="module")
def alone(tiny_data, tmp_path_factory):
    """The folder of a run that was trained by itself, from start to end."""
    folder = tmp_path_factory.mktemp("alone")

    def trained(gamma, seed, steps):
        run_dir = folder / f"{gamma}_{seed}_{steps}"
        if not run_dir.exists():
            flags = ("--gamma", gamma, "--seed", seed, "--max_steps", steps)
            assert run_train(tiny_data, *flags, "--output_dir", run_dir)[0] == 0
        return run_dir

    return trained


def test_steps_of_waking_are_the_same_when_they_are_read_again(tmp_path):
    """JSON has lists for tuples; there was once one step, and 0 said that no latents are woken."""
    config = TrainConfig(wake_at=(2000, 8000))
    never = dataclasses.replace(config, wake_at=None)
    write_sweep(tmp_path, [config], [{"folder": "one"}])
    check_same_sweep(tmp_path, [config])
    with pytest.raises(UserError, match="--wake_at is 2000 8000 there and unset here"):
        check_same_sweep(tmp_path, [never])
    content = json.loads((tmp_path / "study.json").read_text())
    content["settings"]["wake_at"] = 2000
    (tmp_path / "study.json").write_text(json.dumps(content))
    check_same_sweep(tmp_path, [dataclasses.replace(config, wake_at=(2000,))])
    content["settings"]["wake_at"] = 0
    (tmp_path / "study.json").write_text(json.dumps(content))
    check_same_sweep(tmp_path, [never])
    with pytest.raises(UserError, match="--wake_at is unset there and 2000 8000 here"):
        check_same_sweep(tmp_path, [config])


def test_a_damaged_checkpoint_stops_no_other_run(finished, sweep, alone):
    torn, set_back = (sweep.folder / run_name(*run) for run in (("6.4", 0), ("6.4", 1)))
    (torn / "ckpt.pt").write_bytes((torn / "ckpt.pt").read_bytes()[:1000])
    shutil.copy(alone("6.4", 1, 10) / "ckpt.pt", set_back)
    before = contents(torn, "*")
    code, out, _ = sweep(*TWICE_TWO)
    assert code == 2
    assert f"failed {torn.name}: {torn / 'ckpt.pt'} is damaged" in out
    assert load_checkpoint(set_back)["step"] == 20
    assert contents(torn, "*") == before
    states = [run["state"] for run in read_sweep(sweep.folder)["runs"]]
    assert sorted(states) == ["failed", "finished", "finished", "finished"]
    assert sweep(*TWICE_TWO, "--overwrite")[0] == 0


def test_batches_larger_than_the_data_leave_no_folder(sweep):
    code, _, err = sweep("--seed", "0-1", "--batch_size", 1000)
    assert code == 2 and "error: --batch_size 1000 exceeds the " in err
    assert not sweep.folder.exists()


def test_what_no_run_comes_to_is_told_once(sweep):
    flags = ("--method", "factorvae", "annealed", "--max_steps", 2, "--jobs", 1)
    code, out, _ = sweep(*flags, "--first_latents", 2)
    assert code == 0
    assert out.count("\n1 of 2 runs: it ends before --capacity_steps 100000\n") == 1
    assert out.count("\n8 of 10 latents never begin: --wake_at is unset\n") == 1


TWICE_TWO = ("--gamma", "6.4", "20", "--seed", "0-1", "--max_steps", "20", "--jobs", "1")


@pytest.fixture(scope="module")
def finished_once(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    code, out, err = run_train(tiny_data, "--output_dir", folder, *TWICE_TWO)
    return SimpleNamespace(folder=folder, code=code, out=out, err=err)


@pytest.fixture
def finished(finished_once, sweep):
    """A sweep of two settings and two seeds, in turns; `sweep` goes on with a copy of it."""
    shutil.copytree(finished_once.folder, sweep.folder)
    return finished_once


def run_name(gamma, seed):
    return f"folder_images_beta1_gamma{gamma}_seed{seed}"


def assert_same_run(folder, other):
    """Checkpoint and log agree to the last bit, in all but what may differ between commands."""
    one, two = load_checkpoint(folder), load_checkpoint(other)
    shaping = [f.name for f in dataclasses.fields(TrainConfig) if f.metadata["resume"] == "same"]
    ours, theirs = one.pop("config"), two.pop("config")
    assert {name: ours[name] for name in shaping} == {name: theirs[name] for name in shaping}
    assert same_state(one, two)
    assert rows_but_speed(folder) == rows_but_speed(other)


def told_of(folder):
    """The runs in study.json, by their folder."""
    runs = json.loads((folder / "study.json").read_text())["runs"]
    return {run["folder"]: run for run in runs}


def rows_of(out):
    """The cells of each row of the table at the end of a sweep."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if re.match("run +state", line))
    end = next(i for i, line in enumerate(lines) if line.startswith("next: "))
    return [re.split(" {2,}", line) for line in lines[start + 1 : end] if line]


def last_figures(folder):
    log = read_log(folder)
    return {name: log[name][-1] for name in FIGURES}


def contents(folder, *names):
    """The bytes and the time of every file of these names in a sweep."""
    paths = [path for name in names for path in sorted(folder.glob(f"*/{name}"))]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def wait_for(condition, what):
    """What `condition` gives as soon as it holds."""
    deadline = time.monotonic() + 300
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within five minutes"
        time.sleep(0.02)
    return value


def processes():
    """Of each process: pid, parent and session. Those that only wait to be collected are gone."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX":
                found.append((int(path.parent.name), int(parent), int(session)))
    return found


def trainers_under(pid):
    """The processes that a sweep in process `pid`, or torchrun, has begun runs in.

    Besides them it has one that multiprocessing starts to keep track of resources.
    """
    found = []
    for child, parent, _ in processes():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if parent == pid and b"resource_tracker" not in command:
                found.append(child)
    return found


def trainer_of(pids, run_dir):
    """Which of the processes has the run's log open; None where none has."""
    log = os.path.realpath(run_dir / "stats.csv")
    for pid in pids:
        with contextlib.suppress(OSError):
            if log in map(os.path.realpath, Path(f"/proc/{pid}/fd").iterdir()):
                return pid
    return None


def is_training(pid, run_dir):
    """The process that trains the run, once the log has rows."""
    stats = run_dir / "stats.csv"
    begun = stats.exists() and stats.read_text().count("\n") > 2
    return trainer_of(trainers_under(pid), run_dir) if begun else None


def two(found):
    return found if len(found) == 2 else None


# The folder


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        (["--seed", "0-9"], "dsprites_beta1_gamma6.4_seed0-9"),
        (["--seed", "1", "3", "--beta", "1", "4"], "dsprites_beta1+4_gamma6.4_seed1+3"),
        (["--gamma", "0", "6.4", "35", "--seed", "2"], "dsprites_beta1_gamma0+6.4+35_seed2"),
    ],
)
def test_the_default_folder_of_a_sweep_tells_its_values(flags, folder):
    configs = parse_sweep(TrainConfig, "", flags)
    assert folder_of(configs) == Path("runs") / folder


def test_every_run_has_a_folder_of_its_own_in_the_sweeps():
    flags = "--gamma 6.4 6.400001 1000000 1000001 --beta 1 1.0000001 --seed 0-2 --output_dir here"
    folders = [config.output_dir for config in runs_of(parse_sweep(TrainConfig, "", flags.split()))]
    assert len(set(folders)) == len(folders) == 24
    assert folders[0] == "here/dsprites_beta1_gamma6.4_seed0"
    assert {str(Path(folder).parent) for folder in folders} == {"here"}


# In turns


def test_a_sweep_trains_each_combination_as_if_it_were_alone(finished, alone):
    assert finished.code == 0
    names = [run_name(gamma, seed) for gamma in ("6.4", "20") for seed in (0, 1)]
    assert {path.name for path in finished.folder.iterdir()} == {*names, "study.json"}
    for gamma in ("6.4", "20"):
        for seed in (0, 1):
            run_dir = finished.folder / run_name(gamma, seed)
            files = {path.name for path in run_dir.iterdir()}
            assert files == {"ckpt.pt", "config.json", "stats.csv", "log.txt"}
            assert load_checkpoint(run_dir)["finished"]
            assert_same_run(run_dir, alone(gamma, seed, 20))


def test_sweep_json_tells_of_every_run(finished):
    content = json.loads((finished.folder / "study.json").read_text())
    assert content["format"] == "factorvae study"
    assert content["settings"]["max_steps"] == 20
    assert content["settings"]["hidden_dim"] == 16
    assert not {"beta", "gamma", "seed", "output_dir"} & content["settings"].keys()
    assert [(run["gamma"], run["seed"]) for run in content["runs"]] == [
        (6.4, 0),
        (6.4, 1),
        (20.0, 0),
        (20.0, 1),
    ]
    for run in content["runs"]:
        assert run["folder"] == run_name(f"{run['gamma']:g}", run["seed"])
        assert (run["beta"], run["state"], run["error"]) == (1.0, "finished", "")
        assert run["steps"] == run["until"] == 20
        assert run["figures"] == last_figures(finished.folder / run["folder"])


def test_sweep_json_is_json_where_there_is_no_discriminator_too(sweep):
    assert sweep("--gamma", 0, "--seed", "0-1", "--max_steps", 2, "--jobs", 1)[0] == 0

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((sweep.folder / "study.json").read_text(), parse_constant=refuse)
    for run in content["runs"]:
        assert run["figures"].keys() == {"recon", "kl"}
        assert math.isfinite(run["figures"]["recon"])


def test_the_table_ends_with_mean_and_deviation_of_each_setting(finished):
    *rows, explained = rows_of(finished.out)
    assert len(rows) == 4 + 2
    assert explained[0].startswith("+-")
    forms = (".1f", ".2f", ".3f", ".3f")
    runs = list(told_of(finished.folder).values())
    for run, row in zip(runs, rows, strict=False):
        figures = [
            f"{run['figures'][name]:{form}}" for name, form in zip(FIGURES, forms, strict=True)
        ]
        assert row == [run["folder"], "finished", "20", *figures]
    for gamma, seeds, row in zip(("6.4", "20"), (runs[:2], runs[2:]), rows[4:], strict=True):
        assert row[:3] == [f"beta 1, gamma {gamma}, 2 seeds", "mean +- sd", "20"]
        for name, form, cell in zip(FIGURES, forms, row[3:], strict=True):
            values = [run["figures"][name] for run in seeds]
            mean, deviation = statistics.mean(values), statistics.stdev(values)
            assert cell == f"{mean:{form}} +- {deviation:{form}}"
    assert f"next: python evaluate.py --model_path {finished.folder}" in finished.out


def test_the_same_command_again_leaves_finished_runs_as_they_are(finished, sweep):
    before = contents(sweep.folder, "*")
    code, out, _ = sweep(*TWICE_TWO)
    assert code == 0
    assert "4 finished" in out
    assert rows_of(out) == rows_of(finished.out)
    assert contents(sweep.folder, "*") == before
    assert told_of(sweep.folder) == told_of(finished.folder)


def test_a_sweep_goes_on_with_runs_that_stopped(finished, sweep, alone):
    set_back, begun_alone, missing = (
        sweep.folder / run_name(*run) for run in (("6.4", 0), ("6.4", 1), ("20", 0))
    )
    shutil.copy(alone("6.4", 0, 10) / "ckpt.pt", set_back)
    shutil.rmtree(begun_alone)
    shutil.copytree(alone("6.4", 1, 10), begun_alone)
    shutil.rmtree(missing)
    untouched = contents(sweep.folder / run_name("20", 1), "*")
    code, out, _ = sweep(*TWICE_TWO)
    assert code == 0
    assert "1 finished" in out
    for run_dir in (set_back, begun_alone):
        assert "resuming at step 10 of 20" in (run_dir / "log.txt").read_text()
    assert "starting at step 0 of 20" in (missing / "log.txt").read_text()
    assert contents(sweep.folder / run_name("20", 1), "*") == untouched
    assert rows_of(out) == rows_of(finished.out)
    for gamma, seed in (("6.4", 0), ("6.4", 1), ("20", 0)):
        assert_same_run(sweep.folder / run_name(gamma, seed), alone(gamma, seed, 20))


def test_runs_of_other_settings_are_not_told_as_the_sweeps(tmp_path):
    config = TrainConfig()
    write_sweep(tmp_path, [config], [{"folder": "one"}, {"folder": "two"}])
    write_sweep(tmp_path, [config], [{"folder": "three"}])
    listed = [run["folder"] for run in read_sweep(tmp_path)["runs"]]
    assert listed == ["one", "two", "three"]
    write_sweep(tmp_path, [dataclasses.replace(config, lr=1e-3)], [{"folder": "one"}])
    there = read_sweep(tmp_path)  # begun anew by --overwrite
    assert (there["settings"]["lr"], there["runs"]) == (1e-3, [{"folder": "one"}])


def test_overwrite_begins_every_run_of_a_sweep_anew(finished, sweep):
    code, out, _ = sweep(*TWICE_TWO, "--max_steps", 5, "--lr", 1e-3, "--overwrite")
    assert code == 0
    assert "0 finished" in out
    for run in told_of(sweep.folder).values():
        assert (run["state"], run["steps"]) == ("finished", 5)
        assert read_log(sweep.folder / run["folder"])["step"].tolist() == [5]
        assert load_checkpoint(sweep.folder / run["folder"])["config"]["lr"] == 1e-3


def test_more_seeds_join_a_sweep(finished, sweep):
    before = contents(sweep.folder, "ckpt.pt")
    code, out, _ = sweep("--seed", "1-2", "--max_steps", 20, "--jobs", 1)
    assert code == 0
    assert [row[0] for row in rows_of(out)[:2]] == [run_name("6.4", seed) for seed in (1, 2)]
    listed = told_of(sweep.folder)
    assert listed.keys() == {*told_of(finished.folder), run_name("6.4", 2)}
    assert listed[run_name("20", 1)] == told_of(finished.folder)[run_name("20", 1)]
    after = contents(sweep.folder, "ckpt.pt")
    assert {path: after[path] for path in before} == before


def test_one_more_seed_does_not_hide_the_runs_of_the_sweep(finished, sweep):
    sweep("--seed", 2, "--max_steps", 20)
    found = find_checkpoints([str(sweep.folder)])
    assert {path.parent.name for path in found} >= set(told_of(finished.folder))


@pytest.mark.parametrize(
    "seeds",
    [["0", "1"], ["1", "2"], ["2", "3"]],
    ids=["the same runs", "one of them and a new one", "new runs"],
)
def test_other_settings_in_a_sweeps_folder_are_refused_before_any_training(finished, sweep, seeds):
    before = contents(sweep.folder, "*")
    flags = ("--seed", *seeds, "--max_steps", 20, "--jobs", 1, "--lr", 1e-3, "--beta", 1)
    code, _, err = sweep(*flags)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "--lr is 0.0001 there and 0.001 here" in err
    assert contents(sweep.folder, "*") == before
    assert told_of(sweep.folder) == told_of(finished.folder)


def test_a_folder_that_cannot_be_written_is_one_line(tiny_data):
    flags = ("--seed", "0-1", "--max_steps", 1, "--output_dir", "/dev/null/sweep")
    code, _, err = run_train(tiny_data, *flags)
    assert code == 2
    assert err.startswith("error: cannot write to /dev/null/sweep")
    assert err.count("\n") == 1


def test_a_run_that_fails_does_not_stop_the_others(sweep, alone):
    code, out, err = sweep("--gamma", TOO_LARGE, "6.4", "--max_steps", 20, "--jobs", 1)
    assert code == 2
    failed, other = told_of(sweep.folder).values()
    assert (failed["folder"], failed["state"]) == (run_name("1e+39", 0), "failed")
    assert "not finite" in failed["error"]
    assert "Traceback" not in out + err
    assert f"failed {failed['folder']}: {failed['error']}" in out
    assert [failed["folder"], "failed", "0"] in [row[:3] for row in rows_of(out)]
    assert (other["state"], other["steps"], other["error"]) == ("finished", 20, "")
    assert_same_run(sweep.folder / other["folder"], alone("6.4", 0, 20))


@pytest.fixture
def card(monkeypatch):
    """Runs train in turns as on a CUDA device, with memory for as many as `card.room` says.

    What does not fit is noticed at step 10.
    """
    card = SimpleNamespace(room=0, trainers=set())
    advance, close = Trainer.advance, Trainer.close

    def advance_in_memory(trainer, steps):
        card.trainers.add(trainer)
        if trainer.steps_done == 10 and len(card.trainers) > card.room:
            raise torch.OutOfMemoryError("no room")
        advance(trainer, steps)

    def close_and_free(trainer):
        card.trainers.discard(trainer)
        close(trainer)

    def in_turns(runs, jobs, threads, *rest):
        _in_turns(runs, jobs, torch.device("cpu"), threads, *rest)

    monkeypatch.setattr(Trainer, "advance", advance_in_memory)
    monkeypatch.setattr(Trainer, "close", close_and_free)
    monkeypatch.setattr(training.sweep, "_in_processes", in_turns)
    return card


@pytest.mark.slow
def test_a_run_that_does_not_fit_beside_others_waits_and_lowers_the_jobs(card, sweep, alone):
    card.room = 2
    flags = ("--seed", "0-3", "--max_steps", 20, "--checkpoint_every", 4, "--overwrite")
    code, out, err = sweep(*flags, "--jobs", 4)
    assert code == 0
    first, second, *_ = names = [run_name("6.4", seed) for seed in range(4)]
    told = [line for line in out.splitlines() if line.startswith("no room")]
    assert told == [
        f"no room on cpu for {name} too: from now on {jobs} at a time"
        for name, jobs in ((first, 3), (second, 2))
    ]
    assert "step 84 of 84" in err  # two runs made steps 9 and 10 twice
    for seed, name in enumerate(names):
        run = told_of(sweep.folder)[name]
        assert (run["state"], run["error"]) == ("finished", "")
        resumed = "resuming at step 8 of 20" in (sweep.folder / name / "log.txt").read_text()
        assert resumed == (name in (first, second))
        assert_same_run(sweep.folder / name, alone("6.4", seed, 20))
    assert not card.trainers


def test_a_run_that_does_not_fit_alone_fails(card, sweep):
    code, out, err = sweep("--seed", "0-1", "--max_steps", 20, "--jobs", 2)
    assert code == 2
    assert "from now on 1 at a time" in out
    for run in told_of(sweep.folder).values():
        assert (run["state"], run["steps"]) == ("failed", 0)
        assert run["error"].startswith("out of memory on cpu, even alone")
    assert "Traceback" not in out + err


def test_a_sweep_says_that_bf16_is_emulated(sweep, monkeypatch):
    flags = ("--seed", "0-1", "--max_steps", 1, "--jobs", 1)
    told = []
    for emulated, precision in ((True, "bf16"), (True, "fp32"), (False, "bf16")):
        monkeypatch.setattr(training.run, "emulates_bf16", lambda _, emulated=emulated: emulated)
        code, out, _ = sweep(*flags, "--precision", precision, "--overwrite")
        assert code == 0
        told.append(out.count("emulates them"))
    assert told == [1, 0, 0]


def test_a_signal_stops_a_sweep_in_turns_and_it_goes_on(sweep, alone):
    first, second = (sweep.folder / run_name("6.4", seed) for seed in (0, 1))
    flags = ("--seed", "0-1", "--jobs", 1)

    def interrupt():
        stats = first / "stats.csv"
        wait_for(lambda: stats.exists() and stats.read_text().count("\n") > 2, "row of the log")
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(interrupt):
        code, out, err = sweep(*flags, "--max_steps", ENDLESS)
    assert code == 143
    assert "Traceback" not in out + err
    assert out.endswith("\nthe same command goes on from there\n")
    stopped = load_checkpoint(first)["step"]
    assert f"stopped {first.name}: at step {stopped}" in out
    told = told_of(sweep.folder)
    assert (told[first.name]["state"], told[first.name]["steps"]) == ("stopped", stopped)
    assert (told[second.name]["state"], told[second.name]["steps"]) == ("new", 0)
    assert not second.exists()

    until = stopped + 2
    assert sweep(*flags, "--max_steps", until)[0] == 0
    assert f"resuming at step {stopped} of {until}" in (first / "log.txt").read_text()
    for seed, run_dir in enumerate((first, second)):
        assert_same_run(run_dir, alone("6.4", seed, until))


def test_evaluate_finds_the_runs_of_a_sweep_and_groups_their_seeds(finished):
    paths = find_checkpoints([str(finished.folder)])
    assert {path.parent.name for path in paths} == set(told_of(finished.folder))
    groups = group_by_setting(load_models(paths, EvaluateConfig())[0])
    assert sorted(
        (group[0].setting["gamma"], sorted(model.checkpoint["config"]["seed"] for model in group))
        for group in groups
    ) == [(6.4, [0, 1]), (20.0, [0, 1])]


# In processes


@pytest.fixture(
    params=[
        pytest.param(
            "fork", marks=pytest.mark.skipif("torch.cuda.is_available()", reason="forks CUDA")
        ),
        pytest.param("spawn", marks=pytest.mark.slow),
    ]
)
def start_of_processes(request, monkeypatch):
    """Of a sweep's processes: 'spawn' as it is, 'fork' spares them the import of torch."""
    context = multiprocessing.get_context(request.param)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)


@needs_proc
@pytest.mark.usefixtures("start_of_processes")
def test_runs_in_processes_finish_and_die_each_on_their_own(sweep, alone, capfd):
    names = [run_name(gamma, 0) for gamma in ("6.4", "20")]
    resumed, killed = (sweep.folder / name for name in names)
    flags = ("--gamma", "6.4", "20", "--max_steps", 40)
    shutil.copytree(alone("6.4", 0, 10), resumed)

    def kill():
        pid = wait_for(lambda: is_training(os.getpid(), killed), "process of the second run")
        os.kill(pid, signal.SIGKILL)

    with meanwhile(kill):
        code, out, err = sweep(*flags, "--jobs", 2)
    assert code == 2
    assert "2 at a time" in out
    assert "Traceback" not in out + err + capfd.readouterr().err
    told = told_of(sweep.folder)
    assert [told[name]["state"] for name in names] == ["finished", "failed"]
    assert told[killed.name]["error"] == "its process died (exit code -9)"
    assert told[resumed.name]["figures"] == last_figures(resumed)
    assert f"failed {killed.name}: {told[killed.name]['error']}" in out
    assert "resuming at step 10 of 40" in (resumed / "log.txt").read_text()
    assert_same_run(resumed, alone("6.4", 0, 40))

    before = contents(sweep.folder, "ckpt.pt")
    assert sweep(*flags, "--jobs", 1)[0] == 0  # the one that died is trained
    assert [run["state"] for run in told_of(sweep.folder).values()] == ["finished", "finished"]
    assert_same_run(killed, alone("20", 0, 40))
    assert before.items() <= contents(sweep.folder, "ckpt.pt").items()


def test_the_process_of_a_run_tells_how_it_ended(tiny_data, tmp_path, monkeypatch):
    """What such a process does, done in this one."""
    monkeypatch.setattr(training.sweep, "end_with_parent", lambda: None)
    flags = (*tiny_data, *SMALL, "--max_steps", "10", "--seed", "0", "--gamma", "6.4", TOO_LARGE)
    good, failing = parse_sweep(TrainConfig, "", flags)
    missing = dataclasses.replace(good, dataset="folder:nowhere")
    told = []
    for number, config in enumerate((good, failing, missing)):
        ours, its = multiprocessing.Pipe()
        config = dataclasses.replace(config, output_dir=str(tmp_path / str(number)))
        _train_in_process(config, 1, its)
        its.close()
        messages = []
        with contextlib.suppress(EOFError):
            while True:
                messages.append(ours.recv())
        told.append(messages)
    rows, (*_, failed), (reason,) = told
    assert [steps for steps, _ in rows[:-1]] == [5, 5]
    assert rows[0][1].startswith("recon ")
    assert rows[-1] == ("finished", "", 10)
    assert failed[0] == "failed" and "not finite at step" in failed[1] and failed[2] == 0
    assert isinstance(reason, UserError) and "nowhere" in str(reason)


def test_a_run_whose_process_could_not_begin_or_died_stands_at_its_checkpoint(tiny_data, tmp_path):
    flags = (*tiny_data, *SMALL, "--output_dir", tmp_path, "--max_steps")
    assert run_main(train.main, *flags, 3)[0] == 0
    (config,) = parse_sweep(TrainConfig, "", [*map(str, flags), "6"])
    run = Run(config, load_dataset(config.dataset, config.data_dir, **config.dataset_options()))
    died = "its process died (exit code -9)"
    for message, error in ((UserError("no data"), "no data"), (None, died)):
        run.steps = 5  # of which there is no checkpoint
        _note_end(run, message, -9)
        assert (run.state, run.error, run.steps) == ("failed", error, 3)
    _note_end(run, Ended("finished", "", 6), 0)
    assert (run.state, run.error, run.steps) == ("finished", "", 6)


def test_a_run_of_a_sweep_goes_on_with_as_many_threads_as_it_began_with():
    began = SimpleNamespace(config=TrainConfig(), threads=3)
    assert _threads_for(began, 8) == 3
    assert _threads_for(SimpleNamespace(config=TrainConfig(threads=8), threads=3), 8) == 8
    assert _threads_for(SimpleNamespace(config=TrainConfig(), threads=0), 8) == 8


@pytest.mark.slow
@needs_proc
def test_a_sweep_with_a_run_that_was_told_to_stop_is_no_success(sweep):
    told_to_stop, other = (sweep.folder / run_name("6.4", seed) for seed in (0, 1))

    def terminate():
        pid = wait_for(lambda: is_training(os.getpid(), told_to_stop), "process of the first run")
        os.kill(pid, signal.SIGTERM)

    with meanwhile(terminate):
        code, _, _ = sweep("--seed", "0-1", "--max_steps", 40, "--jobs", 2)
    states = {name: run["state"] for name, run in told_of(sweep.folder).items()}
    assert states[other.name] == "finished"
    assert states[told_to_stop.name] != "finished"
    assert code != 0


@pytest.mark.slow
@needs_proc
def test_ctrl_c_reaches_all_processes_and_the_sweep_goes_on(sweep, alone, capfd):
    """It is for the sweep's own process to pass on; one that only starts does not die of it."""
    run_dirs = [sweep.folder / run_name("6.4", seed) for seed in (0, 1)]
    flags = ("--seed", "0-1")

    def interrupt():
        pids = wait_for(lambda: two(trainers_under(os.getpid())), "two processes")
        for pid in pids:
            os.kill(pid, signal.SIGINT)

        def all_train():
            assert {*pids} <= {*trainers_under(os.getpid())}, "a process died of its SIGINT"
            return all(is_training(os.getpid(), run_dir) for run_dir in run_dirs)

        wait_for(all_train, "row of each log")
        for pid in (*pids, os.getpid()):
            os.kill(pid, signal.SIGINT)

    with meanwhile(interrupt):
        code, out, err = sweep(*flags, "--max_steps", ENDLESS, "--jobs", 2)
    assert code == 130
    assert "Traceback" not in out + err + capfd.readouterr().err
    assert trainers_under(os.getpid()) == []
    steps = [load_checkpoint(run_dir)["step"] for run_dir in run_dirs]
    for run, step in zip(told_of(sweep.folder).values(), steps, strict=True):
        assert (run["state"], run["steps"]) == ("stopped", step)
        assert f"stopped {run['folder']}: at step {step}" in out

    until = max(steps) + 2
    assert sweep(*flags, "--max_steps", until, "--jobs", 1)[0] == 0
    for seed, run_dir in enumerate(run_dirs):
        assert f"resuming at step {steps[seed]} of {until}" in (run_dir / "log.txt").read_text()
        assert_same_run(run_dir, alone("6.4", seed, until))


@pytest.mark.slow
@needs_proc
def test_the_processes_of_a_killed_sweep_stop_by_themselves(tiny_data, tmp_path):
    run_dirs = [tmp_path / run_name("6.4", seed) for seed in (0, 1)]
    flags = ("--seed", "0-1", "--max_steps", ENDLESS, "--jobs", 2, "--output_dir", tmp_path)
    command = [sys.executable, ROOT / "train.py", *tiny_data, *SMALL, *flags]
    with open(tmp_path / "told", "w") as told:
        process = subprocess.Popen(
            list(map(str, command)), stdout=told, stderr=told, start_new_session=True
        )

    def left():
        return [pid for pid, _, session in processes() if session == process.pid]

    try:
        for run_dir in run_dirs:
            wait_for(lambda run_dir=run_dir: is_training(process.pid, run_dir), "row of each log")
        process.kill()
        process.wait()
        logged = [read_log(run_dir)["step"][-1] for run_dir in run_dirs]
        deadline = time.monotonic() + 30
        while left() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left() == []
    finally:
        process.kill()
        for pid in left():
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert "Traceback" not in (tmp_path / "told").read_text()
    for run_dir, step in zip(run_dirs, logged, strict=True):
        assert load_checkpoint(run_dir)["step"] >= step
        assert "stopped at step" in (run_dir / "log.txt").read_text()
        assert not list(run_dir.glob(".*"))


# Under torchrun


@pytest.fixture(scope="module")
def restarted(tiny_data, alone, tmp_path_factory):
    """A sweep by two processes with --overwrite, of which one was killed and torchrun began anew.

    Its folder had held the runs of an earlier sweep.
    """
    folder = tmp_path_factory.mktemp("restarted") / "sweep"
    for seed in range(3):
        run_dir = folder / run_name("6.4", seed)
        shutil.copytree(alone("6.4", seed, 40), run_dir)
        (run_dir / "log.txt").write_text("of the earlier sweep\n")
    doomed = folder / run_name("6.4", 1)  # of the second process
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", "--max-restarts=1", ROOT / "train.py"]
    flags = ("--seed", "0-2", "--max_steps", 40, "--checkpoint_every", 10, "--overwrite")
    command += [*tiny_data, *SMALL, *flags, "--output_dir", folder]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(list(map(str, command)), **pipes) as process:

        def trainer_with_checkpoint():
            pid = trainer_of(trainers_under(process.pid), doomed)
            return pid if (doomed / "ckpt.pt").exists() else None

        try:
            pid = wait_for(trainer_with_checkpoint, "checkpoint of the second process")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: pid not in [one for one, *_ in processes()], "end of the process")
            step = load_checkpoint(doomed)["step"]
            out, err = process.communicate(timeout=600)
        finally:
            process.terminate()
    return SimpleNamespace(
        folder=folder, doomed=doomed, step=step, code=process.returncode, out=out, err=err
    )


@pytest.mark.slow
@needs_proc
def test_torchrun_shares_out_a_sweep_and_goes_on_after_a_death(restarted, alone):
    assert restarted.code == 0, restarted.err
    assert "2 processes with a share of the runs each" in restarted.out
    rows = rows_of(restarted.out)
    assert [row[:3] for row in rows] == [
        *[[run_name("6.4", seed), "finished", "40"] for seed in range(3)],
        ["beta 1, gamma 6.4, 3 seeds", "mean +- sd", "40"],
        ["+-: standard deviation over seeds"],
    ]
    assert restarted.out.count("mean +- sd") == 1  # one process tells
    told = told_of(restarted.folder)
    assert list(told) == [run_name("6.4", seed) for seed in range(3)]
    for seed, run in enumerate(told.values()):
        run_dir = restarted.folder / run["folder"]
        assert (run["state"], run["steps"]) == ("finished", 40)
        assert run["figures"] == last_figures(run_dir)
        assert_same_run(run_dir, alone("6.4", seed, 40))


@pytest.mark.slow
@needs_proc
def test_a_restart_repeats_nothing_before_the_last_checkpoint(restarted):
    assert restarted.step in (10, 20, 30)
    log = (restarted.doomed / "log.txt").read_text()
    assert log.count("starting at step 0 of 40") == 1
    assert log.count(f"resuming at step {restarted.step} of 40") == 1


@pytest.mark.slow
@needs_proc
def test_overwrite_holds_for_runs_that_begin_after_a_restart(restarted):
    for run in told_of(restarted.folder):
        log = (restarted.folder / run / "log.txt").read_text()
        assert "of the earlier sweep" not in log
        assert "starting at step 0 of 40" in log
