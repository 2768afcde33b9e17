"""Devices and threads."""

import math
import os

import pytest
import torch

from factorvae import runtime
from factorvae.errors import UserError


def test_devices_by_name():
    assert runtime.choose_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert runtime.choose_device("auto").type == expected
    for name in ("gpu", "cpu:", "cuda:x", "cuda:99", ""):
        with pytest.raises(UserError, match="--device"):
            runtime.choose_device(name)


def test_threads_asked_for_are_used_and_idle_cores_counted():
    assert runtime.use_threads(1) == torch.get_num_threads() == 1
    assert 0 <= runtime.idle_cores() <= os.cpu_count()


def test_a_containers_quota_counts(tmp_path, monkeypatch):
    limit = tmp_path / "cpu.max"
    assert runtime.cpu_quota(limit) == math.inf
    limit.write_text("max 100000\n")
    assert runtime.cpu_quota(limit) == math.inf
    limit.write_text("150000 100000\n")
    assert runtime.cpu_quota(limit) == 1.5
    monkeypatch.setattr(runtime, "cpu_quota", lambda: 0.2)
    assert runtime.idle_cores() == 0
    assert runtime.use_threads(0) == 1


def test_keeping_freed_memory_leaves_results_alone():
    before = torch.arange(10.0).sum()
    runtime.keep_freed_memory()
    assert torch.arange(10.0).sum() == before
