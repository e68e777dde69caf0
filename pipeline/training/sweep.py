"""A search over sizes, losses and rates: one training run a trial, chosen by Optuna, taken up again wherever it ended.

Proposals come from the tree-structured Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter
Optimization", 2011); a trial worse than the median of the others at the same step is pruned (Golovin et al., "Google
Vizier", 2017). A trial that was interrupted is proposed anew and goes on from its own checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from models.errors import TrainingError
from models.training.checkpoint import cooldown_url
from models.training.data import PictureSource
from models.training.distributed import ALONE
from models.training.loop import Report, TrainingPlan, train
from pipeline.errors import RequestError
from pipeline.events import Noted, Stepped, Tell, Tried, silent
from pipeline.requests.models import SweepRequest, TrainRequest
from pipeline.storage.files import StoredFiles
from pipeline.training.sweep_journal import Journal
from pipeline.training.sweep_report import write_page, write_table
from pipeline.training.sweep_space import Space, draw, read_space
from pipeline.training.train import first_of, interruptible, keep, least_pictures, left_out_note, plan_of, read_pictures

_STUDY = "sweep"
#: trials before any is pruned
_BEFORE_PRUNING = 4
#: seconds after which the page is drawn again
_PAGE_EVERY = 60


@dataclass(frozen=True)
class SweepSummary:
    """What a sweep has come to: counts of trials by state, the best one, and where table and page are."""

    counts: dict[str, int]
    figure: str
    best_trial: int | None
    best_value: float | None
    best_options: dict[str, Any]
    model: str | None
    importances: dict[str, float]
    table: str
    page: str


class _Unfit(Exception):
    """Options that do not go together."""


class _Pruned(Exception):
    """A trial that is worse than the others at the same step."""


def run_sweep(
    request: SweepRequest,
    tell: Tell = silent,
) -> SweepSummary:
    """Run the trials that are still to be run; the table at the destination is new after each of them.

    Ctrl-C ends the trial at hand after its step and raises KeyboardInterrupt; its checkpoint is kept. Raises
    RequestError, DataError, CheckpointError, StorageError. A trial whose options do not fit together or whose gradients
    stop being numbers is a failed trial, and the sweep goes on.
    """
    files = StoredFiles(request.source_storage)
    space = read_space(request.space, files)
    _check_figure(request, space)
    files.check_writable(f"{_root(request)}/trials.parquet")
    study = _open_study(request, space)
    pictures = _picture_cache(request, study, tell)
    _take_up_again(study)
    drawn = time.monotonic()
    while (done := len(_counted(study))) < request.trials:
        trial = study.ask()
        options = draw(space, trial)
        told = partial(Tried, trial.number, done, request.trials, trial.params)
        tell(told())
        ended = _run_trial(request, study, trial, options, pictures, partial(_pass_on, tell, told))
        tell(told(**ended))
        write_table(request, space, _counted(study))
        # drawing takes seconds, which a sweep of short trials would mostly spend on it
        if time.monotonic() - drawn > _PAGE_EVERY:
            _write(request, study, space)
            drawn = time.monotonic()
    return _write(request, study, space)


def _pass_on(tell: Tell, told: Callable[[Stepped], Tried], line: Report) -> None:
    tell(told(Stepped(**vars(line))))


def _run_trial(
    request: SweepRequest,
    study: optuna.Study,
    trial: optuna.Trial,
    options: dict[str, Any],
    pictures: Callable[[TrainRequest, TrainingPlan], PictureSource],
    report: Callable[[Report], None],
) -> dict[str, Any]:
    """Train once and tell the study; return how it ended, for the report."""
    url = f"{_root(request)}/trials/{trial.number:04d}"
    # named by what was drawn, so that a trial taken up again finds it
    name = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
    checkpoint = f"{_root(request)}/trials/{name}.checkpoint.safetensors"

    def listen(line: Report) -> None:
        report(line)
        value = _value(request, line.validation or {}, line.score)
        if value is not None and math.isfinite(value):
            trial.report(value, line.step)
            if request.prune and trial.should_prune():
                raise _Pruned

    ended: dict[str, Any]
    try:
        training, plan = _training(request, options, url, checkpoint)
        source = pictures(training, plan)
        with interruptible(ALONE) as stopped:
            network, progress = train(plan, source, listen, stopped)
            if stopped():
                raise KeyboardInterrupt
        best = next(entry for entry in progress.history if entry["step"] == progress.best_step)
        value = _value(request, best, best["score"])
        if value is None or not math.isfinite(value):
            raise TrainingError(f"the held-out {_figure(request)} is not a number")
        keep(training, plan, network, progress, source)
        trial.set_user_attr("model", f"{url}.safetensors")
        trial.set_user_attr("steps", progress.step)
        study.tell(trial, value)
        ended = {"ended": "complete", "value": value}
    except _Pruned:
        study.tell(trial, state=TrialState.PRUNED)
        ended = {"ended": "pruned"}
    except (_Unfit, TrainingError) as error:
        trial.set_user_attr("message", str(error))
        study.tell(trial, state=TrialState.FAIL)
        ended = {"ended": "failed", "message": str(error)}
    for one in (checkpoint, cooldown_url(checkpoint)):
        StoredFiles(request.source_storage).delete(one)
    return ended


def _training(
    request: SweepRequest, options: dict[str, Any], url: str, checkpoint: str
) -> tuple[TrainRequest, TrainingPlan]:
    """Make what trains a trial. Raises _Unfit where its options do not go together."""
    shared = {name: getattr(request, name) for name in SweepRequest.model_fields if name in TrainRequest.model_fields}
    sizes = (request.sizes or {}) | options.get("sizes", {})
    given = shared | options | {"model": url, "checkpoint": checkpoint, "sizes": sizes or None}
    try:
        training = TrainRequest(**given)
        return training, plan_of(training, ALONE)
    except ValidationError as error:
        raise _Unfit("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())) from error
    except RequestError as error:
        raise _Unfit(str(error)) from error


def _picture_cache(
    swept: SweepRequest, study: optuna.Study, tell: Tell
) -> Callable[[TrainRequest, TrainingPlan], PictureSource]:
    """Make what reads the pictures of a trial: once for trials that want them alike.

    Raises RequestError where they are not as they were when the sweep was begun.
    """

    kept: dict[str, PictureSource] = {}

    def cached(request: TrainRequest, plan: TrainingPlan) -> PictureSource:
        wanted = f"{plan.sizes.get('shape')} {plan.augment} {least_pictures(plan)}"
        if wanted not in kept:
            # no two sets in memory at once
            kept.clear()
            kept[wanted] = read_pictures(request, plan, tell)
            _check_mark(swept, study, kept[wanted].mark)
            if kept[wanted].left_out:
                tell(Noted(f"{left_out_note(kept[wanted])}: {first_of(kept[wanted].left_out)}"))
        return kept[wanted]

    return cached


def _check_mark(request: SweepRequest, study: optuna.Study, mark: str) -> None:
    """Raise RequestError where earlier trials were trained on other pictures, which makes their scores others."""
    if study.user_attrs.get("pictures", mark) != mark:
        raise RequestError(
            f"{request.destination} holds a sweep over other pictures than now lie below {', '.join(request.source)}; "
            "give another destination, or the same pictures"
        )
    study.set_user_attr("pictures", mark)


def _open_study(request: SweepRequest, space: Space) -> optuna.Study:
    """Open the study at the destination, or a new one. Raises RequestError when another was begun there."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = f"{_root(request)}/journal"
    begun = request.model_dump_json(include=_SAME) + repr(space)
    try:
        storage = optuna.storages.JournalStorage(Journal(where, StoredFiles(request.source_storage)))
        study = optuna.create_study(
            storage=storage,
            study_name=_STUDY,
            load_if_exists=True,
            direction="maximize" if request.maximise else "minimize",
            pruner=optuna.pruners.MedianPruner(_BEFORE_PRUNING),
        )
    except (KeyError, ValueError, TypeError, AssertionError) as error:
        raise RequestError(f"{where} is not a sweep's journal ({error!r}); give another destination") from error
    study.sampler = optuna.samplers.TPESampler(seed=request.seed + len(study.trials), multivariate=False)
    if study.user_attrs.get("begun", begun) != begun:
        raise RequestError(
            f"{request.destination} holds a sweep with another task, source, space or length of training; "
            "give another destination, or the same options"
        )
    study.set_user_attr("begun", begun)
    return study


#: what must be the same for trials to be comparable
_SAME = {"task", "source", "sizes", "loss", "corrupt", "augment", "limit", "steps", "minutes", "maximise", "minimise"}


def _take_up_again(study: optuna.Study) -> None:
    """Propose anew what was being tried when the last session ended."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    """List trials that have ended, each once: what failed without a message was interrupted and taken up by another."""
    return [
        t for t in study.trials if t.state.is_finished() and (t.state != TrialState.FAIL or "message" in t.user_attrs)
    ]


def _check_figure(request: SweepRequest, space: Space) -> None:
    if not request.maximise and not request.minimise and "loss" in space.drawn:
        raise RequestError(
            "scores of different losses cannot be compared; say --maximise psnr, or another figure of every trial"
        )


def _figure(request: SweepRequest) -> str:
    return request.maximise or request.minimise or "score"


def _value(request: SweepRequest, figures: dict[str, float], score: float | None) -> float | None:
    name = _figure(request)
    if score is None:
        return None
    if name != "score" and name not in figures:
        told = ", ".join(figures)
        raise RequestError(f"there is no held-out figure {name!r}; this trial has {told}")
    return score if name == "score" else figures[name]


def _write(request: SweepRequest, study: optuna.Study, space: Space) -> SweepSummary:
    trials = _counted(study)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = study.best_trial if done else None
    importances = _importances(study, done)
    table = write_table(request, space, trials)
    page = write_page(request, space, trials, best, importances)
    names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    return SweepSummary(
        counts={name: sum(trial.state == state for trial in trials) for state, name in names.items()},
        figure=_figure(request),
        best_trial=best.number if best else None,
        best_value=best.value if best else None,
        best_options=best.params if best else {},
        model=best.user_attrs["model"] if best else None,
        importances=importances,
        table=table,
        page=page,
    )


def _importances(study: optuna.Study, done: list[FrozenTrial]) -> dict[str, float]:
    """Compute how much each option mattered, shares of 1; none where trials are too few or alike."""
    if len(done) < 4:
        return {}
    try:
        return optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):
        return {}


def _root(request: SweepRequest) -> str:
    return request.destination.rstrip("/")
