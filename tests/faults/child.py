"""A piece of work in a process of its own, and whether it ended as the project promises.

Children are forked from a process that has imported torch and computed nothing: they start in
milliseconds, and one that crashes, hangs or eats the memory harms nobody.
"""

import contextlib
import faulthandler
import fcntl
import io
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from factorvae.errors import run_script

MOST_SECONDS = 60  # of the processor
LONGEST_WAIT = 600  # seconds by the clock, of a machine that is busy otherwise
MOST_BYTES = 1 << 30  # of memory, beyond what the parent has
MOST_SAID = 1 << 20  # bytes
BATCH = 50


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, or minus the signal that killed it, and what it said."""

    code: int
    out: str
    err: str

    def fault(self, codes: tuple[int, ...] = (0, 2)) -> str | None:
        """What breaks the promise, in one line, if anything.

        The exit code is one of `codes`, 2 comes with exactly one line of an error, and there is
        no traceback.
        """
        last = (self.err.strip().splitlines() or ["nothing was said"])[-1]
        if "Traceback" in self.err:
            return f"a traceback: {last}"
        if self.code < 0:
            return f"it died of {signal.Signals(-self.code).name}; {last}"
        if self.code not in codes:
            return f"exit code {self.code}; {last}"
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        if self.code == 2 and (len(errors) != 1 or errors[0] != last):
            return f"exit code 2 and {len(errors)} lines of an error; {last}"
        return None


class Child:
    """A child that does `work` as a script's `main` would be called, its output kept."""

    def __init__(
        self,
        work: Callable[[], int | None],
        seconds: float = MOST_SECONDS,
        memory: int | None = MOST_BYTES,
        wait: float = LONGEST_WAIT,
    ) -> None:
        # Pipes that hold all that is said: files would be under the limits that a case sets.
        self.said = [os.pipe() for _ in range(2)]
        for _, end in self.said:
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, MOST_SAID)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._work(work, seconds, memory, wait)
        for _, end in self.said:
            os.close(end)

    def _work(
        self, work: Callable[[], int | None], seconds: float, memory: int | None, wait: float
    ) -> None:
        code = 1
        try:
            faulthandler.disable()  # as pytest has it, it would tell where this one crashes
            os.setsid()  # the signals of a terminal, and `kill_all`, are for it and its children
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)  # under nohup, one is ignored
            tqdm._instances.clear()  # or this process would draw the parent's bar
            limit_time(seconds, wait)
            for number, (_, end) in enumerate(self.said, start=1):
                os.dup2(end, number)
            sys.stdout, sys.stderr = (
                open(n, "w", closefd=False) for n in (1, 2)
            )  # as pytest's are not
            if memory is not None:
                limit = memory + _data_bytes()
                resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
            code = run_script(work)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):
                    pass
            os._exit(code)

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.runs():
            os.kill(self.pid, number)

    def kill_all(self) -> None:
        """Kill it and the processes that it began."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def end(self) -> Ended:
        """Wait for its end."""
        _, status = os.waitpid(self.pid, 0)
        texts = []
        for end, _ in self.said:
            os.set_blocking(end, False)  # an orphan may still have the other one
            texts.append(_read(end).decode(errors="replace"))
            os.close(end)
        return Ended(os.waitstatus_to_exitcode(status), *texts)


def _read(end: int) -> bytes:
    try:
        return os.read(end, MOST_SAID)
    except BlockingIOError:  # nothing is said, and an orphan may yet say something
        return b""


def in_child(
    work: Callable[[], int | None],
    seconds: float = MOST_SECONDS,
    memory: int | None = MOST_BYTES,
) -> Ended:
    """Do `work` in a child, to its end."""
    return Child(work, seconds, memory).end()


def in_this_process(work: Callable[[], int | None]) -> Ended:
    """The same here, for work that needs no process of its own."""
    with quiet() as (out, err):
        try:
            code = run_script(work)
        except Exception:
            traceback.print_exc()
            code = 1
    return Ended(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def quiet() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


Found = Iterator[tuple[str, str | None]]  # cases, and what breaks the promise, if anything


def in_batches(
    cases: Iterable[str],
    prepare: Callable[[Sequence[str]], None],
    run: Callable[[str], str | None],
    memory: int | None = MOST_BYTES,
    seconds: float = MOST_SECONDS,
    at_once: int = BATCH,
) -> Found:
    """Each case, and what `run` finds wrong with it.

    A child takes a batch of `at_once` of them, one after the other: it is what it costs to begin
    one. Where it dies, that is what is wrong with the case at hand, and another takes the rest.
    `prepare` is called here with the batch.
    """
    cases = iter(cases)
    while batch := list(itertools.islice(cases, at_once)):
        prepare(batch)
        while batch:
            with tempfile.NamedTemporaryFile("w+") as told:

                def work(batch: Sequence[str] = batch, told: TextIO = told) -> None:
                    for case in batch:
                        limit_time(seconds)
                        told.write(json.dumps(run(case)) + "\n")
                        told.flush()

                ended = in_child(work, seconds, memory)
                told.seek(0)
                faults = [json.loads(line) for line in told]
            yield from zip(batch, faults, strict=False)
            batch = batch[len(faults) :]
            if batch:
                yield batch[0], ended.fault(codes=()) or "it died"
                batch = batch[1:]


def limit_time(seconds: float, wait: float = LONGEST_WAIT) -> None:
    """Have this process die, from now on, of SIGPROF by its work or of SIGALRM by the clock."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, wait)


def _data_bytes() -> int:
    """What RLIMIT_DATA counts, of this process."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmData" in one]
    return int(line.split()[1]) * 1024


def wait_until(condition: Callable[[], bool], seconds: float = LONGEST_WAIT) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
