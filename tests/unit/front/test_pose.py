"""The front door: words to commands, problems to one line and an exit code."""

import subprocess
import sys

import pytest

import pose

pytestmark = pytest.mark.unit


def test_help_names_every_command(capsys):
    assert pose.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in pose.COMMANDS)


@pytest.mark.parametrize("name", pose.COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        pose.main([*name.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert pose.COMMANDS[name].examples[0] in shown


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["trian"], 2, "the nearest is `pose train`"),
        (["shards"], 2, "pose shards build"),
        (["train", "--optimizer.lrr", "1"], 2, "'optimizer.lr'"),
        (["train", "--config", "nowhere.yaml"], 2, "no such settings file: nowhere.yaml"),
        (["train", "--name", "x", "--data.h36m", "nowhere"], 1, "nowhere is not a folder"),
        (["eval", "nowhere"], 1, "nowhere is no run"),
        (["shards", "verify", "nowhere"], 1, "nowhere"),
        (["shards", "build", "nowhere", "out"], 1, "nowhere"),
        (["ui", "--runs_dir", "nowhere"], 1, "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(words, code, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pose.main(words) == code
    shown = capsys.readouterr().err.strip()
    assert line in shown
    assert words == ["shards"] or "\n" not in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["a.jpg", "-", "--run", "r", "--box=[1, 2, 30, 40]"],
        ["--run", "r", "a.jpg", "-", "--box", "[1, 2, 30, 40]"],
        ["a.jpg", "--box", "[1, 2, 30, 40]", "--run", "r", "-"],
        ["--run", "r", "--flip-test", "--box", "[1, 2, 30, 40]", "a.jpg", "-"],
        ["--inputs", "[a.jpg, '-']", "--run", "r", "--box", "[1, 2, 30, 40]"],
    ],
)
def test_inputs_may_stand_before_between_and_behind_options(words, monkeypatch):
    seen = []
    monkeypatch.setattr("cluster.predict.command.predict", seen.append)
    assert pose.main(["predict", *words]) == 0
    (settings,) = seen
    assert (settings.inputs, str(settings.run), settings.box) == (("a.jpg", "-"), "r", (1, 2, 30, 40))


@pytest.mark.parametrize("words", [["--apply", "runs/x"], ["runs/x", "--apply"], ["--apply", "true", "runs/x"]])
def test_a_switch_takes_no_word_but_its_own(words, monkeypatch):
    seen = []
    monkeypatch.setattr("cluster.runs_gc.collect_garbage", seen.append)
    assert pose.main(["runs", "gc", *words]) == 0
    assert (seen[0].apply, str(seen[0].runs_dir)) == (True, "runs/x")


def test_a_word_too_many_is_no_second_value(capsys):
    assert pose.main(["eval", "--run", "a", "b"]) == 2
    assert pose.main(["eval", "a", "--part", "val", "b"]) == 2
    assert capsys.readouterr().err.lower().count("unrecognized arguments: b") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "a.jpg", "--run", "r"], "begins anew"),
        (["train", "--name", "n", "--data.h36m", "x"], "run the same command again"),
    ],
)
def test_who_stops_a_command_is_told_what_the_next_one_does(words, said, capsys, monkeypatch):
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pose.COMMANDS[words[0]].function.replace(":", "."), stop)
    assert pose.main(words) == 130
    assert said in capsys.readouterr().err


def test_debug_gives_the_traceback(tmp_path):
    with pytest.raises(Exception, match="nowhere"):
        pose.main(["eval", str(tmp_path / "nowhere"), "--debug"])


def test_help_imports_nothing_heavy():
    code = "import sys, pose; pose.main(['--help']); print([m for m in ('torch', 'mlflow', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
