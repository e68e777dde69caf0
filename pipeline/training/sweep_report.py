"""What a sweep leaves at its destination: a table with a row a trial, and one page about what mattered."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState

from pipeline.reports.page import asset, environment
from pipeline.requests.models import SweepRequest
from pipeline.storage.files import StoredFiles
from pipeline.training import sweep_plots
from pipeline.training.sweep_plots import Dimension
from pipeline.training.sweep_space import Choices, Space

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_MAX_ROWS = 200


def write_table(request: SweepRequest, space: Space, trials: Sequence[FrozenTrial]) -> str:
    """Write `trials.parquet` at the destination; return its URL."""
    buffer = io.BytesIO()
    pq.write_table(trial_table(space, trials), buffer, compression="zstd")
    return _put(request, "trials.parquet", buffer.getvalue())


def write_page(
    request: SweepRequest,
    space: Space,
    trials: Sequence[FrozenTrial],
    best: FrozenTrial | None,
    importances: Mapping[str, float],
) -> str:
    """Write `sweep.html` at the destination; return its URL."""
    return _put(request, "sweep.html", render_sweep(request, space, trials, best, importances).encode())


def _put(request: SweepRequest, name: str, data: bytes) -> str:
    url = f"{request.destination.rstrip('/')}/{name}"
    StoredFiles(request.source_storage).write(url, data)
    return url


def trial_table(space: Space, trials: Sequence[FrozenTrial]) -> pa.Table:
    """Make the table of trials, a row each.

    Columns are `trial`, `state` (complete, pruned, failed), `value` (of a pruned one the last), `steps`, `seconds`,
    `model` (URL of the weights), `message` (why it failed), and one for every option drawn: numbers as float64, choices
    as their JSON.
    """
    rows = {
        "trial": pa.array([trial.number for trial in trials], pa.int32()),
        "state": pa.array([_STATES[trial.state] for trial in trials], pa.string()),
        "value": pa.array([trial.value for trial in trials], pa.float64()),
        "steps": pa.array([_steps(trial) for trial in trials], pa.int64()),
        "seconds": pa.array([_seconds(trial) for trial in trials], pa.float64()),
        "model": pa.array([trial.user_attrs.get("model") for trial in trials], pa.string()),
        "message": pa.array([trial.user_attrs.get("message") for trial in trials], pa.string()),
    }
    for name, dimension in space.drawn.items():
        kind = pa.string() if isinstance(dimension, Choices) else pa.float64()
        rows[name] = pa.array([trial.params.get(name) for trial in trials], kind)
    return pa.table(rows)


def render_sweep(
    request: SweepRequest,
    space: Space,
    trials: Sequence[FrozenTrial],
    best: FrozenTrial | None,
    importances: Mapping[str, float],
) -> str:
    """Render the page of a sweep as HTML text, a pure function of its arguments."""
    label = request.maximise or request.minimise or "score"
    ranked = sorted(trials, key=lambda trial: _rank(trial, bool(request.maximise)))
    script = asset("report.js")
    page = (
        environment()
        .get_template("sweep.html")
        .render(
            request=request,
            label=label,
            fixed=[(name, json.dumps(value)) for name, value in space.fixed.items()],
            counts={name: sum(trial.state == state for trial in trials) for state, name in _STATES.items()},
            seconds=sum(_seconds(trial) or 0.0 for trial in trials),
            best=best and {"number": best.number, "value": best.value, "options": _shown(space, best)},
            names=list(space.drawn),
            charts=_charts(request, space, trials, importances, label),
            rows=[_row(space, trial) for trial in ranked[:_MAX_ROWS]],
            left_out=max(0, len(trials) - _MAX_ROWS),
            css=Markup(asset("report.css") + "\n" + asset("evaluation.css") + "\n" + asset("training.css")),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return page.encode("utf-8", "replace").decode()


def _charts(
    request: SweepRequest, space: Space, trials: Sequence[FrozenTrial], importances: Mapping[str, float], label: str
) -> list[dict[str, Any]]:
    values = np.array([np.nan if trial.value is None else trial.value for trial in trials], np.float64)
    pruned = np.array([trial.state == TrialState.PRUNED for trial in trials], bool)
    known = [name for name in sorted(importances, key=lambda name: -importances[name]) if name in space.drawn]
    order = known + [name for name in space.drawn if name not in known]
    dimensions = [_dimension(name, space, trials) for name in order]
    finished = np.where(pruned, np.nan, values)
    maximise = bool(request.maximise)
    charts = [
        ("Trials", True, sweep_plots.progress(values, pruned, maximise, label)),
        ("All options together", True, sweep_plots.parallel(dimensions, finished, maximise, label)),
        ("What mattered", False, sweep_plots.importances(importances)),
        *(
            (one.name, False, sweep_plots.slice_of(one, values, pruned, number, label))
            for number, one in enumerate(dimensions)
        ),
    ]
    return [{"title": title, "wide": wide, "svg": Markup(svg)} for title, wide, svg in charts if svg]


def _dimension(name: str, space: Space, trials: Sequence[FrozenTrial]) -> Dimension:
    drawn = space.drawn[name]
    told = [trial.params.get(name) for trial in trials]
    if isinstance(drawn, Choices):
        places = [np.nan if one is None else drawn.texts.index(one) for one in told]
        return Dimension(name, np.array(places, np.float64), tuple(_plain(text) for text in drawn.texts))
    return Dimension(name, np.array([np.nan if one is None else one for one in told], np.float64), (), drawn.log)


def _row(space: Space, trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "value": trial.value,
        "steps": _steps(trial),
        "seconds": _seconds(trial),
        "message": trial.user_attrs.get("message"),
        "options": [text for _, text in _shown(space, trial)],
    }


def _shown(space: Space, trial: FrozenTrial) -> list[tuple[str, str]]:
    """Say what a trial drew, for people."""
    told = ((name, trial.params.get(name)) for name in space.drawn)
    return [(name, "—" if one is None else _plain(one) if isinstance(one, str) else f"{one:.4g}") for name, one in told]


def _plain(text: str) -> str:
    """Return the value that JSON holds, where it is a text, without quotes; else the JSON."""
    value = json.loads(text)
    return value if isinstance(value, str) else text


def _rank(trial: FrozenTrial, maximise: bool) -> tuple[int, float]:
    value = trial.value if trial.value is not None else 0.0
    return list(_STATES).index(trial.state), -value if maximise else value


def _steps(trial: FrozenTrial) -> int | None:
    return trial.user_attrs.get("steps") or max(trial.intermediate_values, default=None)


def _seconds(trial: FrozenTrial) -> float | None:
    return trial.duration.total_seconds() if trial.duration else None
