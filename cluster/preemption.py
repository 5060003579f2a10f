"""Signals to a stop at a step boundary that all ranks share."""

import signal
from types import FrameType, TracebackType
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopFlag:
    """Raised by a signal; the loop asks for it between steps and tells the other ranks.

    A second signal changes nothing: the save that the first one asked for runs to its end.
    """

    def __init__(self) -> None:
        self.requested = False
        self.reason = ""
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopFlag":
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._raise)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self.reason = self.reason or signal.Signals(number).name
