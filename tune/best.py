"""`pose tune best`: the best trial of a search as a YAML for `pose train`."""

import sys
from dataclasses import replace

from cluster.config import dump, load
from cluster.run_folder import RUN_YAML
from cluster.settings import Run
from poselib.errors import InputError
from tune.configuration import trial_run
from tune.earlier import load_search
from tune.records import read_trials
from tune.search import best_trial
from tune.settings import BestSettings
from tune.space import label


def print_best(settings: BestSettings) -> None:
    """`pose tune best`: the YAML on standard output, with where it comes from as a comment.

    Raises:
        InputError: no such search or metric, or no trial with a score.
    """
    tune = load_search(settings.runs_dir, settings.name)
    metric = settings.metric or tune.search.metrics[0]
    if metric not in tune.search.metrics:
        raise InputError(f"{settings.name} was not searched by {metric}, but by {', '.join(tune.search.metrics)}")
    records = read_trials(settings.runs_dir / settings.name)
    best = best_trial(records, tune.search, metric)
    if best is None:
        raise InputError(f"{settings.name} has no trial with a score yet")
    run = trial_run(tune, best.scored_values, best.name)
    started = run.folder / RUN_YAML
    if started.is_file():  # the batch of its ranks, whatever ranks train with it next
        run = replace(run, batch=replace(run.batch, global_=load(Run, started).batch.global_))
    run = replace(run, name=f"{settings.name}-best", runs_dir=settings.runs_dir, tracking=tune.tracking)
    scores = ", ".join(f"{name} {value:.6g}" for name, value in best.scores.items())
    chosen = ", ".join(f"{key} {label(value)}" for key, value in best.scored_values.items())
    changed = best.scored_values != best.values
    way = "\n# They were changed later; these were in force at the best score." if changed else ""
    sys.stdout.write(f"# Trial {best.name} of {settings.name}, the best of {len(records)}: {scores}\n# {chosen}{way}\n")
    sys.stdout.write(dump(run))
