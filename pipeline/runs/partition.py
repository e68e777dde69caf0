"""Pictures into shards, as they come: written while the source is still being listed, so that memory stays flat."""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.destination.layout import plan_part
from pipeline.destination.plans import SourcePicture, pack_pictures
from pipeline.storage.store import Store, write

#: a shard's pictures when nobody says how many: few at first, so that workers can share small runs, more as they come
_SMALLEST, _LARGEST = 64, 2048
_SHARE_OF_ALL = 128
_LONGER_FOR_ONE_FILE = 16
_WRITERS = 4


@dataclass(frozen=True)
class Parts:
    """The parts that were written: folder below `runs/`, how many pictures and shards, and a digest of the pictures."""

    folder: str
    objects: int
    shards: int
    digest: str


def growing_size(before: int) -> int:
    """Return how many pictures the next shard has when `before` are planned already: 64 at first, 2048 at most."""
    return max(_SMALLEST, min(_LARGEST, before // _SHARE_OF_ALL))


def cut(pictures: Iterable[SourcePicture], size: int | None, most_bytes: int) -> Iterator[list[SourcePicture]]:
    """Cut pictures into shards of `size` (None: growing), of objects of `most_bytes` together, at least of one picture.

    Frames of one file stay together, up to 16 times as many, to be fetched once; their file's bytes count once.
    """
    shard: list[SourcePicture] = []
    planned, taken = 0, 0
    most = size or growing_size(0)
    for one in pictures:
        together = bool(shard) and one.file is not None and one.file == shard[-1].file
        adds = 0 if together else one.size
        if together:
            full = len(shard) >= _LONGER_FOR_ONE_FILE * most
        else:
            full = len(shard) >= most or taken + adds > most_bytes
        if shard and full:
            yield shard
            planned += len(shard)
            most = size or growing_size(planned)
            shard, taken, adds = [], 0, one.size
        shard.append(one)
        taken += adds
    if shard:
        yield shard


def write_parts(destination: Store, shards: Iterable[list[SourcePicture]], digest_of: str) -> Parts:
    """Write shards as they come, in a folder that no plan names yet; the digest begins with `digest_of`."""
    folder = f"planning-{secrets.token_hex(6)}"
    digest = hashlib.sha256(digest_of.encode())
    objects = count = 0
    under_way: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="plan") as pool:
        for pictures in shards:
            digest.update("".join([f"{one.key}\n{one.etag}\n{one.size}\n" for one in pictures]).encode())
            under_way.append(pool.submit(write, destination, plan_part(folder, count), pack_pictures(pictures)))
            objects, count = objects + len(pictures), count + 1
            if len(under_way) > 2 * _WRITERS:
                under_way.popleft().result()
        for last in under_way:
            last.result()
    return Parts(folder, objects, count, digest.hexdigest())
