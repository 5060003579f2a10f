"""Who may come in to `pose mlflow`, and where its secrets are."""

import stat

import pytest

import pose
from cluster.tracking.server import asks_for_password, secret, server_command, server_environment
from cluster.tracking.settings import ServerSettings
from poselib.errors import InputError

pytestmark = pytest.mark.unit


def test_loopback_needs_no_password_and_other_interfaces_do(tmp_path, monkeypatch):
    assert not asks_for_password(ServerSettings(tmp_path))
    assert not asks_for_password(ServerSettings(tmp_path, host="localhost"))
    assert asks_for_password(ServerSettings(tmp_path, auth="basic"))
    assert asks_for_password(ServerSettings(tmp_path, host="192.0.2.1"))
    with pytest.raises(InputError, match="--auth none on 192"):
        asks_for_password(ServerSettings(tmp_path, host="192.0.2.1", auth="none"))
    monkeypatch.setattr("cluster.tracking.server.find_spec", lambda name: None)
    with pytest.raises(InputError, match="Flask-WTF"):
        asks_for_password(ServerSettings(tmp_path, auth="basic"))


def test_secrets_are_made_once_for_the_owner_alone(tmp_path):
    first = server_environment(ServerSettings(tmp_path), tmp_path, True)
    assert server_environment(ServerSettings(tmp_path), tmp_path, True) == first
    password, key = first["MLFLOW_AUTH_ADMIN_PASSWORD"], first["MLFLOW_FLASK_SERVER_SECRET_KEY"]
    assert len({password, key}) == 2
    assert min(len(password), len(key)) >= 32
    for name in ("admin-password", "secret-key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert password not in (tmp_path / "auth.ini").read_text()
    words = server_command(ServerSettings(tmp_path), tmp_path, True)
    assert not [word for word in words if password in word or key in word]
    assert words[words.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize("known", ["password1234", "PASSWORD1234", "short", ""])
def test_a_weak_password_is_refused(known, tmp_path):
    (tmp_path / "admin-password").touch(mode=0o600)
    (tmp_path / "admin-password").write_text(known + "\n")
    with pytest.raises(InputError, match=r"admin-password (holds a known or short|is empty)"):
        server_environment(ServerSettings(tmp_path), tmp_path, True)


def test_files_that_others_can_read_are_refused(tmp_path):
    store = tmp_path / "store"
    store.write_text("postgresql+psycopg://mlflow:hidden@db/mlflow\n")
    store.chmod(0o640)
    settings = ServerSettings(tmp_path, store_file=store)
    with pytest.raises(InputError, match=f"chmod 600 {store}") as refused:
        server_environment(settings, tmp_path, False)
    assert "hidden" not in str(refused.value)
    store.chmod(0o600)
    found = server_environment(settings, tmp_path, False)
    assert found == {"MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg://mlflow:hidden@db/mlflow"}
    words = server_command(settings, tmp_path, False)
    assert "hidden" not in " ".join(words)
    assert words[words.index("--workers") + 1] == "4"
    (tmp_path / "key").write_text("x\n")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(InputError, match="can be read by others"):
        secret(tmp_path / "key")


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--host", "0.0.0.0"], 2, "host must name one interface"),
        (["--port", "0"], 2, "port must lie in"),
        (["--host", "192.0.2.1", "--auth", "none"], 1, "192.0.2.1"),
        (["--store_file", "nowhere"], 1, "nowhere cannot be read"),
    ],
)
def test_mistakes_are_one_line(words, code, line, tmp_path, capsys):
    assert pose.main(["mlflow", str(tmp_path / "x"), *words]) == code
    said = capsys.readouterr().err.strip()
    assert said.startswith("pose mlflow: ")
    assert line in said
    assert "\n" not in said


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_pose_ui_without_passwords_stays_on_this_machine(host, tmp_path, capsys):
    (tmp_path / "mlflow.db").touch()
    assert pose.main(["ui", "--runs_dir", str(tmp_path), "--host", host]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"pose ui: --host {host} would let everyone")
    assert "pose mlflow" in said
    assert "\n" not in said
