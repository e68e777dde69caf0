"""Vectors out of a latents table, streamed part by part.

A representation's latent is a vector as it is. The latent of a codec has places, and pictures of two sizes have two
numbers of them: it is pooled to the mean and the standard deviation of every channel.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.destination.layout import part_path, read_json, record_path
from pipeline.destination.parquet import read_columns
from pipeline.destination.plans import Plan, earlier_plans
from pipeline.errors import RequestError
from pipeline.storage.store import Store, read

#: numbers in a vector, at most; longer ones are left out
LONGEST = 65_536
#: numbers that all vectors read at once may have together: 2 GiB of float32
MOST_NUMBERS = 1 << 29
_BATCH = 8192


@dataclass(frozen=True)
class LatentsSource:
    """The latents that one model gave in one branch: of finished runs over one source, the newest run first.

    Runs that record what of it is gone are among them.
    """

    destination: Store
    plans: tuple[Plan, ...]
    branch: str
    model: str
    #: how many pairs of branch and model there are in the table, these included
    writers: int = 1

    @property
    def newest(self) -> Plan:
        return next(plan for plan in self.plans if not plan.gone)


@dataclass(frozen=True)
class Vectors:
    """N keys in order, their vectors N x D float32, and how many rows `all` runs have; `left_out` have no vector."""

    keys: list[str]
    values: np.ndarray
    all: int
    left_out: int


def find_latents(destination: Store, wanted: str | None) -> LatentsSource:
    """Find the latents at the destination of runs.

    `wanted` is the name of a model, its tag, the URL of its weights or a branch; the default is the first
    representation, else the first codec. Raises RequestError when there are none, StorageError.
    """
    finished = [plan for plan, done in reversed(earlier_plans(destination)) if done and not plan.folded]
    for number, newest in enumerate(finished):
        found = [] if newest.gone else _writers(destination, newest)
        if not found:
            continue
        names = ", ".join(f"{model} (branch {branch})" for branch, model in found)
        name = None if wanted is None else wanted.rpartition("/")[2].removesuffix(".safetensors")
        asked = [pair for pair in found if name in (None, pair[0], pair[1], pair[1].rpartition("@")[0])]
        if not asked:
            raise RequestError(f"{destination.url} has no latents of {wanted!r}; there are those of {names}")
        others = [plan for plan in finished[:number] if plan.gone] + finished[number:]
        plans_of_source = tuple(plan for plan in others if plan.source == newest.source)
        return LatentsSource(destination, plans_of_source, *asked[0], len(found))
    raise RequestError(
        f"{destination.url} has no finished run with latents; give a folder of pictures and a DESTINATION, "
        "or run `darkroom develop SOURCE DESTINATION --recipe represent` first"
    )


def recipe_steps(source: LatentsSource) -> list[dict[str, Any]]:
    """Read the steps of the branch that wrote the latents, as in a recipe. Raises StorageError."""
    run = read_json(source.destination, record_path(source.newest.run))
    return run["recipe"]["branches"][source.branch]


def count_latents(source: LatentsSource) -> int:
    """Estimate how many rows the source has: where several models wrote latents, an equal share of all."""
    runs = (read_json(source.destination, record_path(plan.run)) for plan in source.plans if not plan.gone)
    return -(-sum(run["counts"]["latents"] for run in runs) // source.writers)


def vector_batches(source: LatentsSource) -> Iterator[tuple[list[str], np.ndarray, int]]:
    """Yield keys, vectors n x D float32, and how many rows had none; of a key in several runs only the newest row.

    Always in the same order. Rows are left out whose latent is in the stream only, contradicts its shape, is no number
    or of another length than the first. Raises StorageError.
    """
    seen: set[str] = set()
    width: int | None = None
    for plan in source.plans:
        fresh: list[str] = []
        for shard in range(plan.shards):
            if plan.gone:
                path = part_path("manifest", plan.run, shard)
                fresh += read_columns(source.destination, path, ["key"])["key"].to_pylist()
                continue
            for batch in _batches(source, part_path("latents", plan.run, shard)):
                rows = batch.filter(
                    pc.and_(pc.equal(batch["model"], source.model), pc.equal(batch["branch"], source.branch))
                )
                if seen:
                    rows = rows.filter(pc.invert(pc.is_in(rows["key"], pa.array(seen, pa.string()))))
                if len(source.plans) > 1:
                    fresh += rows["key"].to_pylist()
                keys, values = vectors_of(rows, width)
                width = width or (values.shape[1] if len(keys) else None)
                yield keys, values, rows.num_rows - len(keys)
        seen.update(fresh)


def read_vectors(source: LatentsSource, most: int) -> Vectors:
    """Read at most `most` vectors, evenly spaced over the table, sorted by key.

    Raises RequestError when there are none.
    """
    every = max(1, -(-count_latents(source) // most))
    keys: list[str] = []
    parts: list[np.ndarray] = []
    number = left_out = numbers = 0
    for found, values, without in vector_batches(source):
        chosen = slice(-number % every, None, every)
        keys += found[chosen]
        # a copy, for a slice would keep all of its batch in memory
        parts.append(values[chosen].copy())
        number += len(found)
        left_out += without
        numbers += parts[-1].size
        if numbers > MOST_NUMBERS:
            raise RequestError(f"{len(keys):,} vectors do not fit into memory; explore fewer with --limit")
    if not keys:
        raise RequestError(f"{source.destination.url}: no row of {source.model} has a latent to explore")
    values = np.concatenate([part for part in parts if len(part)])
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Vectors([keys[place] for place in order], values[order], number, left_out)


def vectors_of(rows: pa.Table, width: int | None = None) -> tuple[list[str], np.ndarray]:
    """Read keys and vectors, n x D float32, of rows of the latents table; rows without one of `width` are left out."""
    rows = rows.filter(pc.is_valid(rows["latent"])).combine_chunks()
    lengths = {name: pc.list_value_length(rows[name]).to_numpy() for name in ("latent", "shape", "scale")}
    plain = (lengths["shape"] == 1) & (lengths["scale"] == 1) & (lengths["latent"] <= LONGEST)
    if rows.num_rows and plain.all() and len(set(lengths["latent"])) == 1 and width in (None, lengths["latent"][0]):
        symbols = _flat(rows["latent"], np.int8).reshape(rows.num_rows, -1)
        values = symbols * _flat(rows["scale"], np.float32)[:, None]
        good = np.isfinite(values).all(axis=1) & (_flat(rows["shape"], np.int64) == symbols.shape[1])
        return rows.filter(pa.array(good))["key"].to_pylist(), values[good]
    keys, vectors = [], []
    for row in rows.to_pylist():
        vector = _vector(row)
        if vector is not None and len(vector) == (width or len(vector)) and np.isfinite(vector).all():
            width = len(vector)
            keys.append(row["key"])
            vectors.append(vector)
    return keys, np.stack(vectors) if vectors else np.empty((0, width or 0), np.float32)


def distinct(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the distinct rows of vectors N x D: the first row of each kind, in order, and the kind of each row, N."""
    _, first, kinds = np.unique(vectors, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[kinds.reshape(-1)]


def _vector(row: dict[str, Any]) -> np.ndarray | None:
    symbols, scale = np.asarray(row["latent"], np.int8), np.asarray(row["scale"], np.float32)
    shape = row["shape"]
    if not shape or min(shape) < 1 or symbols.size != np.prod(shape, dtype=np.int64):
        return None
    if len(scale) not in (1, shape[0]):
        return None
    latent = symbols.reshape(shape[0], -1) * scale[:, None]
    vector = latent.ravel() if len(shape) == 1 else np.concatenate([latent.mean(1), latent.std(1)])
    return vector if vector.size <= LONGEST else None


def _flat(column: pa.ChunkedArray, kind: type) -> np.ndarray:
    return pc.list_flatten(column).to_numpy().astype(kind, copy=False)


def _writers(destination: Store, plan: Plan) -> list[tuple[str, str]]:
    """List branch and model of every latent in the first part that has any, representations first."""
    for shard in range(plan.shards):
        part = _table(destination, part_path("latents", plan.run, shard)).read(["branch", "model", "shape"])
        if part.num_rows:
            ranks = pc.list_value_length(part["shape"]).to_pylist()
            found = zip(ranks, part["branch"].to_pylist(), part["model"].to_pylist(), strict=True)
            return [(branch, model) for _, branch, model in dict.fromkeys(sorted(found, key=lambda each: each[0]))]
    return []


def _batches(source: LatentsSource, path: str) -> Iterator[pa.Table]:
    columns = ["key", "branch", "model", "latent", "shape", "scale"]
    for batch in _table(source.destination, path).iter_batches(_BATCH, columns=columns):
        yield pa.Table.from_batches([batch])


def _table(destination: Store, path: str) -> pq.ParquetFile:
    data = read(destination, path)
    try:
        return pq.ParquetFile(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise RequestError(f"{destination.url_of(path)} is no readable table ({error}); develop again") from error
