"""Single objects by their URLs: what `models` is handed to read and write with, and where one file lies."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from models.files import Found, check_size
from pipeline.errors import ObjectError, StorageError
from pipeline.storage import store as storage
from pipeline.storage.store import StorageOptions, Store, list_objects, locate, missing_is_empty, open_store

#: bytes of the object by which is tried whether a place can be written to
_PROBE = 64 << 10


@dataclass(frozen=True)
class StoredFiles:
    """Objects at URLs, with retries; `models.files.Files` says what each function does.

    `options` are for S3, those of the environment where None. Raises StorageError.
    """

    faults: ClassVar[tuple[type[Exception], ...]] = (ObjectError,)

    options: StorageOptions | None = None

    def read(self, url: str, limit: int, size: int | None = None) -> bytes | None:
        """Return an object's bytes, None where there is none. Raises TooLargeError where there are more than `limit`.

        `size` is the size in bytes that was listed, if known. Raises ObjectError for an object that cannot be read.
        """
        # a listing may have named an object whose key ends with a slash
        place = locate(url, self.options) if url.endswith("/") else self._place(url)
        try:
            check_size(url, storage.size(*place) if size is None else size, limit)
            data = storage.read(*place, size=size) if size is not None else storage.read(*place, 0, limit + 1)
        except StorageError as error:
            if error.kind == "missing":
                return None
            if error.kind == "unreachable":
                raise
            raise ObjectError(error.kind, error.message) from None
        check_size(url, len(data), limit)
        return data

    def write(self, url: str, data: bytes) -> None:
        """Store bytes at a URL; readers see the old object or the whole new one."""
        storage.write(*self._place(url), data, durable=True)

    def find(self, url: str) -> Iterator[Found]:
        """Yield every object below a URL in the order of the keys, or the one that lies there itself.

        A folder that is not there holds none; a bucket that is not there raises StorageError.
        """
        own = self._itself(url)
        if own is not None:
            yield own
            return
        store = open_store(url, self.options)
        try:
            for one in list_objects(store):
                yield Found(_below(url, one.key), one.key, one.size)
        except StorageError as error:
            if error.kind != "missing" or not missing_is_empty(store):
                raise

    def delete(self, url: str) -> None:
        """Delete an object; one that is not there is no error."""
        storage.delete(*self._place(url))

    def check_writable(self, url: str) -> None:
        """Write a small object beside the one at `url` and delete it, or raise StorageError, which names `url`."""
        probe = f"{url}.probe-{secrets.token_hex(4)}"
        try:
            self.write(probe, bytes(_PROBE))
            self.delete(probe)
        except StorageError as error:
            told = error.message.replace(probe, url).replace(os.path.basename(probe), os.path.basename(url))
            raise StorageError(error.kind, f"{url} cannot be written: {told}") from None

    def _place(self, url: str) -> tuple[Store, str]:
        store, key = locate(url, self.options)
        if not key or key.endswith("/"):
            raise StorageError("invalid", f"{url} names no object; give bucket and name, as in s3://bucket/name")
        return store, key

    def _itself(self, url: str) -> Found | None:
        store, key = locate(url, self.options)
        if not key or url.endswith("/"):
            return None
        try:
            return Found(url, key, storage.size(store, key))
        except StorageError as error:
            if error.kind == "missing":
                return None
            raise


def below(store: Store, path: str) -> Store:
    """Return the store of all that lies below a path of another store, with the options of that one."""
    return replace(store, url=store.url_of(path), root=f"{store.root.rstrip('/')}/{path}")


def _below(url: str, key: str) -> str:
    """Return the URL of an object below another, which may be in a container, as in `zip://folder::file.zip`."""
    head, chained, container = url.partition("::")
    return f"{head if head.endswith('/') else head + '/'}{key}{chained}{container}"
