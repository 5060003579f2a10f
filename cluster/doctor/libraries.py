"""The large libraries, the GPUs and the driver of one machine."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

from cluster.doctor.finding import Finding
from cluster.doctor.probe import MARK, PROBES

_PICTURE_TOLERANCE: Final = 3.0
"""Grey levels between two JPEG decoders; another picture is tens of them away."""

_REINSTALL: Final = "install anew with the tested versions: pip install -c constraints.txt -e '.[cuda13]'"


@dataclass(frozen=True)
class Wish:
    """What the run wants of the GPUs.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        given: GPUs that Slurm gave to this node; None outside of Slurm.
        tasks: tasks on this node, among which the GPUs may be shared out.
    """

    device: str = "auto"
    given: int | None = None
    tasks: int = 1


def check_libraries(wish: Wish, timeout_s: float) -> tuple[list[Finding], dict[str, Any]]:
    """Findings on Python, torch, GPUs, driver, NCCL, DALI and DeepSpeed; and the facts that all nodes must share."""
    answers = {name: probe(name, timeout_s) for name in PROBES}
    found = answers["torch"]
    driver = driver_version()
    findings = [
        Finding("Python", "ok", sys.version.split()[0]),
        versions(requires("posecluster") or []),
        _loaded("torch", found, "torch"),
        gpus(found, wish, driver),
        driver_finding(driver, found),
        _nccl(found),
        _dali(answers["DALI"]),
        _loaded("DeepSpeed", answers["DeepSpeed"], "deepspeed"),
    ]
    facts = {
        "Python": sys.version.split()[0],
        "packages": installed_packages(),
        "GPUs": list(found.get("gpus", [])),
        "driver": driver,
        "NCCL": found.get("nccl", ""),
    }
    return findings, facts


def probe(name: str, timeout_s: float) -> dict[str, Any]:
    """The facts of one library; `{"fault": why}` where it fails."""
    command = [sys.executable, "-m", "cluster.doctor.probe", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return {"fault": f"no answer within {timeout_s:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        return {"fault": _last_line(done.stderr) or f"exit code {done.returncode}"}
    answer: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    return answer


def installed_packages() -> dict[str, str]:
    """Every installed Python package and its version."""
    found = {str(part.metadata["Name"]).lower().replace("_", "-"): part.version for part in distributions()}
    return dict(sorted(found.items()))


def versions(requirements: Sequence[str]) -> Finding:
    """Judge the installed packages by what the project asks for, as pip writes it: `deepspeed<0.20,>=0.19`."""
    wanted = [Requirement(text) for text in requirements]
    wanted = [need for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""})]
    installed = installed_packages()
    wrong = []
    for need in wanted:
        have = installed.get(need.name.lower().replace("_", "-"))
        if have is None or not need.specifier.contains(have, prereleases=True):
            wrong.append(f"{need.name} {have or 'missing'}, wanted {need.specifier}")
    if wrong:
        return Finding("versions", "fail", "; ".join(wrong[:3]), _REINSTALL)
    return Finding("versions", "ok", f"all {len(wanted)} packages in the range that was asked for")


def driver_version() -> str:
    """Version of NVIDIA's driver; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        pass
    try:
        found = re.search(r"Kernel Module\D*(\d+(?:\.\d+)+)", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def gpus(found: Mapping[str, Any], wish: Wish, driver: str) -> Finding:
    """Judge the GPUs that torch sees against those that Slurm gave and the run wants."""
    if "fault" in found:
        return Finding("GPUs", "fail", "unknown, as torch fails", "mend torch first")
    seen: Sequence[str] = found["gpus"]
    if wish.given and len(seen) not in {wish.given, wish.given / wish.tasks}:
        says = f"Slurm gave {wish.given}, torch sees {len(seen)}"
        return Finding("GPUs", "fail", says, _why_unseen(found, driver))
    if seen:
        return Finding("GPUs", "ok", f"{len(seen)} x {seen[0]}" if len(set(seen)) == 1 else "; ".join(seen))
    if wish.device == "cuda":
        advice = "ask Slurm for some (--gpus-per-node=8), or take engine.device cpu"
        return Finding("GPUs", "fail" if wish.given is not None else "warn", "no GPU, and the run wants cuda", advice)
    return Finding("GPUs", "ok", "no GPU")


def driver_finding(driver: str, found: Mapping[str, Any]) -> Finding:
    """Judge the driver: without one, a machine that has GPUs cannot use them."""
    if driver:
        cuda = found.get("cuda") or "none"
        return Finding("driver", "ok", f"{driver}, torch is built for CUDA {cuda}")
    return Finding("driver", "ok", "none")


def _why_unseen(found: Mapping[str, Any], driver: str) -> str:
    if not found["cuda"]:
        return f"torch {found['torch']} is built without CUDA: {_REINSTALL}"
    if not driver:
        return "the node shows no NVIDIA driver; in Apptainer add --nv, else tell the site"
    return f"driver {driver} may be too old for CUDA {found['cuda']} (`make CUDA=12` takes an older one)"


def _nccl(found: Mapping[str, Any]) -> Finding:
    if found.get("gpus") and not found.get("nccl"):
        return Finding("NCCL", "fail", "GPUs, but torch has no NCCL", _REINSTALL)
    return Finding("NCCL", "ok", found.get("nccl") or "none, gloo serves on the CPU")


def _dali(found: Mapping[str, Any]) -> Finding:
    if "fault" in found:
        return Finding("DALI", "fail", found["fault"], _REINSTALL)
    for key in ("cpu_error", "gpu_error"):
        if found.get(key, 0.0) > _PICTURE_TOLERANCE:
            where = key[:3].upper()
            return Finding("DALI", "fail", f"{where}: {found[key]:.1f} grey levels off", _REINSTALL)
    where = "CPU and GPU" if "gpu_error" in found else "CPU"
    return Finding("DALI", "ok", f"{found['dali']}, decodes on {where}")


def _loaded(check: str, found: Mapping[str, Any], key: str) -> Finding:
    if "fault" in found:
        return Finding(check, "fail", found["fault"], _REINSTALL)
    return Finding(check, "ok", found[key])


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
