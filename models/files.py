"""Objects at URLs, as `models` reads and writes them: plainly through fsspec, or through what it is handed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from models.errors import TooLargeError

if TYPE_CHECKING:
    import fsspec


@dataclass(frozen=True)
class Found:
    """An object below a URL: its own URL, its key (the path below), and its size in bytes where that is known."""

    url: str
    key: str
    size: int | None


class Files(Hashable, Protocol):
    """How objects are read and written. May be called from several threads at once.

    What fails raises OSError, or an error of the layer that is handed in; `faults` are those that tell of one object
    which cannot be read, while others may be.
    """

    faults: ClassVar[tuple[type[Exception], ...]]

    def read(self, url: str, limit: int, size: int | None = None) -> bytes | None:
        """Return the bytes of the object at a URL, None where there is none; `size` is what a listing said.

        Raises TooLargeError, before anything is read, where they are more than `limit`.
        """

    def write(self, url: str, data: bytes) -> None:
        """Put bytes at a URL so that readers see the old or the new object, never half of one."""

    def find(self, url: str) -> Iterator[Found]:
        """Yield every object below a URL in the order of the keys, or the one that lies there itself."""


def check_size(url: str, size: int | None, limit: int) -> None:
    """Raise TooLargeError where an object is known to have more bytes than `limit`."""
    if size is not None and size > limit:
        raise TooLargeError(f"{url} is {size:,} bytes; more than {limit:,} are refused")


@dataclass(frozen=True)
class PlainFiles:
    """Local paths and whatever else fsspec knows, with the access that its libraries find by themselves."""

    faults: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def read(self, url: str, limit: int, size: int | None = None) -> bytes | None:
        """Return the bytes of the object at a URL, None where there is none, as `Files.read` says.

        Raises TooLargeError for an object of more than `limit` bytes, OSError where it cannot be read.
        """
        fs, path = _locate(url)
        try:
            check_size(url, fs.size(path) if size is None else size, limit)
            data = fs.cat_file(path, end=limit + 1)
        except FileNotFoundError:
            return None
        check_size(url, len(data), limit)
        return data

    def write(self, url: str, data: bytes) -> None:
        """Put bytes at a URL at once, as `Files.write` says, and leave nothing unfinished behind where that fails."""
        fs, path = _locate(url)
        if not _is_local(fs):
            fs.pipe_file(path, data)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def find(self, url: str) -> Iterator[Found]:
        """Yield every object below a URL in the order of the keys, as `Files.find` says."""
        fs, root = _locate(url)
        for path, entry in sorted(fs.find(root, detail=True).items()):
            key = path[len(root) :].lstrip("/") or path.rpartition("/")[2]
            yield Found(path if _is_local(fs) else fs.unstrip_protocol(path), key, entry.get("size"))


#: what is used where nothing is handed in
PLAIN = PlainFiles()


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def _locate(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    import fsspec.core

    found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    return found
