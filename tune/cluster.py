"""Ray: started on this machine or joined, and the trials handed to it."""

import logging
import math
import os
import secrets
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poselib.errors import InputError
from tune.configuration import mutable
from tune.resources import check_resources
from tune.settings import SearchSettings, TuneSettings
from tune.space import Choice, Space, list_domain

if TYPE_CHECKING:
    from tune.search import Search

_LOOPBACK: Final = "127.0.0.1"
_OBJECT_STORE: Final = 100 * 2**20
"""Bytes; trials exchange numbers alone."""
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are the driver's own
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # with `verbose=0`: none at all
    "RAY_memory_monitor_refresh_ms": "0",  # it would end a watcher of no weight; the kernel ends the training that grew
}
"""What Ray reads when it is imported: no reports home, no working folders, loggers and ends of its own."""
_CLUSTER_ALLOWED: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0 it keeps Ray from replacing 127.0.0.1 by the machine's own address; despite its name, on Linux too."""


def run_trials(search: "Search", count: int) -> None:
    """Run up to `count` trials, those of an earlier start first; returns when all have ended or the search is over."""
    os.environ |= environment()
    import ray
    from ray import tune

    from tune.events import Events
    from tune.population import Population
    from tune.searcher import SearchOver, SpaceSearcher
    from tune.trial import Trial

    settings = search.settings
    start_ray(settings)

    def is_over() -> bool:
        search.stop.listen()  # Ray and Tune put handlers of their own in its place, which leave trials as they are
        return search.is_over()

    try:
        check_resources(settings, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        for name in ("ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # how trials end, the driver says itself
        wanted = settings.search
        searcher = SpaceSearcher(search.space, wanted, search.folder, is_over, search.on_change)
        with_checkpoints = wanted.scheduler == "pbt"
        tuner = tune.Tuner(
            tune.with_resources(Trial, _resources(wanted)),
            tune_config=tune.TuneConfig(
                search_alg=Population(searcher) if with_checkpoints else searcher,
                scheduler=_SCHEDULERS[wanted.scheduler](settings, search.space),
                num_samples=count,
                max_concurrent_trials=None if with_checkpoints else wanted.parallel or None,
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(_empty(search.folder / "ray")),
                stop=SearchOver(is_over),
                callbacks=[Events(searcher)],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=wanted.retries),
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=1 if with_checkpoints else 0,
                    num_to_keep=None,  # a few bytes each, and one may be asked for after many validations of its trial
                    checkpoint_at_end=False,
                ),
            ),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Consider boosting PBT performance", UserWarning)
            tuner.fit()
        search.await_trials()
    finally:
        ray.shutdown()


def _resources(wanted: SearchSettings) -> Any:
    """What a trial sets aside: on several nodes a bundle for each, and nothing for the trial that only watches."""
    from ray import tune

    if wanted.nodes == 1:
        return {"cpu": wanted.cpus, "gpu": wanted.gpus}
    bundle = {"CPU": wanted.cpus} | ({"GPU": wanted.gpus} if wanted.gpus else {})
    return tune.PlacementGroupFactory([{}] + [bundle] * wanted.nodes, strategy="SPREAD")


def environment() -> dict[str, str]:
    """What Ray shall find; one that starts here listens on the loopback alone, and to this search alone."""
    if os.environ.get("RAY_ADDRESS"):
        return _ENVIRONMENT
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return _ENVIRONMENT | token | {_CLUSTER_ALLOWED: "0"}


def start_ray(settings: TuneSettings) -> None:
    """Join the Ray cluster that RAY_ADDRESS names, or start one on this machine's loopback."""
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
        return
    cores = len(os.sched_getaffinity(0))
    ray.init(
        "local",  # even where another cluster runs on this machine
        num_cpus=max(cores, math.ceil(settings.search.cpus)),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _node_ip_address=_LOOPBACK,
    )
    found = ray.util.get_node_ip_address()
    if found != _LOOPBACK:
        raise InputError(f"Ray would listen on {found} instead of {_LOOPBACK}; it was imported before the search began")


def _no_scheduler(settings: TuneSettings, space: Space) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    return FIFOScheduler()


def _asha(settings: TuneSettings, space: Space) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    from tune.trial import ray_name

    search = settings.search
    return ASHAScheduler(
        time_attr="epochs",
        metric=ray_name(search.metrics[0]),
        mode=search.modes[0],
        max_t=settings.epochs,
        grace_period=min(search.grace_epochs, settings.epochs),
        reduction_factor=search.reduction,
    )


def _pbt(settings: TuneSettings, space: Space) -> Any:
    from ray import tune

    from tune.population import Together
    from tune.trial import ray_name

    search, domains = settings.search, mutable(space)

    def keep_within(config: dict[str, Any]) -> dict[str, Any]:
        """PBT multiplies; what leaves its range comes back to the end."""
        values = {
            key: value if isinstance(domains[key], Choice) else domains[key].clip(value)  # type: ignore[union-attr]
            for key, value in config["values"].items()
        }
        return config | {"values": values}

    mutations: dict[str, Any] = {}
    for key, domain in domains.items():
        if isinstance(domain, Choice) or domain.step:
            mutations[key] = list_domain(domain)
        elif domain.whole:
            mutations[key] = (tune.lograndint if domain.log else tune.randint)(int(domain.low), int(domain.high) + 1)
        else:
            mutations[key] = (tune.loguniform if domain.log else tune.uniform)(domain.low, domain.high)
    return Together(
        time_attr="epochs",
        metric=ray_name(search.metrics[0]),
        mode=search.modes[0],
        perturbation_interval=search.perturb_epochs,
        hyperparam_mutations={"values": mutations},
        custom_explore_fn=keep_within,
    )


_SCHEDULERS: Final = {"none": _no_scheduler, "asha": _asha, "pbt": _pbt}


def _empty(folder: Path) -> Path:
    """A folder for what Ray writes; nothing in it outlives a start."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
