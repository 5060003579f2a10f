"""`pose bench` and `pose profile` as a user calls them, on a tiny network."""

import json
from pathlib import Path

import pytest

import pose

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
STAGES = {"batch", "forward", "backward", "exchange", "optimizer"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what a command sets in this process is taken back
        monkeypatch.delenv(name)


@pytest.mark.drill
def test_forms_take_turns(shard_sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    words = ["bench", *TINY, "--engine.ranks", "2", "--against", "[engine.exchange=bf16]", "--reference", "true"]
    words += ["--rounds", "2", "--steps", "1", "--paper", "true", "--out", str(out), *SPLIT]
    words += ["--data.h36m", str(shard_sets["h36m"]), "--with_loader", "true"]
    assert pose.main(words) == 0
    shown = capsys.readouterr()
    report = json.loads(out.read_text())
    assert json.loads(shown.out) == report
    names = {"this", "engine.exchange=bf16", "the usual way"}
    assert set(report["forms"]) == set(report["stages"]) == set(report["memory"]) == names
    assert set(report["ratios"]) == names - {"this"}
    assert set(report["stages"]["this"]) == STAGES
    assert report["stages"]["this"]["exchange"] > 0
    assert {"read", "decode", "warp"} <= set(report["loader"])
    assert 0 < report["work"]["utilisation"] < 2
    assert all(row["img_per_s"] > 0 for row in report["forms"].values())
    assert "of the exchange" in shown.err or "exchange" in shown.err


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
    events = json.loads((tmp_path / "trace" / "trace.json").read_text())["traceEvents"]
    assert any("convolution" in event.get("name", "") for event in events)
