"""Signals to a stop at a step boundary that all ranks share."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopFlag:
    """Raised by a signal; the loop asks for it between steps and tells the other ranks.

    A second signal changes nothing: the save that the first one asked for runs to its end.
    """

    def __init__(self) -> None:
        self.requested = False
        self.reason = ""

    def listen(self) -> None:
        """Take the signals from now on."""
        for number in _SIGNALS:
            signal.signal(number, self._raise)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals for a while."""
        previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def ignore(self) -> None:
        """Let no signal cut the end of the process short: Python gives handlers up before it has ended."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self.reason = self.reason or signal.Signals(number).name
