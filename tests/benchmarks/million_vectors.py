"""A million vectors: written as a latents table, indexed and searched; seconds, recall, memory.

Vectors are int8 around many centres, as latents are. Every stage runs in a process of its own, so that its peak memory
is its own. Recall is of the ten nearest, against exact search, of pictures that are in the table.

python -m tests.benchmarks.million_vectors [--count 1000000] [--numbers 128] [--folder FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.destination.layout import part_path
from pipeline.destination.schemas import LATENTS
from pipeline.exploration.neighbours import directions, open_index
from pipeline.exploration.vectors import find_latents, vector_batches
from pipeline.storage.store import open_store
from tests.exploration_runs import MODEL, write_run

_PART, _CENTRES, _ASKED, _NEAREST = 50_000, 5000, 200, 10


def write(folder: str, count: int, numbers: int) -> None:
    """A run whose latents table has `count` vectors, in parts."""
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 30, (_CENTRES, numbers)).astype(np.float32)
    parts = -(-count // _PART)
    write_run(Path(folder), [[] for _ in range(parts)])
    run = Path(folder, "runs/r1/run.json")
    run.write_text(json.dumps(json.loads(run.read_text()) | {"counts": {"latents": count}}))
    for number in range(parts):
        size = min(_PART, count - number * _PART)
        noise = generator.normal(0, 12, (size, numbers)).astype(np.float32)
        values = (centres[generator.integers(0, _CENTRES, size)] + noise).round().clip(-127, 127).astype(np.int8)
        columns: dict[str, Any] = {name: pa.nulls(size, LATENTS.field(name).type) for name in LATENTS.names}
        columns["key"] = [f"{number:05d}/{row:06d}.jpg" for row in range(size)]
        columns |= {"shard": [number] * size, "branch": ["vectors"] * size, "model": [MODEL] * size}
        columns["latent"] = pa.ListArray.from_arrays(
            pa.array(np.arange(0, values.size + 1, numbers, dtype=np.int32)),
            pa.array(values.ravel()),
            type=LATENTS.field("latent").type,
        )
        columns |= {"shape": [[numbers]] * size, "scale": [[0.25]] * size}
        columns |= {"width": [64] * size, "height": [64] * size, "grey": [False] * size}
        table = pa.table({name: pa.array(columns[name], LATENTS.field(name).type) for name in LATENTS.names})
        pq.write_table(table, Path(folder, part_path("latents", "r1", number)), compression="zstd")


def search(folder: str) -> dict[str, float]:
    """Open the index (make it, if it is not there) and ask it; seconds of both."""
    source = find_latents(open_store(folder), None)
    started = time.monotonic()
    index = open_index(source)
    opened = time.monotonic() - started
    asked, _ = questions(folder)
    started = time.monotonic()
    for vector in asked:
        index.nearest(vector[None], _NEAREST)
    return {"open_s": opened, "one_ms": 1000 * (time.monotonic() - started) / len(asked), "count": len(index.keys)}


def recall(folder: str) -> dict[str, float]:
    """The share of the ten nearest that the index finds."""
    source = find_latents(open_store(folder), None)
    index = open_index(source)
    asked, rows = questions(folder)
    unit = directions(asked, index.mean)
    best = np.full((len(asked), _NEAREST), -np.inf, np.float32)
    keys = np.zeros((len(asked), _NEAREST), np.int64)
    start = 0
    for found, vectors, _ in vector_batches(source):
        cosines = np.concatenate([best, unit @ directions(vectors, index.mean).T], axis=1)
        numbers = np.concatenate(
            [keys, np.broadcast_to(np.arange(start, start + len(found)), (len(asked), len(found)))], 1
        )
        order = np.argpartition(-cosines, _NEAREST - 1, axis=1)[:, :_NEAREST]
        best, keys = np.take_along_axis(cosines, order, 1), np.take_along_axis(numbers, order, 1)
        start += len(found)
    found_rows = index.nearest(asked, _NEAREST)[1]
    shared = [len(set(a) & set(b)) for a, b in zip(found_rows.tolist(), keys.tolist(), strict=True)]
    return {"recall": sum(shared) / (_NEAREST * len(asked)), "self": float((found_rows[:, 0] == rows).mean())}


def questions(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Some vectors of the first part, and their rows."""
    batches = vector_batches(find_latents(open_store(folder), None))
    _, vectors, _ = next(batches)
    rows = np.linspace(0, len(vectors) - 1, min(_ASKED, len(vectors))).astype(int)
    return vectors[rows], rows


def measured(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """What a fresh process gives, its seconds (imports not counted) and its peak memory in GB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_timed, work, *arguments).result()


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    started = time.monotonic()
    result = work(*arguments)
    return result, time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--numbers", type=int, default=128)
    parser.add_argument("--folder", help="where the table goes; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table = Table(
        "stage", "seconds", "peak GB", "", title=f"{arguments.count:,} vectors of {arguments.numbers} numbers"
    )
    content: dict[str, Any] = {"count": arguments.count, "numbers": arguments.numbers}
    with tempfile.TemporaryDirectory(prefix="darkroom-million-") as place:
        folder = arguments.folder or place
        for name, work, more in (
            ("write", write, (arguments.count, arguments.numbers)),
            ("index and search", search, ()),
            ("open and search again", search, ()),
            ("recall", recall, ()),
        ):
            result, seconds, memory = measured(work, folder, *more)
            said = ", ".join(f"{key} {value:.4g}" for key, value in (result or {}).items())
            table.add_row(name, f"{seconds:.1f}", f"{memory:.2f}", said)
            content[name] = {"seconds": seconds, "peak_gb": memory} | (result or {})
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
