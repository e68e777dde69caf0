"""Findings as rows of `pipeline.destination.schemas`, as a summary in JSON, and as heat maps in PNG."""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from pipeline.destination.run_record import versions
from pipeline.exploration.anomalies.heat import heat_picture
from pipeline.exploration.clusters import Clusters, central
from pipeline.exploration.findings import Findings

Row = dict[str, Any]


def tables_of(findings: Findings) -> dict[str, list[Row]]:
    """Make the rows of every table of an exploration, by its name."""
    return {
        "explored": _explored(findings),
        "neighbours": _neighbours(findings),
        "duplicates": _duplicates(findings),
        "clusters": _clusters(findings, "k-means", findings.kmeans) + _clusters(findings, "HDBSCAN", findings.hdbscan),
        "probes": [vars(probe) for probe in findings.probes],
        "failures": findings.failures,
    }


def account_of(findings: Findings, started: str, seconds: float) -> Row:
    """Report what was explored and found in figures, for explore.json and the page."""
    return {
        "darkroom_version": importlib.metadata.version("darkroom"),
        "started": started,
        "seconds": round(seconds, 3),
        "source": findings.source.newest.source,
        "runs": [plan.run for plan in findings.source.plans],
        "model": findings.source.model,
        "branch": findings.source.branch,
        "explored": len(findings.vectors.keys),
        "vectors": findings.vectors.all,
        "numbers": findings.vectors.values.shape[1],
        "explained": [round(float(share), 4) for share in findings.components.explained[:10]],
        "kmeans": _cluster_account(findings.kmeans),
        "hdbscan": _cluster_account(findings.hdbscan),
        "duplicates": {"groups": len(findings.groups), "pictures": sum(map(len, findings.groups))},
        "scores": list(findings.anomalies.scores),
        "probes": [vars(probe) for probe in findings.probes],
        "agreement": {
            name: {"nmi": round(nmi, 4), "accuracy": round(accuracy, 4), "pictures": findings.labelled}
            for name, (nmi, accuracy) in findings.agreement.items()
        },
        "notes": findings.notes,
        "versions": versions(),
    }


def heat_pictures(findings: Findings) -> dict[int, bytes]:
    """Make PNG files of the pictures that have a heat map, under it, by row."""
    found = {}
    for row, heat in findings.anomalies.maps.items():
        pixels = np.asarray(Image.open(io.BytesIO(heat.preview), formats=["JPEG"]).convert("RGB"))
        buffer = io.BytesIO()
        Image.fromarray(heat_picture(pixels, heat.distances, findings.anomalies.usual)).save(buffer, "PNG")
        found[row] = buffer.getvalue()
    return found


def heat_path(row: int) -> str:
    """Return the path of a heat map below the exploration."""
    return f"heat/{row:06d}.png"


def _explored(findings: Findings) -> list[Row]:
    group_of = {row: number for number, rows in enumerate(findings.groups) for row in rows}
    anomalies = findings.anomalies
    rows = []
    for row, key in enumerate(findings.vectors.keys):
        cluster = int(findings.hdbscan.labels[row])
        rows.append(
            {
                "key": key,
                "model": findings.source.model,
                "label": findings.labels[row] if findings.labels else None,
                "pca_x": float(findings.components.values[row, 0]),
                "pca_y": float(findings.components.values[row, 1]),
                "umap_x": None if findings.umap is None else float(findings.umap[row, 0]),
                "umap_y": None if findings.umap is None else float(findings.umap[row, 1]),
                "kmeans": int(findings.kmeans.labels[row]),
                "hdbscan": None if cluster < 0 else cluster,
                "duplicates": group_of.get(row),
                "latent": number_or_none(anomalies.scores.get("latent"), row),
                "reconstruction": number_or_none(anomalies.scores.get("reconstruction"), row),
                "patch": number_or_none(anomalies.scores.get("patch"), row),
                "patch_x": None if anomalies.places is None else number_or_none(anomalies.places[:, 0], row),
                "patch_y": None if anomalies.places is None else number_or_none(anomalies.places[:, 1], row),
                "heat": heat_path(row) if row in anomalies.maps else None,
            }
        )
    return rows


def number_or_none(scores: np.ndarray | None, row: int) -> float | None:
    """Return a row's score; None where there is none."""
    return None if scores is None or np.isnan(scores[row]) else float(scores[row])


def _neighbours(findings: Findings) -> list[Row]:
    keys = findings.vectors.keys
    return [
        {"key": keys[row], "rank": rank, "neighbour": keys[near], "similarity": float(findings.similarities[row, rank])}
        for row in range(len(keys))
        for rank, near in enumerate(findings.neighbours[row].tolist())
        if near >= 0
    ]


def _duplicates(findings: Findings) -> list[Row]:
    keys = findings.vectors.keys
    group_of = {row: number for number, rows in enumerate(findings.groups) for row in rows}
    rows = [
        {
            "group": group_of[pair.first],
            "key": keys[pair.first],
            "other": keys[pair.second],
            "kind": pair.kind,
            "correlation": pair.correlation,
            "agreeing": pair.agreeing,
        }
        for pair in findings.duplicates
    ]
    return sorted(rows, key=lambda row: row["group"])


def _clusters(findings: Findings, method: str, clusters: Clusters) -> list[Row]:
    rows = []
    for cluster in range(int(clusters.labels.max(initial=-1)) + 1):
        first = central(findings.components.values, clusters.labels, cluster, 1)[0]
        members = clusters.labels == cluster
        rows.append(
            {
                "method": method,
                "cluster": cluster,
                "pictures": int(members.sum()),
                "centre": findings.vectors.keys[first],
            }
            | {"label": _commonest(findings.labels, members)}
        )
    return rows


def _commonest(labels: Sequence[str | None] | None, members: np.ndarray) -> str | None:
    names = [label for label, inside in zip(labels or (), members, strict=False) if inside and label is not None]
    return max(sorted(set(names)), key=names.count) if names else None


def _cluster_account(clusters: Clusters) -> Row:
    tried = {str(count): round(score, 4) for count, score in clusters.tried.items()}
    silhouette = None if clusters.silhouette is None else round(clusters.silhouette, 4)
    count, outside = int(clusters.labels.max(initial=-1)) + 1, int((clusters.labels < 0).sum())
    return {"clusters": count, "outside": outside, "silhouette": silhouette, "tried": tried}
