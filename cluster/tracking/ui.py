"""`pose ui`: MLflow's web page over a runs folder, on this machine alone."""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from cluster.tracking.interface import check_free, in_address, is_loopback
from cluster.tracking.settings import UiSettings
from poselib.errors import InputError


def serve(settings: UiSettings) -> NoReturn:
    """`pose ui`."""
    ui(settings.runs_dir, settings.port, settings.host)


def ui(runs_dir: Path, port: int = 5000, host: str = "127.0.0.1") -> NoReturn:
    """Become the MLflow server of a runs folder: prints its address, ends with Ctrl-C.

    Raises:
        InputError: no MLflow store in the folder, the port is taken, or others could reach the page.
    """
    if not is_loopback(host):
        raise InputError(
            f"--host {host} would let everyone on the network change runs, for `pose ui` knows no passwords: leave it"
            " out, or share runs by `pose mlflow`, which asks for name and password"
        )
    runs_dir = Path(runs_dir).resolve()
    if not (runs_dir / "mlflow.db").is_file():
        raise InputError(f"{runs_dir} holds no mlflow.db: give a folder of runs that were delivered to MLflow locally")
    check_free(host, port)
    address = f"http://{in_address(host)}:{port}/{_runs_page(runs_dir / 'mlflow.db')}"
    Console().print(f"MLflow for {runs_dir}: {address} (up in a few seconds; Ctrl-C ends it)", soft_wrap=True)
    sys.stdout.flush()
    os.execve(sys.executable, ui_command(runs_dir, port, host), os.environ | ui_environment())  # noqa: S606


def ui_command(runs_dir: Path, port: int, host: str = "127.0.0.1") -> list[str]:
    """The server's argument list."""
    from sqlalchemy.engine import URL

    store = URL.create("sqlite", database=str(runs_dir / "mlflow.db")).render_as_string()
    artifacts = (runs_dir / "mlflow-artifacts").as_uri()
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", store),
        *("--artifacts-destination", artifacts),
        *("--host", host),
        *("--port", str(port)),
        *("--workers", "1"),
    ]


def ui_environment() -> dict[str, str]:
    """What the server needs beside its arguments: no job runner (it takes a minute to boot), no reports home."""
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def _runs_page(store: Path) -> str:
    """The page of the newest experiment's runs; MLflow's front page shows language models' traces first."""
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
            (newest,) = connection.execute("select max(experiment_id) from experiments").fetchone()
    except sqlite3.Error as error:
        raise InputError(f"{store} is no MLflow store ({error}); give a folder of runs that MLflow knows") from error
    return f"#/experiments/{newest}/runs?workflowType=machine_learning"
