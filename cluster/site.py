"""What differs from cluster to cluster, as one small profile: `configs/site/*.yaml`. No torch here.

A profile becomes options of `sbatch`, and what a task needs on its node: modules, variables, and the words before
`pose`. Every value is checked against a strict pattern, because modules are loaded by a shell and options pass through
one: no value can hold a space, a quote, or anything that a shell would act on.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import configs
from cluster.config import load
from cluster.snapshot import take_snapshot
from poselib.errors import InputError
from poselib.settings import check_at_least

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]*")
_NAMES: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+&|,-]*")
_MODULE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_PATH: Final = re.compile(r"~?[A-Za-z0-9_./+@-]+")
_TIME: Final = re.compile(r"(\d+-)?\d+(:\d+){0,2}")
_MEMORY: Final = re.compile(r"\d+[KMGT]?")
_INTERFACE: Final = re.compile(r"[\^=]?[A-Za-z0-9_][A-Za-z0-9_.:,-]*")
_VARIABLE: Final = re.compile(r"(CUDA|DALI|DS|GLOO|MLFLOW|NCCL|OMP|TORCH|UCX)_[A-Z0-9_]+=[A-Za-z0-9_./:+@%,^=-]*")


@dataclass(frozen=True)
class Site:
    """A cluster's own ways.

    Attributes:
        partition: to submit to; several with commas.
        account: to charge.
        qos: quality of service.
        constraint: features that nodes must have.
        time: limit of a job, as Slurm writes it: `24:00:00`, `2-00:00:00`.
        memory: of a node, such as `200G`; `0` takes all of it.
        gpus_per_node: GPUs on each node; 0 trains on the CPU.
        gpu_type: such as `a100`, where the site has several.
        gpu_option: how the site wants GPUs asked for: `--gpus-per-node`, or the older `--gres` with counted tasks.
        cpus_per_gpu: cores for each GPU, or for each task where there are no GPUs; 0 leaves it to the site.
        exclusive: have the nodes alone.
        modules: loaded on each node before anything else, in this order.
        venv: the virtual environment with the project; empty takes `.venv` of the folder of submission.
        image: an Apptainer image with the project, instead of `venv`; see slurm/container.def.
        binds: folders that the image shall see, besides home and the folder of submission.
        network_interface: over which ranks talk, such as `ib0`; empty lets NCCL and Gloo choose.
        variables: `NAME=value` for NCCL and the like.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = ""
    memory: str = ""
    gpus_per_node: int = 0
    gpu_type: str = ""
    gpu_option: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    cpus_per_gpu: int = 0
    exclusive: bool = False
    modules: tuple[str, ...] = ()
    venv: Path | None = None
    image: Path | None = None
    binds: tuple[Path, ...] = ()
    network_interface: str = ""
    variables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 0, "gpus_per_node", "cpus_per_gpu")
        patterns = {"partition": _NAMES, "constraint": _NAMES, "time": _TIME, "memory": _MEMORY}
        patterns |= {"network_interface": _INTERFACE} | dict.fromkeys(("account", "qos", "gpu_type"), _NAME)
        for name, pattern in patterns.items():
            _check(name, getattr(self, name), pattern)
        for name, pattern in {"modules": _MODULE, "binds": _PATH, "variables": _VARIABLE}.items():
            for value in getattr(self, name):
                _check(name, str(value) or " ", pattern)
        for name in ("venv", "image"):
            _check(name, str(getattr(self, name) or ""), _PATH)
        if self.venv and self.image:
            raise ValueError("image and venv exclude each other; name one of them")
        if self.gpu_type and not self.gpus_per_node:
            raise ValueError("gpu_type needs gpus_per_node of at least 1")


@dataclass(frozen=True)
class SiteSettings:
    """Print what a site profile means: options for `sbatch`, or what a task needs on its node.

    Attributes:
        site: file of a profile, or the name of one in `configs/site`.
        nodes: of the job.
        show: options of `sbatch` in one line, or lines that slurm/train.sh and tune.sh read on the node.
        snapshot: folder of the run; the code is copied there now, and the job runs that copy.
    """

    site: str = "local"
    nodes: int = 1
    show: Literal["sbatch", "task"] = "sbatch"
    snapshot: Path | None = None

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "nodes")


def print_site(settings: SiteSettings) -> None:
    """`pose site`: one line of options, or a line for each thing that a task needs.

    Raises:
        InputError: no such profile, a wrong value in it, or a path that `sbatch` cannot take.
    """
    path = find_site(settings.site)
    site = load(Site, path)
    if settings.show == "task":
        print("\n".join(task_lines(site)))
        return
    variables = {"POSE_SITE": str(path.absolute()) if settings.site.endswith(".yaml") else settings.site}
    if site.image:
        variables["POSE_IMAGE"] = str(_absolute(site.image))
    if settings.snapshot:
        variables |= take_snapshot(settings.snapshot).environment({})
    print(" ".join([*sbatch_options(site, settings.nodes), export_option(variables)]))


def find_site(name: str) -> Path:
    """The file of a profile; a plain name is one in `configs/site`.

    Raises:
        InputError: there is none.
    """
    packaged = Path(configs.__file__).parent / "site"
    path = Path(name).expanduser() if name.endswith(".yaml") else packaged / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in packaged.glob("*.yaml")))
        raise InputError(f"{path}: no such site profile; give a YAML file, or one of {known}")
    return path


def sbatch_options(site: Site, nodes: int) -> list[str]:
    """Options for `sbatch`, one word each."""
    named = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "time": site.time,
        "mem": site.memory,
    }
    options = [f"--nodes={nodes}", *(f"--{name}={value}" for name, value in named.items() if value)]
    kind = f"{site.gpu_type}:" if site.gpu_type else ""
    if site.gpus_per_node and site.gpu_option == "gres":
        options += [f"--gres=gpu:{kind}{site.gpus_per_node}", f"--ntasks-per-node={site.gpus_per_node}"]
    elif site.gpus_per_node:
        options.append(f"--gpus-per-node={kind}{site.gpus_per_node}")
    if site.cpus_per_gpu:
        per_gpu = site.gpus_per_node and site.gpu_option == "gpus-per-node"
        options.append(f"--cpus-per-{'gpu' if per_gpu else 'task'}={site.cpus_per_gpu}")
    return options + (["--exclusive"] if site.exclusive else [])


def export_option(variables: dict[str, str]) -> str:
    """`--export=ALL,NAME=value,...`: variables that a job gets besides those of the submitting shell.

    Raises:
        InputError: a value holds what this option or a shell would take apart.
    """
    for name, value in variables.items():
        if not re.fullmatch(r"[A-Za-z0-9_./:+@~-]*", value):
            raise InputError(f"{name}: {value!r} cannot pass through sbatch; take a path of letters, digits and ._+@-")
    return ",".join(["--export=ALL", *(f"{name}={value}" for name, value in variables.items())])


def task_environment(site: Site) -> dict[str, str]:
    """Variables of every task; those of `variables` win."""
    environment = {}
    if site.network_interface:
        environment["NCCL_SOCKET_IFNAME"] = site.network_interface
        # NCCL knows "^docker0" and "=ib0"; Gloo takes plain names alone.
        if site.network_interface[0] not in "^=":
            environment["GLOO_SOCKET_IFNAME"] = site.network_interface
    return environment | dict(variable.split("=", 1) for variable in site.variables)


def task_command(site: Site) -> list[str]:
    """The words that call `pose` on a node; none where the profile leaves that to the folder of submission."""
    if site.image:
        binds = [word for folder in site.binds for word in ("--bind", str(_absolute(folder)))]
        gpus = ["--nv"] if site.gpus_per_node else []
        return ["apptainer", "exec", *gpus, *binds, str(_absolute(site.image)), "pose"]
    return [str(_absolute(site.venv) / "bin" / "pose")] if site.venv else []


def setup_lines(site: Site) -> list[str]:
    """Modules and variables as lines of a batch script."""
    loads = [f"module load {module}" for module in site.modules]
    return loads + [f"export {name}={value}" for name, value in task_environment(site).items()]


def task_lines(site: Site) -> list[str]:
    """What slurm/train.sh and tune.sh read: `module NAME`, `set NAME=value`, and a `word` for each word of `pose`."""
    return [
        *(f"module {module}" for module in site.modules),
        *(f"set {name}={value}" for name, value in task_environment(site).items()),
        *(f"word {word}" for word in task_command(site)),
    ]


def _check(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if value and not pattern.fullmatch(value):
        raise ValueError(f"{name} cannot be {value!r}; it has to be like {pattern.pattern}")


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()
