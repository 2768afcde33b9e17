"""What a program has to work with: its device and its CPU threads."""

import os
import time
from pathlib import Path

import torch

from factorvae.errors import UserError


def choose_device(name: str) -> torch.device:
    """'auto' (CUDA where there is one), 'cpu', 'cuda' or 'cuda:N' -> the device.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, not {name}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: PyTorch sees {torch.cuda.device_count()} CUDA devices here; "
            "use --device cpu"
        )
    return torch.device(name)


def use_threads(threads: int) -> int:
    """Let PyTorch use so many CPU threads, or, for 0, as many as there are idle cores.

    A step is a few hundred short parallel sections, and each waits for its slowest thread. With one
    thread too many for the cores that are free, a step takes several times as long.
    """
    if threads == 0:
        threads = max(1, min(torch.get_num_threads(), idle_cores()))
    torch.set_num_threads(threads)
    return threads


def idle_cores(seconds: float = 0.2) -> int:
    """How many of the cores that this process may use are idle, watched for so long (Linux)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return os.cpu_count() or 1
    before = _idle_ticks(stat)
    start = time.monotonic()
    time.sleep(seconds)
    after = _idle_ticks(stat)
    ticks = (time.monotonic() - start) * os.sysconf("SC_CLK_TCK")
    usable = os.sched_getaffinity(0) & before.keys() & after.keys()
    return round(sum(min(1.0, (after[core] - before[core]) / ticks) for core in usable))


def _idle_ticks(stat: Path) -> dict[int, int]:
    """Idle clock ticks of each core since the machine started, waiting for disks included."""
    ticks = {}
    for line in stat.read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal():
            ticks[int(name[3:])] = int(fields[3]) + int(fields[4])
    return ticks
