"""`pose bench` and `pose profile` as a user calls them, on a tiny network."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import pose
from cluster.bench.command import run_yaml, scaling, worktree
from cluster.bench.measure import measure
from cluster.bench.rounds import Form, Team, Turns
from cluster.bench.settings import BenchSettings
from cluster.bench.tables import show_scaling
from cluster.config import parse
from cluster.world import World, free_port
from poselib.errors import InputError

pytestmark = pytest.mark.integration

TINY = [
    *("--model.backbone", "resnet10", "--model.width", "8", "--model.crop_width", "64", "--model.crop_height", "64"),
    *("--model.depth", "4", "--model.ppm_bins", "[1,2]", "--model.decoder_channels", "16"),
    *("--model.decoder_layers", "2", "--batch.micro", "4", "--engine.device", "cpu", "--engine.threads", "1"),
]
SPLIT = [
    *("--data.train_subjects", "[S1]", "--data.every_train", "1", "--data.test_subjects", "[S9]"),
    *("--data.val_subjects", "[S1]", "--data.every_val", "1", "--crop.allow_border", "true", "--loader.device", "cpu"),
]
STAGES = {"batch", "forward", "backward", "exchange", "optimizer", "agreement"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what a command sets in this process is taken back
        monkeypatch.delenv(name)


def test_a_bench_of_one_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    assert pose.main(["bench", *TINY, "--rounds", "3", "--steps", "1", "--paper", "true", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    report = json.loads(out.read_text())
    assert json.loads(shown.out) == report
    [(name, row)] = report["forms"].items()
    assert (name, row["images"], row["ranks"], report["ratios"]) == ("this", 4, 1, {})
    assert len(row["seconds"]) == 3
    assert row["img_per_s"] == pytest.approx(1 / sorted(row["seconds"])[1])
    assert row["ms"] * row["img_per_s"] == pytest.approx(4000)
    assert set(report["stages"]["this"]) == STAGES
    assert report["stages"]["this"]["exchange"] == 0
    assert report["checkpoint_s"] > 0
    assert 0 < row["utilisation"] < 2
    assert report["versions"]["torch"] == torch.__version__
    assert "TFLOP/s in fp32; the layer roofline" in shown.err
    assert "GPUs the network is" in shown.err  # no limit, or the limit


def test_a_launchers_world_measures_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in World(port=free_port()).variables().items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "bench.json"
    assert pose.main(["bench", *TINY, "--rounds", "2", "--steps", "1", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert (report["ranks"], report["step_s"]["rounds"], report["exchange_share"]) == (1, 2, 0)
    assert report["doubt"] == "no verdict: 2 of at least 3 rounds"


def test_numbers_of_ranks_take_turns_and_a_busy_machine_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    settings = parse(BenchSettings, [*TINY, "--engine.threads", "0", "--scaling", "[2, 1]", "--most_spread", "1e-9"])
    rows = scaling(settings, Turns(3, 1))
    assert list(rows) == ["1", "2"]
    assert rows["1"]["exchange_share"] == 0 < rows["2"]["exchange_share"] < 1
    assert rows["1"]["share"] == {"median": 1, "spread": 0, "least": 1, "most": 1, "rounds": 3}
    show_scaling(rows, settings.most_spread, Console(stderr=True, width=200))
    assert "2 ranks: no verdict: a busy machine, rounds spread by" in capsys.readouterr().err


def test_a_revision_is_measured_by_its_own_code() -> None:
    text = run_yaml(parse(BenchSettings, TINY))
    with worktree("HEAD") as tree:
        with (tree / "poselib" / "losses.py").open("a") as file:
            file.write("\n_plain = compute_loss\ndef compute_loss(*a, **k): return 2 * _plain(*a, **k)\n")
        report = measure([Form("this", text), Form("doubled", text, tree=tree)], Turns(1, 1))
    assert report["ratios"]["doubled"]["first_loss"] == pytest.approx(1, rel=0.01)


def test_an_error_in_a_process_names_the_file_with_all_it_said() -> None:
    form = Form("x", run_yaml(parse(BenchSettings, TINY)))
    with pytest.raises(InputError, match=r"^x: AttributeError: ") as error, Team(form) as team:
        team.ask("no such thing")
    log = Path(str(error.value).rpartition(" ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()


@pytest.mark.drill
def test_forms_take_turns(shard_sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    words = ["bench", *TINY, "--engine.ranks", "2", "--against", "[engine.exchange=bf16, batch.micro=8]"]
    words += ["--reference", "true", "--rounds", "3", "--steps", "1", "--out", str(out), *SPLIT]
    words += ["--data.h36m", str(shard_sets["h36m"]), "--with_loader", "true"]
    assert pose.main(words) == 0
    shown = capsys.readouterr()
    report = json.loads(out.read_text())
    assert json.loads(shown.out) == report
    names = {"this", "engine.exchange=bf16 batch.micro=8", "the usual way"}
    assert set(report["forms"]) == set(report["stages"]) == names
    assert set(report["ratios"]) == names - {"this"}
    assert [row["images"] for row in report["forms"].values()] == [8, 16, 8]
    assert report["stages"]["this"]["exchange"] > 0
    assert "exchange" not in report["stages"]["the usual way"]
    assert {"read", "decode", "warp"} <= set(report["loader"])


def test_what_is_missing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pose.main(["bench", *TINY, "--engine.compile", "default", "--engine.cuda_graphs", "true"]) == 1
    assert pose.main(["bench", *TINY, "--revision", "no-such-revision"]) == 1
    assert pose.main(["profile", *TINY, "--name", "x", "--data.h36m", str(tmp_path / "nothing")]) == 1
    assert pose.main(["profile", *TINY, "--name", "x", "--data.h36m", "x", "--steps", "0"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pose ")]
    graphs, revision, data, steps = lines
    assert "engine.cuda_graphs must be false on the CPU" in graphs
    assert "no-such-revision" in revision
    assert str(tmp_path / "nothing") in data
    assert "steps must lie in 1..1000, not 0" in steps


def test_a_profile_names_the_largest_costs(
    shard_sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile", *TINY, "--name", "x", "--data.h36m", str(shard_sets["h36m"]), "--steps", "2"]
    words += ["--out", str(tmp_path / "trace"), *SPLIT]
    assert pose.main(words) == 0
    shown = capsys.readouterr().err
    assert [line[:2] for line in shown.splitlines() if line[:2] in ("1.", "2.", "3.")] == ["1.", "2.", "3."]
    summary = (tmp_path / "trace" / "summary.txt").read_text()
    assert "convolution" in summary
    assert "of the time waited for data" in shown
    assert all(f"\n{stage} " in summary for stage in STAGES - {"exchange"})
    events = json.loads((tmp_path / "trace" / "trace.json").read_text())["traceEvents"]
    assert any("convolution" in event.get("name", "") for event in events)
