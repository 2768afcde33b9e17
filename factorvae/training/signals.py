"""Ctrl-C and SIGTERM, taken as a wish to stop after the step at hand."""

import signal
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_OF_ONE = 2.0  # a terminal and a launcher both pass a Ctrl-C on: it arrives twice


class StopSignals:
    """Within the context, a SIGINT or SIGTERM sets `signal`; one that comes later acts as usual."""

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
