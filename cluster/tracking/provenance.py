"""Which code, of which version, made a result."""

import getpass
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from cluster.tracking.files import read_json

SNAPSHOT: Final = "snapshot.json"
"""Beside the packages of a snapshot: what it was made from."""

_HERE: Final = Path(__file__).resolve().parent


def code_version() -> str:
    """The package's version, with the git revision where it runs from a checkout: `0.1.0+1a2b3c4d5e6f-dirty`."""
    try:
        number = version("posecluster")
    except PackageNotFoundError:
        number = "unknown"
    commit = git_commit()
    short = commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")
    return f"{number}+{short}" if commit else number


def git_commit() -> str:
    """The checkout's revision, with `-dirty` behind it if tracked files are changed; empty outside a checkout.

    In a snapshot it is the revision that the snapshot was made from.
    """
    taken_from = read_json(_HERE.parents[1] / SNAPSHOT).get("revision", "")
    if taken_from:
        return str(taken_from)
    # A virtual environment inside somebody's own repository is no checkout of this package: ask whether git knows it.
    if not _git("ls-files", "--error-unmatch", Path(__file__).name):
        return ""
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def provenance_tags(run_dir: Path, description: str = "") -> dict[str, str]:
    """What the tracker shows beside a run; `description` is Markdown, such as the protocol card."""
    tags = {"posecluster.version": code_version(), "posecluster.run_dir": str(Path(run_dir).resolve())}
    tags |= {"mlflow.source.name": "pose", "mlflow.source.type": "LOCAL"}
    with suppress(KeyError, OSError):  # a container may know nobody by this number
        tags["mlflow.user"] = getpass.getuser()
    commit = git_commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    if description:
        tags["mlflow.note.content"] = description
    return tags


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(_HERE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
