"""What exploring a run's latents finds out, as plain data: the tables and the page are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.exploration.clusters import Clusters, Components
from pipeline.exploration.duplicates import Duplicate
from pipeline.exploration.features import Look
from pipeline.exploration.probes import Probe
from pipeline.exploration.vectors import LatentsSource, Vectors


@dataclass(frozen=True)
class HeatMap:
    """How far each patch of a picture is from usual ones, h x w float32, and a JPEG file of the picture."""

    distances: np.ndarray
    preview: bytes


@dataclass(frozen=True)
class Anomalies:
    """Scores of N pictures, float32, by name (larger is odder, NaN where a picture could not be read again).

    `places` are x and y of the oddest patch in 0..1, N x 2 (None where patches were not looked at); `maps` are heat
    maps by row, of those with the oddest patches only; `usual` is how far the oddest patch of an ordinary picture is.
    """

    scores: dict[str, np.ndarray]
    places: np.ndarray | None = None
    maps: dict[int, HeatMap] = field(default_factory=dict)
    usual: float = 0.0

    def oddest(self, score: str, count: int) -> list[int]:
        """List the rows of the pictures that are oddest by a score, oddest first, equal ones in order."""
        values = self.scores[score]
        order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
        return [row for row in order[:count].tolist() if not np.isnan(values[row])]


@dataclass(frozen=True)
class Findings:
    """All that exploring finds out, over N vectors; rows are those of `vectors.keys`.

    `neighbours` are rows and cosines, N x K each; `groups` rows of near-duplicates; `labels` None where none are given;
    `agreement` maps a kind of clusters to (normalised mutual information, accuracy) against the labels there are.
    `failures` are rows that say why there is no look at a picture.
    """

    source: LatentsSource
    vectors: Vectors
    looks: list[Look | None]
    components: Components
    umap: np.ndarray | None
    kmeans: Clusters
    hdbscan: Clusters
    neighbours: np.ndarray
    similarities: np.ndarray
    duplicates: list[Duplicate]
    groups: list[list[int]]
    anomalies: Anomalies
    labels: list[str | None] | None
    probes: list[Probe]
    agreement: dict[str, tuple[float, float]]
    notes: list[str]
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def labelled(self) -> int:
        """How many pictures have a label."""
        return sum(label is not None for label in self.labels or ())
