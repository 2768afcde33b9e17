"""train.py as a user runs it, on a folder of small images with small networks."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from factorvae import files, run_log
from factorvae.checkpoint import export_weights, load_checkpoint, save_checkpoint
from factorvae.setting import setting_of
from factorvae.training import run_folder
from factorvae.training.run import train_one
from tests.helpers import meanwhile, run_main

ROOT = Path(train.__file__).parent
SMALL = "--hidden_dim 16 --disc_depth 1 --disc_width 16 --batch_size 4 --threads 1".split()


@pytest.fixture
def run_train(tiny_folder, monkeypatch):
    def run(*flags):
        return run_main(train.main, *tiny_folder.flags, *SMALL, *flags)

    monkeypatch.chdir(tiny_folder.path)
    return run


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"name": "app", "seed": 1}'),
        ("config.json", "{"),
        ("stats.csv", "player,goals\nA,3\n"),
        ("stats.csv", "\0\xff"),
    ],
)
def test_no_file_is_replaced_that_is_of_no_run(run_train, run_dir, name, content):
    run_dir.mkdir()
    (run_dir / name).write_text(content)
    code, _, err = run_train("--output_dir", run_dir, "--max_steps", 2)
    assert code == 2
    assert f"error: {run_dir / name} is of no run, which would replace it: --output_dir\n" in err
    assert [path.name for path in run_dir.iterdir()] == [name]
    assert (run_dir / name).read_text() == content


def test_the_commands_that_come_next_can_be_pasted(run_train, tmp_path):
    folder = tmp_path / "a $b"
    out = run_train("--output_dir", folder, "--max_steps", 1)[1]
    assert f"next: python evaluate.py --model_path '{folder}/ckpt.pt'\n" in out
    assert f"      python visualize.py --model_path '{folder}/ckpt.pt'\n" in out


def test_files_of_a_run_without_a_checkpoint_are_replaced(run_train, run_dir):
    flags = ("--output_dir", run_dir, "--max_steps", 2)
    assert run_train(*flags)[0] == 0
    (run_dir / "ckpt.pt").unlink()
    assert run_train(*flags, "--lr", 0.01)[0] == 0
    (run_dir / "ckpt.pt").unlink()
    (run_dir / "config.json").write_text("")  # of a full disk
    assert run_train(*flags)[0] == 0


def test_a_run_from_start_to_end(run_train, run_dir):
    flags = ("--output_dir", run_dir, "--log_every", 5)
    code, out, err = run_train(*flags, "--max_steps", 10)
    assert code == 0
    assert "24 images of 1x32x32, " in out
    assert "step 10 of 10" in err
    files = {path.name for path in run_dir.iterdir()}
    assert files == {"ckpt.pt", "config.json", "stats.csv", "log.txt"}
    assert json.loads((run_dir / "config.json").read_text())["max_steps"] == 10
    assert run_log.read_log(run_dir)["step"].tolist() == [5, 10]

    code, out, _ = run_train(*flags, "--max_steps", 10)
    assert code == 0
    assert "is finished: 10 steps are done" in out

    code, out, _ = run_train(*flags, "--max_steps", 15)  # a longer run goes on
    assert code == 0
    assert "resuming at step 10 of 15" in out
    assert run_log.read_log(run_dir)["step"].tolist() == [5, 10, 15]

    code, _, err = run_train(*flags, "--max_steps", 15, "--lr", 1e-3, "--gamma", 10)
    assert code == 2
    assert "--gamma is 6.4 there and 10.0 here; --lr is 0.0001 there and 0.001 here" in err
    code, _, err = run_train(*flags, "--preset", "fast")
    assert code == 2
    assert "--preset is unset there and fast here; " in err

    (run_dir / "metrics.json").write_text("{}")
    code, out, _ = run_train(*flags, "--max_steps", 5, "--lr", 1e-3, "--overwrite")
    assert code == 0
    assert "starting at step 0 of 5" in out
    assert run_log.read_log(run_dir)["step"].tolist() == [5]
    assert {path.name for path in run_dir.iterdir()} == files  # no scores of what was overwritten
    assert "resuming" not in (run_dir / "log.txt").read_text()


def test_a_run_does_not_go_on_with_other_images(tmp_path):
    pictures = np.arange(24, dtype=np.uint8).reshape(24, 1, 1).repeat(32, 1).repeat(32, 2)
    flags = ["--dataset", f"npz:{tmp_path / 'own.npz'}", "--data_dir", tmp_path, *SMALL]
    flags += ["--output_dir", tmp_path / "run", "--max_steps"]
    np.savez(tmp_path / "own.npz", images=pictures)
    assert run_main(train.main, *flags, 1)[0] == 0
    np.savez(tmp_path / "own.npz", images=pictures[:20])
    code, _, err = run_main(train.main, *flags, 2)
    assert code == 2 and "holds a run on other data: num_images is 24 there and 20 here" in err


@pytest.mark.parametrize("flags", [(), ("--seed", 0, 1)], ids=["run", "sweep"])
def test_no_other_command_trains_in_the_folder(run_train, run_dir, monkeypatch, flags):
    monkeypatch.setattr(files, "PATIENCE_FOR_LOCK", 0)
    with files.locked_folder(run_dir):
        code, _, err = run_train("--output_dir", run_dir, "--max_steps", 1, *flags)
    assert code == 2 and "is in use: another process trains there" in err
    assert [*run_dir.iterdir()] == []


def test_a_run_without_a_discriminator_goes_on_under_other_flags_of_one(run_train, run_dir):
    plain = ("--output_dir", run_dir, "--gamma", 0)
    for steps, width in ((2, 50), (4, 60)):
        assert run_train(*plain, "--max_steps", steps, "--disc_width", width)[0] == 0
    assert load_checkpoint(run_dir)["step"] == 4


def test_a_run_of_another_versions_settings_goes_on_where_they_did_nothing(run_train, run_dir):
    flags = ("--output_dir", run_dir, "--log_every", 5)
    assert run_train(*flags, "--max_steps", 5)[0] == 0
    checkpoint = load_checkpoint(run_dir)
    for more, until, expected in (
        ({"disc_batches": 1}, 10, 0),
        ({"disc_batches": 8, "warmth": 2.0}, 15, 2),
    ):
        checkpoint["config"] |= more
        save_checkpoint(run_dir / "ckpt.pt", checkpoint)
        code, _, err = run_train(*flags, "--max_steps", until)
        assert code == expected
    told = "--disc_batches is 8 there and no setting of this version; --warmth is 2.0 there and"
    assert f"another run: {told}" in err
    assert setting_of(checkpoint)["another version's"] == "disc_batches 8, warmth 2.0"
    checkpoint["config"] |= {"disc_batches": 1, "warmth": None}
    assert setting_of(checkpoint)["another version's"] is None


@pytest.mark.usefixtures("few_images")
def test_what_a_run_does_not_come_to_is_told(run_train, run_dir):
    flags = ("--output_dir", run_dir, "--preset", "fast", "--disc_width", 16, "--add_at", 2)
    code, out, _ = run_train(*flags, "--wake_at", 3, "--max_steps", 4)
    assert code == 0
    assert "it ends before --anneal_until 10000, --turn_at 1500 2500 5000\n" in out
    assert "it ends before" not in run_train("--max_steps", 4)[1]


@pytest.mark.usefixtures("few_images")
def test_latents_that_never_begin_are_told(run_train, run_dir):
    flags = ("--output_dir", run_dir, "--max_steps", 4, "--first_latents", 2, "--add_at", 2)
    out = run_train(*flags)[1]
    assert "7 of 10 latents never begin: --wake_at is unset\n" in out
    assert "never begin" not in run_train(*flags, "--wake_at", 3, "--overwrite")[1]


def test_weights_alone_of_a_finished_run_are_finished_and_no_more(run_train, run_dir):
    flags = ("--output_dir", run_dir, "--log_every", 5)
    assert run_train(*flags, "--max_steps", 5)[0] == 0
    weights = export_weights(load_checkpoint(run_dir))
    (run_dir / "ckpt.pt").write_bytes(weights)
    code, out, _ = run_train(*flags, "--max_steps", 5)
    assert (code, "is finished: 5 steps are done" in out) == (0, True)
    code, _, err = run_train(*flags, "--max_steps", 6)
    assert (code, "it lacks vae_optimizer" in err) == (2, True)
    assert (run_dir / "ckpt.pt").read_bytes() == weights


def test_a_resumed_run_reads_its_checkpoint_once(run_train, run_dir, monkeypatch):
    read = []

    def load(path, resume_until=0):
        read.append(path)
        return load_checkpoint(path, resume_until)

    monkeypatch.setattr(run_folder, "load_checkpoint", load)
    flags = ("--output_dir", run_dir, "--log_every", 5)
    assert run_train(*flags, "--max_steps", 5)[0] == 0
    assert read == []
    assert run_train(*flags, "--max_steps", 10)[0] == 0
    assert read == [run_dir]
    assert load_checkpoint(run_dir)["step"] == 10


def test_a_checkpoint_that_another_process_wrote_meanwhile_is_gone_on_from(
    run_train, run_dir, monkeypatch
):
    flags = ("--output_dir", run_dir, "--log_every", 5)
    for steps in (10, 5):  # the file of 10 steps is put aside
        assert run_train(*flags, "--max_steps", steps, "--overwrite")[0] == 0
        (run_dir / "ckpt.pt").rename(run_dir / f"{steps}.pt")
    (run_dir / "5.pt").rename(run_dir / "ckpt.pt")

    def train_later(run, device):
        (run_dir / "10.pt").rename(run_dir / "ckpt.pt")
        return train_one(run, device)

    monkeypatch.setattr("factorvae.training.run.train_one", train_later)
    code, out, _ = run_train(*flags, "--max_steps", 15)
    assert code == 0
    assert "resuming at step 10 of 15" in out


def test_the_default_folder_is_named_after_the_run(run_train, tiny_folder):
    code, _, _ = run_train("--max_steps", 1, "--gamma", 35, "--seed", 2)
    assert code == 0
    assert (tiny_folder.path / "runs" / "folder_images_beta1_gamma35_seed2" / "ckpt.pt").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "mnist"], "unknown dataset 'mnist'; known are dsprites"),
        (["--batch_size", "25"], "--batch_size 25 exceeds the 24 images"),
        (["--device", "tpu"], "--device must be auto, cpu, cuda or cuda:N, not tpu"),
        (["--device", "cpu:"], "--device must be auto, cpu, cuda or cuda:N, not cpu:"),
        (["--device", "cuda:99"], "--device cuda:99: PyTorch sees"),
        (["--output_dir", "x" * 300], "cannot write to xxx"),
        (["--output_dir", "/dev/null/run"], "cannot write to /dev/null/run"),
        (["--data_dir", "/dev/null/data"], "cannot write /dev/null/data"),
        (["--beta", "-1"], "--beta must be at least 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run_train, run_dir, flags, message):
    code, _, err = run_train("--output_dir", run_dir, "--max_steps", 1, *flags)
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not run_dir.exists()


def test_a_damaged_checkpoint_is_not_trained_over(run_train, run_dir):
    run_train("--output_dir", run_dir, "--max_steps", 2)
    path = run_dir / "ckpt.pt"
    path.write_bytes(path.read_bytes()[:1000])
    code, _, err = run_train("--output_dir", run_dir, "--max_steps", 4)
    assert code == 2
    assert "damaged" in err
    assert path.stat().st_size == 1000


def test_another_number_of_threads_is_told_where_a_run_goes_on(run_train, run_dir):
    told = "it was trained with 1 threads so far: with another number, sums are rounded otherwise"
    run_train("--output_dir", run_dir, "--max_steps", 1)
    for threads, steps, is_told in ((1, 2, False), (0, 3, False), (2, 4, True)):
        flags = ("--max_steps", steps, "--threads", threads)
        code, out, _ = run_train("--output_dir", run_dir, *flags)
        assert code == 0
        assert (told in out) == is_told
    assert told in (run_dir / "log.txt").read_text()


INTERRUPTED = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"


@pytest.mark.parametrize("script", ["train", "evaluate", "visualize"])
def test_ctrl_c_while_torch_is_imported_is_one_word(tmp_path, script):
    (tmp_path / "torch.py").write_text(INTERRUPTED)
    default = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start = f"import sys, runpy; sys.argv = sys.argv[1:2]; runpy.run_path({f'{script}.py'!r}, "
    command = [sys.executable, "-c", f"{default}{start}run_name='__main__')", f"{script}.py"]
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


def wait_for_rows(run_dir):
    stats = run_dir / "stats.csv"
    deadline = time.monotonic() + 300
    while not (stats.exists() and stats.read_text().count("\n") > 3):
        assert time.monotonic() < deadline, "no step within five minutes"
        time.sleep(0.02)


def assert_stopped_and_goes_on(run_train, run_dir, out):
    """The last step is saved, and the run goes on as if it had never been stopped."""
    stopped = int(re.search(r"stopped at step ([\d,]+)", out)[1].replace(",", ""))
    saved = torch.load(run_dir / "ckpt.pt", weights_only=True)
    assert saved["step"] == stopped
    assert not saved["finished"]
    assert run_log.read_log(run_dir)["step"][-1] == stopped

    until = stopped + 2
    whole = run_dir.with_name("whole")
    for folder in (run_dir, whole):
        assert run_train("--output_dir", folder, "--log_every", 1, "--max_steps", until)[0] == 0
    one, other = (torch.load(d / "ckpt.pt", weights_only=True) for d in (run_dir, whole))
    assert all(torch.equal(one["vae"][name], other["vae"][name]) for name in one["vae"])


@SIGNALS
def test_a_signal_stops_after_the_step_and_the_run_goes_on(run_train, run_dir, number, code):
    def interrupt():
        wait_for_rows(run_dir)
        os.kill(os.getpid(), number)

    with meanwhile(interrupt):
        flags = ("--log_every", 1, "--max_steps", 100_000, "--overwrite")
        ended, out, _ = run_train("--output_dir", run_dir, *flags)
    assert ended == code
    assert "; the same command without --overwrite goes on from there" in out
    assert_stopped_and_goes_on(run_train, run_dir, out)


@pytest.mark.slow
@SIGNALS
def test_a_signal_to_a_process_too(run_train, tiny_folder, run_dir, number, code):
    flags = [*tiny_folder.flags, "--output_dir", run_dir, "--log_every", 1, *SMALL]
    command = [sys.executable, ROOT / "train.py", *flags, "--max_steps", 100_000]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    try:
        wait_for_rows(run_dir)
        process.send_signal(number)
        out, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == code
    assert_stopped_and_goes_on(run_train, run_dir, out)


@pytest.mark.slow
def test_the_whole_of_dsprites_is_trained_on(tmp_path):
    """The one start of a script on the default data, drawn here."""
    flags = ("--data_dir", tmp_path, "--output_dir", tmp_path / "run", "--max_steps", 2)
    code, out, _ = run_main(train.main, *SMALL, *flags)
    assert code == 0
    assert "dsprites: 737,280 images of 1x64x64, rendered" in out
