"""What commits name at a destination, and what lies there unnamed: the leftovers of killed runs."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from pipeline.frames.assemble import ASSEMBLED
from pipeline.plans import Plan, PlanError, recorded_request
from pipeline.storage import StorageError, Store, StoredObject, list_objects, read
from pipeline.storage_local import describe
from pipeline.tables import SCHEMAS

FOLDERS = ("pictures", "streams", "tables", "runs")
_READERS = 8
#: what a run's folder is called, and one of parts
_RUN, _PARTS = re.compile(r"r[0-9a-f]{12}"), re.compile(r"planning-[0-9a-f]{12}")
_UNFINISHED = re.compile(r"\.darkroom-[0-9a-f]{16}\.part")


class Paths:
    """A set of very many texts, eight bytes each; one in 10^12 answers for ten million texts is a false yes."""

    def __init__(self) -> None:
        self._new: list[np.ndarray] = []
        self._sorted = np.empty(0, np.int64)

    def add(self, texts: Sequence[str]) -> None:
        self._new.append(np.fromiter(map(hash, texts), np.int64, len(texts)))

    def update(self, others: Paths) -> None:
        self._new += [others._sorted, *others._new]

    def contain(self, texts: Sequence[str]) -> np.ndarray:
        """For each of the texts whether it was added."""
        if self._new:
            self._sorted = np.unique(np.concatenate([self._sorted, *self._new]))
            self._new.clear()
        wanted = np.fromiter(map(hash, texts), np.int64, len(texts))
        if not len(self._sorted):
            return np.zeros(len(wanted), bool)
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return self._sorted[at] == wanted


def named_paths(destination: Store) -> Paths:
    """Every object that a commit of any run names.

    Raises PlanError for a commit that is not readable, for what it names is not known then; StorageError.
    """
    named = Paths()
    commits = (found.key for found in listed(destination, ["runs/*/shards/*.json"]))
    for path, data in ahead(commits, lambda path: read(destination, path)):
        try:
            named.add([entry["path"] for entry in json.loads(data)["outputs"]])
        except (ValueError, KeyError, TypeError) as error:
            said = f"{destination.url_of(path)} is not readable ({error}); run `darkroom verify --repair` first"
            raise PlanError(said) from error
    return named


def leftovers(destination: Store, plans: Sequence[Plan], named: Paths) -> Iterator[StoredObject]:
    """Objects of ours that no commit names and no run needs, in no order; nothing that is not ours for certain.

    Pictures and streams are ours in folders of branches that recorded requests have, unless `darkroom assemble` wrote
    them. Raises StorageError, PlanError.
    """
    branches = {branch for plan in plans if not plan.folded for branch in branches_of(destination, plan)}
    assembled = _assembled(destination)
    runs = {plan.run for plan in plans if not plan.folded}
    parts = {plan.parts for plan in plans if not plan.folded}

    def unnamed(key: str) -> bool:
        folder, second, *rest = [*key.split("/"), ""]
        if folder in ("pictures", "streams"):
            return second in branches and key not in assembled
        if folder == "tables":
            return second in SCHEMAS and rest[0].startswith("run=")
        if _PARTS.fullmatch(second):
            return second not in parts
        # with its commits a run's folder is one that has lost its plan, which is no leftover
        return bool(_RUN.fullmatch(second)) and second not in runs and rest[0] in ("request.json", "plan.json")

    for batch in _batches(listed(destination, [f"{folder}/**" for folder in FOLDERS])):
        ours = [found for found in batch if unnamed(found.key)]
        known = named.contain([found.key for found in ours])
        yield from (found for found, is_named in zip(ours, known, strict=True) if not is_named)
    if destination.scheme == "file":
        yield from _unfinished(destination)


def branches_of(destination: Store, plan: Plan) -> list[str]:
    """The branches of a run's recipe."""
    return list(recorded_request(destination, plan).recipe["branches"])  # type: ignore[index]


def listed(store: Store, include: Sequence[str]) -> Iterator[StoredObject]:
    """As `list_objects`; a folder that is not there holds nothing."""
    try:
        yield from list_objects(store, include)
    except StorageError as error:
        if error.kind != "missing":
            raise


def ahead(paths: Iterable[str], load: Callable[[str], Any]) -> Iterator[tuple[str, Any]]:
    """Each path with what `load` makes of it, in their order, some of them at once."""
    waiting: deque[tuple[str, Future[Any]]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ahead") as pool:
        for path in paths:
            waiting.append((path, pool.submit(load, path)))
            if len(waiting) > 2 * _READERS:
                path, first = waiting.popleft()
                yield path, first.result()
        for path, last in waiting:
            yield path, last.result()


def _assembled(destination: Store) -> set[str]:
    try:
        return {one["path"] for one in json.loads(read(destination, ASSEMBLED))}
    except StorageError as error:
        if error.kind != "missing":
            raise
        return set()


def _batches(found: Iterator[StoredObject]) -> Iterator[list[StoredObject]]:
    batch: list[StoredObject] = []
    for one in found:
        batch.append(one)
        if len(batch) == 10_000:
            yield batch
            batch = []
    yield batch


def _unfinished(destination: Store) -> Iterator[StoredObject]:
    """Half-written files of processes that were killed; listings leave out what begins with a dot."""
    for folder in FOLDERS:
        for where, _, names in os.walk(os.path.join(destination.root, folder)):
            for name in filter(_UNFINISHED.fullmatch, names):
                path = os.path.join(where, name)
                key = os.path.relpath(path, destination.root).replace(os.sep, "/")
                try:
                    yield describe(key, path, os.stat(path))
                except FileNotFoundError:
                    continue
