"""`pose bench`: a run's training step, stage by stage, beside other forms of it that take turns with it."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cluster.bench.about import about
from cluster.bench.measure import measure
from cluster.bench.ratio import compare
from cluster.bench.rounds import ROOT, Form, Team, Turns, alternate
from cluster.bench.settings import BenchSettings
from cluster.bench.tables import show
from cluster.config import construct, flatten
from cluster.engine.engine import choose_device
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
    check_clock(settings)
    console, how = Console(stderr=True), Turns(settings.rounds, settings.steps, settings.clock)
    with ExitStack() as stack:
        forms = _forms(settings, stack)
        with console.status("measuring: " + ", ".join(form.name for form in forms)):
            report = about() | measure(forms, how)
    if settings.scaling:
        with console.status("measuring ranks"):
            report["scaling"] = scaling(settings, how)
    if settings.data.h36m:
        report["loader"] = _loader_stages(settings, report["ceilings"])
    show(report, settings, console)
    print(json.dumps(report))
    if settings.out:
        write_whole(settings.out, (json.dumps(report, indent=1) + "\n").encode())
        console.print(f"all figures: {settings.out}", soft_wrap=True, highlight=False)


def check_clock(settings: BenchSettings) -> None:
    """Refuse the CPU's clock where others than the CPU of rank 0 do the work.

    Raises:
        InputError: the run trains on a GPU.
    """
    if settings.clock == "cpu" and choose_device(settings.engine.device).type == "cuda":
        raise InputError("clock must be wall on a GPU: the time that the CPU computes is not the step's")


def scaling(settings: BenchSettings, how: Turns) -> dict[str, Any]:
    """images/s of several numbers of ranks, in turns; each rank has as many threads however many there are."""
    share = max(1, len(os.sched_getaffinity(0)) // max(settings.scaling))
    threads = {
        "engine.threads": settings.engine.threads or share,
        "loader.threads": settings.loader.threads or share,
    }
    with ExitStack() as stack:
        forms = [
            Form(str(ranks), run_yaml(settings, threads | {"engine.ranks": ranks}), loader=settings.with_loader)
            for ranks in sorted(set(settings.scaling))
        ]
        teams = [stack.enter_context(Team(form)) for form in forms]
        seconds = {name: played.seconds for name, played in alternate(teams, how).items()}
        stages = {team.form.name: team.ask("stages", settings.steps) for team in teams}
    first = forms[0]
    return {
        form.name: {
            "img_per_s": 1 / compare([1.0] * how.rounds, seconds[form.name]).median,
            "share": asdict(
                compare(
                    [each * form.ranks for each in seconds[form.name]],
                    [each * first.ranks for each in seconds[first.name]],
                )
            ),
            "exchange_share": exchange_share(stages[form.name]),
        }
        for form in forms
    }


def exchange_share(stages: dict[str, float]) -> float | None:
    """What of a step its exchange takes; None where it is part of the backward pass."""
    return stages["exchange"] / sum(stages.values()) if "exchange" in stages else None


def _forms(settings: BenchSettings, stack: ExitStack) -> list[Form]:
    """The settings' own form, and those that take turns with it."""
    this = Form(THIS, run_yaml(settings), loader=settings.with_loader)
    *named, other = settings.revision.split("..")
    if named:
        this = replace(this, name=named[0], tree=stack.enter_context(worktree(named[0])))
    forms = [this]
    if settings.against:
        forms.append(replace(this, name=" ".join(settings.against), yaml=_against(settings)))
    if other:
        forms.append(replace(this, name=other, tree=stack.enter_context(worktree(other))))
    if settings.reference:
        forms.append(replace(this, name="the usual way", kind="usual", tree=ROOT))
    return forms


def _loader_stages(settings: BenchSettings, ceilings: dict[str, float]) -> dict[str, float]:
    """Seconds per picture of reading, decoding, warping, pasting and copying, each by itself.

    `copy` goes within the GPU where it decodes, else from the host; `from host` says what the latter would take.
    """
    import torch

    from shards.bench_settings import LoaderBenchSettings
    from shards.loader_bench import measure as measure_loader

    model = settings.model
    loader = LoaderBenchSettings(
        folder=settings.data.h36m,
        voc=settings.data.voc,
        crop_width=model.crop_width,
        crop_height=model.crop_height,
        batch=settings.batch.micro,
        augment=settings.augment,
        crop=replace(settings.crop, allow_border=True),
        storage=settings.loader.storage,
    )
    on_gpu = settings.loader.device != "cpu" and settings.engine.device != "cpu" and torch.cuda.is_available()
    stages, whole = measure_loader(loader, settings.loader.threads or len(os.sched_getaffinity(0)), on_gpu)
    copy = "copy within the GPU" if on_gpu else "H2D"
    found = {copy if stage.name == "copy" else stage.name: stage.seconds for stage in stages}
    if on_gpu and "from_host" in ceilings:
        found["H2D, were they decoded on the host"] = 3 * model.crop_width * model.crop_height / ceilings["from_host"]
    return found | {"whole": whole}


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
