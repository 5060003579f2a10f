"""`pose doctor`: checks this machine; in a Slurm allocation every node of it, and the nodes against each other."""

import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from rich.console import Console

from cluster.config import load
from cluster.doctor.compare import compare
from cluster.doctor.finding import Finding, NodeReport
from cluster.doctor.libraries import Wish, check_libraries
from cluster.doctor.machine import check_machine, existing, infiniband_ports
from cluster.doctor.meeting import Meeting
from cluster.doctor.settings import DoctorSettings
from cluster.doctor.shared_folder import SharedFolder
from cluster.doctor.table import checks, show
from cluster.settings import Run
from cluster.snapshot import code_digest
from cluster.tracking.provenance import code_version
from cluster.world import World, current_allocation, current_world
from poselib.errors import InputError
from shards.manifest import open_manifest

PATIENCE: Final = 5
"""How many `timeout_s` a node may take for its own part: three libraries, and the all-reduce."""

_LOG_WIDTH: Final = 400
"""Wide enough for any row; the table takes what it needs, and a log need not fold paths."""


@dataclass(frozen=True)
class Plan:
    """What to check, after the run's settings were read.

    Attributes:
        shared: folders that all nodes have to see.
        shards: folders or URLs of the sets that the run reads.
        device: where it computes.
    """

    shared: tuple[Path, ...]
    shards: tuple[str, ...]
    device: str


def doctor(settings: DoctorSettings) -> None:
    """`pose doctor`: print a table of findings, and advice for each problem.

    Raises:
        InputError: a check has failed, or the nodes cannot meet.
    """
    plan = make_plan(settings)
    allocation = current_allocation()
    if allocation and not allocation.in_task:
        _become_srun(settings, allocation.nodes)
    world = current_world()
    if world is None or world.size == 1:
        report = examine(settings, plan, World())
        conclude([_with(report, [_loopback(), *(_own_folder(folder) for folder in plan.shared)])])
    else:
        _among(settings, plan, world)


def make_plan(settings: DoctorSettings) -> Plan:
    """The folders, shard sets and device that the settings, or the run they name, speak of.

    Raises:
        InputError: the run's settings are wrong.
    """
    if settings.run is None:
        return Plan(settings.shared or (Path("runs"),), (), settings.device)
    run = load(Run, settings.run)
    sets = (run.data.h36m, run.data.mpii, run.data.voc)
    device = run.engine.device if settings.device == "auto" else settings.device
    return Plan((run.runs_dir, *settings.shared), tuple(str(place) for place in sets if place is not None), device)


def examine(settings: DoctorSettings, plan: Plan, world: World) -> NodeReport:
    """All that this node can find by itself."""
    allocation = current_allocation()
    wish = Wish(plan.device, allocation.gpus_on_node if allocation else None, world.local_size)
    findings, facts = check_libraries(wish, settings.timeout_s)
    findings += check_machine(plan.shared)
    facts["code"] = f"{code_version()}, {code_digest()[:12]}"
    facts["CPU cores"] = len(os.sched_getaffinity(0))
    facts["InfiniBand"] = list(infiniband_ports().values())
    sets = [_shard_set(folder) for folder in plan.shards]
    if sets:
        facts["shards"] = [said for _, said in sets]
    return NodeReport(socket.gethostname(), tuple(findings + [finding for finding, _ in sets]), facts)


def conclude(reports: list[NodeReport]) -> None:
    """Print everything.

    Raises:
        InputError: a check has failed; the last line of what is printed.
    """
    reports = compare(reports)
    console = Console(width=None if sys.stdout.isatty() else _LOG_WIDTH)
    show(reports, console)
    failed = {f.check for report in reports for f in report.findings if f.status == "fail"}
    hosts = [report.host for report in reports if any(f.status == "fail" for f in report.findings)]
    count = f"{len(checks(reports))} checks on {len(reports)} node{'s' if len(reports) > 1 else ''}"
    if failed:
        raise InputError(f"{len(failed)} of {count} failed ({', '.join(sorted(failed))}), on {', '.join(hosts[:8])}")
    warned = any(f.status == "warn" for report in reports for f in report.findings)
    console.print(
        f"{count}: {'nothing stands in the way' if warned else 'all well'}; next: pose train --config FILE",
        highlight=False,
        soft_wrap=True,
    )


def _among(settings: DoctorSettings, plan: Plan, world: World) -> None:
    """Be one rank of several: check as the lead of a node, report to rank 0; rank 0 prints for all."""
    meeting = Meeting(world, settings.timeout_s)
    if not world.is_main and world.local_rank:
        return
    several = len(meeting.leads) > 1
    # These want all nodes at the same time, so they come before the libraries, which take each its own.
    together = [meeting.names(), meeting.clock()] if several else []
    folders = [SharedFolder(meeting, folder) for folder in plan.shared]
    together += [finding for folder in folders for finding in folder.check()]
    report = examine(settings, plan, world)
    if several:
        together.append(meeting.all_reduce(bool(report.facts["GPUs"]), PATIENCE * settings.timeout_s))
    came = f"{len(meeting.members)} of {world.size} ranks met at {world.address}:{world.port}"
    silent = len(meeting.members) < world.size
    advice = "see what the ranks that did not come print; they cannot reach this port, or did not start"
    met = Finding("rendezvous", "fail" if silent else "ok", came, advice if silent else "")
    report = _with(report, [met, *together])
    meeting.say(f"report/{world.rank}", report.to_json())
    if world.is_main:
        conclude(_collect(settings, folders, meeting))


def _collect(settings: DoctorSettings, folders: list[SharedFolder], meeting: Meeting) -> list[NodeReport]:
    """The reports of all nodes that came; a node that fell silent is a failure."""
    ranks = [lead.rank for lead in meeting.leads]
    told = meeting.hear_all("report", ranks, PATIENCE * settings.timeout_s)
    for folder in folders:
        folder.clean()
    gone = Finding("answer", "fail", "came, but did not report", "see what it prints")
    return [
        NodeReport.from_json(told[lead.rank]) if lead.rank in told else NodeReport(lead.host, (gone,))
        for lead in meeting.leads
    ]


def _become_srun(settings: DoctorSettings, count: int) -> NoReturn:
    """Run as one task on each node of the allocation; this process becomes `srun`."""
    words = [f"--device={settings.device}", f"--timeout_s={settings.timeout_s}"]
    words += [f"--run={settings.run}"] if settings.run else []
    words += [f"--shared={json.dumps([str(folder) for folder in settings.shared])}"] if settings.shared else []
    placing = [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
    # A node that fails must not end the others, who have something to say.
    rules = ["--overlap", "--cpu-bind=none", "--kill-on-bad-exit=0", "--wait=0"]
    sys.stdout.flush()
    os.execvp("srun", ["srun", *placing, *rules, sys.executable, "-m", "pose", "doctor", *words])  # noqa: S606


def _loopback() -> Finding:
    """Whether ranks of this machine alone can meet."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return Finding("ports", "fail", f"loopback: {error.strerror}", "bring up lo: ip link set lo up")
    return Finding("ports", "ok", "loopback can be bound and reached")


def _own_folder(folder: Path) -> Finding:
    """Whether this machine can write where the run will."""
    place = existing(folder)
    if os.access(place, os.W_OK):
        return Finding(f"folder {folder}", "ok", f"{place} can be written")
    return Finding(f"folder {folder}", "fail", f"{place} cannot be written", "give a folder that can")


def _shard_set(folder: str) -> tuple[Finding, Any]:
    """Whether a shard set opens, and its hash."""
    try:
        manifest = open_manifest(folder)
    except InputError as error:
        return Finding(f"shards {folder}", "fail", str(error), "build them, or mount them on this node"), "none"
    return Finding(f"shards {folder}", "ok", f"{manifest.source}, {manifest.set_hash[:12]}"), manifest.set_hash


def _with(report: NodeReport, findings: list[Finding]) -> NodeReport:
    return NodeReport(report.host, (*report.findings, *findings), report.facts)
