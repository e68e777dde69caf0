"""One shard, streaming: read ahead, develop, write behind, commit with one last object."""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2

from models.training import choose_device
from pipeline.batching import Batcher
from pipeline.develop import Developed, Settings, develop_picture, fail, unread
from pipeline.frames.shared_file import SharedFile
from pipeline.frames.source import SourcePicture
from pipeline.picture import PictureError, parse_crop
from pipeline.plan import Plan, commit_path, destination_of, recipe_of, shard_pictures, source_of
from pipeline.recipe import Recipe
from pipeline.request import DevelopRequest
from pipeline.stages import MemoryBudget, Stage, cores
from pipeline.storage import StorageError, Store, exists, read, write
from pipeline.tables import part_path, to_parquet

#: bytes that decoded pictures in work may take together, and how many bytes a pixel costs at its worst
_MEMORY = 1_200_000_000
_BYTES_PER_PIXEL = 40
_TRANSFER_THREADS = 8


class Cancelled(Exception):
    """Somebody stopped the run; the shard was not committed, and running again does it from its beginning."""


@dataclass(frozen=True)
class Commit:
    """What a shard did, as kept in `runs/<run>/shards/<shard>.json`. `outputs` names every object it wrote."""

    run: str
    shard: int
    objects: int
    good: int
    failed: int
    branch_failures: int
    rows: dict[str, int]
    reasons: dict[str, int]
    bytes_read: int
    bytes_written: int
    seconds: float
    outputs: list[dict[str, Any]] = field(default_factory=list)


def run_shard(
    request: DevelopRequest,
    plan: Plan,
    shard: int,
    progress: Callable[[bool], None] = lambda good: None,
    stop: Callable[[], bool] = lambda: False,
) -> Commit:
    """Develop one planned shard and commit it; a shard that is committed already is only read.

    `progress` is called once a picture (True: good) from this thread. When `stop` says True, or storage fails as
    a whole, nothing is committed: Cancelled or StorageError. Running again overwrites whatever was left.
    """
    destination = destination_of(request)
    if exists(destination, commit_path(plan.run, shard)):
        return read_commit(destination, plan.run, shard)
    started = time.monotonic()
    found = shard_pictures(destination, plan.run, shard)
    with Batcher(choose_device(request.device), request.batch) as batcher:
        stream = _Stream(request, destination, batcher, found)
        developed = stream.run(progress, stop)
    return _commit(destination, plan, shard, developed, stream, time.monotonic() - started)


def read_commit(destination: Store, run: str, shard: int) -> Commit:
    """A committed shard's own account. Raises StorageError when the shard is not committed."""
    return Commit(**json.loads(read(destination, commit_path(run, shard))))


class _Stream:
    """The stages of one shard. At most `depth` pictures are under way; results arrive in any order."""

    def __init__(self, request: DevelopRequest, destination: Store, batcher: Batcher, found: list[SourcePicture]):
        self.source, self.destination = source_of(request), destination
        self.recipe: Recipe = recipe_of(request)
        self.settings = Settings(request.pixel_limit, request.measure, parse_crop(request.crop), request.model)
        self.batcher, self.found, self.deadline = batcher, found, request.deadline_s
        self.most = request.frame_limit
        self.workers = request.workers or cores()
        # a batch can only fill when as many pictures are in work at once
        self.workers += batcher.batch - 1
        self.budget = MemoryBudget(_MEMORY)
        self.results: queue.SimpleQueue[tuple[int, Developed] | BaseException] = queue.SimpleQueue()
        self.since: dict[int, tuple[str, float]] = {}
        self.taken: dict[int, int] = {}
        self.abandoned: set[int] = set()
        self.lock = threading.Lock()
        self.files = _files(self.source, found, request.pixel_limit)
        self.written: list[dict[str, Any]] = []
        self.bytes_read = 0

    def run(self, progress: Callable[[bool], None], stop: Callable[[], bool]) -> list[Developed]:
        """All results, in the order of the shard's objects."""
        # OpenCV's own threads would fight with ours
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        self.read_stage = Stage("read", _TRANSFER_THREADS, self._read)
        self.work_stage = Stage("develop", self.workers, self._develop)
        self.write_stage = Stage("write", _TRANSFER_THREADS, self._write)
        stages: dict[str, Stage] = {"read": self.read_stage, "develop": self.work_stage, "write": self.write_stage}
        results: dict[int, Developed] = {}
        depth, submitted, checked = 2 * self.workers + 2, 0, time.monotonic()
        try:
            while len(results) < len(self.found):
                while submitted < len(self.found) and submitted - len(results) < depth:
                    self.read_stage.submit(submitted)
                    submitted += 1
                if stop():
                    raise Cancelled("stopped before the shard was done; run again to go on")
                if time.monotonic() - checked > 0.5:
                    self._check_deadlines(stages)
                    checked = time.monotonic()
                try:
                    result = self.results.get(timeout=0.5)
                except queue.Empty:
                    continue
                if isinstance(result, BaseException):
                    raise result
                index, developed = result
                if index not in results:
                    results[index] = developed
                    progress(developed.manifest["status"] == "ok")
        finally:
            with self.lock:
                self.abandoned.update(range(len(self.found)))
            for stage in stages.values():
                stage.close()
            for file in self.files.values():
                file.close()
            cv2.setNumThreads(threads)
        return [results[index] for index in range(len(self.found))]

    def _read(self, index: int) -> None:
        if index in self.abandoned:
            return
        found = self.found[index]
        with self._timed(index, "read"):
            data: bytes | SharedFile
            try:
                if found.frame is not None:
                    data = self.files[found.object_key]
                    count = data.fetch()
                elif found.frames is not None:
                    raise PictureError("too_large", f"the file has more frames than the frame limit, {self.most:,}")
                else:
                    data = read(self.source, found.key, size=found.size)
                    count = len(data)
            except PictureError as error:
                developed = unread(found)
                fail(developed, None, "read", error.reason, error.message)
                self.results.put((index, developed))
                return
            except StorageError as error:
                if error.kind == "unreachable":
                    self.results.put(error)
                    return
                developed = unread(found)
                fail(developed, None, "read", "read_error", str(error))
                self.results.put((index, developed))
                return
            except Exception as error:
                self.results.put(error)
                return
        with self.lock:
            self.bytes_read += count
        self.work_stage.submit((index, data))

    def _develop(self, item: tuple[int, bytes | SharedFile]) -> None:
        index, data = item
        if index in self.abandoned:
            return
        try:
            with self._timed(index, "develop"):
                developed = develop_picture(
                    self.found[index],
                    data,
                    self.recipe,
                    self.settings,
                    self.batcher.apply,
                    reserve=lambda pixels: self._reserve(index, pixels),
                    give_up=lambda: index in self.abandoned,
                )
        except BaseException as error:
            self.results.put(error)
            return
        finally:
            self._give_back(index)
        self.write_stage.submit((index, developed))

    def _reserve(self, index: int, pixels: int) -> None:
        """Wait until there is memory for a picture; the deadline's clock stands still meanwhile."""
        with self.lock:
            if index in self.abandoned:
                return
            self.since.pop(index, None)
        count = self.budget.take(_BYTES_PER_PIXEL * pixels)
        with self.lock:
            self.taken[index] = count
            self.since[index] = ("develop", time.monotonic())

    def _give_back(self, index: int) -> None:
        with self.lock:
            count = self.taken.pop(index, 0)
        self.budget.give_back(count)

    def _write(self, item: tuple[int, Developed]) -> None:
        index, developed = item
        try:
            with self._timed(index, "write"):
                for path, data in developed.outputs:
                    if index in self.abandoned:
                        return
                    write(self.destination, path, data)
                    entry = {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    with self.lock:
                        self.written.append(entry)
        except StorageError as error:
            if error.kind != "invalid":
                self.results.put(error)
                return
            _refuse_outputs(developed, str(error))
        except Exception as error:
            self.results.put(error)
            return
        developed.outputs.clear()
        if index not in self.abandoned:
            self.results.put((index, developed))

    def _check_deadlines(self, stages: dict[str, Stage]) -> None:
        now = time.monotonic()
        with self.lock:
            late = [(i, stage) for i, (stage, since) in self.since.items() if now - since > self.deadline]
            self.abandoned.update(i for i, _ in late)
            for i, _ in late:
                del self.since[i]
        for index, stage in late:
            # its thread may hang for ever; another takes its place, and its memory is no longer waited for
            stages[stage].grow()
            found = self.found[index]
            if found.frame is not None:
                self.files[found.object_key].give_up(found.frame)
            self._give_back(index)
            developed = unread(found)
            fail(developed, None, stage, "deadline", f"not done after {self.deadline:g} s in the {stage} stage")
            self.results.put((index, developed))

    def _timed(self, index: int, stage: str) -> _Timed:
        return _Timed(self, index, stage)


@dataclass(frozen=True)
class _Timed:
    """Notes since when a picture is in a stage, for the deadline."""

    stream: _Stream
    index: int
    stage: str

    def __enter__(self) -> None:
        with self.stream.lock:
            self.stream.since[self.index] = (self.stage, time.monotonic())

    def __exit__(self, *_: object) -> None:
        with self.stream.lock:
            self.stream.since.pop(self.index, None)


def _files(source: Store, found: list[SourcePicture], pixel_limit: int) -> dict[str, SharedFile]:
    """The files of frames that pictures of a shard are in, by their keys; none is fetched yet."""
    wanted: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for one in found:
        if one.frame is not None:
            wanted.setdefault(one.object_key, []).append(one.frame)
            sizes[one.object_key] = one.size
    return {key: SharedFile(source, key, sizes[key], frames, pixel_limit) for key, frames in wanted.items()}


def _refuse_outputs(developed: Developed, message: str) -> None:
    """The destination cannot hold objects of this name: every branch becomes a failure."""
    branches = [row["branch"] for row in developed.metrics]
    developed.metrics.clear()
    developed.latents.clear()
    for branch in branches:
        fail(developed, branch, "write", "write_error", message)


def _commit(
    destination: Store, plan: Plan, shard: int, developed: list[Developed], stream: _Stream, seconds: float
) -> Commit:
    rows: dict[str, list[dict]] = {
        "manifest": [d.manifest for d in developed],
        "metrics": [row for d in developed for row in d.metrics],
        "latents": [row for d in developed for row in d.latents],
        "failures": [row for d in developed for row in d.failures],
    }
    outputs = sorted(stream.written, key=lambda entry: entry["path"])
    for table, content in rows.items():
        path = part_path(table, plan.run, shard)
        data = to_parquet(table, [row | {"shard": shard} for row in content])
        write(destination, path, data)
        outputs.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    failed = sum(d.manifest["status"] != "ok" for d in developed)
    commit = Commit(
        run=plan.run,
        shard=shard,
        objects=len(developed),
        good=len(developed) - failed,
        failed=failed,
        branch_failures=sum(row["branch"] is not None for row in rows["failures"]),
        rows={table: len(content) for table, content in rows.items()},
        reasons=dict(Counter(row["reason"] for row in rows["failures"])),
        bytes_read=stream.bytes_read,
        bytes_written=sum(entry["size"] for entry in outputs),
        seconds=round(seconds, 3),
        outputs=outputs,
    )
    expected = commit.good * len(stream.recipe.branches)
    assert commit.rows["metrics"] + commit.branch_failures == expected, "a branch left neither a row nor a failure"
    write(destination, commit_path(plan.run, shard), (json.dumps(vars(commit), indent=1) + "\n").encode())
    return commit
