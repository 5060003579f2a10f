"""`pose mlflow`: an MLflow server for a cluster. Secrets live in files of the owner's, never in arguments or logs."""

import os
import secrets
import socket
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

from rich.console import Console

from cluster.tracking.interface import check_free, in_address, is_loopback
from cluster.tracking.settings import ServerSettings
from cluster.tracking.ui import ui_environment
from poselib.errors import InputError
from shards.atomic import write_whole

ADMIN: Final = "admin"
PASSWORD: Final = "admin-password"  # noqa: S105
SECRET_KEY: Final = "secret-key"  # noqa: S105
_SHORTEST: Final = 12
_EVERYONE_MAY: Final = "EDIT"
"""In what others have made: adding runs to an experiment and versions to a model needs it; deleting needs MANAGE."""
_KNOWN: Final = ("password1234", "password", "admin")
"""What MLflow once shipped as the admin's password, and what people put there first."""


def serve(settings: ServerSettings) -> NoReturn:
    """`pose mlflow`: become the server; it ends with Ctrl-C or the job.

    Raises:
        InputError: the port is taken, a secret can be read by others or is too weak, or a package is missing.
    """
    check_free(settings.host, settings.port)
    folder = settings.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    asks = asks_for_password(settings)
    environment = os.environ | ui_environment() | server_environment(settings, folder, asks)
    console = Console()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    say(f"MLflow on {folder}: http://{in_address(settings.host)}:{settings.port} (up in a few seconds; Ctrl-C ends it)")
    if asks:
        say(f"it asks for name and password; those of the administrator: {ADMIN}, and what {folder / PASSWORD} holds")
    sys.stdout.flush()
    os.umask(0o077)  # databases and artifacts are the owner's alone, also in a folder that was there before
    os.execve(sys.executable, server_command(settings, folder, asks), environment)  # noqa: S606


def asks_for_password(settings: ServerSettings) -> bool:
    """Whether the server asks for name and password.

    Raises:
        InputError: MLflow's package for it is missing, or others could reach the server without.
    """
    loopback = is_loopback(settings.host)
    if settings.auth == "none" and not loopback:
        raise InputError(
            f"--auth none on {settings.host} would let everyone on the network change runs and models: leave it out, or"
            " listen on 127.0.0.1"
        )
    asks = settings.auth == "basic" or (settings.auth == "auto" and not loopback)
    if asks and find_spec("flask_wtf") is None:
        raise InputError("asking for passwords needs Flask-WTF: pip install -c constraints.txt -e '.[server]'")
    return asks


def server_command(settings: ServerSettings, folder: Path, asks: bool) -> list[str]:
    """The server's argument list; the database's address, which may hold a password, is not in it."""
    workers = settings.workers or (4 if settings.store_file else 1)
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--artifacts-destination", (folder / "artifacts").as_uri()),
        *("--host", settings.host),
        *("--port", str(settings.port)),
        *("--workers", str(workers)),
        *("--allowed-hosts", ",".join(_names(settings))),
        *(("--app-name", "basic-auth") if asks else ()),
    ]


def server_environment(settings: ServerSettings, folder: Path, asks: bool) -> dict[str, str]:
    """What the server gets beside its arguments: the database, the artifacts, and, if it asks, its secrets."""
    found = {"MLFLOW_BACKEND_STORE_URI": _store(settings, folder)}
    if not asks:
        return found
    config = folder / "auth.ini"
    users = f"sqlite:///{folder / 'users.db'}".replace("%", "%%")
    text = (
        f"[mlflow]\ndefault_permission = {_EVERYONE_MAY}\ndatabase_uri = {users}\nadmin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    write_whole(config, text.encode())
    password = secret(folder / PASSWORD)
    if len(password) < _SHORTEST or password.lower() in _KNOWN:
        raise InputError(f"{folder / PASSWORD} holds a known or short password: at least {_SHORTEST} characters")
    return found | {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret(folder / SECRET_KEY),
    }


def secret(path: Path) -> str:
    """What a file of the owner's holds; a random text is put there where there is no such file.

    Raises:
        InputError: others can read it, or it is empty.
    """
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            file.write(secrets.token_urlsafe(24) + "\n")
    except FileExistsError:
        pass
    return read_private(path)


def read_private(path: Path) -> str:
    """A file's first line, if nobody else can read it.

    Raises:
        InputError: missing, empty, or readable by others.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise InputError(f"{path} can be read by others: chmod 600 {path}")
    if not text:
        raise InputError(f"{path} is empty: write the secret into it, or remove it")
    return text.splitlines()[0]


def _store(settings: ServerSettings, folder: Path) -> str:
    if settings.store_file is None:
        from sqlalchemy.engine import URL

        return URL.create("sqlite", database=str(folder / "mlflow.db")).render_as_string()
    uri = read_private(settings.store_file)
    driver = uri.partition("://")[0]
    if driver.partition("+")[0] not in ("postgresql", "sqlite"):
        raise InputError(
            f"{settings.store_file} must hold an address as postgresql+psycopg://user:password@host/database"
        )
    if driver == "postgresql+psycopg" and find_spec("psycopg") is None:
        raise InputError("PostgreSQL needs psycopg: pip install -c constraints.txt -e '.[server]'")
    return uri


def _names(settings: ServerSettings) -> list[str]:
    """Every name that a browser or a training may call the server by; MLflow answers to no others."""
    own = {settings.host, *settings.names, "localhost", "127.0.0.1"}
    if not is_loopback(settings.host):
        own |= {socket.gethostname(), socket.getfqdn()}
    shown = sorted(in_address(name) for name in own)
    return [*shown, *(f"{name}:{settings.port}" for name in shown)]
