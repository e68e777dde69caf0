"""Objects in local folders: keys that cannot leave their root, files that are whole or not there.

`pipeline.storage.store` says what each function does that takes a store.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import StorageError
from pipeline.storage.access import (
    Result,
    StorageOptions,
    Store,
    StoredObject,
    Upload,
    log,
    moment,
    with_retries,
)
from pipeline.storage.access import explain_os_error as explain

#: a folder that is not there holds nothing
MISSING_IS_EMPTY = True
#: an object has as many bytes as a listing says
AS_LISTED = True

# Begins with a dot, so that what a killed process left behind is never listed.
_UNFINISHED = ".darkroom-{}.part"

# To Windows: devices, with any ending; streams of other files; and names that lose their end.
_DEVICE = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)|:|[. ]$")


def open_at(address: str, options: StorageOptions | None) -> Store:
    """Return the store of a folder, given by its path or a `file://` URL."""
    root = LocalFileSystem._strip_protocol(address)
    return Store(root, root, "file")


def split(address: str) -> tuple[str, str]:
    """Split the path of a file into its folder and its name; a link to a file is followed wherever it leads."""
    return os.path.split(os.path.realpath(LocalFileSystem._strip_protocol(address)))


def split_own(address: str) -> tuple[str, str]:
    """Split the path of a file into its folder and its name; only a link that leads out of its folder is followed."""
    path = LocalFileSystem._strip_protocol(address)
    folder, name = os.path.split(path)
    return (folder, name) if _is_below(os.path.realpath(path), os.path.realpath(folder)) else split(address)


def filesystem(store: Store) -> fsspec.AbstractFileSystem:
    """Return the file system of this machine."""
    return fsspec.filesystem("file")


def check_key(key: str, for_writing: bool, windows: bool = os.name == "nt") -> None:
    """Raise `StorageError` ("invalid") for a key that could lead out of its root, or means another file elsewhere.

    Backslashes and drive letters are ordinary characters to POSIX: such files are read there, never written. Names
    that Windows gives to devices, or changes, are refused on Windows alone.
    """
    parts = key.split("/")
    foreign = "\\" in key or re.match(r"[A-Za-z]:", key)
    device = windows and any(_DEVICE.search(part) for part in parts)
    if any(part in ("", ".", "..") for part in parts) or (foreign and (for_writing or windows)) or device:
        raise StorageError(
            "invalid", f"{key!r}: refused as the name of a file: it could lead out of the folder; rename the object"
        )


def path_of(root: str, key: str, for_writing: bool) -> str:
    """Return the path of a key below `root`. Raises `StorageError` ("invalid") when it would be anywhere else.

    Symbolic links are followed as long as they stay below the root; when writing, the last name is replaced and
    not followed.
    """
    check_key(key, for_writing)
    path = os.path.join(root, *key.split("/"))
    target = os.path.realpath(os.path.dirname(path) if for_writing else path)
    if not _is_below(target, os.path.realpath(root)):
        raise StorageError(
            "invalid", f"{path}: a symbolic link leads out of {root}; copy what it points to, or name that folder"
        )
    return path


def _is_below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root


def listing(store: Store, below: str) -> Iterator[StoredObject]:
    """Yield every file in the order of the keys; memory is that of the largest folder.

    Only files in the folder `below` ("" or ending in "/") are looked for; their keys begin with it.

    Links to folders are not entered (they may go in circles): what lies there is listed under its own name, or
    lies elsewhere, which is logged. Links to files that lead nowhere or out of the root are listed, and refused
    when read, so that they are counted. Names starting with a dot, pipes and devices are left out.
    """
    root = store.root
    real = os.path.realpath(root)
    if not below or not os.path.isdir(root):
        return _walk(root, "", real)
    folder = os.path.join(root, below)
    if not os.path.isdir(folder) or os.path.realpath(folder) != os.path.join(real, below[:-1]):
        # not there, or reached by a link, which is not entered from above either
        return iter(())
    return _walk(folder, below, real)


def _walk(folder: str, prefix: str, root: str) -> Iterator[StoredObject]:
    with os.scandir(folder) as found:
        # A folder sorts as "name/", or else "a.png" would not come before "a/b.png" as it does on S3.
        entries = {
            _printable(entry.name) + "/" * entry.is_dir(follow_symlinks=False): entry
            for entry in found
            if not entry.name.startswith(".")
        }
    for name, entry in sorted(entries.items()):
        key = prefix + name
        if key.endswith("/"):
            yield from _walk(entry.path, key, root)
        elif entry.is_symlink() and entry.is_dir():
            log.warning("%s: a link to a folder is not entered", entry.path)
        elif (found_file := _stat(entry, root)) is not None:
            yield describe(key, entry.path, found_file)


def _printable(name: str) -> str:
    """Return a file name that any table can hold; one that is not UTF-8 gets escapes and can then not be read."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _stat(entry: os.DirEntry[str], root: str) -> os.stat_result | None:
    """Return the status of a regular file, or of a link that leads out or nowhere; None for anything else."""
    if entry.is_symlink() and not (entry.is_file() and _is_below(os.path.realpath(entry.path), root)):
        return entry.stat(follow_symlinks=False)
    try:
        status = entry.stat()
    except FileNotFoundError:  # deleted since the folder was read
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def describe(key: str, path: str, status: os.stat_result) -> StoredObject:
    """Return what a listing says of a file; its ETag is made of its size and its time of change in nanoseconds."""
    etag = f"{status.st_size:x}-{status.st_mtime_ns:x}"
    return StoredObject(key, _printable(path), status.st_size, etag, moment(status.st_mtime))


def read(store: Store, key: str, start: int | None, end: int | None, known: int | None) -> bytes:
    """Return bytes `start` to `end` (excluded) of a regular file, fewer where the file ends before."""
    return _tried(store, key, lambda: _read(path_of(store.root, key, False), start, end))


def _read(path: str, start: int | None, end: int | None) -> bytes:
    # Opening a pipe would wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StorageError("invalid", f"{path}: not a regular file")
        first = start or 0
        expected = max(0, min(status.st_size, end if end is not None else status.st_size) - first)
        file.seek(first)
        data = file.read(expected)
    if len(data) != expected:
        raise StorageError("transient", f"{path}: {len(data)} bytes came of {expected}; it was cut while being read")
    return data


def write(store: Store, key: str, data: bytes | bytearray | memoryview, durable: bool) -> None:
    """Write a file under another name in the same folder, then rename it: it is whole or not there.

    `durable` waits until the file is on the disk, so that it survives a power cut too, not only a killed process.
    """
    path = path_of(store.root, key, True)
    _tried(store, key, lambda: _write(path, data, durable))


def _write(path: str, data: bytes | bytearray | memoryview, durable: bool) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    unfinished = os.path.join(folder, _UNFINISHED.format(secrets.token_hex(8)))
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
    if durable and os.name == "posix":
        _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(store: Store, key: str, data: bytes) -> bool:
    """Store a file unless there is one of that name; return whether it was stored.

    This is exact: of two processes that try, one does.
    """
    path = path_of(store.root, key, True)
    return with_retries(lambda: _create(path, data), lambda error: explain(error, path))


def _create(path: str, data: bytes) -> bool:
    """Write the bytes under a name of their own first, so that nobody ever sees half of them under the final name."""
    folder = os.path.dirname(path)
    unfinished = os.path.join(folder, _UNFINISHED.format(secrets.token_hex(8)))
    os.makedirs(folder, exist_ok=True)
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return False
        except OSError:
            # a file system without links
            with contextlib.suppress(FileExistsError), open(path, "xb") as file:
                file.write(data)
                return True
            return False
        return True
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)


def check(store: Store, for_writing: bool) -> None:
    """Raise `StorageError` unless the root can be listed or, `for_writing`, written to (it may have yet to be made)."""
    with_retries(lambda: _check(store.root, for_writing), lambda error: explain(error, store.root))


def _check(root: str, for_writing: bool) -> None:
    if for_writing:
        _check_writable(root)
    elif not os.path.exists(root):
        raise StorageError("missing", f"{root}: no such folder or file; check the spelling")
    elif not os.path.isdir(root):
        raise StorageError("invalid", f"{root}: a file, not a folder; name a folder")
    else:
        with os.scandir(root):
            pass


def _check_writable(root: str) -> None:
    existing = root
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise StorageError("invalid", f"{root}: {existing} is not a folder")
    # Tried rather than asked for: permissions alone do not tell of read-only or full disks.
    with tempfile.TemporaryFile(prefix=".darkroom-", dir=existing):
        pass


def size(store: Store, key: str) -> int:
    """Return the size of a regular file in bytes; anything else counts as missing."""
    path = path_of(store.root, key, False)
    return _tried(store, key, lambda: _status(path).st_size)


def look_up(store: Store, key: str) -> StoredObject:
    """Return a regular file as a listing does; anything else counts as missing."""
    path = path_of(store.root, key, False)
    return _tried(store, key, lambda: describe(key, os.path.join(store.root, *key.split("/")), _status(path)))


def _status(path: str) -> os.stat_result:
    """Ask for the status of a regular file. Raises OSError, FileNotFoundError for anything else, too."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(path)
    return status


def delete(store: Store, key: str) -> None:
    """Delete a file. Raises `StorageError`, "missing" where there is none."""
    path = path_of(store.root, key, True)
    _tried(store, key, lambda: filesystem(store).rm_file(path))


def uploads(store: Store, below: str) -> Iterator[Upload]:
    """Yield nothing: files are written whole."""
    return iter(())


def _tried(store: Store, key: str, function: Callable[[], Result]) -> Result:
    return with_retries(function, lambda error: explain(error, store.url_of(key)))
