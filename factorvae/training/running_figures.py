"""The figures of training steps, added up on the device between two rows of the log."""

from collections.abc import Sequence

import torch
from torch import Tensor

from factorvae.training.distributed import World


class RunningFigures:
    """Sums of every figure since the last row of the log, and the steps while they were finite.

    names: of the figures, in the order in which `add` gets them. steps: since the last row, counted
    by the caller: a step that is replayed does not call `add`, only the device does its work.
    """

    def __init__(self, names: Sequence[str], device: torch.device, world: World) -> None:
        self.names, self.world = list(names), world
        self.steps = 0
        self.sums = torch.zeros(len(self.names), dtype=torch.float64, device=device)
        self.finite_steps = torch.zeros(len(self.names), dtype=torch.int64, device=device)

    def add(self, figures: Tensor) -> None:
        """Those of one step, float32 [len(names)]; nothing waits for the device."""
        self.sums += figures
        self.finite_steps += self.sums.isfinite()

    def means(self) -> dict[str, float]:
        """The mean of every figure over the steps since the last row of the log."""
        means = (self.world.all_reduce_mean(self.sums) / self.steps).tolist()
        return dict(zip(self.names, means, strict=True))

    def first_not_finite(self) -> tuple[str, int] | None:
        """The figure that was the first not to be finite, and for how many steps it was."""
        finite_steps = self.world.all_reduce_min(self.finite_steps).tolist()
        first = min(finite_steps)
        return (self.names[finite_steps.index(first)], first) if first < self.steps else None

    def reset(self) -> None:
        """Begin the next row of the log."""
        self.steps = 0
        self.sums.zero_()
        self.finite_steps.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of them, of all processes together."""
        return {
            "sums": self.world.all_reduce_mean(self.sums),
            "finite_steps": self.world.all_reduce_min(self.finite_steps),
        }

    def load_state_dict(self, state: dict, steps: int) -> None:
        """Go on from a checkpoint's, so many steps after a row of the log."""
        self.steps = steps
        self.sums.copy_(state["sums"])
        self.finite_steps.copy_(state["finite_steps"])
