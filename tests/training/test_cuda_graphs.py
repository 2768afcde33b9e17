"""Launches: recorded steps, recordings that fail, and when garbage is collected."""

import contextlib
import gc

import pytest
import torch

from factorvae.training.cuda_graphs import (
    GraphedSteps,
    Launcher,
    first_error,
    no_collection,
    record_on_cuda,
)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Steps:
    """A step that draws a number and adds it up, and recordings of it that only a replay makes."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.total = torch.zeros(1)
        self.recorded = []

    def step(self):
        self.total += torch.rand(1, generator=self.generator)

    def record(self, step, count, generator):
        assert step == self.step
        assert generator is self.generator
        self.recorded.append(count)

        class Recording:
            def replay(self):
                for _ in range(count):
                    step()

        return Recording()


def test_recorded_steps_are_as_many_as_asked_for_and_the_same():
    plain, other = Steps(), Steps()
    graphed = GraphedSteps(other.generator, (10, 1), other.record)
    made = []
    while sum(made) < 25:
        made.append(graphed(other.step, 25 - sum(made)))
    assert made == [1, 1, 1, 10, 10, 1, 1]  # three to warm up, then as large as they go
    assert other.recorded == [10, 1]
    for _ in range(25):
        plain.step()
    assert torch.equal(plain.total, other.total)
    assert graphed(other.step, 100) == 10
    assert other.recorded == [10, 1]
    graphed.forget()
    assert [graphed(other.step, 100) for _ in range(4)] == [1, 1, 1, 10]
    assert other.recorded == [10, 1, 10]


def test_where_a_recording_fails_steps_are_made_one_by_one_and_it_says_so():
    plain, other = Steps(), Steps()

    def record(step, count, generator):
        if count == 10:
            raise torch.OutOfMemoryError("no room for 10\nand more")
        return other.record(step, count, generator)

    graphed = GraphedSteps(other.generator, (10, 1), record)
    assert [graphed(other.step, most) for most in (9, 8, 7, 1)] == [1, 1, 1, 1]
    assert list(graphed.recordings) == [1]
    assert graphed.fault is None
    assert [graphed(other.step, 20) for _ in range(4)] == [1, 1, 1, 1]
    assert graphed.recordings == {}
    assert graphed.fault == "no room for 10"
    for _ in range(8):
        plain.step()
    assert torch.equal(plain.total, other.total)


def test_a_fault_is_told_once():
    launcher = Launcher(torch.device("cpu"), torch.Generator())
    assert launcher.take_fault() is None
    launcher.graphs = GraphedSteps(torch.Generator(), (1,), None)
    launcher.graphs.fault = "no room"
    assert launcher.take_fault() == "no room"
    assert launcher.take_fault() is None


class Ending(contextlib.AbstractContextManager):
    """A context whose end fails as that of a capture does in which a step failed."""

    def __exit__(self, *_):
        raise RuntimeError("operation failed due to a previous error during capture")


def test_the_first_error_is_the_one_that_is_raised():
    with pytest.raises(torch.OutOfMemoryError, match="no room"), first_error(Ending()):
        raise torch.OutOfMemoryError("no room")
    with pytest.raises(RuntimeError, match="a previous error"), first_error(Ending()):
        pass
    with (
        pytest.raises(ZeroDivisionError),
        first_error(contextlib.nullcontext()),
    ):
        raise ZeroDivisionError


class Cycle:
    """Garbage that only a collection finds, and which says when it is found."""

    def __init__(self, found):
        self.itself, self.found = self, found

    def __del__(self):
        self.found.append("found")


def test_garbage_is_collected_before_a_recording_and_not_within():
    found = []
    Cycle(found)
    with pytest.raises(ValueError, match="within"), no_collection():
        assert found == ["found"]
        assert not gc.isenabled()
        raise ValueError("within")
    assert gc.isenabled()


@needs_cuda
def test_cuda_a_recording_that_fails_leaves_the_generator_usable():
    device = torch.device("cuda", 0)
    generator = torch.Generator(device).manual_seed(0)
    torch.rand(1, device=device, generator=generator)
    before = generator.get_state()

    def step():
        torch.rand(1, device=device, generator=generator)
        raise torch.OutOfMemoryError("no room")

    with (
        torch.cuda.stream(torch.cuda.Stream(device)),
        pytest.raises(torch.OutOfMemoryError, match="no room"),
    ):
        record_on_cuda(step, 1, generator)
    assert torch.equal(generator.get_state(), before)
    torch.rand(1, device=device, generator=generator)
