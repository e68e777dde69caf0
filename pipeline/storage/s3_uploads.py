"""Uploads in parts that nobody will complete, their process killed: the parts cost money until they are aborted.

They are in no listing of objects. Some services list them by whole keys only, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from pipeline.errors import StorageError
from pipeline.storage.access import log
from pipeline.storage.store import Store, place_of


class Upload(NamedTuple):
    """An upload that was begun: the key it was to have below the store, its name, and the bytes that have arrived."""

    key: str
    identifier: str
    begun: datetime | None
    size: int


def open_uploads(store: Store, below: str) -> Iterator[Upload]:
    """Every upload in parts to keys that begin with `below`, in the order of the keys; none where nothing is known.

    Raises StorageError when the service fails.
    """
    if store.scheme != "s3":
        return
    from pipeline.storage.s3 import call

    place = place_of(store)
    arguments: dict[str, Any] = {"Prefix": place.prefix + below}
    while True:
        try:
            page = call(place, "list_multipart_uploads", place.url, **arguments)
        except StorageError as error:
            if error.kind not in ("invalid", "denied"):
                raise
            log.warning("%s: unfinished uploads are not known: %s", place.url, error)
            return
        for one in page.get("Uploads", []):
            name = {"Key": one["Key"], "UploadId": one["UploadId"]}
            yield Upload(one["Key"][len(place.prefix) :], one["UploadId"], one.get("Initiated"), _size(store, name))
        if not page.get("IsTruncated"):
            return
        arguments |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def abort(store: Store, upload: Upload) -> None:
    """Give an upload up, whose parts go; one that is there no longer is no error. Raises StorageError."""
    from pipeline.storage.s3 import call

    place = place_of(store)
    name = {"Key": place.prefix + upload.key, "UploadId": upload.identifier}
    try:
        call(place, "abort_multipart_upload", store.url_of(upload.key), **name)
    except StorageError as error:
        if error.kind != "missing":
            raise


def _size(store: Store, name: dict[str, str]) -> int:
    """Bytes of the first thousand parts, which is one page."""
    from pipeline.storage.s3 import call

    place = place_of(store)
    try:
        return sum(part["Size"] for part in call(place, "list_parts", place.url, **name).get("Parts", []))
    except StorageError as error:
        if error.kind != "missing":
            raise
        return 0
