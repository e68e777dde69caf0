"""The objects that commits name at a destination, and those that lie there unnamed: the leftovers of killed runs."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pipeline.destination.layout import (
    ASSEMBLED,
    COMMITS,
    CURRENT,
    FOLDERS,
    PICTURES,
    RUNS,
    STREAMS,
    TABLES,
    branch_folder,
    branch_of,
    current_folder,
    current_part,
    folder_of,
    listed,
    plan_path,
    read_or_none,
    request_path,
    run_of,
    table_folder,
)
from pipeline.destination.plans import DEVELOP, Plan, kind_of, read_record
from pipeline.destination.schemas import SCHEMAS, SHARD_TABLES
from pipeline.errors import PlanError
from pipeline.storage.access import Upload, moment
from pipeline.storage.store import Store, StoredObject, abort_upload, delete, open_uploads, read

Item = TypeVar("Item")

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
        """Add texts to the set."""
        self._new.append(np.fromiter(map(hash, texts), np.int64, len(texts)))

    def update(self, others: Paths) -> None:
        """Add the texts of another set."""
        self._new += [others._sorted, *others._new]

    def contain(self, texts: Sequence[str]) -> np.ndarray:
        """Return for each of the texts whether it was added: bool, one-dimensional."""
        if self._new:
            self._sorted = np.unique(np.concatenate([self._sorted, *self._new]))
            self._new.clear()
        wanted = np.fromiter(map(hash, texts), np.int64, len(texts))
        if not len(self._sorted):
            return np.zeros(len(wanted), bool)
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return self._sorted[at] == wanted

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return those of the texts that were not added, in their order."""
        return [text for text, there in zip(texts, self.contain(texts), strict=True) if not there]


def named_paths(destination: Store, plans: Sequence[tuple[Plan, bool]]) -> Paths:
    """Return the paths of all objects that commits of any run name, and no finished later one has removed.

    `plans` are all at the destination, with whether their run is finished. Raises StorageError, and PlanError for a
    commit that is not readable, for what it names is not known then.
    """
    named, removed = Paths(), Paths()
    order = {plan.run: plan.sequence for plan, _ in plans}
    finished = {plan.run for plan, is_finished in plans if is_finished}
    newest = max(order.values(), default=0) + 1
    commits = [found.key for found in listed(destination, [COMMITS])]
    commits.sort(key=lambda path: order.get(run_of(path) or "", newest), reverse=True)
    for path, data in ahead(commits, lambda path: read(destination, path)):
        try:
            said = json.loads(data)
            named.add(removed.missing([entry["path"] for entry in said["outputs"]]))
            if run_of(path) in finished:
                removed.add(said.get("removed", []))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = f"{destination.url_of(path)} is not readable ({error}); run `darkroom verify --repair` first"
            raise PlanError(said) from error
    return named


class Leftover(NamedTuple):
    """An object that is not needed, or the `upload` that was to become one; `size` is in bytes."""

    key: str
    size: int
    modified: datetime | None
    upload: Upload | None = None


def leftovers(destination: Store, plans: Sequence[Plan], named: Paths) -> Iterator[Leftover]:
    """Yield objects of ours that no commit names and no run needs, in no order; nothing that is not ours for certain.

    Pictures and streams are ours in folders of branches that recorded requests have, unless `darkroom assemble` wrote
    them. Half-written files are ours too, and uploads in parts that were not completed. Raises StorageError, PlanError.
    """
    branches = {branch for plan in plans if not plan.folded for branch in branches_of(destination, plan)}
    assembled = _assembled(destination)
    runs = {plan.run for plan in plans if not plan.folded}
    parts = {plan.parts for plan in plans if not plan.folded}

    def unnamed(key: str) -> bool:
        folder, run = folder_of(key), run_of(key) or ""
        if folder in (PICTURES, STREAMS):
            return branch_of(key) in branches and key not in assembled
        if folder == CURRENT:
            table, of, _ = current_part(key) or ("", "", 0)
            return table in SCHEMAS and of not in runs
        if folder == TABLES:
            return key.startswith(tuple(table_folder(table) for table in SHARD_TABLES))
        if folder != RUNS:
            return False
        if _PARTS.fullmatch(run):
            return run not in parts
        # with its commits a run's folder is one that has lost its plan, which is no leftover
        return bool(_RUN.fullmatch(run)) and run not in runs and key in (request_path(run), plan_path(run))

    for batch in _batches(listed(destination, [f"{folder}/**" for folder in FOLDERS])):
        ours = [found for found in batch if unnamed(found.key)]
        known = named.contain([found.key for found in ours])
        for found, is_named in zip(ours, known, strict=True):
            if not is_named:
                yield Leftover(found.key, found.size, found.modified)
    if destination.is_local:
        yield from _unfinished(destination)
    for folder in (PICTURES, STREAMS):
        for branch in branches:
            yield from _uploads(destination, branch_folder(folder, branch))
    for table in SHARD_TABLES:
        yield from _uploads(destination, table_folder(table))
    for table in SCHEMAS:
        yield from _uploads(destination, current_folder(table))
    for one in _uploads(destination, f"{RUNS}/"):
        run = run_of(one.key) or ""
        if _RUN.fullmatch(run) or _PARTS.fullmatch(run):
            yield one


def remove(destination: Store, leftover: Leftover) -> None:
    """Delete a leftover object or abort its upload; what is gone already is no error. Raises StorageError."""
    if leftover.upload:
        abort_upload(destination, leftover.upload)
    else:
        delete(destination, leftover.key)


def branches_of(destination: Store, plan: Plan) -> list[str]:
    """Return the branches of a run's recipe; none of a suite's or an exploration's run.

    Raises StorageError, PlanError.
    """
    record = read_record(destination, plan)
    try:
        return [] if kind_of(record) != DEVELOP else list(record["recipe"]["branches"])
    except (KeyError, TypeError) as error:
        said = f"the record of run {plan.run} at {destination.url} names no branches; develop again with --fresh"
        raise PlanError(said) from error


def ahead(items: Iterable[Item], do: Callable[[Item], Any]) -> Iterator[tuple[Item, Any]]:
    """Yield each item with what `do` returns for it, in their order; some are done at once."""
    waiting: deque[tuple[Item, Future[Any]]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ahead") as pool:
        for item in items:
            waiting.append((item, pool.submit(do, item)))
            if len(waiting) > 2 * _READERS:
                item, first = waiting.popleft()
                yield item, first.result()
        for item, last in waiting:
            yield item, last.result()


def _assembled(destination: Store) -> set[str]:
    """Return the paths that `darkroom assemble` wrote."""
    said = read_or_none(destination, ASSEMBLED)
    return {one["path"] for one in json.loads(said)} if said is not None else set()


def _batches(found: Iterator[StoredObject]) -> Iterator[list[StoredObject]]:
    batch: list[StoredObject] = []
    for one in found:
        batch.append(one)
        if len(batch) == 10_000:
            yield batch
            batch = []
    yield batch


def _uploads(destination: Store, below: str) -> Iterator[Leftover]:
    for one in open_uploads(destination, below):
        yield Leftover(one.key, one.size, one.begun, one)


def _unfinished(destination: Store) -> Iterator[Leftover]:
    """Yield half-written files of processes that were killed; listings leave out what begins with a dot."""
    for folder in FOLDERS:
        for where, _, names in os.walk(os.path.join(destination.root, folder)):
            for name in filter(_UNFINISHED.fullmatch, names):
                path = os.path.join(where, name)
                key = os.path.relpath(path, destination.root).replace(os.sep, "/")
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue
                yield Leftover(key, status.st_size, moment(status.st_mtime))
