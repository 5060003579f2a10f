"""`pose study report-tables`: the report's tables, trained anew, and its figures beside what comes out."""

import shlex
from dataclasses import fields, replace

from rich.console import Console

from cluster.job_records import read_records
from cluster.job_states import read_states
from cluster.run_folder import held
from cluster.settings import Run
from cluster.settings_submit import RunJobSettings, SubmitEvalSettings, SubmitTrainSettings
from poselib.errors import InputError
from tune.settings_study import ReportTablesSettings
from tune.study_cases import Case, all_cases, asked_for, read_result, unfinished
from tune.study_here import at_once, train_here
from tune.study_pages import path_of, write_pages
from tune.study_run import tag
from tune.study_tables import read_study


def report_tables(settings: ReportTablesSettings) -> None:
    """Train what is missing of the tables, and write `tables.md` and `tables.html`.

    Raises:
        InputError: a folder holds other settings, or a training failed; what is done stays.
    """
    cases = all_cases(settings)
    missing = list(unfinished(asked_for(settings, cases), settings.seeds))
    if settings.dry_run:
        _tell(settings, cases, missing)
        return
    failures: list[str] = []
    settings.folder.mkdir(parents=True, exist_ok=True)
    try:
        if settings.submit:
            _submit(settings, missing)
        elif missing and not settings.collect:
            with held(settings.folder):
                failures = train_here(settings, missing)
    finally:
        write_pages(settings, read_study(cases))
    if failures:
        raise InputError(
            f"{len(failures)} of {len(missing)} trainings failed, first {failures[0]}; the others stand in"
            f" {path_of(settings)}; run the same command again to try once more"
        )
    left = len(list(unfinished(asked_for(settings, cases), settings.seeds)))
    how = "run it with --collect true when the jobs have ended" if settings.submit else "run the same command to go on"
    after = f"; {left} trainings are still to be done: {how}" if left else ""
    here = bool(missing) and not settings.submit and not settings.collect
    trained = f"; {len(missing) - left} trained, {at_once(settings, missing)} at the same time" if here else ""
    _say(Console(), f"tables: {path_of(settings)}{trained}{after}; next: pose ui --runs_dir {settings.folder}")


def _submit(settings: ReportTablesSettings, missing: list[tuple[Case, int]]) -> None:
    """Hand what is neither done nor on its way to Slurm: the seeds of a row as one array, and scores that are due."""
    from cluster.submit_eval import submit_eval
    from cluster.submit_train import submit_train

    job, busy = _job(settings), _busy(settings)
    seeds: dict[tuple[str, ...], list[int]] = {}
    cases = {case.rows: case for case, _ in missing}
    for case, seed in missing:
        run = case.of_seed(seed)
        if str(run.folder.absolute()) in busy:
            continue
        if read_result(case, seed).trained:
            submit_eval(SubmitEvalSettings(run=run.folder, site=settings.site, job=replace(job, nodes=1, ranks=0)))
        else:
            seeds.setdefault(case.rows, []).append(seed)
    for rows, chosen in seeds.items():
        case = cases[rows]
        for seed in chosen:
            tag(case, case.of_seed(seed), settings.study, settings.scale)
        values = {entry.name: getattr(case.run, entry.name) for entry in fields(Run)}
        submit_train(SubmitTrainSettings(**values, seeds=tuple(chosen), site=settings.site, job=job))


def _job(settings: ReportTablesSettings) -> RunJobSettings:
    """What a training asks for; its logs lie in the study."""
    unset = settings.job.folder == RunJobSettings().folder
    return replace(settings.job, folder=settings.folder / "jobs") if unset else settings.job


def _busy(settings: ReportTablesSettings) -> set[str]:
    """Folders of runs whose jobs wait or run."""
    folder = _job(settings).folder
    records = read_records(folder) if folder.is_dir() else []
    states = read_states(records)
    return {record.run for record in records if not states[record.id].ended}


def _tell(settings: ReportTablesSettings, cases: list[Case], missing: list[tuple[Case, int]]) -> None:
    """`--dry_run`: the trainings, and the command of each row that is left."""
    console, asked = Console(), asked_for(settings, cases)
    for case in asked:
        seeds = [seed for one, seed in missing if one is case]
        done = f"seeds {seeds} to do" if seeds else "done"
        _say(console, f"{case.run.name} ({', '.join(case.rows)}): {done}")
        if seeds and settings.scale == "full":
            _say(console, f"  {_command(settings, case, seeds)}")
    total, here = len(asked) * len(settings.seeds), f", {at_once(settings, missing)} at the same time on this machine"
    _say(console, f"{len(missing)} of {total} trainings to do in {settings.folder}{here}; nothing was started")


def _command(settings: ReportTablesSettings, case: Case, seeds: list[int]) -> str:
    """What submits a row by hand."""
    words = ["pose", "submit", "train", "--config", case.config, "--name", case.run.name]
    words += ["--runs_dir", str(settings.folder), "--seeds", str(seeds).replace(" ", "")]
    words += ["--tracking.experiment", case.run.tracking.experiment, "--site", settings.site]
    given = {
        "data.h36m": settings.h36m,
        "data.mpii": settings.mpii,
        "data.voc": settings.voc if case.run.data.voc else "",
    }
    given["epochs"] = str(settings.epochs or "")
    words += [word for key, value in given.items() if value for word in (f"--{key}", value)]
    return shlex.join(words)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    console.file.flush()
