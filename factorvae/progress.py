"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from factorvae.errors import printable

Block = TypeVar("Block", bound=Sized)
SECONDS_BETWEEN_LINES = 10
STEPS = "{n_fmt}/{total_fmt} {bar} {remaining} left{postfix}"  # the figures fit 80 columns


class Progress:
    """How far a training or a sweep is, on stderr.

    Args:
        total: steps there are to make, including `done`.
        done: those made before.
        shown: False in a process that leaves it to another to tell.
    """

    def __init__(self, total: int, done: int = 0, shown: bool = True) -> None:
        self.first = self.done = done
        self.total = total
        self.start = self.said = time.monotonic()
        self.shown = shown
        self.has_figures = False
        self.bar = None
        if shown and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, dynamic_ncols=True, bar_format=STEPS)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            with _even_where_nobody_reads():
                self.bar.close()

    def advance(self, count: int = 1) -> None:
        """Count what is done."""
        self.done += count
        if self.bar is not None:
            with _even_where_nobody_reads():
                self.bar.update(count)
        elif not self.has_figures and self._is_due():
            self._tell()  # the first row of figures may be long in coming

    def change_total(self, by: int) -> None:
        """There is so much more to do, or, below 0, less."""
        self.total += by
        if self.bar is not None:
            self.bar.total = self.total
            with _even_where_nobody_reads():
                self.bar.refresh()

    def say(self, text: str) -> None:
        """Print a line on stdout, above the bar."""
        if self.shown:
            with _even_where_nobody_reads():
                tqdm.write(printable(text))
                sys.stdout.flush()

    def show(self, figures: str, of: str = "") -> None:
        """Show the latest figures of a training beside the bar, or in a line when one is due.

        of: the run's name, in front of them; beside a bar only where there is room for it.
        """
        self.has_figures = True
        named = f"{of}: {figures}" if of else figures
        if self.bar is not None:
            # what steps, time left and a bar to be seen take of the line
            room = (self.bar.format_dict["ncols"] or 80) - 2 * len(str(self.total)) - 24
            shown = named if len(named) <= room else figures
            self.bar.bar_format = STEPS if len(shown) <= room else STEPS.replace("{bar} ", "")
            with _even_where_nobody_reads():
                self.bar.set_postfix_str(shown)
        elif self._is_due() or self.done == self.total:
            self._tell(named)

    def _tell(self, *figures: str) -> None:
        """Print a line, where any is shown."""
        self.said = time.monotonic()
        if self.shown:
            rate = (self.done - self.first) / (time.monotonic() - self.start)
            left = tqdm.format_interval((self.total - self.done) / rate)
            progress = f"step {self.done:,} of {self.total:,}, {left} left"
            _line("  ".join([progress, *figures, f"{rate:.1f} steps/s"]))

    def _is_due(self) -> bool:
        return time.monotonic() - self.said >= SECONDS_BETWEEN_LINES


def _even_where_nobody_reads() -> contextlib.AbstractContextManager[None]:
    """Within, what cannot be written is lost, not an error: a terminal closes, a pipe's end goes.

    The work that is told of goes on, or is stopped in order by the signal that comes with it.
    """
    return contextlib.suppress(OSError)


def _line(text: str) -> None:
    with _even_where_nobody_reads():
        print(text, file=sys.stderr, flush=True)


def track(
    blocks: Iterable[Block], total: int | None, what: str, unit: str = " images", done: int = 0
) -> Iterator[Block]:
    """Pass blocks on, and tell how far they have come; each adds its length.

    total: what the lengths come to in the end, including `done` from before; None if unknown.
    """
    what, first = printable(what), done
    start = said = time.monotonic()
    options = {"unit": unit, "unit_scale": True, "dynamic_ncols": True}
    bar = tqdm(desc=what, total=total, initial=done, disable=not sys.stderr.isatty(), **options)
    try:
        for block in blocks:
            yield block
            done += len(block)
            with _even_where_nobody_reads():
                bar.update(len(block))
            now = time.monotonic()
            if bar.disable and now - said >= SECONDS_BETWEEN_LINES:
                said = now
                of_total = "" if total is None else f" of {total:,}"
                left = (now - start) * ((total or done) - done) / (done - first)
                _line(f"{what}: {done:,}{of_total}{unit}, {left:.0f} s left")
    finally:
        with _even_where_nobody_reads():
            bar.close()
    if bar.disable:
        _line(f"{what}: {done:,}{unit} in {time.monotonic() - start:.1f} s")


class Activity:
    """What is at work, in a line on stderr every ten seconds, on a terminal or not.

    A thread of its own writes it, so that work of any kind is told of, however long it is busy in
    one call. Work that took over a second is told when it is done.

    Args:
        what: the plural of what is counted.
        seconds: between two lines.
    """

    def __init__(self, what: str, seconds: float = SECONDS_BETWEEN_LINES) -> None:
        self.what, self.seconds = what, seconds
        self.total = self.done = 0
        self._at: list[str] = []
        self._told: dict[str, str] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell_often, daemon=True)

    def __enter__(self) -> "Activity":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def begin(self, total: int) -> None:
        """Say how many there are to do."""
        self.total = total

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Say that `name` is at work in this block, and count it when the block is left."""
        start = time.monotonic()
        with self._lock:
            self._at.append(name)
        yield
        seconds = time.monotonic() - start
        with self._lock:
            self._at.remove(name)
            self._told.pop(name, None)
            self.done += 1
            line = f"{name}: {seconds:.1f} s; {self.done} of {self.total} {self.what} done"
        if seconds >= 1:
            self._line(line)

    def tell(self, name: str, text: str) -> None:
        """Say how far `name` has come, for the next line."""
        self._told[name] = text

    def _tell_often(self) -> None:
        while not self._over.wait(self.seconds):
            with self._lock:
                names = dict.fromkeys(self._at)
                parts = [
                    f"{name}, {self._told[name]}" if name in self._told else name for name in names
                ]
                done = self.done
            if parts:
                self._line(f"{done} of {self.total} {self.what} done; at work: {'; '.join(parts)}")

    @staticmethod
    def _line(text: str) -> None:
        tqdm.write(text, file=sys.stderr)
