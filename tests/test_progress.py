"""What is told of long work."""

import fcntl
import itertools
import os
import re
import select
import struct
import sys
import termios
import threading
import time

import pytest

from factorvae.progress import Activity, Progress, track
from factorvae.run_log import shown_figures


def test_work_that_is_busy_in_one_call_is_told_of(capsys):
    """From another thread, with how far it says it has come."""
    told, before = "", threading.active_count()
    with Activity("metrics", seconds=0.01) as activity:
        activity.begin(2)
        with activity.at("mig"):
            pass
        with activity.at("dci"):
            activity.tell("dci", "stage 3 of 100")
            until = time.monotonic() + 10
            while "stage 3" not in told and time.monotonic() < until:
                time.sleep(0.01)
                told += capsys.readouterr().err
    assert "1 of 2 metrics done; at work: dci, stage 3 of 100\n" in told
    assert activity.done == 2 and threading.active_count() == before


def test_quick_work_is_not_told(capsys):
    with Activity("metrics") as activity:
        activity.begin(1)
        with activity.at("mig"):
            pass
    assert capsys.readouterr().err == ""


def test_a_training_in_a_pipe_is_told_of_before_its_first_figures(capsys, monkeypatch):
    monkeypatch.setattr("factorvae.progress.SECONDS_BETWEEN_LINES", 0)
    with Progress(20, 5) as progress:
        progress.advance(5)
        assert re.fullmatch(
            r"step 10 of 20, [0-9:]+ left  [0-9.]+ steps/s\n", capsys.readouterr().err
        )
        progress.show("recon 1.0")
        assert "  recon 1.0  " in capsys.readouterr().err
        progress.advance(5)  # from now on a line has figures
        assert capsys.readouterr().err == ""


def test_blocks_in_a_pipe_are_told_of_when_a_line_is_due_and_at_their_end(capsys, monkeypatch):
    clock = itertools.count(0, 6)  # seconds: the start, then each block, then the end
    monkeypatch.setattr("factorvae.progress.time.monotonic", lambda: next(clock))
    for total, told in ((9, "4 of 9 images, 15 s left"), (None, "4 images, 0 s left")):
        assert list(track(["ab", "cd", "e"], total, "read\ning", done=0)) == ["ab", "cd", "e"]
        lines = capsys.readouterr().err.splitlines()
        assert lines == [rf"read\ning: {told}", r"read\ning: 5 images in 24.0 s"]


@pytest.mark.parametrize(("columns", "named"), [(80, False), (130, True)])
def test_a_sweep_s_bar_shows_step_time_left_and_losses_whole(monkeypatch, columns, named):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    row = {"recon": 1234.5678, "kl": 21.456, "tc": -0.0391, "disc_accuracy": 0.5007}
    figures = shown_figures(row)
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(6_000_000, 1_234_567) as progress:
            time.sleep(0.2)  # it draws ten times a second at most
            progress.advance(1)
            progress.show(figures, of="dsprites_btcvae_beta1_gamma6.4_seed0")
        shown = b""
        while select.select([ours], [], [], 0.2)[0]:
            shown += os.read(ours, 1 << 16)
    os.close(ours)
    line = re.split(r"[\r\n]+", shown.decode().strip())[-1]
    assert len(line) <= columns
    assert line.startswith("1234568/6000000 ") and re.search(r" [0-9:?]+ left, ", line)
    assert line.endswith(figures) and ("seed0: recon" in line) == named
