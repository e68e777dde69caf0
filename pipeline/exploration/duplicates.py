"""Near-duplicates: copies, rescaled, recompressed, recoloured, mirrored, and parts of one another.

Pairs worth looking at are proposed by three means: near vectors, near perceptual hashes (mirrored ones too), and local
features in common. A pair is believed only when the pictures themselves bear it out: as a whole, or by local features
that agree on one shift, turn and scale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from pipeline.exploration.features import FEWEST_AGREEING, LocalFeatures, Look, agreeing, mirrored
from pipeline.exploration.neighbours import import_faiss

Kind = Literal["copy", "mirrored copy", "part", "mirrored part"]
Pair = tuple[int, int]

#: bits in which hashes of copies may differ
NEAR_HASH = 10
#: correlation of small lumas that alone makes a copy, and that does together with a near hash
_SAME, _ALIKE = 0.985, 0.93
#: standard deviation of luma, 8-bit levels, below which a picture has nothing to compare; colours then decide
_FLAT, _SAME_COLOUR = 2.0, 3.0
#: features that must be near to propose a pair, and how near: squared distance of descriptors
_VOTES, _NEAR_FEATURE = 4, 80.0**2
#: pictures up to which every local feature is compared with every other's
MOST_VOTING = 5000
#: pairs that are looked at, at most
MOST_PAIRS = 200_000


@dataclass(frozen=True)
class Duplicate:
    """A pair of pictures, by row, first < second, that show the same.

    `correlation` -1..1 is of the whole pictures (mirrored where that is more), `agreeing` counts local features.
    """

    first: int
    second: int
    kind: Kind
    correlation: float
    agreeing: int


def find_duplicates(looks: Sequence[Look | None], near: Iterable[Pair]) -> list[Duplicate]:
    """Find near-duplicates among pictures; `near` are pairs of rows whose vectors are near, nearest first."""
    found = []
    for first, second in propose(looks, near):
        one, other = looks[first], looks[second]
        assert one is not None
        assert other is not None
        duplicate = compare(first, second, one, other)
        if duplicate:
            found.append(duplicate)
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def groups(count: int, duplicates: Iterable[Duplicate]) -> list[list[int]]:
    """Gather the rows that duplicates connect, directly or not, in groups of two or more, largest first."""
    root = list(range(count))

    def top(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for pair in duplicates:
        root[top(pair.second)] = top(pair.first)
    members: dict[int, list[int]] = {}
    for row in range(count):
        members.setdefault(top(row), []).append(row)
    return sorted((rows for rows in members.values() if len(rows) > 1), key=lambda rows: (-len(rows), rows))


def propose(looks: Sequence[Look | None], near: Iterable[Pair]) -> list[Pair]:
    """Find pairs of rows worth looking at, first < second, each once, the likeliest first; at most `MOST_PAIRS`."""
    there = [row for row, look in enumerate(looks) if look is not None]
    proposed = dict.fromkeys(_by_hash(looks, there))
    proposed |= dict.fromkeys(_by_features(looks, there))
    proposed |= dict.fromkeys((min(pair), max(pair)) for pair in near if pair[0] != pair[1])
    return [pair for pair in proposed if None not in (looks[pair[0]], looks[pair[1]])][:MOST_PAIRS]


def compare(first: int, second: int, one: Look, other: Look) -> Duplicate | None:
    """Compare two pictures: return what they have to do with each other, None when they show different things."""
    if one.luma.std() < _FLAT or other.luma.std() < _FLAT:
        flat = one.luma.std() < _FLAT and other.luma.std() < _FLAT
        same = flat and np.abs(one.colour - other.colour).max() <= _SAME_COLOUR
        return Duplicate(first, second, "copy", 1.0, 0) if same else None
    direct, turned = _correlation(one.luma, other.luma), _correlation(one.luma, other.luma[:, ::-1])
    whole = max(direct, turned)
    hashes = (one.hash, other.hash if direct >= turned else other.mirrored_hash)
    near_hash = (hashes[0] ^ hashes[1]).bit_count() <= NEAR_HASH
    kind: Kind = "copy" if direct >= turned else "mirrored copy"
    if whole >= _SAME or (whole >= _ALIKE and near_hash):
        return Duplicate(first, second, kind, whole, 0)
    count, way = _agreeing(one.features, other.features)
    if count < FEWEST_AGREEING:
        return None
    return Duplicate(first, second, way, whole, count)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(cv2.matchTemplate(np.ascontiguousarray(one), np.ascontiguousarray(other), cv2.TM_CCOEFF_NORMED)[0, 0])


def _agreeing(one: LocalFeatures | None, other: LocalFeatures | None) -> tuple[int, Kind]:
    if one is None or other is None:
        return 0, "part"
    direct, turned = agreeing(one, other), agreeing(one, mirrored(other))
    return (direct, "part") if direct >= turned else (turned, "mirrored part")


def _by_hash(looks: Sequence[Look | None], there: Sequence[int]) -> list[Pair]:
    hashes = np.array([looks[row].hash for row in there], np.uint64)  # type: ignore[union-attr]
    turned = np.array([looks[row].mirrored_hash for row in there], np.uint64)  # type: ignore[union-attr]
    found: list[tuple[int, Pair]] = []
    for place, row in enumerate(there):
        others = hashes[place + 1 :]
        bits = np.minimum(np.bitwise_count(others ^ hashes[place]), np.bitwise_count(others ^ turned[place]))
        for step in np.flatnonzero(bits <= NEAR_HASH).tolist():
            found.append((int(bits[step]), (row, there[place + 1 + step])))
    return [pair for _, pair in sorted(found)]


def _by_features(looks: Sequence[Look | None], there: Sequence[int]) -> list[Pair]:
    """List pairs with several features near one another, most first; none where there are too many pictures."""
    kept = {row: looks[row].features for row in there}  # type: ignore[union-attr]
    own = {row: features for row, features in kept.items() if features is not None and len(features.points)}
    if len(own) < 2 or len(there) > MOST_VOTING:
        return []
    faiss = import_faiss()
    descriptors = np.concatenate([features.descriptors for features in own.values()]).astype(np.float32)
    owners = np.concatenate([np.full(len(features.points), row) for row, features in own.items()])
    lists = max(1, min(1024, len(descriptors) // 100))
    index = faiss.index_factory(128, f"IVF{lists},Flat")
    index.cp.min_points_per_centroid, index.cp.niter = 1, 6
    index.train(descriptors[:: max(1, len(descriptors) // (64 * lists))])
    index.add(descriptors)
    index.nprobe = max(1, lists // 32)
    votes: Counter[Pair] = Counter()
    for turn in (lambda features: features, mirrored):
        queries = np.concatenate([turn(features).descriptors for features in own.values()]).astype(np.float32)
        distances, nearest = index.search(queries, 6)
        close = (distances < _NEAR_FEATURE) & (nearest >= 0) & (owners[nearest] != owners[:, None])
        ask, answer = np.broadcast_to(owners[:, None], nearest.shape)[close], owners[nearest][close]
        pairs = np.stack([np.minimum(ask, answer), np.maximum(ask, answer)], axis=1)
        unique, counts = np.unique(pairs, axis=0, return_counts=True)
        votes.update({(int(a), int(b)): int(count) for (a, b), count in zip(unique, counts, strict=True)})
    return [pair for pair, count in votes.most_common() if count >= _VOTES]
