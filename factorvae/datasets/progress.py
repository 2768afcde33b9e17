"""Progress of a long preparation: a bar on a terminal, a line now and then anywhere else."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

Block = TypeVar("Block", bound=Sized)
SECONDS_BETWEEN_LINES = 15


def track(
    blocks: Iterable[Block], total: int | None, what: str, unit: str = " images", done: int = 0
) -> Iterator[Block]:
    """Pass blocks on, and tell on stderr how far they have come; each adds its length.

    total: what the lengths come to in the end, including `done` from before; None if unknown.
    """
    if sys.stderr.isatty():
        with tqdm(desc=what, total=total, initial=done, unit=unit, unit_scale=True) as bar:
            for block in blocks:
                yield block
                bar.update(len(block))
    else:
        yield from _track_in_lines(blocks, total, what, unit, done)


def _track_in_lines(
    blocks: Iterable[Block], total: int | None, what: str, unit: str, done: int
) -> Iterator[Block]:
    start = said = time.monotonic()
    begun = done
    of_total = "" if total is None else f" of {total:,}"
    for block in blocks:
        yield block
        done += len(block)
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            left = (now - start) * ((total or done) - done) / (done - begun)
            print(f"{what}: {done:,}{of_total}{unit}, {left:.0f} s left", file=sys.stderr)
    print(f"{what}: {done:,}{unit} in {time.monotonic() - start:.1f} s", file=sys.stderr)
