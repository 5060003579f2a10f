"""What a trial sets aside, held against what the cluster has. No Ray here."""

from collections.abc import Mapping, Sequence

from poselib.errors import InputError
from tune.settings import SearchSettings, TuneSettings

Node = Mapping[str, float]
"""What Ray counts on a node: `CPU`, and `GPU` where there are some."""


def check_resources(settings: TuneSettings, nodes: Sequence[Node]) -> None:
    """Refuse a search of whose trials none could ever start, or all would share one GPU unasked.

    Ray would wait for ever, in case nodes were still to come.

    Args:
        settings: of the search.
        nodes: of the cluster, those that are up.

    Raises:
        InputError: with what a trial takes, what there is, and how the search goes on with other limits.
    """
    search, go_on = settings.search, f"`pose tune --resume {settings.name}{settings.elsewhere}"
    gpus = sum(node.get("GPU", 0) for node in nodes)
    if gpus and not search.gpus and settings.engine.device != "cpu":
        raise InputError(
            f"search.gpus is 0, but the cluster has {_count(gpus, 'GPU')}: all trials would train on the same one;"
            f" go on with {go_on} --search.gpus 1`, a fraction to share, or a new search with --engine.device cpu"
        )
    if sum(_holds(search, node) for node in nodes) < search.nodes:
        gpu = f"{_count(search.gpus, 'GPU')} and " if search.gpus else ""
        each = f" on each of {search.nodes} nodes" if search.nodes > 1 else ""
        there = "; ".join(sorted(f"{_count(node.get('CPU', 0), 'core')}, {_gpus(node)}" for node in nodes))
        raise InputError(
            f"a trial takes {gpu}{_count(search.cpus, 'core')}{each}, the cluster has {_count(len(nodes), 'node')} with"
            f" {there}; go on with {go_on} --search.gpus {min(search.gpus, gpus):g} --search.cpus 1`, say"
        )


def _holds(search: SearchSettings, node: Node) -> bool:
    """Whether a trial, or its share of one node, finds a place when the node is free."""
    return node.get("CPU", 0) >= search.cpus and node.get("GPU", 0) >= search.gpus


def _gpus(node: Node) -> str:
    return _count(node.get("GPU", 0), "GPU")


def _count(number: float, name: str) -> str:
    return f"{number:g} {name}{'' if number == 1 else 's'}"
