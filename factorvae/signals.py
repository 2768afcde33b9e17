"""Ctrl-C and SIGTERM, taken as a wish to stop after the step at hand."""

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Within the context, the first SIGINT or SIGTERM sets `signal`; a second one acts as usual."""

    def __init__(self) -> None:
        self.signal = 0
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
        self.signal = number
        self.__exit__()
