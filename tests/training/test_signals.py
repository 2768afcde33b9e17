"""A wish to stop, and one to stop at once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from factorvae.training import signals
from factorvae.training.signals import StopSignals


def test_a_signal_is_noted_and_its_echo_ignored():
    with StopSignals() as stop:
        assert stop.signal == 0
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_one_that_comes_later_acts_as_usual(monkeypatch):
    monkeypatch.setattr(signals, "SECONDS_OF_ONE", -1.0)
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == 0
    assert signal.signal(signal.SIGTERM, before) == signal.SIG_IGN


ORPHAN = """
import signal, sys, time
from factorvae.training.signals import end_with_parent
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
end_with_parent()
print("ready", flush=True)
end = time.monotonic() + 60
while {stays} and time.monotonic() < end:
    time.sleep(0.05)
print("went on", flush=True)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_an_orphan_is_told_to_stop_and_ended_if_it_does_not():
    """As the processes of a sweep are whose parent is killed."""
    command = [sys.executable, "-c", PARENT, ORPHAN.format(stays=True)]
    root = Path(signals.__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        assert parent.stdout.read() == "told\n"  # to the end of the orphan, which holds the pipe
    assert signals.SECONDS_AS_ORPHAN < 2


def test_a_process_whose_parent_lives_goes_on():
    command = [sys.executable, "-c", ORPHAN.format(stays=False)]
    root = Path(signals.__file__).parents[2]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=root)
    assert done.stdout == "ready\nwent on\n"
