"""Maps: vectors to points in a plane."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from pipeline.errors import RequestError

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
    """The leading components of vectors N x D; where there are fewer than two, zeros are put beside."""
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, *vectors.shape)
    if len(vectors) < 2 or not vectors.std(axis=0).any():
        return Components(np.zeros((len(vectors), 2), np.float32), np.zeros(2))
    fitted = PCA(count, random_state=seed).fit(vectors)
    values = fitted.transform(vectors).astype(np.float32)
    missing = max(0, 2 - count)
    return Components(np.pad(values, ((0, 0), (0, missing))), np.pad(fitted.explained_variance_ratio_, (0, missing)))


def umap_map(components: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """UMAP (McInnes et al. 2018) of N x K to N x 2 float32; None for fewer than eight points.

    The same seed gives the same map. Raises RequestError where it is not installed.
    """
    if len(components) < _FEWEST:
        return None
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
        return fitted.fit_transform(components).astype(np.float32)
