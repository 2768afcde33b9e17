"""How steps are launched: one by one, or, on CUDA, on a stream of their own and from CUDA graphs.

At the paper's sizes a step is some two hundred kernels of a few microseconds each, and starting
them one by one takes the host longer than the device needs to run them. A graph holds whole steps,
recorded once and launched again and again.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

STEPS_PER_LAUNCH = (10, 1)
WARM_UP = 3  # steps made as they are: libraries load, optimisers allocate, algorithms are chosen


class Launcher:
    """Makes steps where and how the device runs them best.

    Args:
        device: where they run; on CUDA, on a stream that is this launcher's own.
        generator: what the steps draw from.
        graph_sizes: the steps that a CUDA graph may hold, the largest first and the last one 1;
            empty: they are made one by one.
        own_stream: whether the steps may run beside what others start on the device.
    """

    def __init__(
        self,
        device: torch.device,
        generator: torch.Generator,
        graph_sizes: Sequence[int] = STEPS_PER_LAUNCH,
        own_stream: bool = True,
    ) -> None:
        self.device = device
        self.stream = self.graphs = None
        if device.type == "cuda" and own_stream:
            self.stream = torch.cuda.Stream(device)
            if graph_sizes:
                self.graphs = GraphedSteps(generator, graph_sizes, record_on_cuda)

    def __call__(self, step: Callable[[], None], most: int) -> int:
        """Start as many steps as go into one launch, `most` at most; returns how many."""
        if self.graphs:
            return self.graphs(step, most)
        step()
        return 1

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        """What is started within follows what was started before, and runs on the stream."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            yield

    def wait(self) -> None:
        """Return once all steps are made."""
        if self.stream is not None:
            self.stream.synchronize()

    def forget(self) -> None:
        """Drop what was recorded: tensors that a step changes were replaced."""
        if self.graphs:
            self.graphs.forget()

    def close(self) -> None:
        """Wait, and drop what was recorded, with the memory that it holds."""
        with contextlib.suppress(RuntimeError):  # of the device: what failed is told elsewhere
            self.wait()
        self.forget()

    def take_fault(self) -> str | None:
        """Why steps could not be recorded and are made one by one; told once."""
        if self.graphs is None:
            return None
        fault, self.graphs.fault = self.graphs.fault, None
        return fault


class Recording(Protocol):
    """Steps that can be made again."""

    def replay(self) -> None: ...


class GraphedSteps:
    """Makes steps by replaying recordings of them, or as they are where recording fails.

    Call it under the stream that the steps are to run on, and not the default one. Random numbers
    go on from where the generator stands: with every step made, replayed or not, it moves on alike.

    Args:
        generator: what the step draws from.
        sizes: how many steps a recording may hold, the largest first; the last one is 1.
        record: makes a recording; `record_on_cuda`, but in tests.
    """

    def __init__(
        self,
        generator: torch.Generator,
        sizes: Sequence[int],
        record: Callable[[Callable[[], None], int, torch.Generator], Recording],
    ) -> None:
        self.generator, self.sizes, self.record = generator, sizes, record
        self.fault: str | None = None
        self.given_up = False
        self.forget()

    def forget(self) -> None:
        """Record anew: tensors that the step changes were replaced."""
        self.warm = 0
        self.recordings: dict[int, Recording] = {}

    def __call__(self, step: Callable[[], None], most: int) -> int:
        """Make as many steps as go into one launch, `most` at most; returns how many.

        step: makes one. It has static shapes, keeps all it changes in tensors that stay, and does
            not wait for the device. It is not kept: what it belongs to may end before this does.
        """
        if self.given_up or self.warm < WARM_UP:
            step()
            self.warm += 1
            return 1
        size = next(size for size in self.sizes if size <= most)
        if size not in self.recordings:
            try:
                self.recordings[size] = self.record(step, size, self.generator)
            except RuntimeError as error:  # out of memory too; a step made as it is needs less
                self.fault = str(error).strip().partition("\n")[0]
                self.given_up = True
                self.recordings.clear()
                return self(step, most)
        self.recordings[size].replay()
        return size


def record_on_cuda(
    step: Callable[[], None], count: int, generator: torch.Generator
) -> torch.cuda.CUDAGraph:
    """`count` steps on the current stream as a CUDA graph; none of them is made.

    Raises:
        RuntimeError: what failed first, be it a step or the end of the recording. The generator
            then stands where it stood.
    """
    state = generator.get_state()
    try:
        with no_collection():
            return _capture(step, count, generator)
    except BaseException:
        # A capture that was cut off leaves the generator waiting for its end, and unusable.
        fresh = torch.Generator(generator.device)
        fresh.set_state(state)
        generator.graphsafe_set_state(fresh.graphsafe_get_state())
        raise


def _capture(
    step: Callable[[], None], count: int, generator: torch.Generator
) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with first_error(torch.cuda.graph(graph, stream=torch.cuda.current_stream())):
        for _ in range(count):
            step()
    return graph


@contextlib.contextmanager
def first_error(context: contextlib.AbstractContextManager) -> Iterator[None]:
    """The context, but an error within is not masked by one that it then raises on leaving."""
    within: list[BaseException] = []
    try:
        with context:
            try:
                yield
            except BaseException as error:
                within.append(error)
                raise
    except BaseException as error:
        if within and error is not within[0]:
            raise within[0] from None
        raise


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage now and not within.

    A graph or a stream that is destroyed while another graph is recorded can spoil the recording.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
