"""slurm/mlflow.sh on PostgreSQL: a throw-away database with a password, several server processes, a run, its model."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pose
from cluster.tracking.delivery import STATE_NAME
from cluster.tracking.journal import Journal
from cluster.world import free_port
from mlflow_servers import make_run, stop, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).parents[2] / "slurm" / "mlflow.sh"
PASSWORD = "only-in-a-file"


def programs() -> Path:
    """Where the newest of PostgreSQL's own programs are; Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    program = str(found[-1]) if found else shutil.which("initdb")
    if program is None:
        pytest.skip("needs PostgreSQL, which tests/setup.sh installs")
    return Path(program).parent


def as_someone() -> list[str]:
    """PostgreSQL refuses to run as root."""
    who = ["--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *who, "--pdeathsig=KILL"]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database, on loopback, of a user with a password."""
    here, port = programs(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="pose-postgres-"))  # pytest's own folders are closed to other users
    word = folder / "word"
    word.write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, word):
            shutil.chown(path, "postgres", "postgres")
    words = ("-D", folder / "data", "-U", "mlflow", "-A", "scram-sha-256", "--pwfile", word, "--no-sync", "-E", "UTF8")
    subprocess.run([*as_someone(), here / "initdb", *words], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    options = ("-F", "-h", "127.0.0.1", "-p", str(port), "-k", "")
    command = [*as_someone(), here / "postgres", "-D", folder / "data", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        server = ("-h", "127.0.0.1", "-p", str(port), "-U", "mlflow")
        make = [here / "createdb", *server, "mlflow"]
        while subprocess.run(make, env=os.environ | {"PGPASSWORD": PASSWORD}, capture_output=True).returncode:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"postgresql+psycopg://mlflow:{PASSWORD}@127.0.0.1:{port}/mlflow"
    finally:
        process.send_signal(signal.SIGINT)  # do not wait for those who are connected
        process.wait(60)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(database, tmp_path_factory) -> Iterator[str]:
    """The address of the MLflow server on it, started as on a node for services."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    store = folder / "store"
    store.touch(mode=0o600)
    store.write_text(f"{database}\n")
    log = folder / "server.log"
    command = ["bash", SCRIPT, folder, "--port", str(port), "--store_file", store, "--workers", "2"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True, env=outside)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            listed = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
            assert "mlflow\0server" in listed, "the script has not become the server"
            assert PASSWORD not in listed
            yield f"http://127.0.0.1:{port}"
            assert PASSWORD not in log.read_text()
        finally:
            stop(process)
    assert not (folder / "mlflow.db").exists()


def rows(database: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        return connection.execute(sql).fetchall()


def test_a_run_sent_twice_is_there_once_and_its_model_is_registered(database, server, tmp_path, capsys):
    run = make_run(tmp_path / "small")
    with Journal(run) as journal:
        for step in range(2, 1500):
            journal.metrics(step, {"train/loss": float("nan") if step == 7 else 1 / step})
    for said in ("version 1 registered", "version 1 was registered before"):
        assert pose.main(["register", str(run), "pose", "--uri", server]) == 0
        assert said in capsys.readouterr().out
        (run / STATE_NAME).unlink()  # it forgets what it has sent
    assert rows(database, "select name, status from runs") == [("small", "FINISHED")]
    assert rows(database, "select count(*), count(distinct step) from metrics where key = 'train/loss'") == [
        (1499, 1499)
    ]
    assert rows(database, "select step from metrics where is_nan") == [(7,)]
    assert rows(database, "select key, value from params") == [("model.backbone", "resnet10")]
    assert rows(database, "select name, version from model_versions") == [("pose", 1)]
    assert rows(database, "select count(*) from logged_models") == [(1,)]
