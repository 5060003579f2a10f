"""From a run to a registered, served model over `pose mlflow`: a server with SQLite, artifacts and passwords."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import pose
from cluster.tracking.handle import deliver
from cluster.tracking.journal import Journal
from cluster.tracking.logged_model import WEIGHTS_TAG
from cluster.tracking.settings import TrackingSettings
from cluster.tracking.tables import write_score_tables
from cluster.world import free_port
from mlflow_servers import make_run, stop, wait_for
from poselib.skeleton import H36M_JOINTS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """It says its focal length."""
    path = tmp_path_factory.mktemp("photo") / "a.jpg"
    small = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[41989] = 50
    Image.fromarray(cv2.resize(small, (120, 90), interpolation=cv2.INTER_CUBIC)).save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow") / "100% mine"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="module")
def server(server_folder):
    """`pose mlflow` with passwords; its address is there, and its name and password are in the environment."""
    folder, port = server_folder, free_port()
    command = [sys.executable, "-m", "pose", "mlflow", str(folder), "--port", str(port), "--auth", "basic"]
    log = folder / "server.log"
    with log.open("wb") as stream, pytest.MonkeyPatch.context() as patch:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True, umask=0o022)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            password = (folder / "admin-password").read_text().strip()
            listed = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
            assert password not in listed + log.read_text()
            patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
            patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process)


@pytest.fixture(scope="module")
def registered(run, server) -> str:
    """The address of the run's model in the registry."""
    assert pose.main(["register", str(run), "body pose", "--uri", server]) == 0
    return "models:/body pose/1"


def test_the_server_knows_whom_it_lets_in(server):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server}/api/2.0/mlflow/experiments/get?experiment_id=0")
    with refused.value as answer:
        assert answer.code == 401


def test_what_the_server_keeps_is_the_owners_alone(server, registered, server_folder):
    """The folder was there, and whoever started the server lets others read new files."""
    kept = [path for path in server_folder.rglob("*") if path.name not in ("server.log", "auth.ini")]
    assert {"mlflow.db", "users.db", "admin-password", "model.safetensors"} <= {path.name for path in kept}
    assert not [path for path in kept if path.stat().st_mode & 0o077]


@pytest.fixture
def people(server, monkeypatch) -> dict[str, Callable[[], None]]:
    """Two users beside the administrator, each with what makes the environment theirs."""

    def become(name: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"the word of {name}")

    program = (
        "import sys; from mlflow.server import get_app_client; client = get_app_client('basic-auth', sys.argv[1])\n"
        "for name in sys.argv[2:]: client.create_user(name, f'the word of {name}')\n"
    )
    subprocess.run([sys.executable, "-c", program, server, "ann", "bob"], check=True, timeout=120)
    return {name: partial(become, name) for name in ("ann", "bob")}


def run_of(run: Path, folder: Path) -> Path:
    """Another run with the same weights, delivered into the experiment `team`."""
    folder.mkdir()
    shutil.copy(run / "model.safetensors", folder)
    (folder / "run.yaml").write_text("crop: {aspect: stretch}\ntracking: {experiment: team}\n")
    with Journal(folder) as journal:
        journal.metrics(1, {"train/loss": 1.0})
        journal.status("finished")
    return folder


def test_people_share_an_experiment_and_a_model_and_delete_nothing_of_others(run, server, people, tmp_path, capsys):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    people["ann"]()
    assert pose.main(["register", str(run_of(run, tmp_path / "of ann")), "shared", "--uri", server]) == 0
    people["bob"]()
    bobs = run_of(run, tmp_path / "of bob")
    deliver(bobs, TrackingSettings(uri=server, experiment="team"))
    client = MlflowClient(server)
    experiment_id = client.get_experiment_by_name("team").experiment_id
    runs = {found.info.run_name: found for found in client.search_runs([experiment_id])}
    assert set(runs) == {"of ann", "of bob"}
    # An upload of the weights that was cut short is in bob's way, and deleting is not his to do.
    digest = hashlib.sha256((bobs / "model.safetensors").read_bytes()).hexdigest()
    begun = client.create_logged_model(
        experiment_id, name="pose", source_run_id=runs["of bob"].info.run_id, tags={WEIGHTS_TAG: digest}
    )
    assert pose.main(["register", str(bobs), "shared", "--uri", server]) == 0
    said = capsys.readouterr().out
    assert "shared version 2 registered" in said
    assert said.rstrip().endswith("-m 'models:/shared/2' --port 5001")
    versions = {str(version.version): version for version in client.search_model_versions("name = 'shared'")}
    assert versions["1"].run_id == runs["of ann"].info.run_id
    assert versions["2"].run_id == runs["of bob"].info.run_id
    assert versions["2"].source == begun.artifact_location
    (output,) = client.get_run(runs["of bob"].info.run_id).outputs.model_outputs
    assert output.model_id == begun.model_id
    with pytest.raises(MlflowException, match="Permission denied"):
        client.delete_run(runs["of ann"].info.run_id)
    with pytest.raises(MlflowException, match="Permission denied"):
        client.delete_registered_model("shared")


def test_what_mlflow_holds_of_a_run(run, server, registered, photo, capsys):
    """Sent twice, nothing is there twice: tables, pictures, the model, its version."""
    from mlflow import MlflowClient

    score = {
        "per_joint": dict.fromkeys(H36M_JOINTS, 10.0),
        "mean_pose_per_joint": dict.fromkeys(H36M_JOINTS, 20.0),
        "per_action": {"Sitting": 10.0},
        "mean_pose_per_action": {"Sitting": 20.0},
        "per_action_samples": {"Sitting": 3},
    }
    (run / "val.jpg").write_bytes(photo.read_bytes())
    with Journal(run) as journal:
        for table in write_score_tables(run, "score", score):
            journal.table(table)
        journal.image("val.jpg", "val/samples", 7)
    deliver(run, TrackingSettings(uri=server))
    (run / ".delivered.json").unlink()  # it forgets what it has sent
    assert pose.main(["register", str(run), "body pose", "--uri", server]) == 0
    assert "version 1 was registered before" in capsys.readouterr().out

    client = MlflowClient(server)
    (version,) = client.search_model_versions("name = 'body pose'")
    (found,) = client.search_runs([client.get_experiment_by_name("posecluster").experiment_id])
    assert version.run_id == found.info.run_id
    assert len(client.search_logged_models([found.info.experiment_id])) == 1
    pictures = [one.path for one in client.list_artifacts(found.info.run_id, "images")]
    assert len(pictures) == 2  # one, and its small copy
    assert all("val~samples+step+7" in one for one in pictures)
    table = client.load_table(found.info.experiment_id, "tables/score_per_joint.json", [found.info.run_id])
    assert list(table["joint"]) == list(H36M_JOINTS)
    assert set(table["mpjpe_mm"]) == {10.0}
    shown = [one["path"] for one in json.loads(found.data.tags["mlflow.loggedArtifacts"])]
    assert shown == ["tables/score_per_joint.json", "tables/score_per_action.json"]


def test_the_pyfunc_answers_as_pose_predict_does(run, server, registered, photo, tmp_path, capsys):
    import mlflow

    words = ["predict", str(photo), "--run", str(run), "--box", "[10, 20, 50, 60]", "--out", str(tmp_path)]
    assert pose.main(words) == 0
    (picture,) = json.loads((tmp_path / "poses.json").read_text())["pictures"]
    (expected,) = picture.pop("people")
    mlflow.set_tracking_uri(server)
    model = mlflow.pyfunc.load_model(registered)
    row = {"picture": base64.b64encode(photo.read_bytes()).decode(), "box": [10, 20, 50, 60]}
    (answer,) = model.predict([row]).to_dict("records")
    assert answer.pop("box_from") == "request"
    assert expected.pop("box_from") == "option"
    same = {key: picture[key] for key in ("width", "height", "focal_px", "focal_from")}
    assert answer == expected | same
    assert answer["focal_from"] == "exif"
    folder = Path(mlflow.artifacts.download_artifacts(registered, dst_path=str(tmp_path / "model")))
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "model.safetensors", "model_code.py", "input_example.json"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin"))]
    assert model.metadata.signature.inputs.required_input_names() == ["picture"]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["RUN", "a/b"], 2, "name must be of letters"),
        (["nowhere", "a"], 1, "nowhere is no run"),
        (["UNTRAINED", "a"], 1, "has not saved a model yet"),
        (["RUN", "a", "--uri", "http://127.0.0.1:9", "--timeout_s", "0.1"], 1, "nothing is lost"),
    ],
)
def test_mistakes_are_one_line(words, code, line, run, tmp_path, capsys):
    with Journal(tmp_path):
        (tmp_path / "run.yaml").write_text("epochs: 3\n")
    places = {"RUN": str(run), "UNTRAINED": str(tmp_path)}
    assert pose.main(["register", *(places.get(word, word) for word in words)]) == code
    said = capsys.readouterr().err.strip()
    assert said.startswith("pose register: ")
    assert line in said
    assert "\n" not in said


@pytest.fixture(scope="module")
def served(registered, server, tmp_path_factory):
    """The address of `mlflow models serve` on the registered model."""
    log, port = tmp_path_factory.mktemp("serve") / "serve.log", free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", registered, "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=os.environ | {"MLFLOW_TRACKING_URI": server, "PATH": path},
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", process, log)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            stop(process)


def ask(url: str, body: bytes) -> tuple[int, str]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.drill
def test_a_served_model_says_what_is_wrong_and_lives_on(served, photo, tmp_path):
    good = base64.b64encode(photo.read_bytes()).decode()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    huge = base64.b64encode((tmp_path / "huge.png").read_bytes()).decode()
    bad = {
        "is no picture": [{"picture": base64.b64encode(b"text").decode()}],
        "is no base64": [{"picture": "%%%"}],
        "missing inputs ['picture']": [{"photo": good}],
        "more than the 64000000 pixels": [{"picture": huge}],
        "is empty or no text": [{"picture": good}, {"picture": None}],
        "is empty, 0 bytes": [{"picture": "data:image/png;base64,"}],
        "row 0: box must be": [{"picture": good, "box": [1, 2]}],
        "lies outside the picture": [{"picture": good, "box": [1000, 0, 50, 50]}],
    }
    for reason, rows in bad.items():
        code, text = ask(served, json.dumps({"dataframe_records": rows}).encode())
        assert code == 400, text
        assert reason in text or "far " + reason in text
    for body in (b"{", b"{}", b"[]", json.dumps({"dataframe_records": [{"picture": 7}]}).encode()):
        assert ask(served, body)[0] == 400
    rows = [{"picture": good}, {"picture": f"data:image/jpeg;base64,{good}", "box": [10, 20, 50, 60]}]
    request = {"dataframe_records": rows, "params": {"root_depth_mm": 4000.0}}
    code, text = ask(served, json.dumps(request).encode())
    assert code == 200, text
    whole, boxed = json.loads(text)["predictions"]
    assert np.shape(whole["joints_mm"]) == np.shape(boxed["camera_mm"]) == (17, 3)
    assert whole["box"] == [0, 0, 120, 90]
    assert whole["root_depth_mm"] == boxed["root_depth_mm"] == 4000
