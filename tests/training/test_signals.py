"""A wish to stop, and one to stop at once."""

import signal

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
