"""Training steps as CUDA graphs: recorded once, and launched again and again as a whole.

At the paper's sizes a step is some two hundred kernels of a few microseconds each, and starting
them one by one takes the host longer than the device needs to run them.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

WARM_UP = 3  # steps made as they are: libraries load, optimisers allocate, algorithms are chosen


class Recording(Protocol):
    """Steps that can be made again."""

    def replay(self) -> None: ...


class GraphedSteps:
    """Makes steps by replaying recordings of them.

    Call it under the stream that the steps are to run on, and not the default one. Random numbers
    go on from where the generator stands: with every step made, replayed or not, it moves on alike.

    Args:
        step: makes one step. It has static shapes, keeps all it changes in tensors that stay, and
            does not wait for the device.
        generator: what the step draws from.
        sizes: how many steps a recording may hold, the largest first; the last one is 1.
        record: makes a recording; `record_on_cuda`, but in tests.
    """

    def __init__(
        self,
        step: Callable[[], None],
        generator: torch.Generator,
        sizes: Sequence[int],
        record: Callable[[Callable[[], None], int, torch.Generator], Recording],
    ) -> None:
        self.step, self.generator, self.sizes, self.record = step, generator, sizes, record
        self.forget()

    def forget(self) -> None:
        """Record anew: tensors that the step changes were replaced."""
        self.warm = 0
        self.recordings: dict[int, Recording] = {}

    def __call__(self, most: int) -> int:
        """Make as many steps as go into one launch, `most` at most; returns how many."""
        if self.warm < WARM_UP:
            self.step()
            self.warm += 1
            return 1
        size = next(size for size in self.sizes if size <= most)
        if size not in self.recordings:
            self.recordings[size] = self.record(self.step, size, self.generator)
        self.recordings[size].replay()
        return size


def record_on_cuda(
    step: Callable[[], None], count: int, generator: torch.Generator
) -> torch.cuda.CUDAGraph:
    """`count` steps on the current stream as a CUDA graph; none of them is made."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(count):
            step()
    return graph
