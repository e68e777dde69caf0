"""The page of an exploration: one self-contained HTML file, as the report of a run is."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from pipeline.exploration.clusters import Clusters, central
from pipeline.exploration.findings import Findings
from pipeline.reports.page import asset, environment
from pipeline.reports.plots import COLOURS

#: of what a page shows, at most
MOST_POINTS, MOST_CLUSTERS, MOST_GROUPS, MOST_ODD, MOST_HEAT = 4000, 24, 40, 22, 24
_CENTRAL, _EXAMPLES, _NEIGHBOURS, _MEMBERS = 14, 8, 9, 14
#: width and height of a map, the cells that hold a thumbnail each, and a thumbnail's side on it
_WIDTH, _HEIGHT, _COLUMNS, _ROWS, _SIDE = 1100, 660, 18, 11, 46
#: longest side of pictures beside their heat maps, pixels
_HEAT_SIDE = 360
#: the scores of anomalies, as the page tells of them
SCORES = {
    "patch": {
        "title": "By the oddest patch",
        "figure": "distance {:.2f}",
        "about": "A place that is unlike all places of other pictures: scratches, stains, things that lie where none "
        "should. Heat maps glow where a picture is odder than the oddest place of most. The figure is the distance to "
        "the nearest patch that other pictures have.",
    },
    "latent": {
        "title": "By the latent",
        "figure": "{:.2f}",
        "about": "Pictures that are unlike the others as a whole. The figure is the mean distance of the latent from "
        "its five nearest neighbours.",
    },
    "reconstruction": {
        "title": "By the reconstruction",
        "figure": "{:.1%}",
        "about": "Pictures that the model cannot rebuild from their latent. The figure is the share of the picture's "
        "variance that it gets wrong.",
    },
}


def render_exploration(findings: Findings, account: Mapping[str, Any], heat: Mapping[int, bytes], where: str) -> str:
    """Render the page as HTML text (UTF-8 encodable).

    `account` is the content of explore.json, `heat` PNG files by row.
    """
    colours = _colours(findings.kmeans)
    maps = [("Principal components", _explained(account), findings.components.values[:, :2])]
    if findings.umap is not None:
        maps.insert(0, ("UMAP", "near points are alike; distances across the map mean little", findings.umap))
    page = (
        environment()
        .get_template("explore.html")
        .render(
            account=account,
            where=where,
            maps=[
                {"title": title, "note": note, **_map(findings, points, colours), "width": _WIDTH, "height": _HEIGHT}
                for title, note, points in maps
            ],
            side=_SIDE,
            clusters=[
                {"method": method, "sheets": _sheets(findings, clusters), "about": account[name]}
                for method, name, clusters in (
                    ("k-means", "kmeans", findings.kmeans),
                    ("HDBSCAN", "hdbscan", findings.hdbscan),
                )
            ],
            colours=COLOURS,
            neighbours=_neighbours(findings),
            groups=_groups(findings),
            more_groups=max(0, len(findings.groups) - MOST_GROUPS),
            odd=_odd(findings, heat),
            best=max(findings.probes, key=lambda probe: probe.accuracy, default=None),
            css=Markup("\n".join(asset(name) for name in ("report.css", "evaluation.css", "explore.css"))),
        )
    )
    return page.encode("utf-8", "replace").decode()


def data_uri(data: bytes, kind: str = "webp") -> str:
    """Encode a picture file as a data URI."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def _explained(account: Mapping[str, Any]) -> str:
    first, second = (*account["explained"], 0, 0)[:2]
    return f"{first:.1%} and {second:.1%} of the variance"


def _colours(clusters: Clusters) -> list[str]:
    return [COLOURS[cluster % len(COLOURS)] for cluster in clusters.labels.tolist()]


def _map(findings: Findings, points: np.ndarray, colours: Sequence[str]) -> dict[str, Any]:
    """Place points as (x, y, colour, key) in the drawing, and thumbnails (x, y, colour, picture, key), one a cell."""
    # a few points far out must not squeeze all others into a corner
    low, high = np.quantile(points, 0.005, axis=0), np.quantile(points, 0.995, axis=0)
    share = np.clip((points - low) / np.maximum(high - low, 1e-9), -0.02, 1.02)
    margin = _SIDE / 2 + 8
    places = margin + share * (np.array([_WIDTH, _HEIGHT]) - 2 * margin)
    places[:, 1] = _HEIGHT - places[:, 1]
    keys = findings.vectors.keys
    step = max(1, -(-len(keys) // MOST_POINTS))
    cells: dict[tuple[int, int], int] = {}
    cell = np.array([_WIDTH / _COLUMNS, _HEIGHT / _ROWS])
    away = np.abs(places / cell % 1 - 0.5).sum(axis=1)
    for row in np.argsort(away, kind="stable").tolist():
        if findings.looks[row] is not None:
            cells.setdefault(tuple((places[row] // cell).astype(int).tolist()), row)
    spot = np.round(places, 1)
    return {
        "points": [(*spot[row].tolist(), colours[row], keys[row]) for row in range(0, len(keys), step)],
        "thumbnails": [
            (*spot[row].tolist(), colours[row], _small(findings, row), keys[row]) for row in sorted(cells.values())
        ],
    }


def _small(findings: Findings, row: int) -> str:
    """Shrink a thumbnail for a map, to about twice the size it is drawn at."""
    look = findings.looks[row]
    assert look is not None
    return data_uri(_webp(look.thumbnail, "WEBP", 72))


def _shown(findings: Findings, row: int, text: str = "") -> dict[str, Any]:
    look = findings.looks[row]
    return {
        "key": findings.vectors.keys[row],
        "picture": None if look is None else data_uri(look.thumbnail),
        "text": text,
    }


def _sheets(findings: Findings, clusters: Clusters) -> list[dict[str, Any]]:
    sheets = []
    for cluster in range(min(MOST_CLUSTERS, int(clusters.labels.max(initial=-1)) + 1)):
        rows = central(findings.components.values, clusters.labels, cluster, _CENTRAL)
        pictures = [_shown(findings, row) for row in rows.tolist()]
        sheets.append({"cluster": cluster, "count": int((clusters.labels == cluster).sum()), "pictures": pictures})
    return sheets


def _neighbours(findings: Findings) -> list[dict[str, Any]]:
    """Choose some pictures, evenly spaced over the keys, each with those nearest to it."""
    count = len(findings.vectors.keys)
    examples = np.unique(np.linspace(0, count - 1, min(_EXAMPLES, count)).astype(int)).tolist()
    found = []
    for row in examples:
        near = [
            _shown(findings, other, f"{findings.similarities[row, rank]:.2f}")
            for rank, other in enumerate(findings.neighbours[row][:_NEIGHBOURS].tolist())
            if other >= 0
        ]
        found.append({"picture": _shown(findings, row), "near": near})
    return found


def _groups(findings: Findings) -> list[dict[str, Any]]:
    kinds: dict[int, str] = {}
    for pair in findings.duplicates:
        kinds.setdefault(pair.second, pair.kind)
        kinds.setdefault(pair.first, pair.kind)
    return [
        {
            "number": number,
            "count": len(rows),
            "pictures": [_shown(findings, row, kinds.get(row, "")) for row in rows[:_MEMBERS]],
        }
        for number, rows in enumerate(findings.groups[:MOST_GROUPS])
    ]


def _odd(findings: Findings, heat: Mapping[int, bytes]) -> list[dict[str, Any]]:
    """List the scores, each with the pictures that are oddest by it; the patches' with heat maps."""
    scores, found = findings.anomalies.scores, []
    for name in [each for each in SCORES if each in scores]:
        with_maps = name == "patch"
        rows = findings.anomalies.oddest(name, MOST_HEAT if with_maps else MOST_ODD)
        pictures = [
            _shown(findings, row, SCORES[name]["figure"].format(scores[name][row]))
            | (_large(findings, row, heat) if with_maps and row in heat else {"heat": None})
            for row in rows
        ]
        found.append({"name": name, **SCORES[name], "heat": with_maps, "pictures": pictures})
    return found


def _large(findings: Findings, row: int, heat: Mapping[int, bytes]) -> dict[str, Any]:
    """Shrink a picture and its heat map to what the page shows."""
    files = {"picture": (findings.anomalies.maps[row].preview, "JPEG"), "heat": (heat[row], "PNG")}
    return {name: data_uri(_webp(data, kind, _HEAT_SIDE)) for name, (data, kind) in files.items()}


def _webp(data: bytes, kind: str, side: int) -> bytes:
    image = Image.open(io.BytesIO(data), formats=[kind]).convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=75)
    return buffer.getvalue()
