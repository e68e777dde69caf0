"""A file of frames that the pictures of a shard come from: fetched once, decoded in order, closed after the last."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from pipeline.errors import PictureError, StorageError
from pipeline.frames.files import Frame, Frames, open_frames
from pipeline.pictures.decode import explain
from pipeline.pictures.picture import Reserve, at_once
from pipeline.storage.store import Store, local_path, read

#: files larger than this are refused before they are fetched
SIZE_LIMIT = 64 << 30
_PIECE = 64 << 20
_FETCHING = -1
#: how long a thread waits for another's frame before it asks whether that one hangs
_PATIENCE_S = 0.5


class SharedFile:
    """One file and the frames of it that are `wanted`, each once; safe to use from several threads.

    Local files are read where they are, others from a copy in the folder for temporary files. Where frames can only be
    decoded one after the other, those that are wanted and passed on the way to another are kept until they are asked
    for: memory is bounded as long as frames are asked for in nearly their order.
    """

    def __init__(self, store: Store, key: str, size: int, wanted: Iterable[int], pixel_limit: int):
        self.store, self.key, self.size, self.pixel_limit = store, key, size, pixel_limit
        self.wanted = set(wanted)
        self.left = set(self.wanted)
        self.sha256: str | None = None
        self.lock = threading.Lock()
        self.hung = False
        self.busy_with: int | None = None
        self._frames: Frames | None = None
        self._error: PictureError | StorageError | None = None
        self._position = 0
        self._passed: dict[int, Frame | PictureError] = {}
        self._copy: str | None = None

    def fetch(self) -> int:
        """Fetch the file where it is not at hand; return how many bytes were read for it, 0 when it was there.

        Raises StorageError, for every frame the same, and PictureError ("deadline") when another thread hangs on it. A
        file that cannot be decoded shows when it is read.
        """
        with self._locked(_FETCHING):
            if isinstance(self._error, StorageError):
                raise self._error
            if self._frames is not None or self._error is not None:
                return 0
            try:
                self._frames = open_frames(self._fetched(), self.pixel_limit)
            except StorageError as error:
                self._error = error
                raise
            except Exception as error:
                self._error = explain(error, "frames")
            return self.size

    def read(self, frame: int, key: str, reserve: Reserve = at_once) -> Frame:
        """Return one of the wanted frames, as a picture of that key; the last one closes the file.

        Raises PictureError, and StorageError where the file could not be fetched.
        """
        if self._frames is None:
            raise self._error or PictureError("read_error", "the file was never fetched")
        if self._frames.pixels:
            # before the file is locked, so that nobody waits for one who waits for memory
            reserve(self._frames.pixels, 4)
        found = self._in_order(frame) if self._frames.in_order else self._try(frame, reserve)
        self.left.discard(frame)
        if not self.left:
            self.close()
        if isinstance(found, PictureError):
            raise found
        return replace(found, picture=replace(found.picture, key=key))

    def give_up(self, frame: int) -> None:
        """Note that a frame has taken too long: where the file is busy with it, nobody waits for the file any more."""
        self.hung = self.hung or self.busy_with in (frame, _FETCHING)

    def close(self) -> None:
        """Close the file, and delete its copy."""
        # one that hangs inside a decoder is left to it
        if self.lock.acquire(timeout=0 if self.hung else _PATIENCE_S):
            try:
                if self._frames is not None:
                    self._frames.close()
                self._passed.clear()
            finally:
                self.lock.release()
        if self._copy is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._copy)

    def _in_order(self, frame: int) -> Frame | PictureError:
        with self._locked(frame):
            self.wanted.discard(frame)
            if frame in self._passed:
                return self._passed.pop(frame)
            for number in range(self._position, frame):
                if number in self.wanted:
                    self._passed[number] = self._try(number)
            self._position = max(self._position, frame + 1)
            return self._try(frame)

    def _try(self, frame: int, reserve: Reserve = at_once) -> Frame | PictureError:
        assert self._frames is not None
        try:
            return self._frames.read(frame, reserve)
        except Exception as error:
            return explain(error, "frames")

    @contextmanager
    def _locked(self, busy_with: int) -> Iterator[None]:
        while not self.lock.acquire(timeout=_PATIENCE_S):
            if self.hung:
                raise PictureError("deadline", "another frame of the same file was not done in time")
        try:
            self.busy_with = busy_with
            yield
        finally:
            self.busy_with = None
            self.lock.release()

    def _fetched(self) -> str:
        """Return the path of the file, or of a copy of it; its SHA-256 is taken on the way."""
        if self.size > SIZE_LIMIT:
            raise PictureError("too_large", f"{self.size:,} bytes; files of frames over {SIZE_LIMIT:,} are not read")
        path = local_path(self.store, self.key)
        digest = hashlib.sha256()
        with contextlib.ExitStack() as stack:
            copy = None
            if path is None:
                descriptor, self._copy = tempfile.mkstemp(prefix="darkroom-")
                copy = stack.enter_context(open(descriptor, "wb"))
            for start in range(0, self.size, _PIECE):
                end = min(self.size, start + _PIECE)
                data = read(self.store, self.key, start, end)
                if len(data) != end - start:
                    said = "has become shorter since it was listed; list the source again"
                    raise StorageError("other", f"{self.store.url_of(self.key)}: {said}")
                digest.update(data)
                if copy is not None:
                    copy.write(data)
        self.sha256 = digest.hexdigest()
        return path or str(self._copy)
