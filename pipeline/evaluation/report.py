"""The report of an evaluation: one self-contained HTML file, made like the report of a run.

Whatever comes from files and requests is escaped by the template; the page's content security policy allows no request
and no script but the ones that ship here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.evaluation import plots
from pipeline.evaluation.published import PublishedCurve
from pipeline.evaluation.rate_distortion import Evaluation, curve, curves_of
from pipeline.reports.page import asset, environment
from pipeline.reports.plots import COLOURS

Row = dict[str, Any]


def render_evaluation(run: Mapping[str, Any], evaluation: Evaluation, published: Mapping[str, PublishedCurve]) -> str:
    """Render the report as HTML text (UTF-8 encodable), a pure function of its arguments.

    `run` is the content of run.json.
    """
    curves = _curves(evaluation)
    rates = {(row["codec"], row["group"], row["metric"]): row for row in evaluation.bd_rates}
    summary = sorted((_summary(each, rates) for each in curves), key=_by_rate)
    codec, group = evaluation.anchor
    anchor = evaluation.labels[codec] if group == "measured" else f"{codec} (published)"
    script = asset("report.js") + "\n" + asset("evaluation.js")
    page = (
        environment()
        .get_template("evaluation.html")
        .render(
            run=run,
            pictures=evaluation.pictures,
            left_out=evaluation.left_out,
            absent=evaluation.absent,
            anchor=anchor,
            best=next((row for row in summary if row["psnr"]["rate"] is not None and not row["published"]), None),
            measured=[row for row in summary if not row["published"]],
            published=[row for row in summary if row["published"]],
            widest=max([abs(row["psnr"]["rate"]) for row in summary if row["psnr"]["rate"] is not None], default=0)
            or 1,
            codecs=[each for each in curves if not each["published"]],
            lossless=_lossless(evaluation),
            charts=_charts(curves, anchor, rates),
            sources=[{"name": name} | dict(published[name]) for name in published],
            settings=len([point for point in evaluation.points if point["branch"]]),
            css=Markup(asset("report.css") + "\n" + asset("evaluation.css")),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return page.encode("utf-8", "replace").decode()


def _curves(evaluation: Evaluation) -> list[Row]:
    """List everything that has a curve: number, name, label for people, colour and points, measured ones first."""
    return [
        {
            "number": number,
            "name": (codec, group),
            "label": evaluation.labels[codec] if group == "measured" else codec,
            "colour": COLOURS[number % len(COLOURS)] if group == "measured" else "var(--muted)",
            "published": group == "published",
            "anchor": (codec, group) == evaluation.anchor,
            "points": [p for p in evaluation.points if (p["codec"], p["group"]) == (codec, group)],
        }
        for number, (codec, group) in enumerate(curves_of(evaluation.points))
    ]


def _summary(of: Row, rates: Mapping[tuple[str, str, str], Row]) -> Row:
    """Make a row of the table of codecs."""
    points = of["points"]
    found = {metric: rates[(*of["name"], metric)] for metric in ("psnr", "ms_ssim")}
    return of | {
        metric: {"rate": row.get("bd_rate"), "low": row.get("low"), "high": row.get("high"), "why": row.get("message")}
        for metric, row in found.items()
    } | {
        "bpp": (min(p["bpp"] for p in points), max(p["bpp"] for p in points)),
        "quality": (min(p["psnr"] for p in points), max(p["psnr"] for p in points)),
        "encode_s": mean([p["encode_s"] for p in points]),
        "decode_s": mean([p["decode_s"] for p in points]),
    }  # fmt: skip


def mean(values: Sequence[float | None]) -> float | None:
    """Average what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _by_rate(row: Row) -> tuple[bool, float]:
    rate = row["psnr"]["rate"]
    return rate is None, rate or 0.0


def _lossless(evaluation: Evaluation) -> list[Row]:
    """List codecs without a parameter, smallest first, each with its size against the smallest."""
    points = [point for point in evaluation.points if point["branch"] and not point["parameter"]]
    smallest = min((point["bpp"] for point in points), default=1)
    rows = [
        point | {"label": evaluation.labels[point["codec"]], "more": 100 * (point["bpp"] / smallest - 1)}
        for point in points
    ]
    return sorted(rows, key=lambda row: row["bpp"])


def _charts(curves: Sequence[Row], anchor: str, rates: Mapping[tuple[str, str, str], Row]) -> list[Row]:
    """Draw SVGs with their captions; charts without anything to draw are left out."""

    def of(metric: str) -> list[plots.Curve]:
        return [_curve(each, *curve(each["points"], each["name"], metric)) for each in curves]

    def dots(time: str) -> list[plots.Curve]:
        drawn = []
        for each in curves:
            rate = rates[(*each["name"], "psnr")].get("bd_rate")
            seconds = mean([point[time] for point in each["points"]])
            if not each["published"] and rate is not None and seconds is not None:
                drawn.append(_curve(each, np.array([1000 * seconds]), np.array([rate])))
        return drawn

    wide = [
        ("PSNR", "", plots.rate_distortion(of("psnr"), "psnr", "PSNR (dB)")),
        (
            "MS-SSIM",
            "as −10 log₁₀(1 − MS-SSIM)",
            plots.rate_distortion(of("ms_ssim"), "ms-ssim", "MS-SSIM (dB)"),
        ),
    ]
    narrow = []
    for word in ("encode", "decode"):
        label = f"{word.capitalize()} (ms a picture, logarithmic)"
        svg = plots.time_and_rate(dots(f"{word}_s"), word, label, anchor)
        narrow.append((f"Time to {word}", "against BD-rate", svg))
    return [
        {"title": title, "note": note, "svg": Markup(svg), "wide": charts is wide}
        for charts in (wide, narrow)
        for title, note, svg in charts
        if svg
    ]


def _curve(of: Row, x: np.ndarray, y: np.ndarray) -> plots.Curve:
    label = f"{of['label']} (published)" if of["published"] else of["label"]
    return plots.Curve(of["number"], label, of["colour"], x, y, of["published"])
