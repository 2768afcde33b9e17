"""Ctrl-C, SIGTERM and a closed terminal, taken as a wish to stop after the step at hand."""

import os
import signal
import threading
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
if hasattr(signal, "SIGHUP"):  # a terminal is closed, a connection is lost; not on Windows
    SIGNALS = (*SIGNALS, signal.SIGHUP)
SECONDS_AS_ORPHAN = 1.5  # to save, when the process that began this one is gone
SECONDS_OF_ONE = 2.0  # a terminal and a launcher both pass a Ctrl-C on: it arrives twice


class StopSignals:
    """Within the context, one of SIGNALS sets `signal`; another that comes later acts as usual."""

    def __init__(self) -> None:
        self.signal = 0
        self._received_at = 0.0
        self._earlier: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and shells have it
                self._earlier[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if not self._received_at:
            self.signal, self._received_at = number, now
        elif now - self._received_at > SECONDS_OF_ONE:
            self.__exit__()
            signal.raise_signal(number)


def end_with_parent() -> None:
    """Watch, in a thread, for the death of the process that began this one, and follow it.

    This process is first told to stop, and ended if it has not in SECONDS_AS_ORPHAN.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_AS_ORPHAN)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
