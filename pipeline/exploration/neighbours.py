"""Nearest neighbours by the cosine of centred vectors: exact for some, by an inverted file for many.

The inverted file (Sivic and Zisserman 2003; FAISS, Johnson et al. 2017) has its centroids and every vector's list kept
beside the runs, in safetensors; the vectors themselves are in the latents table. So nothing that a stranger may have
written is ever parsed by FAISS.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from pipeline.destination.layout import index_path
from pipeline.errors import RequestError, StorageError
from pipeline.exploration.vectors import LatentsSource, count_latents, read_vectors, vector_batches
from pipeline.storage.store import read, size, write

#: tables up to here are searched exactly
EXACT = 100_000
#: vectors that centroids are learned from
_SAMPLE = 50_000
#: lists of the inverted file, at most, and the share of them that is searched
_LISTS, _PROBED = 1024, 1 / 64
_LARGEST_FILE = 1 << 32


@dataclass(frozen=True)
class Index:
    """Keys of N vectors, the mean D float32 that they are centred by, and FAISS's index of the rest, by row."""

    keys: list[str]
    mean: np.ndarray
    faiss: Any

    def nearest(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the neighbours of vectors n x D: cosines n x count, falling, and rows n x count int64.

        Where there are fewer, rows are -1.
        """
        return self.faiss.search(directions(vectors, self.mean), min(count, len(self.keys)))


def directions(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Subtract the mean D from vectors n x D and scale each to length one, float32; what equals the mean stays zero."""
    centred = (vectors - mean).astype(np.float32)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def exact_index(keys: list[str], vectors: np.ndarray) -> Index:
    """Build an index of vectors N x D in memory that finds the very nearest."""
    mean = vectors.mean(axis=0)
    index = import_faiss().IndexFlatIP(vectors.shape[1])
    index.add(directions(vectors, mean))
    return Index(keys, mean, index)


def open_index(source: LatentsSource) -> Index:
    """Open the index over all of a source's vectors; what takes long to find out of a large one is kept and used again.

    Raises RequestError when there are no vectors, StorageError.
    """
    if count_latents(source) <= EXACT:
        vectors = read_vectors(source, EXACT)
        return exact_index(vectors.keys, vectors.values)
    path = index_path(_mark(source))
    kept = _kept(source, path)
    if kept:
        # of vectors that differ from those it was made of, it says nothing
        with contextlib.suppress(_UnfitError):
            return _fill(source, kept["mean"], kept["centroids"], kept["lists"])[0]
    mean, centroids = _learn(source)
    index, lists = _fill(source, mean, centroids, None)
    write(source.destination, path, safetensors.numpy.save({"mean": mean, "centroids": centroids, "lists": lists}))
    return index


class _UnfitError(Exception):
    """An index that an earlier search has left is not about these vectors."""


def import_faiss() -> Any:
    """Import FAISS. Raises RequestError where it is not installed."""
    try:
        with warnings.catch_warnings():
            # its wrapper types lack what newer Pythons want of types
            warnings.simplefilter("ignore")
            import faiss
    except ImportError as error:
        raise RequestError("the search index is not installed: pip install faiss-cpu") from error
    return faiss


def _mark(source: LatentsSource) -> str:
    content = [source.branch, source.model, [[plan.run, plan.shards] for plan in source.plans]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _learn(source: LatentsSource) -> tuple[np.ndarray, np.ndarray]:
    """Learn mean D and centroids L x D from an evenly spaced sample."""
    sample = read_vectors(source, _SAMPLE).values
    mean = sample.mean(axis=0)
    lists = min(_LISTS, 1 << int(math.log2(max(2, len(sample) / 40))))
    kmeans = import_faiss().Kmeans(sample.shape[1], lists, niter=10, spherical=True, seed=1, verbose=False)
    kmeans.train(directions(sample, mean))
    return mean, kmeans.centroids


def _fill(
    source: LatentsSource, mean: np.ndarray, centroids: np.ndarray, lists: np.ndarray | None
) -> tuple[Index, np.ndarray]:
    """Build the inverted file with every vector in it, in the table's order; also return the list of each, int32."""
    faiss = import_faiss()
    quantiser = faiss.IndexFlatIP(len(mean))
    quantiser.add(centroids)
    kind, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(quantiser, len(mean), len(centroids), kind, metric, False)
    index.is_trained = True
    index.nprobe = max(8, round(_PROBED * len(centroids)))
    keys: list[str] = []
    chosen: list[np.ndarray] = []
    for found, vectors, _ in vector_batches(source):
        if not found:
            continue
        start, end = len(keys), len(keys) + len(found)
        if vectors.shape[1] != len(mean) or (lists is not None and end > len(lists)):
            raise _UnfitError
        values = directions(vectors, mean)
        own = quantiser.assign(values, 1)[:, 0] if lists is None else lists[start:end]
        own = np.ascontiguousarray(own, np.int64)
        rows = np.arange(start, end, dtype=np.int64)
        index.add_core(len(found), faiss.swig_ptr(values), faiss.swig_ptr(rows), faiss.swig_ptr(own))
        keys += found
        chosen.append(own.astype(np.int32))
    if lists is not None and len(keys) != len(lists):
        raise _UnfitError
    return Index(keys, mean, index), np.concatenate(chosen)


def _kept(source: LatentsSource, path: str) -> dict[str, np.ndarray] | None:
    """Read what an earlier search has left; None where there is nothing, or nothing that could be it."""
    try:
        if size(source.destination, path) > _LARGEST_FILE:
            return None
        kept = safetensors.numpy.load(read(source.destination, path))
    except StorageError as error:
        if error.kind != "missing":
            raise
        return None
    except SafetensorError:
        return None
    return kept if _sound(kept) else None


def _sound(kept: dict[str, np.ndarray]) -> bool:
    """Tell whether the arrays have the types and ranges that an index writes."""
    kinds = {name: (str(array.dtype), array.ndim) for name, array in kept.items()}
    if kinds != {"mean": ("float32", 1), "centroids": ("float32", 2), "lists": ("int32", 1)}:
        return False
    mean, centroids, lists = kept["mean"], kept["centroids"], kept["lists"]
    if not len(lists) or centroids.shape[1] != len(mean) or lists.min() < 0 or lists.max() >= len(centroids):
        return False
    return bool(np.isfinite(mean).all() and np.isfinite(centroids).all())
