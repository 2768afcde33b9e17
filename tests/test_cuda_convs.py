"""Convolutions by Triton: interpreted without a GPU, and on CUDA."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from factorvae import layers
from factorvae.device import compiles_kernels, exact_float32
from tests.convolutions import LAYERS, compare, outputs_and_gradients

ROOT = Path(__file__).parents[1]
needs_kernels = pytest.mark.skipif(
    "not torch.cuda.is_available() or not compiles_kernels()",
    reason="no CUDA device for which Triton compiles",
)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
def test_interpreted_kernels_give_what_the_library_gives():
    done = subprocess.run(
        [sys.executable, "-m", "tests.convolutions"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all agree\n"


@needs_kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 1e-2)])
def test_cuda_kernels_give_what_the_library_gives(dtype, tolerance):
    compare("cuda", dtype, tolerance, [*LAYERS, (1, 32, 32, 64), (64, 64, 4, 64)])


@needs_kernels
def test_cuda_kernels_give_the_same_bits_every_time():
    from factorvae import cuda_convs

    x = torch.randn(64, 32, 16, 16, device="cuda", requires_grad=True)
    weight = torch.randn(64, 32, 4, 4, device="cuda", requires_grad=True)
    bias = torch.zeros(64, device="cuda", requires_grad=True)
    grad = torch.randn(64, 64, 8, 8, device="cuda")
    first, *others = (
        outputs_and_gradients(cuda_convs.DownConvReLU.apply, (x, weight, bias), grad)
        for _ in range(5)
    )
    for other in others:
        assert all(map(torch.equal, first, other))


def test_which_convolutions_the_kernels_make(monkeypatch):
    monkeypatch.setattr(layers, "compiles_kernels", lambda: True)
    x = torch.zeros(2, 3, 8, 8)
    assert not layers.kernels_serve(x)
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(2, 3, 8, 8, device="cuda")
        large = torch.empty(2**16, 64, 64, device="cuda")
        assert not layers.kernels_serve(x)  # PyTorch's default: float32 proper
        assert layers.kernels_serve(x.bfloat16())
        assert not layers.kernels_serve(x.double())
        monkeypatch.setattr(layers, "multiplies_in_tf32", lambda: True)
        assert layers.kernels_serve(x)
        assert not layers.kernels_serve(large)
        monkeypatch.setattr(layers, "compiles_kernels", lambda: False)
        assert not layers.kernels_serve(x)
        assert not layers.kernels_serve(x.bfloat16())


def test_tf32_is_off_where_float32_is_to_be_exact(monkeypatch):
    from factorvae.device import multiplies_in_tf32

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert multiplies_in_tf32()
        with exact_float32():
            assert not multiplies_in_tf32()
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
        assert not multiplies_in_tf32()
    finally:
        torch.set_float32_matmul_precision(before)


def test_without_a_compiler_there_are_no_kernels(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    compiles_kernels.cache_clear()
    try:
        assert not compiles_kernels()
    finally:
        compiles_kernels.cache_clear()
