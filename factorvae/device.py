"""What a program has to work with: its device, its CPU threads and its memory."""

import ctypes
import functools
import importlib.util
import math
import os
import re
import shutil
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from factorvae.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of /proc/cpuinfo; the last one on ARM
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def choose_device(name: str, number: int = 0) -> torch.device:
    """'auto' (CUDA where there is one), 'cpu', 'cuda' or 'cuda:N' -> the device.

    number: of this process among those of this machine, which share out its CUDA devices.

    Raises:
        UserError: no such device here.
    """
    # Of the default's 8 connections, the 16 streams of a sweep would have to share. To be said
    # before CUDA is looked for.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, given = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not given.isdecimal()):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, not {name}")
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if len(given) > 9 or int(given or 0) >= count:  # Python reads numbers of so many digits only
        raise UserError(
            f"--device {name}: PyTorch sees {count} CUDA devices here; use --device cpu"
        )
    return torch.device("cuda", int(given) if given else number % count)


def use_device(device: torch.device, deterministic: bool = False) -> None:
    """Set up what holds for a whole process: on CUDA, the current device, and products in TF32.

    deterministic: only convolution algorithms that give the same bits every time.

    Convolutions are in TF32 by PyTorch's default. NVIDIA_TF32_OVERRIDE=0 in the environment has all
    of them in float32 proper.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.deterministic = deterministic


def multiplies_in_tf32() -> bool:
    """Whether products of float32 on CUDA may be in TF32; `exact_float32` says no."""
    allowed = torch.get_float32_matmul_precision() != "highest"
    return allowed and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


@functools.cache
def compiles_kernels(device: torch.device) -> bool:
    """Whether Triton can compile for a CUDA device, for which it needs a C compiler: CC or, where
    that is not set, gcc or clang."""
    given = os.environ.get("CC")
    compilers = ("gcc", "clang") if given is None else (given,)
    return (
        importlib.util.find_spec("triton") is not None
        and any(map(shutil.which, compilers))
        and Path(sysconfig.get_path("include"), "Python.h").exists()
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)  # the first with TF32 and bfloat16
    )


def describe_device(device: torch.device) -> str:
    """'cuda:0, NVIDIA H100, 79.1 GiB', or 'cpu'."""
    if device.type != "cuda":
        return str(device)
    properties = torch.cuda.get_device_properties(device)
    return f"{device}, {properties.name}, {properties.total_memory / 2**30:.1f} GiB"


def emulates_bf16(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the device lacks instructions for bfloat16; False where that cannot be told."""
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", _text_of(cpuinfo), re.MULTILINE)
    return flags is not None and not BF16_FLAGS & set(flags[1].split())


def _text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions and products of float32 on CUDA without TF32, whose three digits show in scores.

    It holds for the whole process, so it is entered once, outside of any threads.
    """
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, allow_tf32=False, deterministic=torch.backends.cudnn.deterministic
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(products)


def use_threads(threads: int) -> int:
    """Let PyTorch use so many CPU threads, or, for 0, as many as there are idle cores.

    A step is a few hundred short parallel sections, and each waits for its slowest thread. With one
    thread too many for the cores that are free, a step takes several times as long.
    """
    if threads == 0:
        threads = max(1, min(torch.get_num_threads(), idle_cores()))
    torch.set_num_threads(threads)
    return threads


def in_threads(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    ahead: int | None = None,
) -> Iterator[Result]:
    """`work` of each item, in their order.

    A batch for each thread is quicker than a batch that all threads share: no thread waits for
    another, and each keeps its maps in its own core's cache.

    ahead: how many items are worked on beyond the one that is asked for, where their results are
        too large for all to wait in memory; None: all.
    """
    executor = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    pending: deque[Future] = deque()
    try:
        for item in items:
            pending.append(executor.submit(work, item))
            if ahead is not None and len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except KeyboardInterrupt:
        print("what is at work ends first", file=sys.stderr, flush=True)
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free, up to a GiB, for the next step's (glibc only).

    By default it hands large pieces back to the system and gets them again page by page, some ten
    thousand pages in a float32 step, which takes a sixth of the step's time.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_of(device: torch.device) -> int:
    """Bytes of memory that the device has, of which a container may be allowed less."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if not hasattr(os, "sysconf"):  # Windows
        return sys.maxsize
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.exists() else "max"
    return min(installed, int(allowed)) if allowed.isdecimal() else installed


def idle_cores(seconds: float = 0.2) -> int:
    """How many of the cores that this process may use are idle, watched for so long (Linux)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return os.cpu_count() or 1
    before = _ticks(stat)
    time.sleep(seconds)
    after = _ticks(stat)
    idle = 0.0
    for core in os.sched_getaffinity(0) & before.keys() & after.keys():
        idle_ticks, all_ticks = (b - a for a, b in zip(before[core], after[core], strict=True))
        idle += idle_ticks / all_ticks if all_ticks else 1.0  # some containers count no ticks
    return round(min(idle, cpu_quota()))


def cpu_quota(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """CPUs that a container may use at a time (cgroup v2); inf where no limit is set."""
    if not limit.exists():
        return math.inf
    quota, period = limit.read_text().split()
    return math.inf if quota == "max" else int(quota) / int(period)


def _ticks(stat: Path) -> dict[int, tuple[int, int]]:
    """Of each core since the machine started, its idle clock ticks and all of them.

    Waiting for disks is idle.
    """
    ticks = {}
    for line in stat.read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal():
            counts = [int(count) for count in fields[:8]]
            ticks[int(name[3:])] = counts[3] + counts[4], sum(counts)
    return ticks
