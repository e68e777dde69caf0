"""From the parts of a suite's run to what people get: means, tables, a report, an account of the run."""

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
from pipeline.destination.layout import evaluation_path, read_json, record_path
from pipeline.destination.parquet import to_parquet
from pipeline.destination.plans import Plan
from pipeline.destination.run_record import Summary, account_of, keep
from pipeline.errors import StorageError
from pipeline.requests.pictures import EvaluateRequest
from pipeline.storage.store import read, write
from pipeline.suites.prepare import SuiteRun
from pipeline.suites.report import Strip, render_suite
from pipeline.suites.suite import Suite

Row = dict[str, Any]


@dataclass(frozen=True)
class SuiteEvaluation:
    """What came out. `means` are rows of `pipeline.destination.schemas`, over `pictures`; `report` is the URL of
    evaluation.html."""

    summary: Summary
    suite: Suite
    dataset: str | None
    means: list[Row]
    pictures: int
    notes: list[str]
    report: str


def conclude(
    request: EvaluateRequest, prepared: SuiteRun, plan: Plan, parts: Sequence[dict[str, Any]], started: datetime
) -> SuiteEvaluation:
    """Write means, tables and report of a suite whose pictures all have their parts, where they differ from before."""
    destination, suite = prepared.stores.destination, prepared.suite
    scores = [row for part in parts for row in part["scores"]]
    failures = [row for part in parts for row in part["failures"]]
    pictures = sum(bool(part["scores"]) for part in parts)
    means = [*mean_rows(suite, scores), *published_means(suite, prepared.published)]
    notes = prepared.notes + _incomplete(suite, means, pictures)
    run = _account(request, prepared, plan, parts, started)
    strips = [
        Strip(part["key"], setting, read(destination, path))
        for part in parts
        for setting, path in part["strips"].items()
    ]
    place = partial(evaluation_path, plan.run)
    content: Row = {"run": plan.run, "suite": suite.name, "set": prepared.dataset, "protocol": suite.protocol}
    content |= {"pictures": pictures, "notes": notes, "means": means}
    keep(destination, place("scores.parquet"), to_parquet("scores", scores))
    keep(destination, place("means.parquet"), to_parquet("means", means))
    keep(destination, place("failures.parquet"), to_parquet("failures", failures))
    keep(destination, place("evaluation.json"), (json.dumps(content, indent=1) + "\n").encode())
    page = render_suite(run, suite, prepared.dataset, means, failures, notes, strips)
    keep(destination, place("evaluation.html"), page.encode())
    report = destination.url_of(place("evaluation.html"))
    return SuiteEvaluation(_summary(run, plan, report), suite, prepared.dataset, means, pictures, notes, report)


def mean_rows(suite: Suite, scores: Sequence[Row]) -> list[Row]:
    """A row for every setting and method, in the order of the suite, over the pictures that the method could do.

    `gain` is how much more of the first score there is than before, on the same pictures.
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
    """Published rows in the words of the table of means."""
    known = {setting.name for setting in suite.settings}
    return [
        {"suite": suite.name, "label": row["method"], "group": "published", "told": "", "pictures": None} | row
        for row in published
        if row["setting"] in known
    ]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _incomplete(suite: Suite, means: Sequence[Row], pictures: int) -> list[str]:
    """Which figures are over fewer pictures than there are."""
    labels = {setting.name: setting.label for setting in suite.settings}
    return [
        f"{row['label']} at {labels[row['setting']]}: over {row['pictures']} of {pictures} pictures."
        for row in means
        if row["pictures"] is not None and row["pictures"] < pictures
    ]


def _account(
    request: EvaluateRequest, prepared: SuiteRun, plan: Plan, parts: Sequence[dict[str, Any]], started: datetime
) -> dict[str, Any]:
    """The content of run.json: that of the run that measured last."""
    destination, path = prepared.stores.destination, record_path(plan.run)
    if plan.objects == 0:
        with suppress(StorageError, ValueError):
            return read_json(destination, path)
    failed = sum(not part["scores"] for part in parts)
    device = choose_device(request.device)
    run = account_of(plan, destination, started, failed, len(parts), request.max_failure_rate) | {
        "suite": request.suite,
        "settings": {name: getattr(request, name) for name in ("crop", "grey", "seed")},
        "models": [each.network.model for each in prepared.networks],
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU, {platform.machine()}",
        "counts": {"objects": len(parts), "good": len(parts) - failed, "failed": failed},
        "reasons": dict(Counter(row["reason"] for part in parts for row in part["failures"])),
    }
    write(destination, path, (json.dumps(run, indent=2) + "\n").encode())
    return run


def _summary(run: dict[str, Any], plan: Plan, report: str) -> Summary:
    status = "nothing_to_do" if plan.objects == 0 and run["status"] == "complete" else run["status"]
    counts = run["counts"] | {"done": plan.done}
    return Summary(plan.run, status, run["message"], counts, run["reasons"], run["seconds"], report, [])
