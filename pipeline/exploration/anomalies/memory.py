"""A memory of what patches usually look like, as PatchCore has it, for sets of which nobody said what is usual.

Roth et al. 2022 ("Towards Total Recall in Industrial Anomaly Detection") fill the memory from pictures that are known
to be good, thin it out to a greedy coreset, and ask how far every patch is from the nearest one in it. Here odd
pictures are in the set, too. So a patch of the memory counts for a picture only where several others have such a
patch: two that are scratched do not make scratches usual. The paper weights a picture's score by how dense the memory
is around it; here that moved no picture of the sets of `tests/benchmarks/defects.py`, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.exploration.anomalies.patches import Patches

#: patches that the memory is chosen from, of all pictures, and that it keeps
_POOL, _KEPT = 20_000, 1000
#: other pictures that have to have such a patch, where there are so many, and the share of them in small sets
_BACKED, _SHARE = 4, 0.25
#: what is added to variances, as a share of their mean, so that what hardly varies does not decide
_FLOOR = 0.1
#: patches that are compared at once
_BATCH = 4096


@dataclass(frozen=True)
class Scale:
    """What brings descriptions of patches to like deviations in all directions: less `mean` F, times `matrix` F x F."""

    mean: np.ndarray
    matrix: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Scale rows M x F float32."""
        return (rows - self.mean) @ self.matrix


@dataclass(frozen=True)
class PatchMemory:
    """Scaled patches M x F float32 that stand for all there are, and which of N pictures have such a patch, M x N."""

    scale: Scale
    patches: np.ndarray
    backed: np.ndarray
    least: int

    def distances(self, patches: Patches, own: int | None = None) -> np.ndarray:
        """Measure how far each patch of a picture is from what is usual, h x w float32.

        `own` is the number of the picture where it is one of those remembered, whose own patches then do not count.
        Zero where nothing is left to compare with.
        """
        others = self.backed.sum(axis=1) - (0 if own is None else self.backed[:, own])
        kept = self.patches[others >= self.least]
        rows = self.scale.of(patches.rows)
        if not len(kept):
            return np.zeros(patches.shape, np.float32)
        squares = (kept**2).sum(axis=1)
        near = [
            (squares - 2 * part @ kept.T).min(axis=1) + (part**2).sum(axis=1)
            for part in (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
        ]
        return np.sqrt(np.maximum(np.concatenate(near), 0)).reshape(patches.shape).astype(np.float32)


def sample(patches: Patches, pictures: int) -> np.ndarray:
    """Draw what one of so many pictures gives the memory to choose from, m x F float32: the same of equal pictures."""
    rows = patches.rows
    count = min(len(rows), max(1, _POOL // pictures))
    return rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:count])]


def fit_memory(samples: Sequence[np.ndarray]) -> PatchMemory:
    """Choose a memory of what `sample` gave of every picture: again and again the patch furthest from all chosen.

    It begins with the one nearest to the mean, and patches are sorted, so that neither chance nor the order of pictures
    has a part in it.
    """
    rows = np.concatenate(samples)
    order = np.lexsort(rows.T)
    rows, owners = rows[order], np.repeat(np.arange(len(samples)), [len(each) for each in samples])[order]
    scale = _scale(rows)
    scaled = scale.of(rows)
    squares = (scaled**2).sum(axis=1)
    chosen = [int(squares.argmin())]
    away, nearest = np.full(len(scaled), np.inf, np.float32), np.zeros(len(scaled), np.int64)
    for number in range(min(_KEPT, len(scaled))):
        last = chosen[-1]
        distance = squares - 2 * (scaled @ scaled[last]) + squares[last]
        nearer = distance < away
        away[nearer], nearest[nearer] = distance[nearer], number
        if number + 1 < min(_KEPT, len(scaled)):
            chosen.append(int(away.argmax()))
    backed = np.zeros((len(chosen), len(samples)), bool)
    backed[nearest, owners] = True
    least = max(1, min(_BACKED, int(_SHARE * (len(samples) - 1))))
    return PatchMemory(scale, scaled[chosen], backed, least)


def _scale(rows: np.ndarray) -> Scale:
    """Find what gives rows M x F a deviation of one in all directions, but for those in which they hardly vary."""
    mean, deviation = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-4)
    even = (rows - mean) / deviation
    variances, directions = np.linalg.eigh(even.T.astype(np.float64) @ even / len(even))
    lengths = np.sqrt(np.maximum(variances, 0) + max(_FLOOR * float(variances.mean()), 1e-9))
    return Scale(mean, (directions / lengths / deviation[:, None]).astype(np.float32))
