"""Maps and clusters: vectors to points in a plane, and to groups of similar pictures."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from pipeline.errors import RequestError
from pipeline.exploration.vectors import distinct

#: principal components that clusters and UMAP are made from
COMPONENTS = 50
#: fewer points have no neighbourhoods to keep
_FEWEST = 8


@dataclass(frozen=True)
class Components:
    """Principal components N x K float32 (K <= 50), and the share of the variance that each explains, K."""

    values: np.ndarray
    explained: np.ndarray


def principal_components(vectors: np.ndarray, seed: int = 0) -> Components:
    """Compute the leading components of vectors N x D; where there are fewer than two, zeros are put beside."""
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, *vectors.shape)
    if len(vectors) < 2 or not vectors.std(axis=0).any():
        return Components(np.zeros((len(vectors), 2), np.float32), np.zeros(2))
    fitted = PCA(count, random_state=seed).fit(vectors)
    values = fitted.transform(vectors).astype(np.float32)
    missing = max(0, 2 - count)
    return Components(np.pad(values, ((0, 0), (0, missing))), np.pad(fitted.explained_variance_ratio_, (0, missing)))


def umap_map(components: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """Reduce N x K to N x 2 float32 by UMAP (McInnes et al. 2018); None for fewer than eight points that differ.

    The same seed gives the same map, and equal points lie at one place. Raises RequestError where it is not installed.
    """
    first, copies = distinct(components)
    if len(first) < _FEWEST:
        return None
    components = components[first]
    neighbours = min(15, len(components) - 1)
    # the first two components as a start: never random, and no failing eigensolver for small or doubled sets
    start = components[:, :2] / max(float(np.abs(components[:, :2]).max()), 1e-12) * 10
    with warnings.catch_warnings():
        # that a seed costs threads, that there is no TensorFlow, and what its compiler thinks of it
        warnings.simplefilter("ignore")
        try:
            import umap
        except ImportError as error:
            raise RequestError("UMAP is not installed: pip install umap-learn, or say --no-umap") from error
        fitted = umap.UMAP(n_neighbors=neighbours, init=start, random_state=seed, n_jobs=1)
        found = fitted.fit_transform(components).astype(np.float32)
    return found[copies] if np.isfinite(found).all() else None


#: numbers of clusters that are tried when none is given
TRIED = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
#: points that a silhouette is taken over, and above which k-means takes them in small batches
_SILHOUETTE, _BATCHED = 3000, 20_000


@dataclass(frozen=True)
class Clusters:
    """Clusters of points: `labels`, N int32, largest cluster 0, -1 for none.

    `silhouette` -1..1 is over a sample, or None. `tried` maps each number of clusters that was tried to its silhouette.
    """

    labels: np.ndarray
    silhouette: float | None
    tried: dict[int, float]


def kmeans(points: np.ndarray, count: int | None, seed: int = 0) -> Clusters:
    """Cluster points N x K by k-means into `count` clusters, or as many of `TRIED` as have the best silhouette.

    Rousseeuw 1987. Duplicates may leave fewer clusters than asked.
    """
    distinct = len(np.unique(points, axis=0))
    if count is not None:
        found = _kmeans(points, min(count, distinct), seed)
        return Clusters(by_size(found), _silhouette(points, found, seed), {})
    tried: dict[int, float] = {}
    best: tuple[float, np.ndarray] | None = None
    for number in TRIED:
        if number > distinct // 2:
            break
        found = _kmeans(points, number, seed)
        score = _silhouette(points, found, seed)
        if score is None:
            continue
        tried[number] = score
        if best is None or score > best[0]:
            best = score, found
    if best is None:
        return Clusters(np.zeros(len(points), np.int32), None, {})
    return Clusters(by_size(best[1]), best[0], tried)


def hdbscan(points: np.ndarray, seed: int = 0) -> Clusters:
    """Cluster points N x K by HDBSCAN (Campello et al. 2013); clusters have a hundredth of the points, five at least.

    What lies in no dense place is -1. Meant for few dimensions, where density means something.
    """
    from sklearn.cluster import HDBSCAN

    smallest = max(5, len(points) // 100)
    if len(points) < 2 * smallest:
        return Clusters(np.full(len(points), -1, np.int32), None, {})
    found = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(points.astype(np.float64))
    inside = found >= 0
    return Clusters(by_size(found), _silhouette(points[inside], found[inside], seed), {})


def agreement(labels: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Compute the normalised mutual information 0..1 of clusters and labels, and their accuracy 0..1.

    Accuracy is when every cluster is given the one label that suits best: clusters and labels, N each, of any kind, are
    matched one to one (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(labels, clusters)
    rows, columns = linear_sum_assignment(-table)
    return float(normalized_mutual_info_score(labels, clusters)), float(table[rows, columns].sum() / len(labels))


def by_size(found: np.ndarray) -> np.ndarray:
    """Rename clusters by their size, from the largest, 0; -1 stays."""
    names, counts = np.unique(found[found >= 0], return_counts=True)
    order = {name: rank for rank, name in enumerate(names[np.argsort(-counts, kind="stable")])} | {-1: -1}
    return np.array([order[name] for name in found.tolist()], np.int32)


def central(points: np.ndarray, labels: np.ndarray, cluster: int, count: int) -> np.ndarray:
    """Find the rows of the `count` points of a cluster that lie nearest to its mean, nearest first."""
    rows = np.flatnonzero(labels == cluster)
    distances = np.linalg.norm(points[rows] - points[rows].mean(axis=0), axis=1)
    return rows[np.argsort(distances, kind="stable")[:count]]


def _kmeans(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind = MiniBatchKMeans if len(points) > _BATCHED else KMeans
    return kind(count, n_init=4, random_state=seed).fit_predict(points)


def _silhouette(points: np.ndarray, found: np.ndarray, seed: int) -> float | None:
    from sklearn.metrics import silhouette_score

    if len(points) > _SILHOUETTE:
        rows = np.random.default_rng(seed).choice(len(points), _SILHOUETTE, replace=False)
        points, found = points[rows], found[rows]
    count = len(np.unique(found))
    return float(silhouette_score(points, found)) if 1 < count < len(points) else None
