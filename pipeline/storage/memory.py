"""Objects in the memory of this process; see `pipeline.storage.store` for what each function does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import fsspec

from pipeline.errors import StorageError
from pipeline.storage.access import Result, Store, StoredObject, time_of, with_retries
from pipeline.storage.access import explain_os_error as explain
from pipeline.storage.other import AS_LISTED as AS_LISTED
from pipeline.storage.other import MISSING_IS_EMPTY as MISSING_IS_EMPTY
from pipeline.storage.other import create as create
from pipeline.storage.other import open_at as open_at
from pipeline.storage.other import split as split
from pipeline.storage.other import uploads as uploads

split_own = split


def filesystem(store: Store) -> fsspec.AbstractFileSystem:
    """Return the memory of this process as a file system."""
    return fsspec.filesystem("memory")


def listing(store: Store, below: str) -> Iterator[StoredObject]:
    """Yield all objects in the order of their keys; memory has no folders, and is listed as a whole."""
    root = f"{store.root.rstrip('/')}/"
    for path in sorted(filesystem(store).store):
        if path.startswith(root):
            yield _describe(store, path.removeprefix(root))


def look_up(store: Store, key: str) -> StoredObject:
    """Return an object as a listing does. Raises `StorageError`, "missing" where there is none."""
    return _explained(store, key, lambda: _describe(store, key))


def _describe(store: Store, key: str) -> StoredObject:
    data = _content(store, key)
    # its times say when the process wrote, which would make every run a new one
    etag = hashlib.blake2b(data, digest_size=16).hexdigest()
    created = filesystem(store).store[_path(store, key)].created
    return StoredObject(key, store.url_of(key), len(data), etag, time_of(created))


def read(store: Store, key: str, start: int | None, end: int | None, known: int | None) -> bytes:
    """Return an object's bytes, or those from `start` to `end` (excluded)."""
    return _explained(store, key, lambda: _content(store, key)[start:end])


def write(store: Store, key: str, data: bytes | bytearray | memoryview, durable: bool) -> None:
    """Store an object."""
    _explained(store, key, lambda: filesystem(store).pipe_file(_path(store, key), bytes(data)))


def size(store: Store, key: str) -> int:
    """Return the size of an object in bytes. Raises `StorageError`, "missing" where there is none."""
    return _explained(store, key, lambda: len(_content(store, key)))


def delete(store: Store, key: str) -> None:
    """Delete an object. Raises `StorageError`, "missing" where there is none."""
    _explained(store, key, lambda: filesystem(store).rm_file(_path(store, key)))


def check(store: Store, for_writing: bool) -> None:
    """Do nothing: memory is always there."""


def _content(store: Store, key: str) -> bytes:
    # not through open(): all readers of one object would share one position
    path = _path(store, key)
    try:
        return filesystem(store).store[path].getvalue()
    except KeyError:
        raise FileNotFoundError(path) from None


def _path(store: Store, key: str) -> str:
    if not key or key.endswith("/"):
        raise StorageError("invalid", f"{store.url_of(key)}: memory has no objects whose names end with /")
    return f"{store.root.rstrip('/')}/{key}"


def _explained(store: Store, key: str, function: Callable[[], Result]) -> Result:
    return with_retries(function, lambda error: explain(error, store.url_of(key)))
