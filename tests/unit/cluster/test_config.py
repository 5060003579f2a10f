"""Settings from YAML and command line: later words win, and every mistake is one line that names its key."""

from pathlib import Path

import pytest

from cluster.config import SettingsError, dump, flatten, load, parse
from cluster.settings import Run
from cluster.settings_commands import DemoSettings

pytestmark = pytest.mark.unit


@pytest.fixture
def base(tmp_path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text("name: x\ndata: {h36m: set}\noptimizer: {lr: 2e-4}\nbatch: {micro: 8, global: 16}\n")
    return path


def write(base: Path, text: str) -> Path:
    path = base.with_name("run.yaml")
    path.write_text(text)
    return path


def test_command_line_wins_over_files_and_files_over_defaults(base):
    run = parse(Run, ["--config", str(base), "--batch.global", "32", "--model.ppm_bins=[1,12]", "--seed=3"])
    assert (run.batch.global_, run.batch.micro, run.seed, run.optimizer.lr) == (32, 8, 3, 2e-4)
    assert run.model.ppm_bins == (1, 12)
    assert run.data.h36m == "set"
    assert run.epochs == 70


@pytest.mark.parametrize(
    ("words", "seed", "switched"),
    [
        (["--checkpoint.asynchronous", "--seed", "3"], 3, True),
        (["--seed=3", "--checkpoint.asynchronous"], 3, True),
        (["--checkpoint.asynchronous", "false"], 0, False),
        (["--checkpoint.asynchronous=false", "--seed", "3"], 3, False),
    ],
)
def test_a_switch_may_stand_alone(base, words, seed, switched):
    run = parse(Run, ["--config", str(base), *words])
    assert (run.seed, run.checkpoint.asynchronous) == (seed, switched)


def test_dashes_in_keys_are_underscores_and_values_keep_theirs(base):
    words = [
        "--validate-every",
        "2",
        "--optimizer.warmup-steps=5",
        "--data.h36m",
        "my-set",
        "--name=x-y",
        "--log-every=3",
    ]
    run = parse(Run, ["--config", str(base), *words])
    assert (run.validate_every, run.optimizer.warmup_steps, run.log_every) == (2, 5, 3)
    assert (run.data.h36m, run.name) == ("my-set", "x-y")


def test_a_file_holds_only_what_differs_from_its_base(base):
    run = load(Run, write(base, "base: base.yaml\noptimizer: {clip: 5}\n"))
    assert (run.optimizer.lr, run.optimizer.clip, run.batch.micro) == (2e-4, 5.0, 8)


def test_what_is_written_reads_back(base, tmp_path):
    run = parse(Run, ["--config", str(base), "--model.ppm_bins=null"])
    (tmp_path / "again.yaml").write_text(dump(run))
    assert load(Run, tmp_path / "again.yaml") == run
    assert flatten(run)["batch.global"] == 16


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer: {lrr: 1}", ["run.yaml", "'optimizer.lrr'", "'optimizer.lr'"]),
        ("modle: {depth: 1}", ["run.yaml", "'modle.depth'", "'model.depth'"]),
        ("optimizer: {lr: fast}", ["run.yaml", "optimizer.lr", "float", "fast"]),
        ("optimizer: {lr: -1}", ["run.yaml", "optimizer.lr must be above 0"]),
        ("model: {backbone: vgg}", ["run.yaml", "model.backbone", "'resnet50'", "vgg"]),
        ("model: {ppm_bins: [1, 1]}", ["run.yaml", "model.ppm_bins", "[1, 1]"]),
        ("batch: {global: 3}", ["run.yaml", "batch.global must be 0 or a multiple of micro = 8"]),
        ("batch: {micro: 1}\nmodel: {crop_width: 32, crop_height: 32}", ["run.yaml", "batch.micro must be at least 2"]),
        ("seed: -1", ["run.yaml", "seed must be at least 0"]),
        ("optimizer: {betas: [2, 2]}", ["run.yaml", "optimizer.betas", "[2.0, 2.0]"]),
        ("optimizer: {lr: .nan}", ["run.yaml", "optimizer.lr must be above 0"]),
        ("data: {val_subjects: [S9]}", ["run.yaml", "data.test_subjects must neither train nor select", "S9"]),
        ("epochs: 1.5", ["run.yaml", "epochs", "int"]),
        ("optimizer: 3", ["run.yaml", "optimizer"]),
        ("- 1", ["run.yaml", "expected keys and values"]),
        ("a: [", ["run.yaml, line", "not valid YAML"]),
        ("base: nowhere.yaml", ["nowhere.yaml", "no such settings file", "demo.yaml"]),
    ],
)
def test_mistakes_in_a_file_are_one_line(base, text, words):
    path = write(base, text if text.startswith(("base", "-", "a:")) else f"base: base.yaml\n{text}\n")
    with pytest.raises(SettingsError) as error:
        load(Run, path)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--optimizer.lrr", "3"], ["command line", "'optimizer.lr'"]),
        (["--optimizer.lr", "x"], ["command line", "optimizer.lr"]),
        (["--batch.global", "5"], ["command line", "batch.global"]),
        (["--model.ppm_bins", "6"], ["command line: model.ppm_bins: expected [int, ...] or null. Got value: 6"]),
        (["--init_fresh", "head"], ["expected [backbone or pyramid or upsampling or head, ...]. Got value: head"]),
        (["--optimizer.betas", "0.9"], ["optimizer.betas: expected [float, float]. Got value: 0.9"]),
        (["--data.shard_window", "some"], ["data.shard_window: expected auto or full or int. Got value: some"]),
        (["stray"], ["stray"]),
        (["--checkpoint.asynchronous", "stray"], ["checkpoint.asynchronous", "bool", "stray"]),
        (["--drY-run"], ["unknown key 'drY_run'"]),
        (["--config"], ["--config needs a file"]),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(base, argv, words):
    with pytest.raises(SettingsError) as error:
        parse(Run, ["--config", str(base), *argv])
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("words", [["--name", "y", "--data.h36m", "there"], ["--name=y", "--data.h36m=there"]])
def test_required_keys_may_stand_on_the_command_line_alone(base, words):
    path = write(base, "data: {mpii: null}\nbatch: {micro: 8}\n")
    run = parse(Run, ["--config", str(path), *words])
    assert (run.name, run.data.h36m, run.data.mpii, run.batch.micro) == ("y", "there", None, 8)
    with pytest.raises(SettingsError, match=r"required: data\.h36m"):
        parse(Run, ["--config", str(path), "--name", "y"])
    with pytest.raises(SettingsError, match="name must be the plain name"):
        parse(Run, ["--config", str(path), *words, "--name", ".."])


def test_missing_keys_are_named():
    with pytest.raises(SettingsError, match=r"name, data\.h36m"):
        parse(Run, [])


def test_the_packaged_demo_is_complete():
    settings = load(DemoSettings, Path("demo.yaml"))
    assert settings.train.data.split == "eth"
