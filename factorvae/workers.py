"""The same work on many items, by a few threads of one core each."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """`work` of each item, in their order.

    A batch for each thread is quicker than a batch that all threads share: no thread waits for
    another, and each keeps its maps in its own core's cache.
    """
    executor = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from executor.map(work, items)
    finally:
        executor.shutdown(cancel_futures=True)
