"""Progress of a training: a bar on a terminal, a line now and then in a log file."""

import sys
import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY_S: Final = 15.0


class TrainingProgress:
    """Shows steps, pictures per second, loss and the time left; silent on every rank but 0.

    Args:
        steps: of the whole run.
        start: steps done before.
        global_batch: samples of a step.
        shown: whether this rank shows anything.
    """

    def __init__(self, steps: int, start: int, global_batch: int, shown: bool) -> None:
        self.steps = steps
        self.start = start
        self.global_batch = global_batch
        self.shown = shown
        self.console = Console(file=sys.stdout)
        self._bar = Progress(
            TextColumn("[bold]train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (shown and self.console.is_terminal),
            transient=True,
        )
        self._task = self._bar.add_task("", total=steps, completed=start)
        self._began = self._last_line = time.monotonic()
        self._paused = 0.0

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def images_per_s(self, step: int) -> float:
        """Samples per second over all ranks since the start, validations and saves left out."""
        elapsed = time.monotonic() - self._began - self._paused
        return (step - self.start) * self.global_batch / max(elapsed, 1e-9)

    def pause(self, seconds: float) -> None:
        """Leave time that was not spent on training out of the rate."""
        self._paused += seconds

    def advance(self, step: int, loss: float) -> None:
        """Show that `step` is done."""
        if not self.shown:
            return
        rate = self.images_per_s(step)
        text = f"{rate:.0f} img/s  loss {loss:.4f}"
        self._bar.update(self._task, completed=step, description=text)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self._last_line > _LINE_EVERY_S or step == self.steps):
            self._last_line = now
            left = (self.steps - step) * self.global_batch / max(rate, 1e-9)
            self.say(f"step {step}/{self.steps}  {text}  {left:.0f} s left")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.shown:
            self.console.print(line, highlight=False, soft_wrap=True)
            self.console.file.flush()
