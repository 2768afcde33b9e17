"""Convolutions by Triton: interpreted without a GPU, and on CUDA."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from factorvae import layers
from factorvae.device import compiles_kernels, exact_float32, multiplies_in_tf32
from tests.convolutions import (
    LAYERS,
    check_what_is_no_number,
    compare,
    outputs_and_gradients,
)

ROOT = Path(__file__).parents[1]
CUDA = torch.device("cuda", 0)
needs_kernels = pytest.mark.skipif(
    "not torch.cuda.is_available() or not compiles_kernels(CUDA)",
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
    compare(CUDA, dtype, tolerance, [*LAYERS, (1, 32, 32, 64), (64, 64, 4, 64)])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_kernels_hide_nothing_that_is_no_number(dtype):
    check_what_is_no_number(CUDA, dtype)


@needs_kernels
def test_cuda_kernels_give_the_same_bits_every_time():
    from factorvae import cuda_convs

    x = torch.randn(64, 32, 16, 16, device=CUDA, requires_grad=True)
    weight = torch.randn(64, 32, 4, 4, device=CUDA, requires_grad=True)
    bias = torch.zeros(64, device=CUDA, requires_grad=True)
    grad = torch.randn(64, 64, 8, 8, device=CUDA)
    first, *others = (
        outputs_and_gradients(cuda_convs.DownConvReLU.apply, (x, weight, bias), grad)
        for _ in range(5)
    )
    for other in others:
        assert all(map(torch.equal, first, other))


def test_which_convolutions_the_kernels_make(monkeypatch):
    there, exact = {"compiles": True}, {"tf32": False}
    monkeypatch.setattr(layers, "compiles_kernels", lambda device: there["compiles"])
    monkeypatch.setattr(layers, "multiplies_in_tf32", lambda: exact["tf32"])
    weight = torch.zeros(32, 3, 4, 4)
    x = torch.zeros(2, 3, 8, 8)
    exact["tf32"] = True
    assert not layers.kernels_serve(x, weight)  # on the CPU
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(2, 3, 8, 8, device="cuda")
        assert layers.kernels_serve(x, weight)
        assert layers.kernels_serve(x.bfloat16(), weight)
        assert not layers.kernels_serve(x.double(), weight)
        assert not layers.kernels_serve(x.half(), weight)
        assert not layers.kernels_serve(x[:, :, 1:], weight)  # an odd height
        assert not layers.kernels_serve(x[:0], weight)
        assert not layers.kernels_serve(torch.empty(2**18, 16, 4, 4, device="cuda"), weight)
        for channels, served in ((64, True), (128, True), (48, False), (256, False)):
            other = torch.empty(channels, 3, 4, 4, device="cuda")
            assert layers.kernels_serve(x, other) is served, channels
        exact["tf32"] = False
        assert not layers.kernels_serve(x, weight)
        assert layers.kernels_serve(x.bfloat16(), weight)
        there["compiles"] = False
        assert not layers.kernels_serve(x.bfloat16(), weight)


def test_tf32_is_off_where_float32_is_to_be_exact(monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
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


def test_kernels_need_a_compiler_headers_and_a_device_of_2020(monkeypatch, tmp_path):
    """As Triton looks for a C compiler: CC, else gcc, else clang."""
    capability = [(9, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[0])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "triton")
    monkeypatch.setattr("factorvae.device.sysconfig.get_path", lambda name: str(tmp_path))
    (tmp_path / "Python.h").touch()

    def answer(**environment):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CC", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return compiles_kernels.__wrapped__(CUDA)

    for name, serves in (("cc", False), ("clang", True), ("gcc", True)):
        program = tmp_path / name
        program.touch(mode=0o755)
        assert answer() is serves, name
        program.unlink()
    (tmp_path / "gcc").touch(mode=0o755)
    assert answer(CC=str(tmp_path / "gcc"))
    assert not answer(CC="/nowhere/cc")
    assert not answer(CC="")
    capability[0] = (7, 5)
    assert not answer()
    capability[0] = (8, 0)
    assert answer()
    (tmp_path / "Python.h").unlink()
    assert not answer()
