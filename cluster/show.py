"""What a run's network gets to see: the first samples of its training, augmented, on one sheet."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console

from cluster.data import RunData, load_bank, open_data
from cluster.settings import Run
from cluster.settings_commands import ShowSettings
from shards.loader import Batch, load_batches
from shards.occlude import Bank
from shards.order import Draws
from shards.show import write_sheet

SHEET: Final = "augmented.jpg"
SAMPLES: Final = 24


def show(settings: ShowSettings) -> None:
    """`pose loader show`: write the sheet of a run that need not have started; its folder is left alone.

    Raises:
        InputError: the run's data do not fit; as `pose train` would say.
    """
    data = open_data(settings)
    console = Console()
    with console.status(f"{settings.samples} samples of {settings.name}"):
        batch = first_samples(settings, data, load_bank(settings, data), settings.samples)
        write_sheet(settings.sheet, batch, data.train, settings.model)
    console.print(
        f"look at {settings.sheet}: every skeleton must lie on its person; next: pose train with the same settings",
        soft_wrap=True,
        highlight=False,
    )


def sheet_of_training(run: Run, data: RunData, bank: Bank | None) -> Path:
    """Write the sheet into a run's folder; its name there."""
    write_sheet(run.folder / SHEET, first_samples(run, data, bank, SAMPLES), data.train, run.model)
    return Path(SHEET)


def first_samples(run: Run, data: RunData, bank: Bank | None, count: int) -> Batch:
    """The samples that a training begins with, exactly as it gets them, on the CPU."""
    batches = [data.order.micro_batch(index) for index in range(-(-count // data.order.micro))]
    draws = Draws(
        *(np.concatenate([getattr(b, name) for b in batches])[:count] for name in ("source", "turn", "sample"))
    )
    loader = replace(run.loader, device="cpu", threads=1, prefetch=1)
    cpu = torch.device("cpu")
    found = load_batches(data.train, [draws], count, run.model, run.crop, loader, cpu, run.seed, bank=bank)
    return next(iter(list(found)))
