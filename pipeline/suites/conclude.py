"""From what a suite measured to what people get: means, tables, a report, a record of the run."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import torch

from models.device import choose_device
from pipeline.destination.commits import counted, read_commit
from pipeline.destination.layout import evaluation_path, is_strip, part_path, read_json, record_path, strip_path
from pipeline.destination.parquet import read_part, to_parquet
from pipeline.destination.plans import Plan, earlier_plans
from pipeline.destination.run_record import FAILURE_FIELDS, MOST_FAILURES, Summary, account_of, keep
from pipeline.destination.schemas import schema_of
from pipeline.errors import StorageError
from pipeline.storage.store import Store, read, write
from pipeline.suites.prepare import SuiteRun
from pipeline.suites.report import Strip, render_suite
from pipeline.suites.suite import Suite
from pipeline.suites.work import SuiteWork

Row = dict[str, Any]


@dataclass(frozen=True)
class SuiteEvaluation:
    """What came out of a suite.

    `means` are rows of `pipeline.destination.schemas`, over `pictures`; `report` is the URL of evaluation.html.
    """

    summary: Summary
    suite: Suite
    dataset: str | None
    means: list[Row]
    pictures: int
    notes: list[str]
    report: str


@dataclass(frozen=True)
class Measured:
    """What was measured of all pictures of a listing, in its order: rows of tables; `strips` are paths."""

    manifest: list[Row]
    scores: list[Row]
    failures: list[Row]
    strips: list[str]

    @property
    def pictures(self) -> int:
        """Number of pictures that have scores."""
        counts = counted(self.manifest)
        return counts["good"] + counts["partial"]


def conclude(prepared: SuiteRun, work: SuiteWork, summary: Summary, started: datetime) -> SuiteEvaluation:
    """Write means, tables and report of a suite whose shards are all done, where they differ from before.

    `summary` is that of the run that did them. Raises StorageError.
    """
    home, suite = work.home, prepared.suite
    measured = measured_at(work.destination)
    pictures = measured.pictures
    means = [*mean_rows(suite, measured.scores), *published_means(suite, prepared.published)]
    notes = prepared.notes + _incomplete(suite, means, pictures)
    run = _account(work, measured, summary, started)
    place = partial(evaluation_path, work.run)
    content: Row = {"run": work.run, "suite": suite.name, "set": prepared.dataset, "protocol": suite.protocol}
    content |= {"pictures": pictures, "notes": notes, "means": means}
    keep(home, place("scores.parquet"), to_parquet("scores", measured.scores))
    keep(home, place("means.parquet"), to_parquet("means", means))
    keep(home, place("failures.parquet"), to_parquet("failures", measured.failures))
    keep(home, place("evaluation.json"), (json.dumps(content, indent=1) + "\n").encode())
    strips = _strips(work, measured)
    page = render_suite(run, suite, prepared.dataset, means, measured.failures, notes, strips)
    keep(home, place("evaluation.html"), page.encode())
    report = home.url_of(place("evaluation.html"))
    ended = _summary(run, summary, measured, report)
    return SuiteEvaluation(ended, suite, prepared.dataset, means, pictures, notes, report)


def measured_at(destination: Store) -> Measured:
    """Read what finished runs at a suite's destination have measured; of a picture in several, the last counts.

    Raises StorageError.
    """
    found: dict[str, list[Row]] = {"manifest": [], "scores": [], "failures": []}
    strips: set[str] = set()
    seen: set[str] = set()
    for plan, finished in reversed(earlier_plans(destination)):
        if plan.folded or not finished:
            continue
        own: set[str] = set()
        for shard in range(plan.shards):
            for table, rows in found.items():
                part = read_part(destination, part_path(table, plan.run, shard), schema_of(table)).to_pylist()
                # parts of earlier versions have no sequence
                rows += [row | {"sequence": plan.sequence} for row in part if row["key"] not in seen]
                own |= {row["key"] for row in part}
            strips |= {e["path"] for e in read_commit(destination, plan.run, shard).outputs if is_strip(e["path"])}
        seen |= own
    for rows in found.values():
        rows.sort(key=lambda row: row["key"])
    return Measured(**found, strips=sorted(strips))


def _strips(work: SuiteWork, measured: Measured) -> list[Strip]:
    """Read the strips for the report, by picture, in the order of the suite's settings."""
    there = set(measured.strips)
    return [
        Strip(key, setting.name, read(work.destination, path))
        for key, number in work.shown.items()
        for setting in work.suite.settings
        if (path := strip_path(setting.name, number)) in there
    ]


def mean_rows(suite: Suite, scores: Sequence[Row]) -> list[Row]:
    """Average scores to a row for every setting and method, in the order of the suite.

    Means are over the pictures that the method could do. `gain` is how much more of the first score there is than
    before, on the same pictures.
    """
    rows = []
    by_name: dict[tuple[str, str], list[Row]] = {}
    for row in scores:
        by_name.setdefault((row["setting"], row["method"]), []).append(row)
    order = {setting.name: number for number, setting in enumerate(suite.settings)}
    first = suite.scores[0]
    before = {(row["setting"], row["key"]): row[first] for row in scores if row["group"] == "input"}
    for (setting, _), own in sorted(by_name.items(), key=lambda item: order[item[0][0]]):
        gains = [row[first] - before[setting, row["key"]] for row in own if (setting, row["key"]) in before]
        rows.append(
            {name: own[0][name] for name in ("suite", "setting", "method", "label", "group", "told")}
            | {"pictures": len(own), "gain": _mean(gains)}
            | {score: _mean([row[score] for row in own]) for score in (*suite.scores, "seconds")}
        )
    return rows


def published_means(suite: Suite, published: Sequence[Row]) -> list[Row]:
    """Put published rows into the words of the table of means."""
    known = {setting.name for setting in suite.settings}
    return [
        {"suite": suite.name, "label": row["method"], "group": "published", "told": "", "pictures": None} | row
        for row in published
        if row["setting"] in known
    ]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _incomplete(suite: Suite, means: Sequence[Row], pictures: int) -> list[str]:
    """Say which figures are over fewer pictures than there are."""
    labels = {setting.name: setting.label for setting in suite.settings}
    return [
        f"{row['label']} at {labels[row['setting']]}: over {row['pictures']} of {pictures} pictures."
        for row in means
        if row["pictures"] is not None and row["pictures"] < pictures
    ]


def _account(work: SuiteWork, measured: Measured, summary: Summary, started: datetime) -> dict[str, Any]:
    """Write run.json, and return its content: that of the run that measured last."""
    home, request, path = work.home, work.request, record_path(work.run)
    if not summary.counts["objects"]:
        with suppress(StorageError, ValueError):
            return read_json(home, path)
    counts = counted(measured.manifest)
    plan = Plan(work.run, work.fingerprint, work.source.url, 0, counts["objects"], 1)
    device = choose_device(request.device)
    run = account_of(plan, home, started, counts, request.max_failure_rate) | {
        "suite": request.suite,
        "settings": {name: getattr(request, name) for name in ("crop", "grey", "seed")},
        "models": [each.network.model for each in work.networks],
        "engine": request.engine,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU, {platform.machine()}",
        "counts": counts,
        "reasons": dict(Counter(row["reason"] for row in measured.failures)),
    }
    write(home, path, (json.dumps(run, indent=2) + "\n").encode())
    return run


def _summary(run: dict[str, Any], of_run: Summary, measured: Measured, report: str) -> Summary:
    nothing = not of_run.counts["objects"] and run["status"] == "complete"
    status = "nothing_to_do" if nothing else run["status"]
    counts = run["counts"] | {"done": len(measured.manifest) - of_run.counts["objects"]}
    first = [{name: row[name] for name in FAILURE_FIELDS} for row in measured.failures[:MOST_FAILURES]]
    return Summary(run["run"], status, run["message"], counts, run["reasons"], run["seconds"], report, [], first)
