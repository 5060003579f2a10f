"""The small form of a report row, and the synthetic people that it is trained on.

What a row changes of the baseline stays a change; everything else shrinks. The report looks at 256x256 px through 8x8
cells of features, here 96x96 px through 3x3: bins keep their relation to the feature map, crops theirs to each other.
The volume has a quarter of the cells along z, as 64 : 72 becomes 16 : 18. Longer backbones stay longer. Strengths of
augmentation are relative and stay as they are, objects included. Weights start at random: ImageNet's do not fit narrow
networks, so nothing here tells what they would change.
"""

import math
from dataclasses import replace
from typing import Final

from rich.console import Console

from cluster.settings import Run
from poselib.settings import STRIDE, Backbone, LossSettings, ModelSettings
from shards.build import build
from shards.settings import BuildSettings
from shards.studio.make import make_studio
from tune.settings_study import ReportTablesSettings

NOTE: Final = (
    "Synthetic people and small networks: this is not Human3.6M, and no figure here compares with a published one."
)
EPOCHS: Final = 8
_CROP: Final = 3 / 8
"""The crop's sides against the report's; rounded up to whole features."""
_CELLS: Final = 4
"""Of so many of the report's cells along z one is left."""
_SHORTER: Final[dict[Backbone, Backbone]] = {
    "resnet50": "resnet10",
    "resnet101": "resnet18",
    "resnet152": "resnet34",
}
_WIDTH: Final = 16
"""Channels behind the stem of shorter backbones."""
_NARROW: Final = 8
"""Of those that keep their length."""
_COVER: Final = 1.367
"""What zoom and rotation look beyond the box; the larger crop needs less."""


def make_data(settings: ReportTablesSettings) -> None:
    """The studio's shard sets in `settings.work`, unless they are there."""
    raw, console = settings.work / "raw", Console()
    console.print(f"synthetic people and their shards: {settings.work}", soft_wrap=True, highlight=False)
    make_studio(replace(settings.studio, out=raw))
    for source in ("h36m", "mpii", "voc"):
        # Longer than the larger crop, so that no row is enlarged.
        wanted = BuildSettings(raw / source, settings.work / "shards" / source, every=1, every_test=0, stored_px=160)
        build(replace(wanted, cover_width=_COVER, cover_height=_COVER, workers=settings.studio.workers))


def small_form(run: Run, settings: ReportTablesSettings, same_backbone: bool) -> Run:
    """A row of the report in small.

    Args:
        run: the row, as packaged.
        settings: of the study; its `work` holds the shards.
        same_backbone: keep the backbone and narrow it; else take a shorter one.
    """
    epochs = settings.epochs or EPOCHS
    shards = settings.work / "shards"
    data = replace(run.data, h36m=str(shards / "h36m"), mpii=str(shards / "mpii"), every_train=1, every_val=1)
    voc = str(shards / "voc") if run.data.voc else None
    return replace(
        run,
        weights="none",
        epochs=epochs,
        data=replace(data, every_test=1, voc=voc),
        model=small_model(run.model, same_backbone),
        loss=_small_loss(run.loss),
        batch=replace(run.batch, micro=16),
        optimizer=replace(
            run.optimizer,
            lr=2e-3,
            milestones=(round(0.7 * epochs, 2), round(0.9 * epochs, 2)),
            gamma=0.2,
            warmup_steps=50,
        ),
        engine=replace(run.engine, ranks=1, threads=1, precision="bf16"),
        checkpoint=replace(run.checkpoint, keep=1),
    )


def small_model(model: ModelSettings, same_backbone: bool) -> ModelSettings:
    """A row's network in small; see the head of this file."""
    width, height = _small_px(model.crop_width), _small_px(model.crop_height)
    cells, cells_before = width // STRIDE, model.crop_width // STRIDE
    bins = model.ppm_bins and tuple(sorted({math.ceil(count * cells / cells_before) for count in model.ppm_bins}))
    return replace(
        model,
        backbone=model.backbone if same_backbone else _SHORTER[model.backbone],
        width=_NARROW if same_backbone else _WIDTH,
        crop_width=width,
        crop_height=height,
        depth=math.ceil(model.depth / _CELLS),
        ppm_bins=bins,
        decoder_channels=64,
        decoder_layers=2,
    )


def _small_loss(loss: LossSettings) -> LossSettings:
    """A Gaussian of half as many cells; its peak, and with it the squared distance, is eight times as high."""
    return replace(loss, heatmap=loss.heatmap / 8, sigma=loss.sigma / 2)


def _small_px(px: int) -> int:
    return math.ceil(px * _CROP / STRIDE) * STRIDE
