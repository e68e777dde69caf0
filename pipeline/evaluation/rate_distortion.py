"""Points and curves of an evaluation: what the metrics of a run say of codecs.

Points are rows of `pipeline.destination.schemas`. A curve is named by a pair: the codec, and its group (`measured` or
`published`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.destination.run_record import Summary
from pipeline.errors import BdRateError
from pipeline.evaluation.bd_rate import bd_rate, decibels
from pipeline.evaluation.codec_grids import Trial
from pipeline.evaluation.published import PublishedCurve

Row = dict[str, Any]
Name = tuple[str, str]

#: columns of the metrics table that points are made of
MEASURED = ("key", "branch", "bpp", "psnr", "ms_ssim", "encode_s", "decode_s")


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation.

    `points` and `bd_rates` are rows of `pipeline.destination.schemas`, `labels` say codecs' names for people.
    `pictures` were measured by every branch, `left_out` were not; `absent` are branches that measured nothing at all.
    `report` is the URL of evaluation.html, None when no picture was measured.
    """

    summary: Summary
    anchor: Name
    labels: dict[str, str]
    points: list[Row]
    bd_rates: list[Row]
    pictures: int
    left_out: int
    absent: list[str]
    report: str | None


def measured_points(tried: Sequence[Trial], rows: pa.Table) -> tuple[list[Row], int, list[str]]:
    """Average metrics to a point for every branch.

    Returns the points, how many pictures each is the mean of, and the branches without any measurement.
    """
    rows = rows.filter(pc.is_valid(rows["psnr"]))
    branches = set(rows["branch"].unique().to_pylist())
    per_key = rows.group_by("key", use_threads=False).aggregate([("branch", "count")])
    common = per_key.filter(pc.equal(per_key["branch_count"], len(branches)))["key"]
    rows = rows.filter(pc.is_in(rows["key"], common.combine_chunks()))
    columns = [column for column in MEASURED if column not in ("key", "branch")]
    means = rows.group_by("branch", use_threads=False).aggregate([(column, "mean") for column in columns]).to_pylist()
    by_branch = {row["branch"]: {column: row[f"{column}_mean"] for column in columns} for row in means}
    points = [
        {"codec": trial.codec.name, "group": "measured", "branch": trial.branch, "pictures": len(common)}
        | {"parameter": trial.codec.parameter, "value": trial.value}
        | by_branch[trial.branch]
        for trial in tried
        if trial.branch in by_branch
    ]
    return points, len(common), [trial.branch for trial in tried if trial.branch not in branches]


def published_points(published: dict[str, PublishedCurve]) -> list[Row]:
    """Make a point for every published one, curve by curve, by rising rate."""
    return [
        {"codec": name, "group": "published", "branch": None, "parameter": None, "value": None, "pictures": None}
        | {"bpp": point.bpp, "psnr": point.psnr, "ms_ssim": point.ms_ssim}
        | {"encode_s": point.enc_s, "decode_s": point.dec_s}
        for name, found in published.items()
        for point in sorted(found.points, key=lambda point: point.bpp)
    ]


def compare(points: Sequence[Row], anchor: Name) -> list[Row]:
    """Compute BD-rates of every curve against the anchor, for PSNR and MS-SSIM, a row each.

    Where there is none, the message of the row says why.
    """
    rows = []
    for codec, group in curves_of(points):
        for metric in ("psnr", "ms_ssim"):
            row: Row = {"codec": codec, "group": group, "metric": metric}
            row |= {"anchor": anchor[0], "anchor_group": anchor[1]}
            try:
                found = bd_rate(*curve(points, anchor, metric), *curve(points, (codec, group), metric))
            except BdRateError as error:
                rows.append(row | {"message": str(error)})
                continue
            row |= {"bd_rate": found.percent, "low": found.low, "high": found.high, "left_out": found.left_out}
            rows.append(row)
    return rows


def curves_of(points: Sequence[Row]) -> list[Name]:
    """List (codec, group) of all lossy codecs and published curves, in the order of their points."""
    varied = [(point["codec"], point["group"]) for point in points if point["value"] is not None or not point["branch"]]
    return list(dict.fromkeys(varied))


def curve(points: Sequence[Row], of: Name, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rates in bpp and qualities in dB of one (codec, group), float64; points without this quality are left out.

    So are points of MS-SSIM 1, which is no number of dB.
    """
    own = [p for p in points if (p["codec"], p["group"]) == of and p[metric] is not None]
    own = own if metric == "psnr" else [p for p in own if p[metric] < 1]
    quality = np.array([p[metric] for p in own], float)
    return np.array([p["bpp"] for p in own], float), quality if metric == "psnr" else decibels(quality)
