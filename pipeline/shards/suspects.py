"""Pictures that may have ended the process that developed them, tried one by one in processes of their own.

A segmentation fault or a kill for want of memory cannot be caught, so each is seen from outside. The process talks
through its pipes: the work as one line of JSON on standard input, `begin N` and `done N` on standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from darkroom.rooms import own_process
from models.device import choose_device
from pipeline.destination.plans import SourcePicture
from pipeline.errors import StorageError
from pipeline.frames.shared_file import SharedFile
from pipeline.networks.batching import Batcher
from pipeline.pictures.picture import at_once
from pipeline.requests.pictures import RunRequest
from pipeline.requests.stores import Access
from pipeline.shards.memory import memory_for_pictures
from pipeline.shards.work import ShardWork, as_work, taken_up
from pipeline.storage.store import StorageOptions, read

_MARK = "darkroom-alone"
#: address space besides the memory for pictures: threads, and libraries that are loaded late
_ROOM = 2 << 30
#: how a process may be ended from outside, by another's hunger for memory or by a person: then it gets another try
_FROM_OUTSIDE, _TRIES = {"SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"}, 2
_OUT_OF_MEMORY = re.compile(
    r"memoryerror|out ?of ?memory|insufficient memory|bad_alloc|(can.?t|cannot|not) allocat", re.I
)


def try_alone(work: ShardWork, pictures: Mapping[int, SourcePicture], stop: Callable[[], bool]) -> dict[int, str]:
    """Find the pictures that end a process of their own: their numbers, and how. Stops early when `stop` says True."""
    left, tries = dict(pictures), dict.fromkeys(pictures, 0)
    crashed: dict[int, str] = {}
    while left and not stop():
        with _process(work, left) as process:
            number, how = _watch(process, left, work.request.deadline_s, stop)
        if number is None:
            break
        tries[number] += 1
        if how is not None and tries[number] < _TRIES and any(name in how for name in _FROM_OUTSIDE):
            continue
        left.pop(number)
        if how is not None:
            crashed[number] = how
    return crashed


def _watch(
    process: subprocess.Popen[str], left: dict[int, SourcePicture], deadline_s: float, stop: Callable[[], bool]
) -> tuple[int | None, str | None]:
    """Take what is done from `left` until the process ends.

    Returns the picture that ended it, and how (None: it hung).
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
    number, since = None, time.monotonic()
    while not stop():
        if time.monotonic() - since > deadline_s:
            # hanging is no crash: the deadline of the run sees to it
            return number, None
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            continue
        if line is None:
            break
        mark, _, said = line.partition(" ")
        word, _, rest = said.strip().partition(" ")
        if mark != _MARK or not rest:
            continue
        if word == "begin":
            number, since = int(rest), time.monotonic()
        elif word == "memory":
            return number, f"ran out of memory alone in a process: {rest}"
        elif number is not None:
            left.pop(number)
            number = None
    if stop() or number is None:
        return None, None
    return number, f"ends the process that develops it, also alone: {_ending(process.wait())}"


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        meaning = signal.strsignal(-code)
        return f"{signal.Signals(-code).name} ({meaning})"
    return f"signal {-code}"


def _read_lines(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):
        for line in process.stdout:
            lines.put(line)
    lines.put(None)


@contextlib.contextmanager
def _process(work: ShardWork, pictures: Mapping[int, SourcePicture]) -> Any:
    told = {
        "work": work.record(),
        "source_storage": _shown(work.access.source_storage),
        "pictures": {number: asdict(one) | {"modified": None} for number, one in pictures.items()},
    }
    process = subprocess.Popen(
        own_process("pipeline.shards.suspects"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        # Ctrl-C in the terminal is for us, who stop it then
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
        # the pipe stays open: when we are gone, its end tells the process to go, too
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


def _shown(storage: StorageOptions | None) -> dict[str, Any] | None:
    """Turn access into JSON, with its secrets, for a pipe that nobody else reads."""
    if storage is None:
        return None
    given = {name: getattr(storage, name) for name in StorageOptions.model_fields}
    return {n: v.get_secret_value() if hasattr(v, "get_secret_value") else v for n, v in given.items()}


def _main() -> None:
    """Develop picture after picture in this process, and keep nothing but whether it could be done."""
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    # nothing is written here: the destination's access stays where it is
    work = as_work(taken_up(told["work"], Access(source_storage=told["source_storage"])))
    pictures = {int(number): SourcePicture(**one) for number, one in told["pictures"].items()}
    cv2.setNumThreads(1)
    _limit_memory(work.request)
    for number, one in pictures.items():
        _tell("begin", number)
        try:
            said = _develop(work, one)
        except StorageError:
            # whether it can be fetched is for the run to find out
            said = []
        except MemoryError as error:
            said = [f"MemoryError: {error}"]
        full = next((text for text in said if _OUT_OF_MEMORY.search(text)), None)
        _tell("memory" if full else "done", " ".join((full or str(number)).split())[:300])


def _develop(work: ShardWork, one: SourcePicture) -> Sequence[str]:
    """Develop one picture and say what could not be done, for people."""
    source, request = work.source, work.request
    data: bytes | SharedFile
    if one.frame is not None:
        data = SharedFile(source, one.object_key, one.size, [one.frame], request.pixel_limit)
        data.fetch()
    else:
        data = read(source, one.object_key, size=one.size)
    with Batcher(choose_device(request.device), 1) as batcher:
        developed = work.through(one, data, batcher.apply, at_once, lambda: False)
    return [row["message"] for row in developed.failures]


def _limit_memory(request: RunRequest) -> None:
    """Let one picture that takes all memory raise an error, rather than exhaust the whole machine; not on Windows."""
    if choose_device(request.device) != "cpu":
        # CUDA reserves more addresses than any limit of ours
        return
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        now = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
        limit = now + memory_for_pictures(request.memory) + _ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _tell(word: str, rest: object) -> None:
    # on a line of its own, whatever a library has printed before
    print(f"\n{_MARK} {word} {rest}", flush=True)


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _main()
