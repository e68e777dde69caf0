"""Objects wherever else fsspec reaches, such as archives; see `pipeline.storage.store` for what each function does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import fsspec
from fsspec.archive import AbstractArchiveFileSystem
from fsspec.core import split_protocol, url_to_fs

from pipeline.errors import StorageError
from pipeline.storage.access import (
    StorageOptions,
    Store,
    StoredObject,
    Upload,
    explain_os_error,
    time_of,
    with_retries,
    without_credentials,
)
from pipeline.storage.local import check_key

MISSING_IS_EMPTY = True
#: an object has as many bytes as a listing says
AS_LISTED = True
#: names under which file systems say when an object was last changed
_TIMES = ("mtime", "LastModified", "Last-Modified", "updated", "created")
_ASKED_AT_ONCE = 16


def open_at(address: str, options: StorageOptions | None) -> Store:
    """Return the store at a URL that fsspec can open. Raises `StorageError` ("invalid") for any other."""
    clean = without_credentials(address).rstrip("/")
    try:
        root = url_to_fs(address)[1]
    # chained systems, such as zip://, already look for their file here
    except (ValueError, ImportError, OSError) as error:
        raise StorageError("invalid", f"{clean}: {without_credentials(str(error))}") from None
    return Store(clean, root, str(split_protocol(address)[0]), address=address)


def split(address: str) -> tuple[str, str]:
    """Split the URL of an object into that of the store it lies in and its key there.

    In a container, as in `zip://folder/name::file.zip`, the key is that of the first part.
    """
    path, chained, container = address.partition("::")
    folder, _, name = path.rpartition("/")
    folder += "/" if folder.endswith(":/") else ""
    return f"{folder}{chained}{container}", name


split_own = split


def filesystem(store: Store) -> fsspec.AbstractFileSystem:
    """Return the file system of a store in this process; never kept over a fork."""
    return url_to_fs(store.address)[0]


def listing(store: Store, below: str, folder: str = "") -> Iterator[StoredObject]:
    """Yield all objects in the order of their keys, folder by folder, so that memory is that of the largest one.

    Archives are listed as a whole: names in them need be no paths, and their folders would not show all.
    """
    if is_archive(store):
        yield from _archived(store)
        return
    path = f"{store.root.rstrip('/')}/{folder}" if store.root else folder
    entries = filesystem(store).ls(path.rstrip("/"), detail=True)
    # a folder sorts as "name/", as on S3
    named = {e["name"][len(store.root) :].strip("/") + "/" * (e["type"] == "directory"): e for e in entries}
    named = _with_sizes(store, named)
    for key in sorted(named):
        if key.endswith("/") and key != folder and key.startswith(folder):
            yield from listing(store, below, key)
        elif key and named[key]["type"] == "file":
            yield _describe(store, key, named[key])


def is_archive(store: Store) -> bool:
    """Tell whether a store is an archive such as `zip://`, where a name is what it is and leads nowhere else."""
    return isinstance(filesystem(store), AbstractArchiveFileSystem)


def _archived(store: Store) -> Iterator[StoredObject]:
    files, root = filesystem(store), store.root.strip("/")
    files._get_dirs()
    beginning = f"{root}/" if root else ""
    for name in sorted(files.dir_cache):
        entry = files.dir_cache[name]
        if entry["type"] == "file" and name.startswith(beginning):
            yield _describe(store, name.removeprefix(beginning), entry)


def _with_sizes(store: Store, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Ask for each file whose size a listing leaves open, as web servers' do; they say more of one than of many."""
    unsized = [key for key, entry in entries.items() if entry["type"] == "file" and entry["size"] is None]
    if not unsized:
        return entries
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return entries | dict(zip(unsized, pool.map(lambda key: _asked(store, key), unsized), strict=True))


def _asked(store: Store, key: str) -> dict[str, Any]:
    path = _path(store, key)

    def attempt() -> dict[str, Any]:
        found: dict[str, Any] = filesystem(store).info(path)
        # a server that sends without saying how much: what it sends is counted
        return found if found["size"] is not None else found | {"size": len(filesystem(store).cat_file(path))}

    return with_retries(attempt, _explained(store, key))


def _describe(store: Store, key: str, entry: dict[str, Any]) -> StoredObject:
    time = next((entry[name] for name in _TIMES if entry.get(name)), None)
    etag = str(entry.get("ETag") or entry.get("etag") or f"{entry['size']:x}-{time}").strip('"')
    return StoredObject(key, store.url_of(key), entry["size"], etag, time_of(_parsed(time)))


def _parsed(time: object) -> object:
    """Parse a time as web servers write it (RFC 9110); anything else is returned as it is."""
    with suppress(TypeError, ValueError):
        return parsedate_to_datetime(time) if isinstance(time, str) else time
    return None


def read(store: Store, key: str, start: int | None, end: int | None, known: int | None) -> bytes:
    """Return an object's bytes, or those from `start` to `end` (excluded)."""
    path = _path(store, key)
    return with_retries(lambda: filesystem(store).cat_file(path, start=start, end=end), _explained(store, key))


def write(store: Store, key: str, data: bytes | bytearray | memoryview, durable: bool) -> None:
    """Store an object, and make the folders that its key names."""
    check_key(key, for_writing=True)
    path = _path(store, key)

    def attempt() -> None:
        files = filesystem(store)
        files.makedirs(files._parent(path), exist_ok=True)
        files.pipe_file(path, bytes(data))

    with_retries(attempt, _explained(store, key))


def create(store: Store, key: str, data: bytes) -> bool | None:
    """Return None: these file systems cannot store an object only where there is none."""
    return None


def size(store: Store, key: str) -> int:
    """Return the size of an object in bytes. Raises `StorageError`, "missing" where there is none."""
    path = _path(store, key)

    def attempt() -> int:
        info = filesystem(store).info(path)
        if info["type"] != "file":
            raise FileNotFoundError(path)
        return info["size"]

    return with_retries(attempt, _explained(store, key))


def look_up(store: Store, key: str) -> StoredObject:
    """Return an object as a listing does. Raises `StorageError`, "missing" where there is none."""
    found = _asked(store, key)
    # a web server shows a folder as a page
    if found["type"] != "file" or str(found.get("mimetype")).startswith("text/html"):
        raise StorageError("missing", f"{store.url_of(key)}: does not exist")
    return _describe(store, key, found)


def delete(store: Store, key: str) -> None:
    """Delete an object. Raises `StorageError`, "missing" where there is none."""
    path = _path(store, key)
    with_retries(lambda: filesystem(store).rm_file(path), _explained(store, key))


def check(store: Store, for_writing: bool) -> None:
    """Raise `StorageError` unless the root is there; whether it can be written to is not asked."""
    if not for_writing:
        with_retries(lambda: filesystem(store).info(store.root), _explained(store), attempts=3)


def uploads(store: Store, below: str) -> Iterator[Upload]:
    """Yield nothing: fsspec does not tell of uploads in parts."""
    return iter(())


def _path(store: Store, key: str) -> str:
    if not is_archive(store):
        check_key(key, for_writing=True)
    return f"{store.root.rstrip('/')}/{key}"


def _explained(store: Store, key: str | None = None) -> Any:
    """Return a function that turns an exception over an object, or over the whole store, into a `StorageError`."""
    what = store.url if key is None else store.url_of(key)
    return lambda error: explain(error, what)


def explain(error: Exception, what: str) -> StorageError:
    """Turn any exception into a `StorageError`: every file system has some of its own, which cannot all be known."""
    try:
        return explain_os_error(error, what)
    except Exception:
        return StorageError("other", f"{what}: {type(error).__name__}: {without_credentials(str(error))}")
