"""An evaluation: codecs at many settings on the same pictures, through the same shard run as any recipe.

The recipe has one branch for every codec and setting. What the run measured becomes points (means over the pictures
that every branch could do), BD-rates against an anchor, and a report, all below `runs/<id>/evaluation/`. Only the run
takes time: another anchor or other published curves need no picture to be developed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.destination.layout import evaluation_path, part_path, read_json, record_path
from pipeline.destination.parquet import read_part, to_parquet
from pipeline.destination.plans import earlier_plans
from pipeline.destination.run_record import Summary, keep
from pipeline.errors import RequestError
from pipeline.evaluation.codec_grids import Trial, choose_codecs, trials
from pipeline.evaluation.published import PublishedCurve, choose_curves, read_curves
from pipeline.evaluation.rate_distortion import MEASURED, Evaluation, Name, compare, measured_points, published_points
from pipeline.evaluation.report import render_evaluation
from pipeline.events import Tell, silent
from pipeline.requests.job import Job, check_request
from pipeline.requests.pictures import DevelopRequest, EvaluateRequest
from pipeline.runs.finish import DevelopShards, run_job

#: written before a name on the command line, it takes the published curve even if a measured codec is called the same
PUBLISHED = "published:"


@dataclass(frozen=True)
class Comparison:
    """A checked request: what is to be run, which branch is which codec's, the anchor as (name, group), and curves."""

    develop: DevelopRequest
    trials: list[Trial]
    anchor: Name
    published: dict[str, PublishedCurve]


def evaluate(
    request: EvaluateRequest,
    tell: Tell = silent,
    develop_shards: DevelopShards | None = None,
) -> Evaluation:
    """Run an evaluation without Prefect; see `pipeline.runs.finish.run_job` for the parameters and what is raised.

    Raises RequestError for unknown codecs, anchors or curves, before anything is run.
    """
    comparison = prepare(request)
    job = check_request(comparison.develop)
    return conclude(comparison, job, run_job(job, tell, develop_shards))


def prepare(request: EvaluateRequest) -> Comparison:
    """Check the request's codecs, anchor and curves, and write its recipe. Raises RequestError, StorageError."""
    codecs = choose_codecs(request.codecs, request.model)
    tried = trials(codecs, request.points)
    curves = read_curves(request.published) if request.published else {}
    if request.curves and not curves:
        raise RequestError("--curves chooses among published curves; name their file with --published")
    drawn = choose_curves(curves, request.curves)
    anchor = _anchor(request.anchor, [codec.name for codec in codecs if codec.parameter], list(curves))
    if anchor[1] == "published" and anchor[0] not in drawn:
        drawn.insert(0, anchor[0])
    recipe = {
        "name": "evaluation",
        "branches": {trial.branch: trial.steps() for trial in tried},
        # codecs are compared by what pixels take
        "output": {"format": "none", "metadata": "none"},
    }
    developed = DevelopRequest(recipe=recipe, measure=True, **request.shared())
    return Comparison(developed, tried, anchor, {name: curves[name] for name in drawn})


def conclude(comparison: Comparison, job: Job, summary: Summary) -> Evaluation:
    """Write points, BD-rates and report of a finished run where they differ from what is there; return the evaluation.

    Raises StorageError.
    """
    destination = job.destination
    asked, rows = _measured(job, summary.run)
    points, pictures, absent = measured_points(comparison.trials, rows)
    labels = {trial.codec.name: trial.codec.label for trial in comparison.trials}
    report, bd_rates = None, []
    if points:
        points += published_points(comparison.published)
        bd_rates = compare(points, comparison.anchor)
        report = evaluation_path(summary.run, "evaluation.html")
    evaluation = Evaluation(
        summary,
        comparison.anchor,
        labels,
        points,
        bd_rates,
        pictures,
        asked - pictures,
        absent,
        destination.url_of(report) if report else None,
    )
    if report:
        run = read_json(destination, record_path(summary.run))
        page = render_evaluation(run, evaluation, comparison.published)
        keep(destination, evaluation_path(summary.run, "points.parquet"), to_parquet("points", points))
        keep(destination, evaluation_path(summary.run, "bd_rate.parquet"), to_parquet("bd_rate", bd_rates))
        keep(destination, report, page.encode())
    return evaluation


def _anchor(name: str, measured: Sequence[str], published: Sequence[str]) -> Name:
    if name in measured:
        return name, "measured"
    if name.removeprefix(PUBLISHED) in published:
        return name.removeprefix(PUBLISHED), "published"
    there = f"measured here are {', '.join(measured) or 'no lossy codecs'}"
    there += f"; published are {', '.join(published)}" if published else "; --published names no file with more"
    raise RequestError(f"there is no curve {name!r} to be the anchor; {there}: name one of those as the anchor")


def _measured(job: Job, run: str) -> tuple[int, pa.Table]:
    """Count the source's objects, and read the metrics that all finished runs of the same work have of them.

    A run that followed another has developed only what is new since; of an object in several runs, the last counts.
    """
    destination = job.destination
    asked = {found.key for found in job.objects()}
    plans = earlier_plans(destination)
    own = next(plan for plan, _ in plans if plan.run == run)
    parts: list[pa.Table] = []
    settled: set[str] = set()
    for plan, finished in reversed(plans):
        if not finished or (plan.fingerprint, plan.source) != (own.fingerprint, own.source):
            continue
        keys: set[str] = set()
        for shard in range(plan.shards):
            manifest = read_part(
                destination, part_path("manifest", plan.run, shard), columns=["key", "file"]
            ).to_pylist()
            new = {row["key"] for row in manifest if (row.get("file") or row["key"]) in asked} - settled
            rows = read_part(destination, part_path("metrics", plan.run, shard), columns=MEASURED)
            parts.append(rows.filter(pc.is_in(rows["key"], pa.array(sorted(new), pa.string()))))
            keys |= new
        settled |= keys
    return len(settled), pa.concat_tables(parts)
