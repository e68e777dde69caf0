"""Developed frames put together again: a file for every file of frames and branch of a run.

Which frames there are, of what and for how long each is shown, the run's manifest says; where its pictures lie, its
commits. Of a file that several runs have developed, the last says how it is now. Frames of `.drk` streams that were
decompressed are known by their names alone, and so without their times.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from pipeline.destination.commits import read_commit
from pipeline.destination.layout import ASSEMBLED, assembled_path, part_path, picture_of
from pipeline.destination.parquet import read_part
from pipeline.destination.plans import Plan, earlier_plans
from pipeline.errors import PictureError, PlanError
from pipeline.events import Advanced, Began, Tell, silent
from pipeline.frames.writers import ENDINGS, write_frames
from pipeline.pictures.decode import decode
from pipeline.pictures.picture import Picture
from pipeline.requests.stores import stores_of
from pipeline.requests.upkeep import AssembleRequest
from pipeline.storage.store import Store, read, write

#: how long frames are shown that nothing is known of
_DEFAULT_S = 0.1
#: what files of frames are put together in when they are to stay what they were
_SAME = {"png": "apng", "avif": "webp", "idx": "npy", "drk": "tiff"}
#: keys of streams of frames, and of pictures that came of such streams
_STREAMS = re.compile(r"(?P<file>.+)#(?P<frame>\d{4,9})(?P<ending>\.drk)")
_FRAMES = re.compile(r"(?P<file>.+)#(?P<frame>\d{4,9})")
_SHOWN = 20


@dataclass(frozen=True)
class Assembled:
    """What became of one file of one branch. `missing` are numbers of frames; without a `path` the message says why.

    `dropped` names what the frames' files say that the format cannot hold.
    """

    branch: str
    file: str
    frames: int
    missing: list[int]
    path: str | None
    bytes: int
    seconds: float
    message: str | None = None
    dropped: tuple[str, ...] = ()


@dataclass
class _File:
    """A file of frames, as the last run that developed it has found it: its ETag, format and frames."""

    etag: str
    format: str = ""
    count: int = 0
    keys: dict[int, str] = field(default_factory=dict)
    durations: dict[int, float] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)


def assemble(
    request: AssembleRequest,
    tell: Tell = silent,
) -> list[Assembled]:
    """Put the frames of a run's destination together again below the request's own, and say so in `assembled.json`.

    Results lie at `pictures/<branch>/<file>`, with another ending behind it where the format is another. Told are
    `Began`, and `Advanced` for every file. What cannot be put together is named in the list, not raised.
    Raises PlanError (no finished run, no frames, unknown branch), StorageError.
    """
    stores = stores_of(request)
    source, destination = stores.source, stores.destination
    files, paths = _developed(source, request)
    branches = list(dict.fromkeys(branch for branch, _ in paths))
    unknown = [name for name in request.branch if name not in branches]
    if unknown:
        raise PlanError(
            f"branch {unknown[0]!r} keeps no pictures there; those that do: {', '.join(branches) or 'none'}"
        )
    if not files:
        raise PlanError(f"{request.source} holds no frames; they come of animations, pages, videos and stacks")
    todo = [(branch, name) for branch in request.branch or branches for name in sorted(files)]
    tell(Began("putting together", len(todo)))
    done = []
    for branch, name in todo:
        done.append(_assemble_file(request, source, destination, branch, name, files[name], paths))
        tell(Advanced(done[-1].path is not None))
    write(destination, ASSEMBLED, (json.dumps([asdict(one) for one in done], indent=1) + "\n").encode())
    return done


def _developed(source: Store, request: AssembleRequest) -> tuple[dict[str, _File], dict[tuple[str, str], str]]:
    """Find the files of frames, and where pictures lie, by branch and key. Raises PlanError without a finished run."""
    plans = [pair for pair in earlier_plans(source) if pair[1] or not pair[0].gone]
    if not plans:
        raise PlanError(f"{request.source} holds no run; give the destination of darkroom develop or decompress")
    if not plans[-1][1]:
        raise PlanError(f"run {plans[-1][0].run} at {request.source} is not finished; start it again, then assemble")
    files: dict[str, _File] = {}
    paths: dict[tuple[str, str], str] = {}
    for plan, finished in plans:
        if finished:
            for row in _manifest(source, plan):
                _remove(files, row) if plan.gone else _add(files, row)
            paths |= _pictures(source, plan)
    return {name: file for name, file in files.items() if file.count}, paths


def _add(files: dict[str, _File], row: dict[str, Any]) -> None:
    """Take in what a row of the manifest says of a file of frames."""
    name, frame, count = row["file"], row["frame"], row["frames"]
    stream = _stream(row)
    if stream:
        # every stream has an ETag of its own
        name, frame = stream["file"], int(stream["frame"])
        row = row | {"etag": "", "format": row["format"] or "drk"}
        count = max(frame + 1, files[name].count if name in files else 0)
    if name is None or frame is None:
        # an ordinary picture, or a file that has frames no longer
        files.pop(row["key"], None)
        return
    if name not in files or files[name].etag != row["etag"]:
        files[name] = _File(row["etag"])
    file = files[name]
    file.count, file.format = count, row["format"] or file.format
    file.keys[frame] = row["key"]
    file.reasons[frame] = row["reason"] or ""
    if row["duration_s"] is not None:
        file.durations[frame] = row["duration_s"]


def _stream(row: dict[str, Any]) -> re.Match[str] | None:
    """Take apart the key of a row of the manifest that is of a stream of one frame; None for any other."""
    if row["frame"] is not None:
        return None
    return _STREAMS.fullmatch(row["key"]) if row["file"] is None else _FRAMES.fullmatch(row["key"])


def _remove(files: dict[str, _File], row: dict[str, Any]) -> None:
    """Take out what a row of the manifest says is gone: a file of frames, or a stream that was one frame."""
    stream = _stream(row)
    if stream and stream["file"] in files:
        file = files[stream["file"]]
        file.keys.pop(int(stream["frame"]), None)
        if file.keys:
            return
    files.pop(stream["file"] if stream else row["file"] or row["key"], None)


def _manifest(source: Store, plan: Plan) -> Iterator[dict[str, Any]]:
    names = ["key", "etag", "file", "frame", "frames", "format", "duration_s", "reason"]
    for shard in range(plan.shards):
        part = read_part(source, part_path("manifest", plan.run, shard), columns=names)
        # runs of before there were frames have not all of them
        yield from (dict.fromkeys(names) | row for row in part.to_pylist())


def _pictures(source: Store, plan: Plan) -> dict[tuple[str, str], str]:
    found = {}
    for shard in range(plan.shards):
        for entry in read_commit(source, plan.run, shard).outputs:
            picture = picture_of(entry["path"])
            if picture and "#" in picture[1]:
                found[picture] = entry["path"]
    return found


def _assemble_file(
    request: AssembleRequest,
    source: Store,
    destination: Store,
    branch: str,
    name: str,
    file: _File,
    paths: dict[tuple[str, str], str],
) -> Assembled:
    started = time.monotonic()
    wanted = {number: paths.get((branch, file.keys.get(number, ""))) for number in range(file.count)}
    missing = [number for number, path in wanted.items() if path is None]
    result = Assembled(branch, name, file.count - len(missing), missing, None, 0, 0.0)
    if missing and (len(missing) == file.count or not request.skip_missing):
        return replace(result, message=_said_of(missing, file))
    format = request.format if request.format != "same" else _SAME.get(file.format, file.format)
    if format == "mkv" and name.lower().endswith(".webm"):
        format = "webm"
    if format == "mp4" and name.lower().endswith(".mov"):
        format = "mov"
    if format not in ENDINGS:
        return replace(
            result, message=f"nothing is known of its format ({format or 'no frame was read'}); give --format"
        )
    path = assembled_path(branch, name)
    path = path if name.lower().endswith(ENDINGS[format]) else path + ENDINGS[format][0]
    frames = (_picture(source, found, request.pixel_limit) for found in wanted.values() if found is not None)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        local = os.path.join(folder, f"assembled.{format}")
        try:
            dropped = write_frames(local, format, frames, _timing(file, missing, request.rate), request.quality)
        except PictureError as error:
            return replace(result, message=error.message)
        size = os.path.getsize(local)
        with (
            open(local, "rb") as written,
            mmap.mmap(written.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            write(destination, path, view)
    seconds = round(time.monotonic() - started, 3)
    return replace(result, path=path, bytes=size, seconds=seconds, dropped=dropped)


def _picture(source: Store, path: str, pixel_limit: int) -> Picture:
    try:
        return decode(read(source, path), path, pixel_limit)
    except PictureError as error:
        raise PictureError(error.reason, f"{path}: {error.message}") from error


def _timing(file: _File, missing: Iterable[int], rate: float | None) -> list[float]:
    """Work out for how long each frame that is there is shown: the time of a missing one goes to the one before it."""
    gone = set(missing)
    if rate is not None:
        return [1 / rate] * (file.count - len(gone))
    usual = median(file.durations.values()) if file.durations else _DEFAULT_S
    seconds: list[float] = []
    owed = 0.0
    for number in range(file.count):
        time_of_frame = file.durations.get(number, usual)
        if number not in gone:
            seconds.append(time_of_frame + owed)
            owed = 0.0
        elif seconds:
            seconds[-1] += time_of_frame
        else:
            owed += time_of_frame
    return seconds


def _said_of(missing: Sequence[int], file: _File) -> str:
    named = [f"{number} ({file.reasons.get(number) or 'not developed'})" for number in missing[:_SHOWN]]
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    cure = "nothing is left of it" if len(missing) == file.count else "--skip-missing goes on without them"
    return f"{len(missing)} of {file.count} frames are missing: {', '.join(named)}{more}; {cure}"
