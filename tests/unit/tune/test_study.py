"""The report's tables as runs: figures, the small form, what stands for what, and how findings are judged."""

import itertools
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

import configs
from cluster.config import dump, flatten
from cluster.tracking.files import write_json
from cluster.tracking.journal import Journal
from poselib.errors import InputError
from poselib.model.network import PoseNetwork
from shards.augment import check_cover
from tune.published import TABLES
from tune.settings_study import ReportTablesSettings
from tune.study import report_tables
from tune.study_cases import Case, all_cases, read_result, unfinished
from tune.study_statistics import Scatter, compare, pool
from tune.study_tables import read_study

pytestmark = pytest.mark.unit

FOLDER = Path(configs.__file__).parent
ROWS = {f"{table.name}/{row.name}": row for table in TABLES for row in table.rows}
CHANGES = ("model.", "augment.", "loss.", "data.voc", "data.split")


@cache
def cases(scale: str) -> list[Case]:
    return all_cases(ReportTablesSettings(scale=scale))


def finish(case: Case, seed: int, errors_mm: list[float], test_mm: float | None = None) -> None:
    run = case.of_seed(seed)
    run.folder.mkdir(parents=True)
    (run.folder / "run.yaml").write_text(dump(run))
    with Journal(run.folder) as journal:
        for step, error in enumerate(errors_mm, 1):
            journal.metrics(step, {"val/mpjpe_mm": error})
        journal.status("finished")
    if test_mm is not None:
        write_json(run.folder / "score.json", {"mpjpe_mm": test_mm})


@pytest.mark.parametrize("place", ROWS)
def test_a_rows_figures_are_those_that_its_settings_name(place):
    row = ROWS[place]
    comment = " ".join((FOLDER / row.config).read_text().split("name:")[0].replace("#", "").split())
    if place.startswith("table"):
        for figure in (row.published_mm, row.public_mm):
            assert figure is None or f"{figure:.2f}" in comment
        assert row.epoch is None or f"at epoch {row.epoch}" in comment
    elif row.config.startswith("study/"):
        assert "no figure" in comment
        assert row.published_mm is None


def test_every_packaged_row_is_in_a_table():
    packaged = {
        str(path.relative_to(FOLDER)) for part in ("report/*", "study") for path in FOLDER.glob(f"{part}/*.yaml")
    }
    assert {row.config for row in ROWS.values()} - {"report/baseline.yaml"} == packaged


@pytest.mark.parametrize("finding", [one for table in TABLES for one in table.findings], ids=lambda one: one.text)
def test_a_finding_compares_rows_that_exist_and_agrees_with_the_report(finding):
    assert math.isclose(sum(finding.weights.values()), 0, abs_tol=1e-9)
    figures = [
        (weight, ROWS[place].published_mm if finding.part == "val" else ROWS[place].public_mm)
        for place, weight in finding.weights.items()
    ]
    if all(figure is not None for _, figure in figures):
        assert sum(weight * figure for weight, figure in figures) > 0
    else:
        assert finding.text.endswith("?")


@pytest.mark.parametrize("scale", ["full", "studio"])
def test_rows_of_equal_settings_are_trained_once(scale):
    names = [case.run.name for case in cases(scale)]
    assert len(set(names)) == len(names)
    assert sorted(place for case in cases(scale) for place in case.rows) == sorted(ROWS)
    for one, other in itertools.combinations(cases(scale), 2):
        assert replace(one.run, name="same") != replace(other.run, name="same")


def test_what_sets_rows_apart_is_the_same_at_both_scales():
    keep = {table.name for table in TABLES if not table.same_backbone}

    def settings_of(scale: str) -> dict[str, dict[str, object]]:
        return {
            place: {key: value for key, value in flatten(case.run).items() if key.startswith(CHANGES)}
            for case in cases(scale)
            for place in case.rows
            if place.split("/")[0] in keep
        }

    full, small = settings_of("full"), settings_of("studio")
    for one, other in itertools.combinations(full, 2):
        assert {key for key in full[one] if full[one][key] != full[other][key]} == {
            key for key in small[one] if small[one][key] != small[other][key]
        }, (one, other)


def test_small_networks_keep_what_a_row_is_about():
    small = {place: case.run.model for case in cases("studio") for place in case.rows}
    assert small["table1/ppm_1_2_3_6"].ppm_bins == (1, 2, 3)
    assert small["table1/ppm_1_6_12_18"].ppm_bins == (1, 3, 5, 7)
    assert small["table1/ppm_1_2_3_6_12_18_24"].ppm_bins == (1, 2, 3, 5, 7, 9)
    assert (small["table1/none"].depth, small["table4/resnet50"].depth) == (16, 18)
    assert [small[f"table4/resnet{n}"].backbone for n in (50, 101, 152)] == ["resnet10", "resnet18", "resnet34"]
    assert (small["botnet/resnet50"].backbone, small["botnet/botnet50"].backbone) == ("resnet50", "botnet50")
    larger = small["table5/288x384"]
    assert (larger.crop_width, larger.crop_height, small["table5/256x256"].crop_width) == (128, 160, 96)
    for case in cases("studio"):
        run = case.run
        check_cover((1.367, 1.367), run.augment, run.crop, run.model, "studio")
        with torch.device("meta"):
            PoseNetwork(run.model)


def test_findings_are_judged_by_the_scatter_of_all_rows():
    values = {"a": [100.0, 102.0, 104.0], "b": [110.0, 112.0], "c": [101.0, 105.0], "d": [103.0]}
    scatter = pool(list(values.values()))
    assert scatter.freedom == 4
    assert scatter.sd_mm == pytest.approx(math.sqrt((8 + 2 + 8) / 4))
    better = compare({"b": 1.0, "a": -1.0}, values, scatter)
    assert better.difference_mm == pytest.approx(9)
    # Student's t at 4 degrees of freedom, from a table.
    assert better.margin_mm == pytest.approx(2.776 * scatter.sd_mm * math.sqrt(1 / 2 + 1 / 3), rel=1e-3)
    assert (better.verdict, better.seeds) == ("yes", 2)
    assert compare({"a": 1.0, "b": -1.0}, values, scatter).verdict == "no"
    assert compare({"c": 1.0, "a": -1.0}, values, scatter).verdict == "not decided"
    assert compare({"a": 1.0, "gone": -1.0}, values, scatter).verdict == "not run"
    assert compare({"b": 1.0, "a": -1.0}, values, Scatter(1.0, 3)).verdict == "not decided"


def test_a_study_is_read_and_written_from_what_is_there(tmp_path):
    settings = ReportTablesSettings(scale="studio", runs_dir=tmp_path, seeds=(0, 1), collect=True)
    found = all_cases(settings)
    by_row = {place: case for case in found for place in case.rows}
    for seed in range(3):
        finish(by_row["table2/baseline"], seed, [150.0, 140.0 + seed, 145.0])
        finish(by_row["table2/voc"], seed, [150.0, 135.0, 120.0 + seed])
    finish(by_row["table3/train"], 0, [130.0, 129.0], test_mm=131.0)
    finish(by_row["table3/trainval"], 0, [])
    left = {(case.run.name, seed) for case, seed in unfinished(found, settings.seeds)}
    assert len(left) == 2 * len(found) - 5
    assert ("table3-trainval", 0) in left  # its score is missing
    assert ("table3-train", 0) not in left

    filled = {one.table.name: one for one in read_study(found).tables}
    baseline = filled["table6"].rows[0]
    assert (baseline.mean_mm, baseline.sd_mm, baseline.epochs) == (141, 1, (2, 2, 2))
    verdicts = {one.finding.text: one.measured.verdict for one in filled["table2"].findings}
    assert verdicts["VOC2012 objects lower the error"] == "yes"
    assert verdicts["Flip lowers the error"] == "not run"

    report_tables(settings)
    text = (settings.folder / "tables.md").read_text()
    assert "| none | S8 | 53.30 | 37 | 141.0 | 1.0 | 3 | 2, 2, 2 |" in text
    assert "| trained without S8 | S9, S11 | 41.80 | – | 131.0 | – | 1 | – |" in text
    assert text.count("this is not Human3.6M") == len(TABLES)
    page = (settings.folder / "tables.html").read_text()
    assert page.count("this is not Human3.6M") == len(TABLES)
    assert "://" not in page
    assert len(re.findall(r'<b style="left', page)) == 3 * 4 + 3 * 2 + 2  # a dot for each seed and row


def test_other_settings_are_never_taken_for_a_rows(tmp_path):
    settings = ReportTablesSettings(scale="studio", runs_dir=tmp_path)
    case = all_cases(settings)[0]
    finish(case, 0, [100.0])
    assert read_result(case, 0).complete
    longer = all_cases(replace(settings, epochs=9))[0]
    with pytest.raises(InputError, match=r"trained with other settings .*epochs 8 -> 9.*another name"):
        read_result(longer, 0)


def test_a_dry_run_names_the_command_of_each_row(tmp_path, capsys):
    report_tables(ReportTablesSettings(runs_dir=tmp_path, only="table5", dry_run=True, seeds=(0, 1)))
    shown = capsys.readouterr().out
    assert "pose submit train --config report/table5/288x384.yaml --name table5-288x384" in shown
    assert "4 of 4 trainings to do" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"only": "table9"}, "only must name some of table1"),
        ({"seeds": (1, 1)}, "seeds must be one or more different numbers"),
        ({"scale": "studio", "submit": True}, "submit must be false"),
        ({"scale": "studio", "h36m": "x"}, "scale must be full"),
    ],
)
def test_settings_are_checked(values, words):
    with pytest.raises(ValueError, match=words):
        ReportTablesSettings(**values)
