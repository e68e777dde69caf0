"""The report of a suite: one self-contained HTML file with a table, bars and picture strips for every setting."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image

from pipeline.reports.page import asset, environment
from pipeline.suites.suite import GROUPS, Suite

Row = dict[str, Any]

#: score: heading, unit, decimals
SCORES = {
    "psnr": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 4),
    "psnr_y": ("PSNR-Y", "dB", 2),
    "ssim_y": ("SSIM-Y", "", 4),
    "psnr_b": ("PSNR-B", "dB", 2),
    "psnr_holes": ("PSNR, holes", "dB", 2),
}
_MOST_FAILURES = 50
_LONGEST_MESSAGE = 400


@dataclass(frozen=True)
class Strip:
    """A strip of one picture at one setting, as the bytes of its PNG file."""

    key: str
    setting: str
    png: bytes


def render_suite(
    run: Mapping[str, Any],
    suite: Suite,
    dataset: str | None,
    means: Sequence[Row],
    failures: Sequence[Row],
    notes: Sequence[str],
    strips: Sequence[Strip],
) -> str:
    """Render the report as HTML text (UTF-8 encodable), a pure function of its arguments.

    `run` is the content of run.json.
    """
    widest = max((abs(gain) for gain in _gains(suite, means).values()), default=0.0) or 1.0
    page = (
        environment()
        .get_template("suite.html")
        .render(
            run=run,
            suite=suite,
            dataset=dataset,
            scores=[SCORES[name] for name in suite.scores],
            overview=_overview(suite, means),
            settings=[_setting(suite, setting.name, setting.label, means, strips) for setting in suite.settings],
            best=_best(suite, means),
            widest=widest,
            failures=[row | {"message": row["message"][:_LONGEST_MESSAGE]} for row in failures[:_MOST_FAILURES]],
            failed=len(failures),
            notes=notes,
            css=Markup("\n".join(asset(name) for name in ("report.css", "evaluation.css", "suite.css"))),
        )
    )
    return page.encode("utf-8", "replace").decode()


def _gains(suite: Suite, means: Sequence[Row]) -> dict[tuple[str, str, str], float]:
    """Compute how much more of the first score there is than of the input.

    Published rows are compared with the input measured here.
    """
    first = suite.scores[0]
    inputs = {row["setting"]: row[first] for row in means if row["group"] == "input"}
    gains = {}
    for row in means:
        if row["group"] == "published" and row["setting"] in inputs:
            gains[row["setting"], row["label"], "published"] = row[first] - inputs[row["setting"]]
        elif row.get("gain") is not None:
            gains[row["setting"], row["label"], row["group"]] = row["gain"]
    return gains


def _setting(suite: Suite, name: str, label: str, means: Sequence[Row], strips: Sequence[Strip]) -> Row:
    """Collect everything of one setting, best first, with its strips as data URIs."""
    gains = _gains(suite, means)
    rows = [row for row in means if row["setting"] == name]
    rows.sort(key=lambda row: -row[suite.scores[0]])
    return {
        "name": name,
        "label": label,
        "rows": [
            row
            | {
                "cells": [(row.get(score), SCORES[score][2]) for score in suite.scores],
                "gain": gains.get((name, row["label"], row["group"])),
            }
            for row in rows
        ],
        "strips": [{"key": strip.key, "image": _data_uri(strip.png)} for strip in strips if strip.setting == name],
    }


def _overview(suite: Suite, means: Sequence[Row]) -> list[Row]:
    """Make rows of methods against settings: the first score of each, the best measured one of a setting marked."""
    first, digits = suite.scores[0], SCORES[suite.scores[0]][2]
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in means:
        values.setdefault((row["group"], row["label"]), {})[row["setting"]] = row[first]
    best = _best(suite, means)
    rows = [
        {
            "group": group,
            "label": label,
            "cells": [
                {
                    "value": own.get(setting.name),
                    "best": best.get(setting.name) == (group, label),
                    "digits": digits,
                }
                for setting in suite.settings
            ],
            "mean": sum(own.values()) / len(own),
        }
        for (group, label), own in values.items()
    ]
    return sorted(rows, key=lambda row: (GROUPS.index(row["group"]), row["mean"]))


def _best(suite: Suite, means: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Find the measured method with the highest first score at every setting, as (group, label)."""
    best: dict[str, Row] = {}
    for row in means:
        if (
            row["group"] != "published"
            and row[suite.scores[0]] > best.get(row["setting"], row)[suite.scores[0]] - 1e-12
        ):
            best[row["setting"]] = row
    return {setting: (row["group"], row["label"]) for setting, row in best.items()}


def _data_uri(png: bytes) -> str:
    """Turn a PNG file into WebP in a data URI: near enough to judge by, a tenth of the size."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).save(buffer, "WEBP", quality=92, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
