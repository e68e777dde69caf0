"""One way to objects wherever they are: S3, local folders, memory, and what else fsspec knows.

A store is a URL; an object is a key below it: its path, with `/`, never beginning with one. Everything here may
be called from many threads at once and after a fork, and raises `StorageError` and nothing else when storage
fails. What fails only for now is tried again, seven times within 90 s, with growing random pauses; nothing else is.

Listings are always fresh. S3 and local folders are listed as a stream, other file systems a folder at a time, and
`memory://` as a whole, some 300 MB for a million objects.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from pipeline.errors import StorageError
from pipeline.storage import local
from pipeline.storage.access import (
    PART,
    Result,
    StorageOptions,
    StoredObject,
    explain_os_error,
    moment,
    with_retries,
    without_credentials,
)

if TYPE_CHECKING:
    from pipeline.storage.s3 import Place

__all__ = [
    "StorageOptions", "Store", "StoredObject", "check_access", "delete", "exists",
    "list_objects", "local_path", "open_store", "read", "size", "with_retries", "write",
]  # fmt: skip

# Made by file managers and archivers next to the pictures, on every kind of store.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class Store:
    """Where objects are: a kind of file system and a root in it. Made by `open_store`; cheap, can be pickled.

    `url` is for people and holds no credentials; `root` is the root in the words of `fs`;
    `scheme` is "s3", "file", "memory" or another that fsspec knows.
    """

    url: str
    root: str
    scheme: str
    options: StorageOptions = field(default_factory=StorageOptions, repr=False)
    address: str = field(default="", repr=False)

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system of this process; never kept over a fork."""
        if self.scheme == "s3":
            return place_of(self).fs
        return fsspec.filesystem("file") if self.scheme == "file" else url_to_fs(self.address)[0]

    def url_of(self, key: str) -> str:
        """The whole address of an object, without credentials."""
        return f"{self.url.rstrip('/')}/{key}"


def open_store(url: str | Path, options: StorageOptions | None = None) -> Store:
    """Return the store at `url`; nothing is contacted yet (see `check_access`).

    `options` are for S3; the default are those of the environment. Raises `StorageError` ("invalid") for a URL
    that cannot be one.
    """
    address = str(url)
    scheme, path = split_protocol(address)
    clean = without_credentials(address).rstrip("/")
    if not address.strip() or "\0" in address:
        raise StorageError("invalid", f"{address!r}: not a URL; give s3://bucket/prefix or a folder")
    if scheme in (None, "file", "local"):
        root = LocalFileSystem._strip_protocol(address)
        return Store(root, root, "file")
    if scheme in ("s3", "s3a"):
        root = path.strip("/")
        if "@" in root.split("/")[0] or not root:
            raise StorageError("invalid", f"{clean}: give s3://bucket/prefix; credentials do not belong into the URL")
        return Store(f"s3://{root}", root, "s3", options or StorageOptions.from_environment(), f"s3://{root}")
    try:
        root = url_to_fs(address)[1]
    # chained systems, such as zip://, already look for their file here
    except (ValueError, ImportError, OSError) as error:
        raise StorageError("invalid", f"{clean}: {without_credentials(str(error))}") from None
    return Store(clean, root, scheme, address=address)


def list_objects(
    store: Store, include: Sequence[str] = (), suffixes: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[StoredObject]:
    """Yield the objects of a store, sorted by key (by code point), one at a time.

    `include` and `exclude` are patterns: `*` and `?` stay within a folder, `**` crosses folders; one without `/`
    is about the file name in any folder. `suffixes` ("jpg" or ".jpg") are compared without regard to case.
    An empty sequence of `include` or `suffixes` lets everything pass. Folder markers are left out, and so is
    whatever has a part beginning with a dot or is litter of a desktop (Thumbs.db).
    A store that holds nothing yields nothing; a folder or bucket that is not there raises `StorageError`.
    """
    wanted = _filter(include, suffixes, exclude)
    previous = ""
    for found in _listing(store, include):
        if not wanted(found.key):
            continue
        if found.key < previous:
            raise StorageError("other", f"{store.url}: the store does not list in the order of the keys")
        previous = found.key
        yield found


def _listing(store: Store, include: Sequence[str]) -> Iterator[StoredObject]:
    if store.scheme == "s3":
        return _list_s3(place_of(store), _common_folder(include))
    listing = local.walk(store.root, _common_folder(include)) if store.scheme == "file" else _list_other(store)
    return _explained(store, listing)


def _explained(store: Store, listing: Iterator[StoredObject]) -> Iterator[StoredObject]:
    try:
        yield from listing
    except Exception as error:
        found = _explain(store, error, str(getattr(error, "filename", None) or store.url))
    else:
        return
    raise found


def _list_s3(place: Place, below: str) -> Iterator[StoredObject]:
    from pipeline.storage.s3 import list_pages

    for entry in list_pages(place, below):
        key = entry["Key"][len(place.prefix) :]
        if key and not key.endswith(("/", "_$folder$")):
            etag = entry.get("ETag", "").strip('"')
            yield StoredObject(key, f"{place.url}/{key}", entry["Size"], etag, _utc(entry.get("LastModified")))


def _list_other(store: Store, folder: str = "") -> Iterator[StoredObject]:
    """Folder by folder, so that memory is that of the largest one; `memory://` knows no folders."""
    path = f"{store.root.rstrip('/')}/{folder}".rstrip("/") if store.root else folder.rstrip("/")
    found = store.fs.find(path, detail=True).values() if store.scheme == "memory" else store.fs.ls(path, detail=True)
    # a folder sorts as "name/", as on S3
    entries = {e["name"][len(store.root) :].strip("/") + "/" * (e["type"] == "directory"): e for e in found}
    for key in sorted(entries):
        if key.endswith("/") and key != folder and key.startswith(folder):
            yield from _list_other(store, key)
        elif key and entries[key]["type"] == "file":
            yield _describe(store, key, entries[key])


def _describe(store: Store, key: str, entry: dict[str, Any]) -> StoredObject:
    time = next((entry[name] for name in ("mtime", "LastModified", "updated", "created") if entry.get(name)), None)
    if store.scheme == "memory":
        # Its times say when the process wrote, which would make every run a new one.
        etag = hashlib.blake2b(_memory(store, key), digest_size=16).hexdigest()
    else:
        etag = str(entry.get("ETag") or entry.get("etag") or f"{entry['size'] or 0:x}-{time}").strip('"')
    return StoredObject(key, store.url_of(key), entry["size"] or 0, etag, _utc(time))


def _utc(time: object) -> datetime | None:
    if isinstance(time, (int, float)):
        return moment(time)
    return time.astimezone(UTC) if isinstance(time, datetime) else None


def _filter(include: Sequence[str], suffixes: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    endings = tuple("." + suffix.lower().lstrip(".") for suffix in suffixes)
    kept, dropped = [_pattern(p) for p in include], [_pattern(p) for p in exclude]

    def wanted(key: str) -> bool:
        parts = key.split("/")
        return (
            not any(_is_litter(part) for part in parts)
            and (not endings or parts[-1].lower().endswith(endings))
            and (not kept or any(p.match(key) for p in kept))
            and not any(p.match(key) for p in dropped)
        )

    return wanted


def _is_litter(part: str) -> bool:
    # ".." is possible in a key of S3. It is listed, and refused where it would be written, so that it is counted.
    return (part.startswith(".") and part not in (".", "..")) or part.lower() in _LITTER


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    whole = pattern.lstrip("/") if "/" in pattern else f"**/{pattern}"
    try:
        return re.compile(glob_translate(whole))
    except (ValueError, re.error) as error:
        raise StorageError("invalid", f"{pattern!r}: not a pattern ({error})") from None


def _common_folder(include: Sequence[str]) -> str:
    """Return the folder (with "/") all patterns lie in, so that S3 need not list the rest of the bucket; or ""."""
    if not include or any("/" not in pattern for pattern in include):
        return ""
    heads = [re.split(r"[*?\[]", pattern.lstrip("/"))[0] for pattern in include]
    common = posixpath.commonprefix(heads)
    return common[: common.rfind("/") + 1]


def read(store: Store, key: str, start: int | None = None, end: int | None = None, size: int | None = None) -> bytes:
    """Return an object's bytes, or those from `start` to `end` (excluded; both >= 0; clipped to the object).

    `size` is the size in bytes that was listed, if known. More than 16 MiB travel as ranges of 16 MiB at once.
    Raises `StorageError`, among others when the body is shorter than announced ("transient", after retries) or
    the whole object has no longer `size` bytes ("other").
    """
    if (start or 0) < 0 or (end is not None and end < (start or 0)):
        raise StorageError("invalid", f"{store.url_of(key)}: bytes {start} to {end} are no range")
    whole = start is None and end is None
    data = b"" if end is not None and end == (start or 0) else _fetch(store, key, start, end, size)
    if whole and size is not None and len(data) != size:
        said = f"has changed since it was listed: {size} bytes then, {len(data)} now; list the source again"
        raise StorageError("other", f"{store.url_of(key)}: {said}")
    return data


def _fetch(store: Store, key: str, start: int | None, end: int | None, size: int | None) -> bytes:
    if store.scheme == "s3":
        return _fetch_s3(place_of(store), _checked(store, key), start, end, size)
    if store.scheme == "file":
        return _tried(store, key, lambda: local.read(local.path_of(store.root, key, False), start, end))
    if store.scheme == "memory":
        return _tried(store, key, lambda: _memory(store, _checked(store, key))[start:end])
    return _tried(store, key, lambda: store.fs.cat_file(_path(store, key), start=start, end=end))


def _fetch_s3(place: Place, key: str, start: int | None, end: int | None, size: int | None) -> bytes:
    from pipeline.storage import s3

    stop = end if end is not None else size
    first = start or 0
    if stop is not None and stop - first > PART:
        return s3.get_in_parts(place, key, first, stop)
    body = s3.get(place, key, start, end, limit=PART)
    return s3.get_in_parts(place, key, 0, body.length) if body.data is None else body.data


def local_path(store: Store, key: str) -> str | None:
    """The path of an object of a local store; None for other stores. Raises `StorageError` for a key out of it."""
    return local.path_of(store.root, key, False) if store.scheme == "file" else None


def write(store: Store, key: str, data: bytes | bytearray | memoryview, durable: bool = False) -> None:
    """Store an object, replacing what has that key. Others see the old object or the whole new one, never a part.

    `durable` makes local files wait for the disk; object stores always do. More than 16 MiB travel to S3 in parts.
    Raises `StorageError`: "invalid" for keys with a part ".." or ".", and on local stores for all that could
    lead out of the root or means another file on another system (empty parts, backslashes, drive letters).
    """
    _checked(store, key, for_writing=True)
    if store.scheme == "s3":
        from pipeline.storage.s3 import put

        put(place_of(store), key, data)
    elif store.scheme == "file":
        path = local.path_of(store.root, key, True)
        _tried(store, key, lambda: local.write(path, data, durable))
    else:
        _tried(store, key, lambda: _write_other(store, _path(store, key), bytes(data)))


def _write_other(store: Store, path: str, data: bytes) -> None:
    if store.scheme != "memory":
        store.fs.makedirs(store.fs._parent(path), exist_ok=True)
    store.fs.pipe_file(path, data)


def exists(store: Store, key: str) -> bool:
    """Say whether there is such an object. Raises `StorageError` when that cannot be found out."""
    try:
        size(store, key)
    except StorageError as error:
        if error.kind == "missing":
            return False
        raise
    return True


def size(store: Store, key: str) -> int:
    """Return the size of an object in bytes. Raises `StorageError`, "missing" when there is none."""
    if store.scheme == "s3":
        from pipeline.storage.s3 import head

        return head(place_of(store), _checked(store, key))
    if store.scheme == "file":
        path = local.path_of(store.root, _checked(store, key), False)
        return _tried(store, key, lambda: local.size(path))
    return _tried(store, key, lambda: _size_other(store, _path(store, key)))


def _size_other(store: Store, path: str) -> int:
    info = store.fs.info(path)
    if info["type"] != "file":
        raise FileNotFoundError(path)
    return info["size"]


def delete(store: Store, key: str) -> None:
    """Delete an object; one that is not there is no error. Raises `StorageError`."""
    if store.scheme == "s3":
        from pipeline.storage.s3 import delete as delete_s3

        return delete_s3(place_of(store), _checked(store, key))
    try:
        path = local.path_of(store.root, key, True) if store.scheme == "file" else _path(store, key)
        _tried(store, key, lambda: store.fs.rm_file(path))
    except StorageError as error:
        if error.kind != "missing":
            raise


def check_access(store: Store, for_writing: bool = False) -> None:
    """Raise `StorageError` unless the store can be listed (or, `for_writing`, written to), in one cheap request.

    "denied" for a wrong key or secret, "missing" for a bucket or folder that is not there, "unreachable" when
    nothing answers (a refused connection at once, silence after 10 s). A local destination that does not exist yet
    is in order if it can be made. Nothing is left behind.
    """
    if store.scheme == "s3":
        from pipeline.storage.s3 import check

        check(place_of(store), for_writing)
    elif store.scheme == "file":
        with_retries(lambda: local.check(store.root, for_writing), lambda e: explain_os_error(e, store.root))
    elif not for_writing and store.scheme != "memory":
        with_retries(lambda: store.fs.info(store.root), lambda e: _explain(store, e, store.url), attempts=3)


def place_of(store: Store) -> Place:
    """Where an S3 store is, with this process's connection."""
    # Loaded late: half a second that those who only use local folders need not wait.
    from pipeline.storage.s3 import Place, filesystem

    bucket, _, prefix = store.root.partition("/")
    return Place(filesystem(store.options), bucket, prefix + "/" if prefix else "", store.url, store.options)


def _memory(store: Store, key: str) -> bytes:
    # Not through open(): all readers of one object would share one position.
    path = _path(store, key)
    try:
        return store.fs.store[path].getvalue()
    except KeyError:
        raise FileNotFoundError(path) from None


def _path(store: Store, key: str) -> str:
    return f"{store.root.rstrip('/')}/{_checked(store, key)}"


def _checked(store: Store, key: str, for_writing: bool = False) -> str:
    """Return the key; raise `StorageError` if it cannot be one.

    S3 and memory have no folders and take almost any; but what is written there may one day be copied to a disk.
    """
    if not key or "\0" in key or (for_writing and not {".", ".."}.isdisjoint(key.split("/"))):
        raise StorageError("invalid", f"{key!r}: refused as the key of an object; rename it")
    if store.scheme not in ("s3", "memory", "file"):
        local.check_key(key, for_writing=True)
    return key


def _tried(store: Store, key: str, function: Callable[[], Result]) -> Result:
    return with_retries(function, lambda error: _explain(store, error, store.url_of(key)))


def _explain(store: Store, error: Exception, what: str) -> StorageError:
    try:
        return explain_os_error(error, what)
    except Exception:
        if store.scheme in ("file", "memory"):
            raise
        # Every other file system has exceptions of its own, which cannot all be known here.
        return StorageError("other", f"{what}: {type(error).__name__}: {without_credentials(str(error))}")
