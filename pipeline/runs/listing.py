"""What a source holds, picture by picture: an object is one picture, or as many as it has frames, pages or slices.

A frame's key is that of its file, `#` and its number from 0: `walk.gif#0007`. Numbers have four digits, more where
there are more frames or where an object of the source has such a name already, so that the order of the keys is that
of the frames. How many there are is taken from headers and structure; nothing is decoded to plan a run.
"""

from __future__ import annotations

import io
import logging
import queue
from collections.abc import Callable, Container, Iterator, Sequence
from typing import BinaryIO

from pipeline.destination.layout import destinations_around, is_destination
from pipeline.destination.plans import SourcePicture
from pipeline.errors import PictureError, StorageError
from pipeline.frames.files import ARRAYS, SUFFIXES, VIDEOS, count_frames
from pipeline.reports.text import counted
from pipeline.storage.store import Store, StoredObject, local_path, read
from pipeline.threads import Stage

_log = logging.getLogger("darkroom.plan")
_LOOKS_AT_ONCE = 16
#: bytes that are fetched at once while a file's structure is looked at
_WINDOW = 256 << 10


def pictures_of(
    source: Store,
    found: Sequence[StoredObject],
    mode: str,
    limit: int,
    taken: Container[str] = (),
    patience_s: float = 600,
) -> Iterator[SourcePicture]:
    """Yield the pictures of some objects, in their order.

    `mode` is "auto" (objects whose names end like those of animations, pages, videos and stacks are looked into), "all"
    (every object is) or "first" (of every object the first frame, under the object's own key; nothing is looked into).
    An object of more than `limit` frames is one picture with neither file nor frame. `taken` are keys that frames may
    not have. Objects that cannot be read or understood are one picture each: developing them says what is wrong. So are
    those still looked into when for `patience_s` nothing has come of any. Raises StorageError when nothing answers.
    """

    def count(one: StoredObject) -> int:
        try:
            with open_object(source, one.key, one.size) as file:
                return count_frames(file, limit)
        except (PictureError, OSError):
            return 1
        except StorageError as error:
            if error.kind == "unreachable":
                raise
            return 1

    looked_into = [one for one in found if one.size and may_have_frames(one.key, mode)]
    counts = _counts(looked_into, count, patience_s)
    for one in found:
        yield from _pictures(one, counts.get(one.key, 1), limit, taken)


class Results:
    """Darkroom's own results among the objects of a source: those of destinations inside it, by whichever run."""

    def __init__(self, source: Store):
        self.source = source
        self.destinations: dict[str, int] = {}
        self._looked_at: dict[str, bool] = {}

    def holds(self, key: str) -> bool:
        """Tell whether an object is a result; `destinations` counts those that were, by the folder they lie in.

        Every folder that could be a destination is looked at once. Raises StorageError.
        """
        for folder in destinations_around(key):
            if folder not in self._looked_at:
                self._looked_at[folder] = is_destination(self.source, folder)
            if self._looked_at[folder]:
                self.destinations[folder] = self.destinations.get(folder, 0) + 1
                return True
        return False

    def warn(self) -> None:
        """Say how many results were left out, and where they lie."""
        for folder, count in self.destinations.items():
            _log.warning(
                "%s holds results of earlier runs: %s left out; give results a place outside of the source",
                self.source.url_of(folder.rstrip("/")),
                counted(count, "object"),
            )


def _counts(
    looked_into: Sequence[StoredObject], count: Callable[[StoredObject], int], patience_s: float
) -> dict[str, int]:
    """Count the frames of each object by its key, without those that a parser of hostile bytes hangs on."""
    results: queue.SimpleQueue[tuple[str, int] | Exception] = queue.SimpleQueue()

    def look(one: StoredObject) -> None:
        try:
            results.put((one.key, count(one)))
        except Exception as error:
            results.put(error)

    # daemons: one that hangs in C must not keep the process alive
    stage = Stage("look", _LOOKS_AT_ONCE, look)
    counts: dict[str, int] = {}
    try:
        for one in looked_into:
            stage.submit(one)
        while len(counts) < len(looked_into):
            result = results.get(timeout=patience_s)
            if isinstance(result, Exception):
                raise result
            counts[result[0]] = result[1]
    except queue.Empty:
        _log.warning("%d files are not understood after %g s", len(looked_into) - len(counts), patience_s)
    finally:
        stage.close()
    return counts


def may_have_frames(key: str, mode: str) -> bool:
    """Tell whether an object of that key is looked into for frames."""
    return mode == "all" or (mode == "auto" and key.rstrip("/").lower().endswith(SUFFIXES))


def frame_key(file: str, frame: int, digits: int = 4) -> str:
    """Return the key of one frame of a file."""
    return f"{file}#{frame:0{digits}d}"


def open_object(store: Store, key: str, size: int) -> BinaryIO:
    """Open an object as a file to read and seek in, fetched piece by piece as it is read. Raises StorageError."""
    path = local_path(store, key)
    if path is not None:
        return open(path, "rb")
    return io.BufferedReader(_StoredFile(store, key, size), _WINDOW)


def _pictures(found: StoredObject, frames: int, limit: int, taken: Container[str]) -> Iterator[SourcePicture]:
    said = (found.url, found.size, found.etag, found.modified)
    if frames > limit:
        yield SourcePicture(found.key, *said, frames=frames)
    elif frames > 1:
        digits = max(4, len(str(frames - 1)))
        while any(frame_key(found.key, frame, digits) in taken for frame in range(frames)):
            digits += 1
        for frame in range(frames):
            yield SourcePicture(frame_key(found.key, frame, digits), *said, found.key, frame, frames)
    else:
        only_frames = found.key.rstrip("/").lower().endswith((*VIDEOS, *ARRAYS))
        yield SourcePicture(found.key, *said, frame=0 if only_frames else None)


class _StoredFile(io.RawIOBase):
    """An object's bytes as a file, by ranges that are each fetched when they are asked for."""

    def __init__(self, store: Store, key: str, size: int):
        self.store, self.key, self.size, self.at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self.size, self.at + len(buffer))
        data = read(self.store, self.key, self.at, end) if self.at < end else b""
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)
