"""`pose bench`: a run's training step, stage by stage, beside other forms of it that take turns with it."""

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cluster.bench.rounds import ROOT, Form, Team, alternate, as_rows, compare
from cluster.bench.scaling import StepCost
from cluster.bench.settings import BenchSettings
from cluster.bench.tables import show
from cluster.bench.work import Work, work_of
from cluster.config import construct, flatten
from cluster.settings import Run
from cluster.settings_data import DataSettings
from cluster.world import current_world
from poselib.errors import InputError
from shards.atomic import write_whole

THIS = "this"


def bench(settings: BenchSettings) -> None:
    """Measure, print tables and a JSON line, and write the latter where asked.

    Raises:
        InputError: this machine lacks what a setting asks for; or a revision or a setting does not exist.
    """
    if current_world() is not None:
        from cluster.bench.in_world import bench_in_world

        bench_in_world(settings)
        return
    settings = replace(settings, batch=replace(settings.batch, global_=0))
    console = Console(stderr=True)
    with ExitStack() as stack:
        forms = [Form(THIS, run_yaml(settings), ranks=settings.engine.ranks or 1, loader=settings.with_loader)]
        forms += _others(settings, forms[0], stack)
        with console.status("measuring: " + ", ".join(form.name for form in forms)):
            report = _about() | _measure(settings, forms, stack)
    if settings.scaling:
        with console.status("measuring ranks"):
            report["scaling"] = _scaling(settings)
    if settings.data.h36m:
        report["loader"] = _loader_stages(settings)
    show(report, settings, console)
    print(json.dumps(report))
    if settings.out:
        write_whole(settings.out, (json.dumps(report, indent=1) + "\n").encode())
        console.print(f"all figures: {settings.out}", soft_wrap=True, highlight=False)


def step_cost(report: dict[str, Any], settings: BenchSettings) -> StepCost:
    """The measured step, for the model on paper."""
    stages = report["stages"][THIS]
    return StepCost(
        settings.batch.micro,
        stages["forward"] + stages["batch"],
        stages["backward"],
        stages["optimizer"],
        report["work"]["parameters"],
        2 if settings.engine.exchange == "bf16" else 4,
        overlap=settings.engine.overlap,
        bucket_bytes=1e6 * settings.engine.bucket_mb,
    )


def _measure(settings: BenchSettings, forms: list[Form], stack: ExitStack) -> dict[str, Any]:
    """Rounds, memory and stages of every form; what this one's work is."""
    teams = [stack.enter_context(Team(form)) for form in forms]
    seconds = alternate(teams, settings.rounds, settings.steps, settings.clock)
    memory = {team.form.name: team.ask("memory")["bytes"] for team in teams}
    stages = {team.form.name: team.ask("stages", settings.steps) for team in teams}
    images = settings.batch.micro * forms[0].ranks
    report: dict[str, Any] = {"forms": as_rows(seconds, images), "memory": memory, "stages": stages}
    report["checkpoint_s"] = teams[0].ask("checkpoint")["seconds"]
    report["ratios"] = {form.name: asdict(compare(seconds[THIS], seconds[form.name])) for form in forms[1:]}
    ceilings = teams[0].ask("ceilings")
    work = work_of(settings.model)
    return report | {"ceilings": ceilings, "work": _work(settings, work, ceilings, report)}


def _work(settings: BenchSettings, work: Work, ceilings: dict[str, float], report: dict[str, Any]) -> dict[str, float]:
    """Operations and rooflines per picture, and how near the step comes to them."""
    precision = settings.engine.precision
    bytes_each, peak = (2 if precision == "bf16" else 4), ceilings[precision]
    ranks = settings.engine.ranks or 1
    measured = ranks / report["forms"][THIS]["img_per_s"]
    fused, eager = (work.roofline_s(peak, ceilings["bytes"], bytes_each, each) for each in (True, False))
    return {
        "flops": work.flops,
        "parameters": work.parameters,
        "utilisation": work.flops / measured / peak,
        "roofline_s": fused,
        "eager_roofline_s": eager,
        "of_roofline": fused / measured,
    }


def _others(settings: BenchSettings, this: Form, stack: ExitStack) -> list[Form]:
    """The forms that take turns with the settings' own."""
    others = []
    if settings.against:
        others.append(replace(this, name=" ".join(settings.against), yaml=_against(settings)))
    if settings.revision:
        tree = stack.enter_context(worktree(settings.revision))
        others.append(replace(this, name=settings.revision, tree=tree))
    if settings.reference:
        others.append(replace(this, name="the usual way", kind="usual"))
    return others


def _scaling(settings: BenchSettings) -> dict[str, Any]:
    """images/s of several numbers of ranks, in turns."""
    text = run_yaml(settings)
    with ExitStack() as stack:
        forms = [Form(str(ranks), text, ranks=ranks, loader=settings.with_loader) for ranks in settings.scaling]
        teams = [stack.enter_context(Team(form)) for form in forms]
        seconds = alternate(teams, settings.rounds, settings.steps, settings.clock)
        stages = {team.form.name: team.ask("stages", settings.steps) for team in teams}
    return {
        name: {
            "img_per_s": rows["img_per_s"] * int(name),
            "spread": rows["spread"],
            "exchange_share": stages[name]["exchange"] / sum(stages[name].values()),
        }
        for name, rows in as_rows(seconds, settings.batch.micro).items()
    }


def _loader_stages(settings: BenchSettings) -> dict[str, float]:
    """Seconds per picture of reading, decoding, warping, pasting and copying, each by itself."""
    import torch

    from shards.bench_settings import LoaderBenchSettings
    from shards.loader_bench import measure

    loader = LoaderBenchSettings(
        folder=settings.data.h36m,
        voc=settings.data.voc,
        crop_width=settings.model.crop_width,
        crop_height=settings.model.crop_height,
        batch=settings.batch.micro,
        augment=settings.augment,
        crop=replace(settings.crop, allow_border=True),
        storage=settings.loader.storage,
    )
    on_gpu = settings.loader.device != "cpu" and settings.engine.device != "cpu" and torch.cuda.is_available()
    stages, whole = measure(loader, settings.loader.threads or len(os.sched_getaffinity(0)), on_gpu)
    return {stage.name: stage.seconds for stage in stages} | {"whole": whole}


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The tree of a git revision of this repository, for as long as it is needed.

    Raises:
        InputError: there is no such revision, or no repository.
    """

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)

    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        raise InputError(f"revision must be one that git knows in {ROOT}, not {revision!r}")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        made = git("worktree", "add", "--detach", str(tree), found.stdout.strip())
        if made.returncode:
            raise InputError(f"git cannot check {revision} out: {made.stderr.strip().splitlines()[-1]}")
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def run_yaml(settings: Run, changes: dict[str, Any] | None = None) -> str:
    """The run as YAML, only what differs from the defaults: an earlier revision may not know all keys."""
    usual = flatten(Run(name="bench", data=DataSettings(h36m="")))
    own = flatten(Run(**{field.name: getattr(settings, field.name) for field in fields(Run)}))
    told = {key: value for key, value in own.items() if usual[key] != value}
    values: dict[str, Any] = {}
    for key, value in ({"name": "bench", "data.h36m": ""} | told | (changes or {})).items():
        *groups, name = key.split(".")
        into = values
        for group in groups:
            into = into.setdefault(group, {})
        into[name] = value
    return yaml.safe_dump(values)


def _against(settings: BenchSettings) -> str:
    """The run with the other form's settings, checked."""
    changes = {}
    for word in settings.against:
        key, _, value = word.partition("=")
        changes[key.strip()] = yaml.safe_load(value)
    text = run_yaml(settings, changes)
    construct(Run, text, "against")
    return text


def _about() -> dict[str, Any]:
    """Where and when: a figure without them is worth nothing."""
    names = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.partition(":")[2].strip() for line in names.splitlines() if line.startswith("model name")), "")
    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{len(os.sched_getaffinity(0))} x {model or platform.machine()}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "versions": {name: version(name) for name in ("torch", "deepspeed")} | {"python": platform.python_version()},
        "command": ["pose", *sys.argv[1:]],
        "load": os.getloadavg()[0],
    }
