"""Weights of the objective that change over a run."""

import torch
from torch import Tensor


def geometric(start: float | None, end: float, step: Tensor | int, first: int, last: int) -> Tensor:
    """A weight in the step that follows `step` others: geometric from `start` to `end`.

    Args:
        start: the weight of the first `first` steps; None: always `end`.
        end: the weight from step `last` on (steps count from 1), or after it where `first` is the
            same; where it is 0, always 0.
        step: steps done, a number or a tensor [] on any device.

    Returns:
        A float32 [], on the device of `step`.
    """
    step = torch.as_tensor(step)
    if start is None or end == 0:
        return torch.full_like(step, end, dtype=torch.float32)
    share = ((step + 1 - first) / max(1, last - first)).clamp(0, 1)
    return start * (end / start) ** share
