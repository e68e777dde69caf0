"""The stages of one shard, side by side: pictures are fetched ahead, developed, written behind, within one budget."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2

from pipeline.destination.plans import SourcePicture
from pipeline.errors import Cancelled, PictureError, StorageError
from pipeline.events import Advanced, Tell
from pipeline.frames.shared_file import SharedFile
from pipeline.networks.batching import Batcher
from pipeline.shards.in_work import Window
from pipeline.shards.memory import FETCHED, MemoryBudget, memory_for_pictures
from pipeline.shards.picture import Developed, fail, unread
from pipeline.shards.stage_times import StageTimes
from pipeline.shards.work import ShardWork
from pipeline.storage.store import Store, read, write
from pipeline.threads import Stage, cores

#: objects that travel at once over a network, where each takes its time, and cores to one that comes from a local disk
#: or goes there: more would only drive the others from their cores (a tenth of all time with four on two cores)
_REMOTE, _CORES_A_LOCAL = 16, 8


@dataclass(frozen=True)
class Done:
    """A picture's rows, and its outputs as they lie at the destination: path, size and checksum of each."""

    developed: Developed
    outputs: list[dict[str, Any]]


class ShardStream:
    """The pictures of a shard on their way; results arrive in any order. For one `run`."""

    def __init__(self, work: ShardWork, batcher: Batcher, found: list[SourcePicture]):
        self.source, self.destination = work.source, work.destination
        self.work, self.cost, request = work, work.cost, work.request
        self.batcher, self.found, self.request = batcher, found, request
        # a batch can only fill when as many pictures are in work at once
        self.workers = (request.workers or cores()) + batcher.batch - 1
        local = 1 + cores() // _CORES_A_LOCAL
        self.readers, self.writers = (local if s.is_local else _REMOTE for s in (self.source, self.destination))
        memory = memory_for_pictures(request.memory, self.cost.fixed)
        self.fetched = MemoryBudget(round(FETCHED * memory))
        self.budget = MemoryBudget(memory - self.fetched.total)
        self.results: queue.SimpleQueue[tuple[int, Done] | BaseException] = queue.SimpleQueue()
        self.since: dict[int, tuple[str, float]] = {}
        self.ready: dict[int, float] = {}
        self.abandoned: set[int] = set()
        self.lock = threading.Lock()
        self.files = _files(self.source, found, request.pixel_limit)
        self.times = StageTimes()
        self.bytes_read = 0

    def run(self, tell: Tell, stop: Callable[[], bool], window: Window) -> list[Done]:
        """Do every object of the shard, tell `Advanced` of each, and return all results in the objects' order.

        Raises Cancelled when `stop` says True, StorageError when storage fails as a whole.
        """
        # OpenCV's own threads would fight with ours
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        self.window = window
        self.stages: dict[str, Stage[Any]] = {
            "read": Stage("read", self.readers, self._read),
            "develop": Stage("develop", self.workers, self._develop),
            "write": Stage("write", self.writers, self._write),
        }
        results: dict[int, Done] = {}
        # as many as all threads can be busy with; how many there is memory for is another matter
        depth, submitted = 2 * self.workers + self.readers + self.writers, 0
        started = checked = time.monotonic()
        for index, message in window.crashed.items():
            self._refuse(index, "decode", "crashed", message)
        try:
            while len(results) < len(self.found):
                while submitted < len(self.found) and submitted - len(results) < depth:
                    if submitted not in window.crashed:
                        window.extend(submitted, len(self.found), results)
                        self._pass_on("read", submitted, submitted)
                    submitted += 1
                if stop():
                    raise Cancelled("stopped before the shard was done; run again to go on")
                if time.monotonic() - checked > 0.5:
                    self._check_deadlines()
                    checked = time.monotonic()
                    if checked - started > (self.request.shard_deadline_s or float("inf")):
                        self._end_at_the_deadline(results)
                try:
                    result = self.results.get(timeout=0.5)
                except queue.Empty:
                    continue
                if isinstance(result, BaseException):
                    raise result
                index, done = result
                if index not in results:
                    results[index] = done
                    tell(Advanced(done.developed.manifest["status"] != "failed"))
        finally:
            with self.lock:
                self.abandoned.update(range(len(self.found)))
            window.close()
            for stage in self.stages.values():
                stage.close()
            for file in self.files.values():
                file.close()
            cv2.setNumThreads(threads)
        return [results[index] for index in range(len(self.found))]

    def stage_figures(self, seconds: float) -> dict[str, dict[str, float]]:
        """Return what the stages were busy with, of a shard that took `seconds`."""
        self.times.add({"device": self.batcher.busy})
        self.times.waited("device", self.batcher.waiting)
        device = self.batcher.threads if self.batcher.busy else 0
        threads = {"fetch": self.readers, "work": self.workers, "device": device, "write": self.writers}
        return self.times.figures(threads, seconds)

    def _read(self, index: int) -> None:
        found = self.found[index]
        # a file of frames lies on the disk
        if found.frame is None and found.frames is None:
            self.fetched.hold(index, found.size)
        self._waited("fetch", index)
        data: bytes | SharedFile | None = None
        try:
            if index not in self.abandoned:
                with _Timed(self, index, "read"):
                    data, count = self._fetch(found)
        except PictureError as error:
            self._refuse(index, "read", error.reason, error.message)
        except StorageError as error:
            if error.kind == "unreachable":
                self.results.put(error)
            else:
                self._refuse(index, "read", "archived" if error.kind == "archived" else "read_error", str(error))
        except Exception as error:
            self.results.put(error)
        if data is None:
            self.fetched.let_go(index)
            return
        with self.lock:
            self.bytes_read += count
        self._pass_on("develop", index, (index, data))

    def _fetch(self, found: SourcePicture) -> tuple[bytes | SharedFile, int]:
        """Fetch the bytes of a picture's object, or the file that it is a frame of; also how many were read."""
        if found.frame is not None:
            file = self.files[found.object_key]
            return file, file.fetch()
        if found.frames is not None:
            limit = self.request.frame_limit
            raise PictureError("too_large", f"the file has more frames than the frame limit, {limit:,}")
        data = read(self.source, found.object_key, size=found.size)
        return data, len(data)

    def _develop(self, item: tuple[int, bytes | SharedFile]) -> None:
        index, data = item
        self.window.wait(index)
        self._waited("decode", index)
        developed: Developed | None = None
        try:
            if index not in self.abandoned:
                with _Timed(self, index, "develop"):
                    developed = self.work.through(
                        self.found[index],
                        data,
                        self.batcher.apply,
                        reserve=lambda pixels, pixel_bytes: self._reserve(index, pixels, pixel_bytes),
                        give_up=lambda: index in self.abandoned,
                    )
        except BaseException as error:
            self.results.put(error)
        finally:
            self.fetched.let_go(index)
            outputs = developed.outputs if developed else []
            self.budget.let_go(index, all_but=sum(len(data) for _, data in outputs))
        if developed is not None:
            self.times.add(developed.busy)
            self._pass_on("write", index, (index, developed))

    def _reserve(self, index: int, pixels: int, pixel_bytes: int) -> None:
        """Wait until there is memory for a picture; the deadline's clock stands still meanwhile."""
        needed = self.cost.check(pixels, pixel_bytes, self.budget.total)
        with self.lock:
            if index in self.abandoned:
                return
            self.since.pop(index, None)
        started = time.perf_counter()
        self.budget.hold(index, needed)
        self.times.waited("decode", time.perf_counter() - started)
        with self.lock:
            self.since[index] = ("develop", time.monotonic())

    def _write(self, item: tuple[int, Developed]) -> None:
        index, developed = item
        self._waited("write", index)
        outputs = []
        try:
            with _Timed(self, index, "write"):
                for path, data in developed.outputs:
                    if index in self.abandoned:
                        return
                    write(self.destination, path, data)
                    outputs.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        except StorageError as error:
            if error.kind != "invalid":
                self.results.put(error)
                return
            _refuse_outputs(developed, str(error))
        except Exception as error:
            self.results.put(error)
            return
        finally:
            self.budget.let_go(index)
        developed.outputs.clear()
        self.results.put((index, Done(developed, outputs)))

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        with self.lock:
            late = [(i, stage) for i, (stage, since) in self.since.items() if now - since > self.request.deadline_s]
        for index, stage in late:
            self._abandon(index)
            said = f"not done after {self.request.deadline_s:g} s in the {stage} stage"
            self._refuse(index, stage, "deadline", said)

    def _end_at_the_deadline(self, results: dict[int, Done]) -> None:
        said = f"the shard was not done after {self.request.shard_deadline_s:g} s"
        for index in range(len(self.found)):
            if index not in results:
                stage = self.since.get(index, ("read", 0.0))[0]
                self._abandon(index)
                self._refuse(index, stage, "shard_deadline", said)

    def _abandon(self, index: int) -> None:
        """Give up a picture whose thread may hang for ever: another takes its place, and its memory counts as free."""
        with self.lock:
            self.abandoned.add(index)
            stage, _ = self.since.pop(index, (None, 0.0))
        if stage is not None:
            self.stages[stage].grow()
        found = self.found[index]
        if found.frame is not None:
            self.files[found.object_key].give_up(found.frame)
        self.fetched.let_go(index)
        self.budget.let_go(index)

    def _refuse(self, index: int, stage: str, reason: str, message: str) -> None:
        developed = unread(self.found[index])
        fail(developed, None, stage, reason, message)
        self.results.put((index, Done(developed, [])))

    def _pass_on(self, stage: str, index: int, item: Any) -> None:
        self.ready[index] = time.perf_counter()
        self.stages[stage].submit(item)

    def _waited(self, stage: str, index: int) -> None:
        """Count how long a picture has been ready for a stage, since it was passed on."""
        self.times.waited(stage, time.perf_counter() - self.ready[index])


class _Timed:
    """A context that notes since when a picture is in a stage, for the deadline and for the table of stages."""

    def __init__(self, stream: ShardStream, index: int, stage: str):
        self.stream, self.index, self.stage = stream, index, stage

    def __enter__(self) -> None:
        self.started = time.perf_counter()
        with self.stream.lock:
            self.stream.since[self.index] = (self.stage, time.monotonic())

    def __exit__(self, *_: object) -> None:
        with self.stream.lock:
            self.stream.since.pop(self.index, None)
        if self.stage != "develop":
            # what is busy there is known in detail
            name = "fetch" if self.stage == "read" else self.stage
            self.stream.times.add({name: time.perf_counter() - self.started})


def _files(source: Store, found: list[SourcePicture], pixel_limit: int) -> dict[str, SharedFile]:
    """Open the files of frames that pictures of a shard are in, by their keys; none is fetched yet."""
    wanted: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for one in found:
        if one.frame is not None:
            wanted.setdefault(one.object_key, []).append(one.frame)
            sizes[one.object_key] = one.size
    return {key: SharedFile(source, key, sizes[key], frames, pixel_limit) for key, frames in wanted.items()}


def _refuse_outputs(developed: Developed, message: str) -> None:
    """Fail every branch, or else the picture, where the destination cannot hold objects of this name."""
    branches = [row["branch"] for row in developed.rows.get("metrics", ())]
    developed.rows.clear()
    for branch in branches or [None]:
        fail(developed, branch, "write", "write_error", message)
    developed.manifest |= {"status": "failed", "reason": "write_error"}
