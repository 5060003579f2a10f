"""What the bench makes of times: ratios, verdicts, rooflines, and clusters on paper."""

from dataclasses import replace

import pytest
import torch

from cluster.bench.command import check_clock, run_yaml, worktree
from cluster.bench.device import ceiling_of
from cluster.bench.measure import ratios_of
from cluster.bench.ratio import Ratio, compare, over_rounds
from cluster.bench.rounds import ROOT, Form, Played
from cluster.bench.scaling import StepCost, exchange_s, gather_s, limit, predict, settings_that_help
from cluster.bench.settings import BenchSettings, NetworkSettings, ProfileSettings
from cluster.bench.work import work_of
from cluster.config import SettingsError, construct, parse
from cluster.settings import Run
from cluster.settings_data import DataSettings
from poselib.errors import InputError
from poselib.settings import ModelSettings

pytestmark = pytest.mark.unit

NETWORK = NetworkSettings(gpus_per_node=8, node_gb_per_s=100.0, network_gb_per_s=10.0, latency_us=0.0)
COST = StepCost(images=10, forward_s=0.1, backward_s=0.2, optimizer_s=0.0, gradients=250_000_000)


def test_ratios_and_verdicts() -> None:
    ratio = compare([1.0, 2.0, 1.0, 1.0], [2.0, 4.2, 2.0, 1.9])
    assert (ratio.median, ratio.least, ratio.most) == (2.0, 1.9, 2.1)
    assert ratio.verdict(1.5, 0.1) == "reached: 1.5 wanted"
    assert ratio.verdict(2.5, 0.1) == "missed: 2.5 wanted"
    busy = compare([1.0, 1.0, 1.0, 1.0], [1.0, 3.0, 1.5, 2.5])
    assert busy.verdict(1.5, 0.1) == "no verdict: a busy machine, rounds spread by 62%, above 10%"
    assert over_rounds([0.6, 0.65, 0.7]).verdict(0.7, 0.1, at_most=True) == "reached: at most 0.7 wanted"
    assert over_rounds([0.8, 0.8, 0.8]).verdict(0.7, 0.1, at_most=True) == "missed: at most 0.7 wanted"


@pytest.mark.parametrize("rounds", [1, 2])
def test_too_few_rounds_allow_no_verdict(rounds: int) -> None:
    few = compare([1.0] * rounds, [2.0] * rounds)
    assert few.verdict(1.5, 0.1) == f"no verdict: {rounds} of at least 3 rounds"
    assert few.direction(0.1) == "no verdict"


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (Ratio(1.02, 0.05, 0.98, 1.06, 5), "no difference"),
        (Ratio(1.1, 0.05, 1.02, 1.2, 5), "faster"),
        (Ratio(0.9, 0.05, 0.8, 0.99, 5), "slower"),
        (Ratio(1.5, 0.2, 1.1, 1.9, 5), "no verdict"),
    ],
)
def test_which_form_is_faster(ratio: Ratio, told: str) -> None:
    assert ratio.direction(0.1) == told


def test_a_form_knows_the_pictures_of_its_step() -> None:
    form = Form("x", "{name: x, data: {h36m: ''}, batch: {micro: 6}, engine: {ranks: 2, precision: bf16}}")
    assert (form.images, form.ranks, form.precision) == (12, 2, "bf16")
    assert replace(form, kind="usual").precision == "fp32"


def test_more_pictures_a_step_are_no_slower_by_themselves() -> None:
    played = {"this": Played(1.0, [0.1, 0.1, 0.1], [10.0] * 3), "other": Played(1.1, [0.05, 0.05, 0.05], [20.0] * 3)}
    ratios = ratios_of(played)
    assert ratios["other"]["times_as_long"]["median"] == 0.5
    assert ratios["other"]["share_of_memory"]["median"] == 0.5
    assert ratios["other"]["first_loss"] == pytest.approx(0.1)


def test_fp32_on_a_gpu_with_tf32_is_rated_by_it() -> None:
    assert ceiling_of("fp32", {"fp32": 1.0, "bf16": 3.0}) == "fp32"
    assert ceiling_of("fp32", {"fp32": 1.0, "bf16": 3.0, "tf32": 2.0}) == "tf32"
    assert ceiling_of("bf16", {"fp32": 1.0, "bf16": 3.0, "tf32": 2.0}) == "bf16"


def test_an_exchange_on_paper() -> None:
    assert exchange_s(COST, 1, NETWORK) == 0
    # 1 GB at 100 GB/s in a ring of two; then of eight, and of two nodes at 10 GB/s.
    assert exchange_s(COST, 2, NETWORK) == pytest.approx(0.01)
    assert exchange_s(COST, 16, NETWORK) == pytest.approx(2 * 7 / 8 * 0.01 + 0.1)
    assert exchange_s(replace(COST, bytes_each=2), 16, NETWORK) == pytest.approx(7 / 8 * 0.01 + 0.05)
    slow = exchange_s(replace(COST, bucket_bytes=1e8), 16, replace(NETWORK, latency_us=1000.0))
    assert slow == pytest.approx(2 * 7 / 8 * 0.01 + 0.1 + 10 * 2e-3)


def test_gpus_on_paper() -> None:
    alone = predict(COST, 1, NETWORK)
    assert (alone.efficiency, alone.images_per_s) == (1.0, pytest.approx(10 / 0.3))
    many = [predict(COST, gpus, NETWORK).efficiency for gpus in (1, 8, 16, 256)]
    assert many == sorted(many, reverse=True)
    assert predict(replace(COST, overlap=True), 16, NETWORK).exposed_s == 0
    # Compiled, the gradients come all at once: nothing hides.
    compiled = replace(COST, overlap=True, one_graph=True)
    assert predict(compiled, 16, NETWORK) == predict(COST, 16, NETWORK)
    moved = {name: predict(each, 16, NETWORK).efficiency for name, each in settings_that_help(COST).items()}
    assert len(moved) == 3
    assert min(moved.values()) > many[2]
    told = limit(COST, NETWORK)
    assert told.startswith("from 16 GPUs on the network is the limit: efficiency 72%; at 16 engine.exchange bf16 moves")
    assert "; at 256 " in told
    assert "no limit" in limit(COST, replace(NETWORK, network_gb_per_s=1000.0))
    assert len(settings_that_help(replace(COST, bytes_each=2, overlap=True, zero_stage=1))) == 1
    assert [*settings_that_help(compiled)] == ["engine.exchange bf16", "batch.global twice as large"]


def test_sharded_parameters_are_gathered_after_the_update() -> None:
    sharded = replace(COST, overlap=True, zero_stage=1)
    # 1 GB of fp32 parameters, once around each ring, whatever the gradients are exchanged in.
    assert gather_s(sharded, 16, NETWORK) == pytest.approx(7 / 8 * 0.01 + 0.05)
    assert gather_s(replace(sharded, bytes_each=2), 16, NETWORK) == gather_s(sharded, 16, NETWORK)
    assert gather_s(COST, 16, NETWORK) == 0
    assert predict(sharded, 16, NETWORK).exposed_s == pytest.approx(7 / 8 * 0.01 + 0.05)
    behind = predict(replace(sharded, overlap=False), 16, NETWORK).exposed_s
    assert behind == pytest.approx(3 * (7 / 8 * 0.01 + 0.05))


@pytest.mark.parametrize(
    ("model", "gigaflop", "million", "fused_us"),
    [
        (ModelSettings(ppm_bins=None), 49.8, 34.27, 147),
        (ModelSettings(backbone="resnet152", crop_width=288, crop_height=384, depth=72), 189.5, 81.53, 501),
    ],
    ids=["baseline", "final"],
)
def test_work_of_the_report_networks(model: ModelSettings, gigaflop: float, million: float, fused_us: float) -> None:
    work = work_of(model)
    assert work.flops / 1e9 == pytest.approx(gigaflop, abs=0.05)
    assert work.parameters / 1e6 == pytest.approx(million, abs=0.005)
    assert sum(flops for flops, _ in work.layers) == pytest.approx(work.flops)
    fused, eager = (work.roofline_s(788e12, 4.3e12, 2, each) for each in (True, False))
    assert 1e6 * fused == pytest.approx(fused_us, rel=0.04)  # counted by hand elsewhere
    assert fused < eager < 1.5 * fused
    assert work.roofline_s(1e9, 4.3e12, 2) == pytest.approx(work.flops / 1e9, rel=0.01)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--with_loader", "true"], "with_loader must be false without data.h36m"),
        (["--against", "[precision]"], "against must hold settings as key=value"),
        (["--scaling", "[0]"], "scaling must hold numbers of ranks"),
        (["--network.node_gb_per_s", "0"], "node_gb_per_s must be above 0"),
        (["--data.h36m", "x", "--with_loader", "true", "--clock", "cpu"], "clock must be wall with with_loader"),
        (["--revision", "a..b..c"], r"revision must be one revision or two as A\.\.B"),
    ],
)
def test_bad_settings_of_a_bench(words: list[str], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as error:
        parse(BenchSettings, words)
    assert "\n" not in str(error.value)


def test_a_profile_of_no_steps() -> None:
    with pytest.raises(SettingsError, match=r"steps must lie in 1\.\.1000, not 0"):
        parse(ProfileSettings, ["--name", "x", "--data.h36m", "set", "--steps", "0"])


def test_an_earlier_revision_is_told_only_what_differs() -> None:
    settings = parse(BenchSettings, ["--engine.precision", "bf16", "--batch.micro", "8", "--rounds", "3"])
    assert run_yaml(settings).splitlines() == [
        *("batch:", "  micro: 8", "data:", "  h36m: ''", "engine:", "  precision: bf16", "name: bench")
    ]
    run = construct(Run, run_yaml(settings, {"engine.fused_optimizer": True}), "test")
    assert run == replace(
        Run(name="bench", data=DataSettings(h36m="")),
        batch=settings.batch,
        engine=replace(settings.engine, fused_optimizer=True),
    )


def test_revisions_are_checked_out_beside() -> None:
    with worktree("HEAD") as tree:
        assert (tree / "pose.py").is_file()
        assert tree != ROOT
    assert not tree.exists()
    for unknown in ("no-such-revision", "--help"):
        with pytest.raises(InputError, match="revision must be one that git knows"), worktree(unknown):
            pass


def test_a_gpu_goes_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse(BenchSettings, ["--clock", "cpu"])
    monkeypatch.setattr("cluster.bench.command.choose_device", lambda setting: torch.device("cpu"))
    check_clock(settings)
    monkeypatch.setattr("cluster.bench.command.choose_device", lambda setting: torch.device("cuda"))
    with pytest.raises(InputError, match="clock must be wall on a GPU"):
        check_clock(settings)
    check_clock(replace(settings, clock="wall"))
