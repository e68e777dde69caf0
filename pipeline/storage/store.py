"""One interface to objects wherever they are: S3, local folders, memory, and what else fsspec knows.

A store is a URL; an object is a key below it: its path, with `/`, never beginning with one. Everything here may
be called from many threads at once and after a fork, and raises `StorageError` and nothing else when storage
fails. What fails only for now is tried again, seven times within 90 s, with growing random pauses; nothing else is.

Listings are always fresh. S3 and local folders are listed as a stream, other file systems a folder at a time, and
`memory://` as a whole, some 300 MB for a million objects.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import split_protocol
from fsspec.utils import glob_translate

from pipeline.errors import StorageError
from pipeline.storage.access import (
    StorageOptions,
    Store,
    StoredObject,
    Upload,
    changed,
    with_retries,
)

__all__ = [
    "StorageOptions", "Store", "StoredObject", "check_access", "create", "delete", "exists",
    "itself", "list_objects", "local_path", "look_up", "open_store", "open_uploads", "read", "size", "with_retries",
    "write",
]  # fmt: skip

#: a module for every kind of store, with the same functions in each; that of S3 takes half a second to load
BACKENDS = {
    "file": "pipeline.storage.local",
    "s3": "pipeline.storage.s3",
    "memory": "pipeline.storage.memory",
}
_GENERAL = "pipeline.storage.other"
_ALIASES = {None: "file", "local": "file", "s3a": "s3"}

# Made by file managers and archivers next to the pictures, on every kind of store.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def _backend(scheme: str | None) -> Any:
    return import_module(BACKENDS.get(_ALIASES.get(scheme, scheme or ""), _GENERAL))


def open_store(url: str | Path, options: StorageOptions | None = None) -> Store:
    """Return the store at `url`; nothing is contacted yet (see `check_access`).

    `options` are for S3; by default they are read from the environment. Raises `StorageError` ("invalid") for a URL
    that cannot be one.
    """
    address = str(url)
    if not address.strip() or "\0" in address:
        raise StorageError("invalid", f"{address!r}: not a URL; give s3://bucket/prefix or a folder")
    return _backend(split_protocol(address)[0]).open_at(address, options)


def locate(url: str, options: StorageOptions | None = None) -> tuple[Store, str]:
    """Return the store an object lies in, and its key there; a link to a local file is followed wherever it leads."""
    folder, key = _backend(split_protocol(url)[0]).split(url)
    return open_store(folder, options), key


def itself(url: str, options: StorageOptions | None = None) -> tuple[str, str] | None:
    """Return the folder's URL and the key of the object that a URL names; None where it names none.

    With a slash at its end it names a folder, as it does where nothing is stored or the object is empty. A local link
    keeps its own name as long as it leads to a file of its folder. Raises `StorageError` when that cannot be found out.
    """
    if url.endswith(("/", os.sep)):
        return None
    folder, key = _backend(split_protocol(url)[0]).split_own(url)
    if not key:
        return None
    try:
        return (folder, key) if look_up(open_store(folder, options), key).size else None
    except StorageError as error:
        # services hide what is not there from those who may not list; listing then says who may do what
        if error.kind in ("missing", "denied", "invalid"):
            return None
        raise


def filesystem(store: Store) -> fsspec.AbstractFileSystem:
    """Return the fsspec file system of a store in this process; never kept over a fork."""
    return _backend(store.scheme).filesystem(store)


def list_objects(
    store: Store, include: Sequence[str] = (), suffixes: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[StoredObject]:
    """Yield the objects of a store, sorted by key (by code point), one at a time.

    `include` and `exclude` are patterns: `*` and `?` stay within a folder, `**` crosses folders; one without `/`
    is about the file name in any folder. `suffixes` ("jpg" or ".jpg") are compared without regard to case.
    An empty sequence of `include` or `suffixes` lets everything pass. Folder markers are left out, and so is
    whatever has a part beginning with a dot or is a file that desktops leave (Thumbs.db).
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
    try:
        yield from _backend(store.scheme).listing(store, _common_folder(include))
    except StorageError:
        raise
    except Exception as error:
        found = _backend(store.scheme).explain(error, str(getattr(error, "filename", None) or store.url))
    else:
        return
    # outside the except block: the original exception may quote the address
    raise found


def _filter(include: Sequence[str], suffixes: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    endings = tuple("." + suffix.lower().lstrip(".") for suffix in suffixes)
    kept, dropped = [_pattern(p) for p in include], [_pattern(p) for p in exclude]

    def wanted(key: str) -> bool:
        name = key.rstrip("/").rpartition("/")[2]
        return (
            not any(_is_litter(part) for part in key.split("/"))
            and (not endings or name.lower().endswith(endings))
            and (not kept or any(fits(key, name) for fits in kept))
            and not any(fits(key, name) for fits in dropped)
        )

    return wanted


def _is_litter(part: str) -> bool:
    # ".." is possible in a key of S3. It is listed, and refused where it would be written, so that it is counted.
    return (part.startswith(".") and part not in (".", "..")) or part.lower() in _LITTER


@cache
def _pattern(pattern: str) -> Callable[[str, str], bool]:
    """Return a function that tells of a key and its name whether they fit a pattern: the name where it has no "/"."""
    try:
        fitting = re.compile(glob_translate(pattern.lstrip("/")))
    except (ValueError, re.error) as error:
        raise StorageError("invalid", f"{pattern!r}: not a pattern ({error})") from None
    if "/" not in pattern:
        return lambda key, name: bool(fitting.match(name))
    # a slash in front means the beginning of the key, which may have one, too
    slashes = pattern.startswith("/")
    return lambda key, name: bool(fitting.match(key.lstrip("/") if slashes else key))


def _common_folder(include: Sequence[str]) -> str:
    """Return the folder (with "/") all patterns lie in, so that S3 need not list the rest of the bucket; or ""."""
    if not include or any("/" not in pattern or pattern.startswith("/") for pattern in include):
        return ""
    heads = [re.split(r"[*?\[]", pattern)[0] for pattern in include]
    common = posixpath.commonprefix(heads)
    return common[: common.rfind("/") + 1]


def read(store: Store, key: str, start: int | None = None, end: int | None = None, size: int | None = None) -> bytes:
    """Return an object's bytes, or those from `start` to `end` (excluded; both >= 0; clipped to the object).

    `size` is the size in bytes that was listed, if known. More than 16 MiB travel as ranges of 16 MiB at once.
    Raises `StorageError`, among others when the body is shorter than announced ("transient", after retries) or
    the whole object no longer has `size` bytes ("other"). Whole objects of S3 are unpacked where their
    Content-Encoding says that they are packed.
    """
    if (start or 0) < 0 or (end is not None and end < (start or 0)):
        raise StorageError("invalid", f"{store.url_of(key)}: bytes {start} to {end} are no range")
    whole = start is None and end is None
    empty = end is not None and end == (start or 0)
    data = b"" if empty else _backend(store.scheme).read(store, _checked(key), start, end, size)
    if whole and size is not None and len(data) != size and _backend(store.scheme).AS_LISTED:
        raise changed(store.url_of(key), size, len(data))
    return data


def local_path(store: Store, key: str) -> str | None:
    """Return the path of an object in a local store, None in others. Raises `StorageError` for one out of its root."""
    if not store.is_local:
        return None
    from pipeline.storage.local import path_of

    return path_of(store.root, key, False)


def write(store: Store, key: str, data: bytes | bytearray | memoryview, durable: bool = False) -> None:
    """Store an object, replacing what has that key. Others see the old object or the whole new one, never a part.

    `durable` makes local files wait for the disk; object stores always do. More than 16 MiB travel to S3 in parts.
    Raises `StorageError`: "invalid" for keys with a part ".." or ".", and on local stores for all that could
    lead out of the root or means another file on another system (empty parts, backslashes, drive letters).
    """
    _backend(store.scheme).write(store, _checked(key, for_writing=True), data, durable)


def create(store: Store, key: str, data: bytes) -> bool:
    """Store an object unless there is one of that key; return whether it was stored. Raises `StorageError`.

    By this two processes that want to be the only one are told apart. Local folders are exact. S3 is as exact as the
    service: Amazon's conditional writes are; other services let several writes through that come at the same moment, or
    know no conditions. Whoever needs to be sure reads the object back a moment later.
    """
    created = _backend(store.scheme).create(store, _checked(key, for_writing=True), data)
    if created is not None:
        return created
    if exists(store, key):
        return False
    write(store, key, data)
    return True


def exists(store: Store, key: str) -> bool:
    """Return whether there is an object of that key. Raises `StorageError` when that cannot be found out."""
    try:
        size(store, key)
    except StorageError as error:
        if error.kind == "missing":
            return False
        raise
    return True


def size(store: Store, key: str) -> int:
    """Return the size of an object in bytes. Raises `StorageError`, "missing" when there is none."""
    return _backend(store.scheme).size(store, _checked(key))


def delete(store: Store, key: str) -> None:
    """Delete an object; one that is not there is no error. Raises `StorageError`."""
    try:
        _backend(store.scheme).delete(store, _checked(key, may_be_empty=False))
    except StorageError as error:
        if error.kind != "missing":
            raise


def check_access(store: Store, for_writing: bool = False) -> None:
    """Raise `StorageError` unless the store can be listed (or, `for_writing`, written to), in one cheap request.

    "denied" for a wrong key or secret, "missing" for a bucket or folder that is not there, "unreachable" when
    nothing answers (a refused connection at once, silence after 10 s). A local destination that does not exist yet
    is in order if it can be made. Nothing is left behind.
    """
    _backend(store.scheme).check(store, for_writing)


def look_up(store: Store, key: str) -> StoredObject:
    """Return one object as a listing would; other objects, and the store itself, are not asked for.

    Raises `StorageError`, "missing" when there is none. A service that does not answer is not asked again.
    """
    found: StoredObject = _backend(store.scheme).look_up(store, _checked(key))
    return found


def missing_is_empty(store: Store) -> bool:
    """Return whether a store that is not there counts as an empty one: true of folders, false of buckets."""
    return _backend(store.scheme).MISSING_IS_EMPTY


def open_uploads(store: Store, below: str) -> Iterator[Upload]:
    """Yield every upload in parts to keys that begin with `below`, in the order of the keys; none where none is known.

    Raises `StorageError` when the service fails.
    """
    return _backend(store.scheme).uploads(store, below)


def abort_upload(store: Store, upload: Upload) -> None:
    """Abort an upload of `open_uploads` and delete its parts; one that is gone is no error. Raises `StorageError`."""
    _backend(store.scheme).abort(store, upload)


def _checked(key: str, for_writing: bool = False, may_be_empty: bool = True) -> str:
    """Return the key; raise `StorageError` if it cannot be one.

    S3 and memory have no folders and take almost any; but what is written there may one day be copied to a disk. An
    empty key is that of an object of S3 whose name is the store's own with a slash, and can be read.
    """
    empty = not key and (for_writing or not may_be_empty)
    if empty or "\0" in key or (for_writing and not {".", ".."}.isdisjoint(key.split("/"))):
        raise StorageError("invalid", f"{key!r}: refused as the key of an object; rename it")
    return key
