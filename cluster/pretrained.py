"""Files of a backbone's first weights: where they lie, how they come here, and what stands in them.

They are looked for in torch hub's cache (`TORCH_HOME`, else ~/.cache/torch) under their own names, so torch hub and
torchvision find what is downloaded here, and the other way round.
"""

import hashlib
import http.client
import pickle
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file

from cluster.settings_weights import IMAGENET, name_in_url, sha256_in_name
from poselib.errors import InputError
from poselib.settings import Backbone
from shards.atomic import written_whole

_SITE: Final = "https://download.pytorch.org/models/"
_TIMEOUT_S: Final = 30
_BLOCK: Final = 2**20
_NETWORK: Final = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def find_weights(weights: str, backbone: Backbone, sha256: str = "") -> tuple[Path, str]:
    """The file that `weights` names, downloaded where it is a URL, and its SHA-256.

    Args:
        weights: `imagenet`, a file or a URL.
        backbone: whose ImageNet weights.
        sha256: first digits that the hash must have; without them those in a URL's or torchvision's file name count.

    Raises:
        InputError: no such file, no network (it says what to put where), or another hash.
    """
    url = _SITE + IMAGENET[backbone] if weights == "imagenet" else weights if "://" in weights else ""
    path = _cached(url, sha256.lower()) if url else Path(weights)
    named = sha256_in_name(path.name) if url or path.name.startswith("resnet") else ""
    wanted = sha256.lower() or named
    if url and not path.is_file():
        return path, _download(url, path, wanted)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"weights {path} cannot be read ({error.strerror}); give a file, a URL or imagenet") from error
    if not digest.startswith(wanted):
        hint = f"remove it, and {url} is downloaded anew" if url else "it is damaged or another file"
        raise InputError(f"{path} has the SHA-256 {digest[: len(wanted)]}, not {wanted}; {hint}")
    return path, digest


def _cached(url: str, sha256: str) -> Path:
    """Where the file of a URL lies in the cache: under its own name, with digits of its hash if it brings none.

    Without them the many files called `model.safetensors` would be one.
    """
    name = Path(name_in_url(url))
    if not sha256_in_name(name.name):
        name = name.with_stem(f"{name.stem}-{sha256[:8]}")
    return Path(torch.hub.get_dir(), "checkpoints", name)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weight file by name; nothing in it is executed.

    A `state_dict` inside is found, and the `module.` that torch's wrappers put before every name is dropped.

    Raises:
        InputError: damaged, or with content that is more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = "Unsupported" in str(error) or "Weights only load failed" in str(error)
        reason = "holds more than tensors" if refused else "is no weight file"
        raise InputError(f"{path} {reason} and is refused; take .safetensors, or a .pth of tensors alone") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged or no weight file: {' '.join(str(error).split())[:150]}") from error
    return _tensors(content, path)


def _tensors(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The named tensors in what a checkpoint holds."""
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content or not all(map(torch.is_tensor, content.values())):
        raise InputError(f"{path} holds no tensors by name; a state dict is needed")
    prefix = "module." if all(str(name).startswith("module.") for name in content) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in content.items()}


def _download(url: str, path: Path, wanted: str) -> str:
    """Fetch a file into the cache, whole and of the wanted hash or not at all; returns its SHA-256."""
    by_hand = f"download it elsewhere and put it at {path}, or give a file as weights"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        request = urllib.request.Request(url, headers={"User-Agent": "posecluster"})  # noqa: S310 -- http(s) alone
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, written_whole(path) as file:  # noqa: S310
            size = int(answer.headers.get("Content-Length") or 0)
            digest = hashlib.sha256()
            with _progress() as progress:
                if progress.disable:
                    print(f"downloading {url} to {path}", file=sys.stderr, flush=True)
                task = progress.add_task(path.name, total=size or None)
                while block := answer.read(_BLOCK):
                    file.write(block)
                    digest.update(block)
                    progress.advance(task, len(block))
            if size and file.tell() != size:
                raise InputError(f"{url} broke off after {file.tell()} of {size} bytes; start again, or {by_hand}")
            if not digest.hexdigest().startswith(wanted):
                found = digest.hexdigest()[: len(wanted)]
                raise InputError(f"{url} gave a file with the SHA-256 {found}, not {wanted}; nothing was kept")
    except urllib.error.HTTPError as error:
        error.close()
        raise InputError(f"{url} answers {error.code} {error.reason}; {by_hand}") from error
    except _NETWORK as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{url} cannot be reached ({reason}); {by_hand}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); set TORCH_HOME to a folder that can") from error
    return digest.hexdigest()


def _progress() -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
