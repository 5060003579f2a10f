"""The front door: `pose COMMAND ...`. A table of subcommands, each importing its floor only when it runs."""

import importlib
import json
import os
import sys
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """One subcommand: `settings` and `function` are `module:name`; `function(settings)` does the work.

    Attributes:
        settings: the dataclass that the command line is parsed into.
        function: takes those settings.
        help: one line.
        examples: printed below `--help`.
        positional: keys that may be given without their name, in this order; one that ends in * takes all words left.
        defaults: YAML files read before all others.
        resumes: whether the same command, given again, goes on where it was stopped.
    """

    settings: str
    function: str
    help: str
    examples: tuple[str, ...] = ()
    positional: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    resumes: bool = False


COMMANDS = {
    "demo": Command(
        "cluster.settings_commands:DemoSettings",
        "cluster.demo:demo",
        "the whole way on this machine in minutes: data, shards, training, score card, MLflow",
        ("pose demo", "pose demo --train.epochs 2 --train.name short"),
        defaults=("demo.yaml",),
        resumes=True,
    ),
    "studio": Command(
        "shards.settings:StudioSettings",
        "shards.commands:make_studio",
        "write the embedded synthetic data in the raw layouts of Human3.6M, MPII and VOC2012",
        ("pose studio data/raw", "pose studio data/raw --frames 8 --subjects [S1,S9]"),
        ("out",),
    ),
    "shards check": Command(
        "shards.settings:CheckSettings",
        "shards.commands:check_shards",
        "say what a raw folder holds and how it is understood, with a sheet of drawn skeletons",
        ("pose shards check /data/human3.6m", "pose shards check /data/mpii --sheet mpii.jpg"),
        ("raw",),
    ),
    "shards build": Command(
        "shards.settings:BuildSettings",
        "shards.commands:build_shards",
        "raw data to a shard set; run it again to resume",
        (
            "pose shards build /data/human3.6m data/shards/h36m",
            "pose shards build /data/mpii data/shards/mpii --cover_height 1.34",
        ),
        ("raw", "out"),
        resumes=True,
    ),
    "shards verify": Command(
        "shards.settings:VerifySettings",
        "shards.commands:verify_shards",
        "re-read a shard set and name every damaged sample",
        ("pose shards verify data/shards/h36m",),
        ("folder",),
    ),
    "submit shards": Command(
        "cluster.settings_submit:SubmitShardsSettings",
        "cluster.submit_shards:submit_shards",
        "build a shard set with a Slurm job array; run it again to have lost tasks made",
        (
            "pose submit shards /data/human3.6m data/shards/h36m --tasks 16 --job.cpus 16",
            "pose submit shards /data/human3.6m data/shards/h36m --dry-run",
        ),
        ("raw", "out"),
    ),
    "submit train": Command(
        "cluster.settings_submit:SubmitTrainSettings",
        "cluster.submit_train:submit_train",
        "train on a cluster, requeued until it is done; several seeds as a job array",
        (
            "pose submit train --config cluster/final.yaml --job.nodes 4 --job.gpus 8 --dry-run",
            "pose submit train --config report/baseline.yaml --site mysite.yaml --seeds [0,1,2]",
        ),
    ),
    "submit eval": Command(
        "cluster.settings_submit:SubmitEvalSettings",
        "cluster.submit_eval:submit_eval",
        "score a run in a Slurm job",
        ("pose submit eval runs/demo --site mysite.yaml", "pose submit eval runs/demo --part val --job.gpus 1"),
        ("run",),
    ),
    "submit tune": Command(
        "tune.settings_submit:SubmitTuneSettings",
        "tune.submit:submit_tune",
        "search settings over the nodes of a Slurm job, requeued until the search is done",
        (
            "pose submit tune --config tune/pyramid.yaml --job.nodes 4 --job.gpus 8 --search.gpus 1 --dry-run",
            "pose submit tune --resume pyramid --site mysite.yaml --job.nodes 2",
        ),
    ),
    "jobs": Command(
        "cluster.settings_submit:JobsSettings",
        "cluster.jobs:list_jobs",
        "the jobs that were submitted from here: state, step, speed, MLflow",
        ("pose jobs", "pose jobs --last 5"),
    ),
    "logs": Command(
        "cluster.settings_submit:LogsSettings",
        "cluster.jobs:follow_logs",
        "what all ranks of a job say, until it ends",
        ("pose logs 1234", "pose logs 1234_0 --follow false"),
        ("job",),
    ),
    "loader show": Command(
        "cluster.settings_commands:ShowSettings",
        "cluster.show:show",
        "a sheet of the samples that a training begins with, augmented, with their skeletons",
        (
            "pose loader show --config report/final.yaml --sheet final.png",
            "pose loader show --config runs/demo/run.yaml --sheet demo.png",
        ),
    ),
    "loader bench": Command(
        "shards.bench_settings:LoaderBenchSettings",
        "shards.loader_bench:bench_loader",
        "time each stage of the loader on a shard set and say what would help",
        (
            "pose loader bench data/shards/h36m --threads 4",
            "pose loader bench data/shards/h36m --voc data/shards/voc --seconds 5",
        ),
        ("folder",),
    ),
    "train": Command(
        "cluster.settings:Run",
        "cluster.launch:train",
        "train a model; run it again to resume",
        (
            "pose train --config data/demo/train.yaml --epochs 20",
            "pose train --config report/baseline.yaml --data.h36m data/shards/h36m --optimizer.lr 2e-4",
        ),
        resumes=True,
    ),
    "bench": Command(
        "cluster.bench.settings:BenchSettings",
        "cluster.bench.command:bench",
        "time a run's training step, stage by stage, beside other settings, revisions or the usual way",
        (
            "pose bench --config report/baseline.yaml --data.h36m '' --engine.precision bf16 --reference true",
            "pose bench --against '[engine.compile=default]' --revision HEAD~1 --scaling '[1, 2]' --out bench.json",
        ),
    ),
    "profile": Command(
        "cluster.bench.settings:ProfileSettings",
        "cluster.bench.profile:profile_run",
        "trace a run's first steps and name their three largest costs",
        (
            "pose profile --config runs/demo/run.yaml --steps 5",
            "pose profile --config report/final.yaml --data.h36m data/shards/h36m --out traces",
        ),
    ),
    "job begin": Command(
        "cluster.settings:Run",
        "cluster.job_begin:begin",
        "for batch scripts: keep a job's settings and code for its later starts, and list it; slurm/train.sh asks",
        ("pose job begin --config report/baseline.yaml",),
    ),
    "requeue": Command(
        "cluster.requeue:RequeueSettings",
        "cluster.requeue:requeue",
        "for batch scripts: whether a job goes on after its ranks have ended; slurm/train.sh asks",
        ("pose requeue --config report/baseline.yaml --exit_code 137",),
    ),
    "eval": Command(
        "cluster.settings_commands:EvaluateSettings",
        "cluster.evaluate:evaluate_run",
        "score a run on held-out subjects",
        (
            "pose eval runs/demo",
            "pose eval runs/demo --part val --flip_test true",
            "pose eval runs/final --protocol eth --leaderboard true --against runs/baseline",
        ),
        ("run",),
    ),
    "report": Command(
        "cluster.report.settings:ReportSettings",
        "cluster.report.command:write_report",
        "scored runs as one HTML page: charts, samples in space, calibration, several runs side by side",
        ("pose report runs/demo", "pose report runs/baseline runs/final --out compared.html"),
        ("runs*",),
    ),
    "predict": Command(
        "cluster.predict.settings:PredictSettings",
        "cluster.predict.command:predict",
        "poses of people in pictures, folders and videos, by a trained run",
        (
            "pose predict photo.jpg --run runs/demo",
            "pose predict pictures/ clip.mp4 --run runs/demo --boxes boxes.csv --out poses",
        ),
        ("inputs*",),
    ),
    "export": Command(
        "cluster.predict.settings:ExportSettings",
        "cluster.export:export_run",
        "a trained run as one file for other programs: ONNX, or torch.export's .pt2",
        ("pose export runs/demo", "pose export runs/demo --format pt2 --out demo.pt2"),
        ("run",),
    ),
    "runs list": Command(
        "cluster.runs:RunsSettings",
        "cluster.runs:list_runs",
        "the runs in a folder: how far, how good, how large",
        ("pose runs list", "pose runs list /shared/runs"),
        ("runs_dir",),
    ),
    "runs gc": Command(
        "cluster.runs_gc:GcSettings",
        "cluster.runs_gc:collect_garbage",
        "list what finished runs and interrupted writes could free; --apply true deletes it",
        ("pose runs gc", "pose runs gc /shared/runs --keep 2 --apply true"),
        ("runs_dir",),
    ),
    "tune": Command(
        "tune.settings:TuneSettings",
        "tune.search:search",
        "search settings with Ray Tune; --resume NAME goes on with a search",
        (
            "pose tune --config tune/pyramid.yaml --data.h36m data/shards/h36m",
            "pose tune --config tune/speed.yaml --search.trials 40 --search.gpus 1",
            "pose tune --resume pyramid --search.trials 60",
        ),
    ),
    "tune best": Command(
        "tune.settings:BestSettings",
        "tune.best:print_best",
        "print the best trial of a search as a YAML for pose train",
        ("pose tune best pyramid > best.yaml",),
        ("name",),
    ),
    "tune folder": Command(
        "tune.settings:TuneSettings",
        "tune.where:print_folder",
        "for batch scripts: where a search stands; slurm/tune.sh asks",
        ("pose tune folder --config tune/pyramid.yaml", "pose tune folder --resume pyramid"),
    ),
    "study report-tables": Command(
        "tune.settings_study:ReportTablesSettings",
        "tune.study:report_tables",
        "train the report's tables anew: mean and spread over seeds beside the published figures",
        (
            "pose study report-tables --scale studio",
            "pose study report-tables --only table1,table4 --seeds [0,1,2] --dry-run",
            "pose study report-tables --submit true --site mysite.yaml --job.gpus 1",
            "pose study report-tables --collect true",
        ),
        resumes=True,
    ),
    "tune report": Command(
        "tune.settings:TuneReportSettings",
        "tune.report:report_search",
        "a search as one HTML page: settings and scores, what matters, learning curves, the front",
        ("pose tune report pyramid",),
        ("name",),
    ),
    "doctor": Command(
        "cluster.doctor.settings:DoctorSettings",
        "cluster.doctor.command:doctor",
        "check this machine, or all nodes of a Slurm allocation: GPUs, libraries, folders, ports, clocks",
        ("pose doctor", "srun --ntasks-per-node=1 pose doctor --run cluster/final.yaml"),
    ),
    "site": Command(
        "cluster.site:SiteSettings",
        "cluster.site:print_site",
        "print a site profile (configs/site) as options of sbatch; keep a copy of the code for the job",
        (
            "pose site example --nodes 4",
            "sbatch $(pose site mysite.yaml --nodes 4 --snapshot runs/x) slurm/train.sh --config x.yaml",
        ),
        ("site",),
    ),
    "register": Command(
        "cluster.tracking.settings:RegisterSettings",
        "cluster.tracking.register:register",
        "a run's weights as a version of a model in MLflow's registry, to be served",
        ("pose register runs/demo demo", "pose register runs/final pose --uri http://head:5000"),
        ("run", "name"),
    ),
    "mlflow": Command(
        "cluster.tracking.settings:ServerSettings",
        "cluster.tracking.server:serve",
        "an MLflow server for a cluster: database, artifacts, name and password; slurm/mlflow.sh starts it as a job",
        (
            "pose mlflow /shared/mlflow",
            "pose mlflow /shared/mlflow --host head.cluster.example --store_file /shared/mlflow/store",
        ),
        ("folder",),
    ),
    "ui": Command(
        "cluster.tracking.settings:UiSettings",
        "cluster.tracking.ui:serve",
        "browse runs in MLflow",
        ("pose ui", "pose ui --runs_dir /shared/runs --port 5001"),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code: 0 done, 1 a problem outside the program, 2 wrong words or settings."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("POSE_DEBUG") == "1"
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in {"-h", "--help"}:
        print(overview())
        return 0
    name, rest = _find(words)
    if not name:
        return _wrong_command(words)
    return _run(name, rest, debug)


def overview() -> str:
    """The text of `pose --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pose COMMAND [--config FILE] [--key value] ... [--debug]",
            "",
            "3D human pose from one picture, trained on a cluster.",
            "",
            *lines,
            "",
            "`pose COMMAND --help` lists every key with examples; `--debug` shows tracebacks.",
            "The first steps: pose demo",
        ]
    )


def _find(words: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one or two words, and the words behind it."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, words[count:]
    return "", words


def _wrong_command(words: list[str]) -> int:
    """Say what would have been right."""
    import difflib

    within = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if within:
        print("\n".join(f"pose {name}  {COMMANDS[name].help}" for name in within), file=sys.stderr)
        return 0 if words[1:2] in (["-h"], ["--help"]) else 2
    near = difflib.get_close_matches(" ".join(words[:2]), COMMANDS, n=1, cutoff=0.0)[0]
    print(f"pose: no command {words[0]!r}; the nearest is `pose {near}`, see `pose --help`", file=sys.stderr)
    return 2


def _run(name: str, words: list[str], debug: bool) -> int:
    """Parse, run, and turn problems into one line and an exit code."""
    from cluster.config import SettingsError, parse
    from cluster.keys import switches
    from poselib.errors import InputError

    command = COMMANDS[name]
    try:
        examples = "examples:\n" + "\n".join(f"  {line}" for line in command.examples)
        words = _name_positionals(command, words, switches(_load(command.settings)))
        words = [word for file in command.defaults for word in ("--config", file)] + words
        settings = parse(_load(command.settings), words, f"pose {name}", examples)
        _load(command.function)(settings)
    except InputError as error:
        if debug:
            raise
        print(f"pose {name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        after = "run the same command again to go on" if command.resumes else "the same command begins anew"
        print(f"pose {name}: stopped; {after}", file=sys.stderr)
        return 130
    except OSError as error:
        if debug or error.errno is None:
            raise
        print(f"pose {name}: {error.strerror}: {error.filename or 'see --debug'}", file=sys.stderr)
        return 1
    return 0


def _name_positionals(command: Command, words: list[str], switches: Container[str]) -> list[str]:
    """Words that are no option and no option's value, as options of the positional keys that are not given by name."""
    free, others = _free_words(words, switches)
    given = {word.partition("=")[0].replace("-", "_") for word in others}
    named = []
    for key in command.positional:
        if f"__{key.rstrip('*')}" in given:
            continue
        if free and key.endswith("*"):
            named.append(f"--{key[:-1]}={json.dumps(free)}")
            free = []
        elif free:
            named.append(f"--{key}={free.pop(0)}")
    return named + free + others


def _free_words(words: list[str], switches: Container[str]) -> tuple[list[str], list[str]]:
    """The words that stand for themselves, and the options, each with the value behind it; a switch needs none."""
    from cluster.keys import TRUTHS

    free: list[str] = []
    others: list[str] = []
    before = ""
    for word in words:
        valued = before.startswith("--") and "=" not in before and before != "--help"
        alone = before[2:].replace("-", "_") in switches and word.lower() not in TRUTHS
        is_value = valued and not alone and not word.startswith("--")
        stands = not is_value and (not word.startswith("-") or word == "-")
        (free if stands else others).append(word)
        before = "" if is_value else word
    return free, others


def _load(place: str) -> Any:
    """The object at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())
