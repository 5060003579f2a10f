"""The code of a run, copied beside it: edits after `sbatch` do not reach a job that waits or is requeued.

runs/<name>/code/<digest>/               the project's packages, as they can be imported; files are read-only
runs/<name>/code/<digest>/snapshot.json  version, revision, Python, packages, chosen environment variables
runs/<name>/code/<digest>/changes.diff   what differed from that revision
runs/<name>/environment.json             the same of the newest start, on the node where rank 0 runs

The digest is of the code's content, so the same code is copied once. An installed wheel is a copy already that no
editing reaches: nothing is copied for it. No torch here.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from cluster.tracking.files import write_json
from cluster.tracking.provenance import SNAPSHOT, code_version, git_commit
from poselib.errors import InputError
from shards.atomic import sync_folder

CHANGES: Final = "changes.diff"
CODE: Final = "code"
ENVIRONMENT: Final = "environment.json"

_ROOT: Final = Path(__file__).resolve().parents[1]
_PARTS: Final = ("poselib", "shards", "cluster", "tune", "configs", "slurm")
_FILES: Final = ("pose.py", "pyproject.toml", "constraints.txt")
_KINDS: Final = frozenset({".py", ".pyi", ".typed", ".yaml", ".html", ".css", ".js", ".npz", ".json", ".sh", ".def"})

_NAME_LENGTH: Final = 16
_ATTEMPTS: Final = 3
"""How often the code may change under the copying."""

_TOLD: Final = re.compile(r"(CUDA|DALI|DS|GLOO|MASTER|NCCL|OMP|SLURM|TORCH|UCX)_\w+|(LD_LIBRARY_PATH|PYTHONHASHSEED)")
_SECRET: Final = re.compile(r"TOKEN|SECRET|PASS|KEY|JWT|CREDENTIAL|AUTH", re.IGNORECASE)


@dataclass(frozen=True)
class Snapshot:
    """Where a run's code stands.

    Attributes:
        folder: the copy; None for an installed package, which needs none.
        digest: of the code's content, hex.
    """

    folder: Path | None
    digest: str

    def environment(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """What to change in the environment `environ` of a job, so that it runs this code wherever it starts."""
        if self.folder is None:
            return {}
        paths = [str(self.folder), *filter(None, [environ.get("PYTHONPATH")])]
        # Without a safe path, `python -m` would put the current folder, the edited code perhaps, before this one.
        return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def take_snapshot(run_folder: Path, root: Path = _ROOT) -> Snapshot:
    """Copy the code that runs now to `run_folder/code/<digest>`, unless it stands there; with all that describes it.

    Args:
        run_folder: of the run; made if needed.
        root: the checkout, or the folder that holds the installed packages.

    Raises:
        InputError: the folder cannot be written, or a snapshot in it was edited.
    """
    if not is_checkout(root):
        return Snapshot(None, code_digest(root))
    try:
        folder = _stored(run_folder.absolute() / CODE, root)
        os.utime(folder)  # the newest is the one last asked for
    except OSError as error:
        reason = f"{run_folder} cannot hold the code ({error.strerror}); set runs_dir to a folder that can be written"
        raise InputError(reason) from error
    digest = code_digest(folder)
    if not digest.startswith(folder.name):
        raise InputError(f"{folder} is no longer the code it was made from; remove it and submit again")
    return Snapshot(folder, digest)


def planned_snapshot(run_folder: Path, root: Path = _ROOT) -> Snapshot:
    """Where `take_snapshot` would put the code; nothing is written."""
    digest = code_digest(root)
    return Snapshot(run_folder.absolute() / CODE / digest[:_NAME_LENGTH] if is_checkout(root) else None, digest)


def record_start(run_folder: Path, root: Path = _ROOT) -> None:
    """Keep the code that runs now with the run, and say in `environment.json` where and in which environment.

    Raises:
        InputError: as `take_snapshot`.
    """
    taken = take_snapshot(run_folder, root)
    write_json(run_folder / ENVIRONMENT, {"code": taken.digest[:_NAME_LENGTH]} | describe(root))


def is_checkout(root: Path = _ROOT) -> bool:
    """Whether the code can be edited where it runs: a clone or an unpacked source, not an installed wheel."""
    return (root / "pyproject.toml").is_file() and (root / "pose.py").is_file()


def code_digest(root: Path = _ROOT) -> str:
    """SHA-256 over the names and contents of the project's files under `root`, hex."""
    digest = hashlib.sha256()
    for file in _code_files(root):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def describe(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Version, revision, Python, machine, packages, and the variables that steer a run; no secrets."""
    packages = {str(part.metadata["Name"]): part.version for part in distributions()}
    return {
        "version": code_version(),
        "revision": git_commit() if root == _ROOT else "",
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        "environment": {
            name: value for name, value in sorted(environ.items()) if _TOLD.fullmatch(name) and not _SECRET.search(name)
        },
    }


def _stored(code: Path, root: Path) -> Path:
    """The folder in `code` that holds what stands in `root` now; made if needed."""
    for _ in range(_ATTEMPTS):
        digest = code_digest(root)
        folder = code / digest[:_NAME_LENGTH]
        if folder.is_dir():
            return folder
        partial = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
        try:
            _copy(root, partial, digest)
            if code_digest(partial) == digest:
                return _renamed(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    raise InputError(f"{root} is being edited; submit again when it rests")


def _copy(root: Path, partial: Path, digest: str) -> None:
    """The code of `root` and what describes it, on the disk."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in _code_files(root):
        copy = partial / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        copy.chmod(0o555 if os.access(file, os.X_OK) else 0o444)
        _sync(copy)
    (partial / CHANGES).write_bytes(_changes(root))
    (partial / SNAPSHOT).write_text(json.dumps({"digest": digest} | describe(root), indent=1) + "\n")
    for name in (CHANGES, SNAPSHOT):
        _sync(partial / name)


def _renamed(partial: Path, folder: Path) -> Path:
    """The finished copy under its name; whoever comes second finds it done."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    sync_folder(folder.parent)
    return folder


def _code_files(root: Path) -> Iterator[Path]:
    """The project's own files, whether git knows them yet or not: what can be imported counts."""
    for name in _FILES:
        if (root / name).is_file():
            yield root / name
    for part in _PARTS:
        for file in sorted((root / part).rglob("*")):
            hidden = any(name.startswith((".", "__pycache__")) for name in file.relative_to(root).parts)
            if file.suffix in _KINDS and file.is_file() and not hidden:
                yield file


def _changes(root: Path) -> bytes:
    """`git diff` of the project's own files against the revision; empty outside a checkout."""
    if (root / SNAPSHOT).is_file():
        return (root / CHANGES).read_bytes()
    command = ["git", "--no-optional-locks", "-C", str(root), "diff", "HEAD", "--no-ext-diff", "--"]
    try:
        done = subprocess.run([*command, *_FILES, *_PARTS], capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
