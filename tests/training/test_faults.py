"""Damaged logs, full disks, closed terminals, two processes on one folder, sizes beyond reason."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from factorvae import files
from factorvae.checkpoint import describe_dataset
from factorvae.command_line import parse
from factorvae.config import TrainConfig
from factorvae.errors import UserError, printable, run_script
from factorvae.files import STATS_NAME, locked_folder
from factorvae.run_log import RunLog, columns, log_until, read_log
from factorvae.saved_scores import saved_scores
from factorvae.training.run import check_memory
from factorvae.training.run_folder import check_same_data
from factorvae.training.signals import StopSignals
from factorvae.training.sweep_folder import read_sweep

HEADER = ",".join(columns(1))
ROW = ",".join(["10", *["0.5"] * (len(columns(1)) - 1)])


@pytest.mark.parametrize(
    ("damage", "kept"),  # when the run goes on, which knows its header
    [
        (HEADER.replace("recon", "rec0n") + f"\n{ROW}\n", [10]),
        ("", []),
        (f"{HEADER}\n" + "9" * 5000 + ROW[2:] + "\n", []),
        (f"{HEADER}\n" + ROW.replace("0.5", "9" * 5000, 1) + "\n", []),
        (f"{HEADER}\n" + ROW.replace("0.5", "a" * 200_000, 1) + "\n", []),
        (f'"{HEADER}\n{ROW}\n', [10]),
    ],
)
def test_a_damaged_log_has_no_rows_where_it_is_damaged(tmp_path, damage, kept):
    (tmp_path / STATS_NAME).write_text(damage)
    assert len(read_log(tmp_path)["step"]) == 0
    assert log_until(tmp_path, 100) is None
    with RunLog(tmp_path, columns(1), 100, 10) as log:
        log.row({"step": 20, "recon": 1.5})
    assert read_log(tmp_path)["step"].tolist() == [*kept, 20]


@pytest.mark.parametrize("absurd", ["inf", "-inf", "1e308", "-1e101"])
def test_figures_that_no_training_writes_are_nan(tmp_path, absurd):
    (tmp_path / STATS_NAME).write_text(f"{HEADER}\n{ROW.replace('0.5', absurd, 1)}\n{ROW}\n")
    assert np.array_equal(read_log(tmp_path)["recon"], [np.nan, 0.5], equal_nan=True)


def test_an_unclosed_quote_costs_its_own_row_only(tmp_path):
    torn = ROW.replace("0.5", '"0.5', 1)
    (tmp_path / STATS_NAME).write_text("\n".join([HEADER, ROW, torn, "20" + ROW[2:], ""]))
    log = read_log(tmp_path)
    assert log["step"].tolist() == [10, 20]
    assert np.array_equal(log["kl_0"], [0.5, 0.5])


@pytest.mark.parametrize(
    "content",
    [
        '{"format": "factorvae study"}',
        '{"format": "factorvae study", "runs": [{}]}',
        '{"format": "factorvae study", "runs": [{"folder": 3}]}',
        '{"format": "factorvae study", "runs": [], "settings": []}',
        '{"format": "factorvae study", "runs": [NaN]}',
        "[" * 100_000,
        "9" * 5000,
    ],
)
def test_a_sweeps_file_of_the_wrong_content_is_one_line(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(UserError, match="study.json is (damaged|no sweep)"):
        read_sweep(tmp_path)


def test_a_folder_in_place_of_a_sweeps_file_is_one_line(tmp_path):
    (tmp_path / "study.json").mkdir()
    with pytest.raises(UserError, match="cannot read .*study.json"):
        read_sweep(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line_for_both_logs(tmp_path):
    with pytest.raises(UserError, match="stats.csv: No space left"):
        with RunLog(tmp_path, columns(1), 0, 10) as log:
            log.file.close()
            log.file = open("/dev/full", "a")
            log.writer.writer = type("", (), {"writerow": lambda _, row: log.file.write("x")})()
            log.row({"step": 10})
    (tmp_path / "log.txt").unlink(missing_ok=True)
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with RunLog(tmp_path, columns(1), 0, 10) as log:
        with pytest.raises(UserError, match="log.txt: No space left"):
            log.note("text")


HOLD = """
import sys
from pathlib import Path
from factorvae.files import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_one_process_s_and_a_kill_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_FOR_LOCK", 0.1)
    folder = tmp_path / "run"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=Path(files.__file__).parents[1], **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is in use: another process trains there"):
            with locked_folder(folder):
                pass
        other.kill()
        other.wait()
        with locked_folder(folder):
            assert list(folder.iterdir()) == []


def test_a_closed_terminal_stops_in_order():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal == signal.SIGHUP


def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path, sprites):
    earlier = {"dataset": {**describe_dataset(sprites, {}), "licence": "not of this version"}}
    check_same_data(tmp_path, earlier, sprites)
    earlier["dataset"]["source"] = "official"
    with pytest.raises(UserError, match="other data: source is official there and .* here"):
        check_same_data(tmp_path, earlier, sprites)


def test_sizes_beyond_the_memory_are_told_before_any_is_taken():
    for sizes in ({"latent_dim": 10**9}, {"hidden_dim": 10**9}, {"disc_width": 10**7}):
        with pytest.raises(UserError, match="takes .* GiB to train; cpu has"):
            check_memory(TrainConfig(**sizes), (1, 64, 64), torch.device("cpu"))
    check_memory(TrainConfig(), (3, 64, 64), torch.device("cpu"))
    check_memory(TrainConfig(method="btcvae", disc_width=10**7), (1, 64, 64), torch.device("cpu"))
    with pytest.raises(UserError, match="--disc_depth must be at most 1000"):
        parse(TrainConfig, "", ["--disc_depth", "1000000"])


def test_texts_from_outside_are_short_single_printable_lines(capsys):
    assert printable("a\x1b[31m\nb\udcff") == "a\\x1b[31m\\nb\\udcff"
    assert len(str(UserError("9" * 5000))) < 300

    def fail():
        parse(TrainConfig, "", ["--latent_dim", "9" * 5000])

    assert run_script(fail) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--latent_dim" in line and len(line) < 500


@pytest.mark.parametrize("folder", ["", "caf\udce9"])
def test_folders_without_a_name_or_of_no_encoding_are_refused(folder):
    with pytest.raises(UserError, match="--output_dir"):
        parse(TrainConfig, "", ["--output_dir", folder])


def test_an_error_of_a_disk_that_nobody_foresaw_is_one_line(capsys, monkeypatch):
    def fail():
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr("factorvae.errors._drop_stdout", lambda: None)
    assert run_script(fail) == 2
    assert capsys.readouterr().err == "error: /x: No space left on device\n"


def test_a_sweeps_file_without_its_settings_goes_on(tmp_path):
    content = {"format": "factorvae study", "runs": [{"folder": "a"}]}
    (tmp_path / "study.json").write_text(json.dumps(content))
    assert read_sweep(tmp_path)["runs"] == [{"folder": "a"}]


@pytest.mark.parametrize(
    "content", ["[" * 100_000, f'{{"scores": {{"mig": {{"value": {10**400}}}}}}}']
)
def test_scores_of_the_wrong_content_are_one_line(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match="metrics.json is damaged; evaluate.py writes it anew"):
        saved_scores(tmp_path / "ckpt.pt")
