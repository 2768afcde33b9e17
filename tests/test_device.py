"""Devices and threads."""

import math
import os
from types import SimpleNamespace

import pytest
import torch

from factorvae import device as runtime
from factorvae.errors import UserError


def test_devices_by_name():
    assert runtime.choose_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert runtime.choose_device("auto").type == expected
    for name in ("gpu", "cpu:", "cuda:x", "cuda:99", "cuda:" + "9" * 5000, ""):
        with pytest.raises(UserError, match="--device"):
            runtime.choose_device(name)


def test_processes_of_a_machine_take_its_devices_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("auto", "cuda"):
        chosen = [runtime.choose_device(name, number) for number in range(3)]
        assert chosen == [torch.device("cuda", index) for index in (0, 1, 0)]
    assert runtime.choose_device("cuda:0", 1) == torch.device("cuda", 0)
    assert runtime.choose_device("cpu", 1) == torch.device("cpu")


def test_the_cpu_computes_in_full_float32():
    runtime.use_device(torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_multiplies_in_tf32():
    before = torch.get_float32_matmul_precision()
    runtime.use_device(torch.device("cuda", 0))
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision(before)


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


@pytest.mark.parametrize(("platform", "asked"), [("linux", True), ("darwin", False)])
def test_freed_memory_is_kept_where_there_is_a_library_to_ask(monkeypatch, platform, asked):
    set_to = {}
    library = SimpleNamespace(mallopt=set_to.__setitem__)
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(runtime.sys, "platform", platform)
    runtime.keep_freed_memory()
    trim, mmap = -1, -3  # of malloc.h
    assert set_to == ({trim: 1 << 30, mmap: 1 << 30} if asked else {})


def test_results_come_in_order_and_no_more_wait_than_are_asked_for():
    begun = []
    results = runtime.in_threads(lambda i: begun.append(i) or 10 * i, range(20), workers=2, ahead=3)
    assert [next(results) for _ in range(4)] == [0, 10, 20, 30]
    assert len(begun) <= 4 + 3
    results.close()
    assert list(runtime.in_threads(lambda i: 10 * i, range(5), workers=2)) == [0, 10, 20, 30, 40]


def test_what_is_measured_is_in_float32_proper_and_training_goes_on_in_tf32():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        with pytest.raises(ZeroDivisionError), runtime.exact_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(
    ("text", "emulated"),
    [
        ("flags\t\t: fpu sse avx512_bf16\n", False),
        ("Features\t: fp asimd bf16\n", False),
        ("processor\t: 0\nflags\t\t: fpu sse avx512f\n", True),
        ("nothing of the kind\n", False),
    ],
)
def test_a_processor_without_bfloat16_instructions_is_told_by_its_flags(tmp_path, text, emulated):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert runtime.emulates_bf16(torch.device("cpu"), path) == emulated
    assert not runtime.emulates_bf16(torch.device("cpu"), tmp_path / "missing")


def test_a_device_is_described_by_name_and_memory(monkeypatch):
    properties = SimpleNamespace(name="A card", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert runtime.describe_device(torch.device("cuda", 1)) == "cuda:1, A card, 80.0 GiB"
    assert runtime.describe_device(torch.device("cpu")) == "cpu"
