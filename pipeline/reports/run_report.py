"""The report of a run: one self-contained HTML file that opens from a disk, a bucket or an e-mail.

Everything that comes from file names, messages and recipes is escaped by the template (autoescape for every file), and
the page's content security policy allows no request and no script but the one that ships here.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from pipeline.errors import REASONS
from pipeline.reports import plots
from pipeline.reports.gallery import GalleryEntry, gallery_groups
from pipeline.reports.page import asset, environment
from pipeline.reports.stage_figures import slowest, stage_rows
from pipeline.reports.text import number

MAX_FAILURE_ROWS = 50
#: Restorations with a warning that are listed.
MAX_WARNING_ROWS = 20

_MAX_CHART_BRANCHES = 16
_MAX_MESSAGE = 400


@dataclass(frozen=True)
class Column:
    """A column of the table of branches: means of `name` over the pictures, shown with `digits` decimals.

    `better` says which end is marked as the best ("high", "low"), or "" where neither is.
    """

    name: str
    label: str
    unit: str
    digits: int
    better: Literal["high", "low", ""] = ""


COLUMNS = (
    Column("psnr", "PSNR", "dB", 2, "high"),
    Column("ssim", "SSIM", "", 4, "high"),
    Column("ms_ssim", "MS-SSIM", "", 4, "high"),
    Column("mae", "MAE", "levels", 2, "low"),
    Column("bpp", "Rate", "bpp", 3, "low"),
    Column("compression_ratio", "Ratio", ": 1", 1, "high"),
    Column("encode_s", "Encode", "ms", 1, "low"),
    Column("decode_s", "Decode", "ms", 1, "low"),
    Column("develop_s", "Develop", "ms", 1, "low"),
    Column("sharpness", "Sharpness", "", 0),
    Column("contrast", "Contrast", "levels", 1),
    Column("entropy", "Entropy", "bits", 2),
    Column("colourfulness", "Colourfulness", "", 1),
    Column("noise_sigma", "Noise σ", "levels", 2),
    Column("noise_before", "Noise before", "levels", 2),
    Column("noise_after", "Noise after", "levels", 2),
    Column("colour_drift", "Colour drift", "levels", 2),
    Column("structure_drift", "Structure drift", "", 3),
)

#: what stands between the words of `dropped`; "EXIF, which is broken" is one of them
_WORDS = re.compile(r", (?!which|[^()]*\))")

_HISTOGRAMS = (
    ("psnr", "PSNR (dB)", False),
    ("ms_ssim", "MS-SSIM", False),
    ("sharpness", "Sharpness (variance of the Laplacian, logarithmic)", True),
    ("noise_sigma", "Estimated noise σ (8-bit levels)", False),
)


def render_report(
    run: Mapping[str, Any], metrics: pa.Table, failures: pa.Table, gallery: Sequence[GalleryEntry]
) -> str:
    """Render the report of a run as HTML text (UTF-8 encodable), a pure function of its arguments.

    `run` is the content of run.json; `metrics` and `failures` have the schemas of `pipeline.destination.schemas`; of
    `gallery` the first `MAX_GALLERY` entries are shown.
    """
    recipe = run["recipe"]
    found = pc.unique(metrics["branch"]).to_pylist()
    branches = list(recipe["branches"]) + sorted(set(found) - set(recipe["branches"]))
    colours = {name: plots.COLOURS[n % len(plots.COLOURS)] for n, name in enumerate(branches)}
    groups = gallery_groups(branches, gallery)
    script = asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        environment()
        .get_template("report.html")
        .render(
            run=run,
            # an account of an earlier version has none of them
            counts={"partial": 0, "left_out": 0, "damaged": 0, "graphics": 0} | run["counts"],
            rate=run["counts"]["objects"] / run["seconds"] if run["seconds"] else None,
            reference=recipe.get("reference") or "source",
            branches=[{"name": name, "colour": colours[name], "chain": _chain(recipe, name)} for name in branches],
            colours=colours,
            table=_branch_table(branches, metrics, failures),
            stages=stage_rows(run.get("stages", {})),
            pace=slowest(run.get("stages", {})),
            charts=_charts(found, colours, metrics),
            chart_branches_hidden=max(0, len(found) - _MAX_CHART_BRANCHES),
            gallery=groups,
            gallery_measured=any(pair["psnr"] is not None for group in groups for pair in group["pairs"]),
            gallery_several=any(len(group["pairs"]) > 1 for group in groups),
            restorations=_restorations(metrics),
            dropped=_dropped(metrics),
            reasons=_reasons(failures),
            failure_rows=_failure_rows(failures),
            failures=failures.num_rows,
            css=Markup(asset("report.css")),
            script=Markup(script),
            script_digest=digest,
        )
    )
    return page.encode("utf-8", "replace").decode()


def _chain(recipe: Mapping[str, Any], branch: str) -> list[dict[str, Any]]:
    """Return the branch's steps, each with its name and its parameters as (name, text)."""

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, default=str)

    return [
        {"step": step["step"], "parameters": [(name, text(value)) for name, value in step.items() if name != "step"]}
        for step in recipe["branches"].get(branch, [])
    ]


def _branch_table(branches: Sequence[str], metrics: pa.Table, failures: pa.Table) -> dict[str, Any]:
    """Return means per branch: the columns that hold anything, and one row per branch of cells (value, text, best)."""
    scale = dict.fromkeys(("encode_s", "decode_s", "develop_s"), 1000.0)
    means = metrics.group_by("branch").aggregate([(c.name, "mean") for c in COLUMNS] + [("key", "count")]).to_pylist()
    by_branch = {row["branch"]: row for row in means}
    failed = {row["values"]: row["counts"] for row in failures["branch"].drop_null().value_counts().to_pylist()}
    columns = [c for c in COLUMNS if any(row[f"{c.name}_mean"] is not None for row in means)]
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in branches}
    for column in columns:
        values = {n: by_branch[n][f"{column.name}_mean"] if n in by_branch else None for n in branches}
        texts = {
            n: number(None if v is None else v * scale.get(column.name, 1), column.digits) for n, v in values.items()
        }
        known = {n: v for n, v in values.items() if v is not None}
        best = max(known.values()) if column.better == "high" else min(known.values())
        # Only what reads as better is marked: branches that show the same digits share the mark or have none.
        marked = {texts[n] for n, v in known.items() if v == best}
        if not column.better or len({texts[n] for n in known}) < 2:
            marked = set()
        for n in branches:
            cells[n].append({"value": values[n], "text": texts[n], "best": texts[n] in marked})
    rows = [
        {
            "name": name,
            "pictures": by_branch[name]["key_count"] if name in by_branch else 0,
            "failed": failed.get(name, 0),
            "cells": cells[name],
        }
        for name in branches
    ]
    return {"columns": columns, "rows": rows, "any_failed": any(row["failed"] for row in rows)}


def _charts(branches: Sequence[str], colours: Mapping[str, str], metrics: pa.Table) -> list[dict[str, Any]]:
    """Draw SVGs with their captions; charts without anything to draw are left out, and all of them for one picture."""
    if pc.count_distinct(metrics["key"]).as_py() < 2:
        return []
    shown = [b for b in colours if b in set(branches)][:_MAX_CHART_BRANCHES]
    parts = {branch: metrics.filter(pc.equal(metrics["branch"], branch)) for branch in shown}

    def series(*names: str) -> list[plots.Series]:
        result = []
        for branch, part in parts.items():
            present = part.select(names).drop_null()
            result.append(plots.Series(branch, colours[branch], *(present[name].to_numpy() for name in names)))
        return result

    charts = []
    rate_distortion = series("bpp", "psnr")
    svg = plots.rate_distortion(rate_distortion)
    if svg:
        drawn = [one for one in rate_distortion if len(one.x)]
        legend = [{"name": one.name, "colour": one.colour} for one in drawn]
        charts.append({"title": "Rate and distortion", "svg": Markup(svg), "legend": legend, "wide": True})
    for name, label, logarithmic in _HISTOGRAMS:
        kept = series(name)
        if name == "psnr":
            kept = [plots.Series(s.name, s.colour, s.x[s.x < plots.IDENTICAL]) for s in kept]
        svg = plots.distributions(kept, name.replace("_", "-"), label, logarithmic)
        if svg:
            title = next(c.label for c in COLUMNS if c.name == name)
            charts.append({"title": f"{title} by branch", "svg": Markup(svg), "legend": [], "wide": False})
    return charts


def _restorations(metrics: pa.Table) -> dict[str, Any] | None:
    """Return what automatic mode left alone and the warnings, the worst first; None without any of both."""
    told = ("colour_drift", "structure_drift", "noise_before", "warning", "skipped")
    rows = metrics.select(["key", "branch", "noise_after", *told])
    restored = [pc.is_valid(rows[name]) for name in told]
    rows = rows.filter(functools.reduce(pc.or_, restored))
    if not rows.num_rows:
        return None
    warned = rows.filter(pc.is_valid(rows["warning"]))
    # drifts in units that weigh alike: one level of colour as much as a hundredth of structure
    drift = pc.add(
        pc.fill_null(warned["colour_drift"], 0), pc.multiply(pc.fill_null(warned["structure_drift"], 0), 100)
    )
    worst = warned.append_column("drift", drift).sort_by([("drift", "descending"), ("key", "ascending")])
    return {
        "count": rows.num_rows,
        "skipped": pc.sum(pc.is_valid(rows["skipped"])).as_py(),
        "warnings": warned.num_rows,
        "rows": worst.slice(0, MAX_WARNING_ROWS).to_pylist(),
    }


def _dropped(metrics: pa.Table) -> list[dict[str, Any]]:
    """Return what files could not hold, most frequent first, and how many files of which branches."""
    counts: Counter[str] = Counter()
    branches: dict[str, set[str]] = {}
    rows = metrics.select(["branch", "dropped"]).filter(pc.is_valid(metrics["dropped"]))
    for row in rows.group_by(["branch", "dropped"]).aggregate([([], "count_all")]).to_pylist():
        for word in _WORDS.split(row["dropped"]):
            counts[word] += row["count_all"]
            branches.setdefault(word, set()).add(row["branch"])
    return [
        {"word": word, "count": count, "branches": sorted(branches[word])}
        for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _reasons(failures: pa.Table) -> list[dict[str, Any]]:
    """Return the reasons of failures with their counts, most frequent first, and their shares of all failures."""
    counted = [(row["values"], row["counts"]) for row in failures["reason"].value_counts().to_pylist()]
    counted.sort(key=lambda pair: (-pair[1], pair[0]))
    return [
        {"reason": reason, "text": REASONS.get(reason, ""), "count": count, "share": count / failures.num_rows}
        for reason, count in counted
    ]


def _failure_rows(failures: pa.Table) -> list[dict[str, Any]]:
    """Return the first rows of failures, with messages cut to a readable length."""
    rows = failures.slice(0, MAX_FAILURE_ROWS).to_pylist()
    for row in rows:
        if len(row["message"]) > _MAX_MESSAGE:
            row["message"] = row["message"][:_MAX_MESSAGE] + "…"
    return rows
