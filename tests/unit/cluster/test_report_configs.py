"""The packaged runs: each row of the report's tables is the baseline but for what the table says."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import configs
from cluster.config import flatten, load, parse
from cluster.settings import Run
from cluster.settings_commands import DemoSettings
from poselib.model.network import PoseNetwork
from shards.augment import check_cover

pytestmark = pytest.mark.unit

FOLDER = Path(configs.__file__).parent
PACKAGED = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml"))
OVERLAYS = [name for name in PACKAGED if name.startswith(("augment/", "pyramid/"))]
RUNS = [name for name in PACKAGED if name.startswith(("report/", "cluster/"))]
VOC = {"data.voc": "data/shards/voc", "augment.occluders": 0.75}
LARGE = {"model.crop_width": 288, "model.crop_height": 384}
FINAL = {
    **VOC,
    **LARGE,
    **{"augment.flip": 0.5, "augment.color": 0.2, "model.backbone": "resnet152", "model.depth": 72},
    **{"model.ppm_bins": [1, 2, 3, 6], "batch.micro": 14},
}

# By file: what it changes of the baseline, and what the report gives for it: mm, and the best epoch where it names one.
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "report/baseline.yaml": ({}, "53.30 at epoch 37"),
    "report/final.yaml": (FINAL, "42.64"),
    "report/table1/none.yaml": ({"augment.flip": 0.5}, "50.65 at epoch 55"),
    "report/table1/ppm_1_2_3_6.yaml": ({"augment.flip": 0.5, "model.ppm_bins": [1, 2, 3, 6]}, "48.46 at epoch 41"),
    "report/table1/ppm_1_6_12_18.yaml": ({"augment.flip": 0.5, "model.ppm_bins": [1, 6, 12, 18]}, "48.90 at epoch 58"),
    "report/table1/ppm_1_2_3_6_12_18.yaml": (
        {"augment.flip": 0.5, "model.ppm_bins": [1, 2, 3, 6, 12, 18]},
        "49.75 at epoch 41",
    ),
    "report/table1/ppm_1_2_3_6_12_18_24.yaml": (
        {"augment.flip": 0.5, "model.ppm_bins": [1, 2, 3, 6, 12, 18, 24]},
        "50.99 at epoch 41",
    ),
    "report/table2/baseline.yaml": ({}, "53.30 at epoch 37"),
    "report/table2/flip.yaml": ({"augment.flip": 0.5}, "50.64 at epoch 37"),
    "report/table2/colour.yaml": ({"augment.color": 0.2}, "49.98 at epoch 37"),
    "report/table2/voc.yaml": (VOC, "47.98 at epoch 55"),
    "report/table3/train.yaml": (FINAL, "42.64"),
    "report/table3/trainval.yaml": ({**FINAL, "data.split": "trainval"}, "37.30"),
    "report/table4/resnet50.yaml": ({"model.depth": 72}, "52.61 at epoch 46"),
    "report/table4/resnet101.yaml": ({"model.depth": 72, "model.backbone": "resnet101"}, "52.24 at epoch 42"),
    "report/table4/resnet152.yaml": ({"model.depth": 72, "model.backbone": "resnet152"}, "48.30 at epoch 34"),
    "report/table5/256x256.yaml": ({"model.depth": 72, "model.backbone": "resnet152"}, "48.30 at epoch 34"),
    "report/table5/288x384.yaml": ({**LARGE, "model.depth": 72, "model.backbone": "resnet152"}, "47.91 at epoch 41"),
    "report/table6/none.yaml": ({}, "53.30 at epoch 37"),
    "report/table6/rotation.yaml": ({"augment.rotation_deg": 30.0}, "53.99 at epoch 31"),
    "report/table6/zoom.yaml": ({"augment.zoom": 0.25}, "62.29 at epoch 28"),
}


@cache
def packaged(name: str) -> Run:
    return load(DemoSettings, Path(name)).train if name == "demo.yaml" else load(Run, Path(name))


def differences(run: Run) -> dict[str, Any]:
    baseline = flatten(packaged("report/baseline.yaml"))
    return {key: value for key, value in flatten(run).items() if key != "name" and baseline[key] != value}


def test_every_row_is_there() -> None:
    assert sorted(ROWS) == [name for name in RUNS if name.startswith("report/")]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_the_baseline_but_for_what_the_table_says(name: str) -> None:
    changed, published = ROWS[name]
    assert differences(packaged(name)) == changed
    comment = " ".join((FOLDER / name).read_text().split("name:")[0].replace("#", "").split())
    figure, _, epoch = published.partition(" at ")
    assert f"{figure} mm MPJPE on " in comment.partition("ublished")[2]
    assert f"at {epoch}" in comment if epoch else "at epoch" not in comment


def test_rows_have_names_of_their_own() -> None:
    names = [packaged(name).name for name in ROWS]
    assert len(set(names)) == len(names)


def test_the_baseline_takes_the_reports_choices() -> None:
    baseline = flatten(packaged("report/baseline.yaml"))
    expected = {
        **{"weights": "imagenet", "epochs": 70, "seed": 0, "batch.micro": 24, "engine.ranks": 1},
        **{"optimizer.lr": 1e-4, "optimizer.betas": [0.9, 0.999], "optimizer.milestones": [40.0, 60.0]},
        **{"optimizer.gamma": 0.1, "optimizer.warmup_steps": 0, "optimizer.clip": 0.0, "optimizer.lr_scale": "none"},
        **{"data.split": "eth", "data.mpii_ratio": 0.0, "data.every_train": 5},
        **{"crop.aspect": "keep", "crop.z_scaled_with_zoom": True, "crop.mask_outside": False},
        **{"augment.flip": 0.0, "augment.color": 0.0, "augment.zoom": 0.0, "augment.rotation_deg": 0.0},
        **{"augment.rotation": 0.6, "augment.occluders": 0.0, "augment.occluder_count": [1, 8]},
        **{"augment.occluder_size": [0.2, 1.0], "augment_mpii.flip": 0.0, "augment_mpii.color": 0.0},
        **{"augment_mpii.occluders": 0.0, "augment_mpii.zoom": 0.0, "augment_mpii.rotation_deg": 0.0},
        **{"model.backbone": "resnet50", "model.width": 64, "model.crop_width": 256, "model.crop_height": 256},
        **{"model.depth": 64, "model.depth_range_mm": 2000.0, "model.ppm_bins": None, "model.head": "integral"},
        **{"model.decoder_layers": 3, "model.decoder_channels": 256, "model.cell_origin": "corner"},
        **{"model.temperature": 1.0, "loss.l1": 1.0, "loss.heatmap": 0.0, "engine.precision": "fp32"},
    }
    assert {key: baseline[key] for key in expected} == expected


def test_the_cluster_run_is_the_final_network_on_more_ranks() -> None:
    changed = differences(packaged("cluster/final.yaml"))
    own = ("batch.", "optimizer.", "engine.", "checkpoint.", "name")
    scaled = {key: changed.pop(key) for key in list(changed) if key.startswith(own)}
    assert changed == {key: value for key, value in FINAL.items() if key != "batch.micro"}
    assert packaged("cluster/final.yaml").folder != packaged("report/final.yaml").folder
    assert (scaled["checkpoint.every_steps"], scaled["checkpoint.asynchronous"]) == (500, True)
    assert (scaled["optimizer.lr_scale"], scaled["engine.ranks"], scaled["engine.precision"]) == ("sqrt", 0, "bf16")


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_changes_its_group_alone(name: str) -> None:
    run = parse(Run, ["--config", "report/baseline.yaml", "--config", name])
    changed = differences(run)
    if name.startswith("pyramid/"):
        assert changed == {"model.ppm_bins": [int(word) for word in Path(name).stem.split("_")]}
    else:
        assert all(key.startswith("augment.") for key in changed)


def test_every_packaged_network_can_be_built() -> None:
    for model in {packaged(name).model for name in [*RUNS, "demo.yaml"]}:
        with torch.device("meta"):
            network = PoseNetwork(model)
        assert tuple(level.bins for level in (network.pyramid.levels if network.pyramid else ())) == (
            model.ppm_bins or ()
        )
        blocks = {"resnet10": 0, "resnet50": 16, "resnet101": 33, "resnet152": 50}[model.backbone]
        assert sum("conv3" in key for key in network.backbone.state_dict()) == blocks


@pytest.mark.parametrize("name", RUNS)
def test_a_comment_names_the_cover_that_the_shards_need(name: str) -> None:
    run, comment = packaged(name), (FOLDER / name).read_text().split("name:")[0]
    words = comment.replace("#", "").split()
    cover = tuple(
        float(words[words.index(f"--cover_{side}") + 1].rstrip(".")) if f"--cover_{side}" in words else 1.0
        for side in ("width", "height")
    )
    check_cover(cover, run.augment, run.crop, run.model, name)
