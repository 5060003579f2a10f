"""The learning rate and the ends of epochs as pure functions of the step."""

import math
from dataclasses import dataclass

from cluster.settings import OptimizerSettings


@dataclass(frozen=True)
class Schedule:
    """What is due at which optimiser step.

    Attributes:
        optimizer: rate, milestones, warm-up.
        epoch_size: samples of an epoch, as its last step is cut off or filled up.
        global_batch: samples of a step.
        epochs: how many.
        validate_every: epochs between two validations.
    """

    optimizer: OptimizerSettings
    epoch_size: int
    global_batch: int
    epochs: int
    validate_every: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self._end(self.epochs)

    def lr(self, step: int) -> float:
        """The rate of optimiser step `step`, counted from 0."""
        settings = self.optimizer
        power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[settings.lr_scale]
        rate = settings.lr * (self.global_batch / settings.reference_batch) ** power
        passed = sum(step >= self._end(milestone) for milestone in settings.milestones)
        warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
        return rate * settings.gamma**passed * warm

    def epoch(self, step: int) -> float:
        """Epochs that are complete after `step` steps."""
        return step * self.global_batch / self.epoch_size

    def validates_after(self, step: int) -> bool:
        """Whether a validation is due once `step` steps are done."""
        if step == self.steps:
            return True
        ended = math.floor(self.epoch(step))
        before = math.floor(self.epoch(step - 1))
        return ended // self.validate_every > before // self.validate_every

    def _end(self, epochs: float) -> int:
        """The number of steps after which `epochs` epochs are complete."""
        return math.ceil(epochs * self.epoch_size / self.global_batch - 1e-9)
