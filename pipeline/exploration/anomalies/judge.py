"""Judging the pictures of an exploration: every score of every one of them, and heat maps of the oddest."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from models.autoencoders.interface import Autoencoder
from pipeline.destination.layout import part_path
from pipeline.destination.parquet import read_part
from pipeline.destination.plans import Plan
from pipeline.destination.schemas import DETAILS
from pipeline.exploration.anomalies.details import Detail, detail_of
from pipeline.exploration.anomalies.heat import hottest
from pipeline.exploration.anomalies.memory import fit_memory, sample
from pipeline.exploration.anomalies.scores import latent_distances, reconstruction_errors
from pipeline.exploration.features import Look
from pipeline.exploration.findings import Anomalies, HeatMap
from pipeline.exploration.vectors import Vectors, distinct
from pipeline.storage.store import Store

#: heat maps that are drawn
HEAT_MAPS = 24
#: rows that become Python objects at once
_ROWS = 32


def judge(
    vectors: Vectors,
    looks: Sequence[Look | None],
    network: Autoencoder | None,
    device: str,
    details: Store,
    plan: Plan,
) -> Anomalies:
    """Judge every picture by every score; `details` has the patches of a plan of looks. Raises StorageError."""
    # copies of a picture are judged once: else they make each other usual
    first, copies = distinct(vectors.values)
    scores = {"latent": latent_distances(vectors.values[first])[copies]}
    judged = _once([row for row, look in enumerate(looks) if look is not None], copies)
    inputs = [(row, look.model_input) for row in judged if (look := looks[row]) is not None]
    seen = [(row, pixels) for row, pixels in inputs if pixels is not None]
    if network is not None and seen:
        errors = reconstruction_errors(network, np.stack([pixels for _, pixels in seen]), device)
        scores["reconstruction"] = _spread(errors, [row for row, _ in seen], copies)
    return _with_patches(scores, vectors.keys, judged, copies, details, plan) if judged else Anomalies(scores)


def _with_patches(
    scores: dict[str, np.ndarray],
    keys: Sequence[str],
    judged: Sequence[int],
    copies: np.ndarray,
    details: Store,
    plan: Plan,
) -> Anomalies:
    """Add the score of the oddest patch, where it is, and heat maps: patches are read twice, never all at once."""
    rows = {keys[row]: row for row in judged}
    samples = {rows[key]: sample(detail.patches, len(rows)) for key, detail in _details(details, plan) if key in rows}
    # in the order of keys, whatever the shards were
    numbers = {row: number for number, row in enumerate(sorted(samples))}
    memory = fit_memory([samples[row] for row in numbers])
    every = len(numbers)
    patch, places = np.zeros(every, np.float32), np.zeros((every, 2), np.float32)
    oddest: list[tuple[float, int, HeatMap]] = []
    for key, detail in _details(details, plan):
        if (row := rows.get(key)) is None:
            continue
        number = numbers[row]
        distances = memory.distances(detail.patches, number)
        patch[number], places[number] = distances.max(), hottest(distances)
        # of equal scores the picture that comes first
        heapq.heappush(oddest, (float(patch[number]), -row, HeatMap(distances, detail.preview)))
        if len(oddest) > HEAT_MAPS:
            heapq.heappop(oddest)
    scores = scores | {"patch": _spread(patch, list(numbers), copies)}
    of_copies = {int(copies[-row]): heat for _, row, heat in oddest}
    shown = np.argsort(-np.nan_to_num(scores["patch"], nan=-1), kind="stable")[:HEAT_MAPS].tolist()
    maps = {row: of_copies[int(copies[row])] for row in shown if int(copies[row]) in of_copies}
    return Anomalies(scores, _spread(places, list(numbers), copies), maps, float(np.median(patch)))


def _details(store: Store, plan: Plan) -> Iterator[tuple[str, Detail]]:
    for shard in range(plan.shards):
        for batch in read_part(store, part_path("details", plan.run, shard), DETAILS).to_batches(_ROWS):
            for row in batch.to_pylist():
                yield row["key"], detail_of(row)


def _once(rows: Sequence[int], copies: np.ndarray) -> list[int]:
    """Keep the first of rows that are copies of each other."""
    return sorted({int(copies[row]): row for row in reversed(rows)}.values())


def _spread(values: np.ndarray, judged: Sequence[int], copies: np.ndarray) -> np.ndarray:
    """Give what each judged row has to all rows that are copies of it; rows that nobody could judge have NaN."""
    of_copies = np.full((copies.max() + 1, *values.shape[1:]), np.nan, np.float32)
    of_copies[copies[list(judged)]] = values
    return of_copies[copies]
