"""Objects in S3 and services that speak its protocol; see `pipeline.storage.store` for what each function does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.exceptions as boto

from pipeline.errors import StorageError
from pipeline.storage import s3_requests as requests
from pipeline.storage.access import (
    PART,
    StorageOptions,
    Store,
    StoredObject,
    Upload,
    changed,
    log,
    time_of,
    with_retries,
    without_credentials,
)
from pipeline.storage.access import explain_os_error as explain
from pipeline.storage.s3_bodies import unpacked
from pipeline.storage.s3_requests import Body, Place

__all__ = [
    "AS_LISTED", "MISSING_IS_EMPTY", "abort", "check", "create", "delete", "explain", "filesystem", "listing",
    "look_up", "open_at", "place_of", "read", "size", "split", "split_own", "uploads", "write",
]  # fmt: skip

#: a bucket that is not there is a mistake, not an empty folder
MISSING_IS_EMPTY = False
#: here an object is compared with its listing, for what is read may be longer or shorter
AS_LISTED = False


def open_at(address: str, options: StorageOptions | None) -> Store:
    """Return the store at `s3://bucket/prefix`.

    Raises `StorageError` ("invalid") for URLs of no bucket or with credentials.
    """
    root = address.partition("://")[2].strip("/")
    if "@" in root.split("/")[0] or not root:
        clean = without_credentials(address).rstrip("/")
        raise StorageError("invalid", f"{clean}: give s3://bucket/prefix; credentials do not belong into the URL")
    return Store(f"s3://{root}", root, "s3", options or StorageOptions.from_environment(), f"s3://{root}")


def split(address: str) -> tuple[str, str]:
    """Split the URL of an object into that of the store it lies in and its key there.

    The key of a bucket is "", and so is that of a URL with a slash at its end.

    Slashes that follow each other belong to the key, for a store's URL has none at its end: `s3://b/a//x.png` is
    `/x.png` in `s3://b/a`.
    """
    bucket, _, path = address.partition("://")[2].lstrip("/").partition("/")
    if not path:
        return address, ""
    folder = path.rstrip("/") if path.endswith("/") else path.rpartition("/")[0].rstrip("/")
    return f"s3://{bucket}/{folder}".rstrip("/"), path[len(folder) + bool(folder) :]


split_own = split


def place_of(store: Store) -> Place:
    """Return the bucket and prefix of an S3 store, with the connection of this process."""
    bucket, _, prefix = store.root.partition("/")
    return Place(filesystem(store), bucket, prefix + "/" if prefix else "", store.url, store.options)


def filesystem(store: Store) -> requests.Filesystem:
    """Return the connection of this process to the service; never kept over a fork."""
    return requests.filesystem(store.options)


def listing(store: Store, below: str) -> Iterator[StoredObject]:
    """Yield the objects whose keys begin with `below`, in the order of the keys.

    Empty objects that stand for folders are left out; one that holds something is an object whatever its name, also
    where that is the store's own with a slash: its key is "" then.
    """
    place = place_of(store)
    for entry in requests.list_pages(place, below):
        key = entry["Key"][len(place.prefix) :]
        if entry["Size"] or (key and not key.endswith(("/", "_$folder$"))):
            yield _describe(place, key, entry["Size"], entry)


def look_up(store: Store, key: str) -> StoredObject:
    """Return an object as a listing does. Raises `StorageError`, "missing" where there is none."""
    place = place_of(store)
    found = requests.look_up(place, key)
    return _describe(place, key, found["ContentLength"], found)


def _describe(place: Place, key: str, size: int, told: dict[str, Any]) -> StoredObject:
    etag = told.get("ETag", "").strip('"')
    return StoredObject(key, f"{place.url}/{key}", size, etag, time_of(told.get("LastModified")))


def read(store: Store, key: str, start: int | None, end: int | None, known: int | None) -> bytes:
    """Return an object's bytes, or those from `start` to `end` (excluded); `known` is its size in bytes, or None.

    A whole object is unpacked where its Content-Encoding says that it is packed.
    """
    place = place_of(store)
    if start is None and end is None:
        body = _whole(place, key, known)
        return unpacked(body.data or b"", body.encoding, store.url_of(key))
    first, stop = start or 0, end if end is not None else known
    in_parts = stop is not None and stop - first > PART
    body = requests.get_in_parts(place, key, first, stop or 0) if in_parts else requests.get(place, key, start, end)
    if body.data is None:
        # the service knows no ranges
        return (requests.get(place, key).data or b"")[first:end]
    return body.data


def _whole(place: Place, key: str, known: int | None) -> Body:
    """Fetch a whole object. Raises `StorageError` unless it is as it was when its size was listed."""
    body = Body(None, known, "") if known is not None and known > PART else requests.get(place, key, limit=PART)
    if body.data is None:
        body = requests.get_all(place, key, body.length)
    if body.data is None:
        body = requests.get(place, key)
    # what sends other bytes than it holds, for it transcodes them, still lists what it holds
    if known is not None and body.length != known and not requests.is_listed(place, key, known):
        raise changed(f"{place.url}/{key}", known, body.length)
    return body


def write(store: Store, key: str, data: bytes | bytearray | memoryview, durable: bool) -> None:
    """Store an object; the service answers when it is durable."""
    requests.put(place_of(store), key, data)


def create(store: Store, key: str, data: bytes) -> bool | None:
    """Store an object unless there is one of that key, and return whether it was stored, as exactly as the service can.

    None means that the service knows no conditional writes, and that nothing was stored.
    """
    place = place_of(store)

    def attempt() -> bool:
        try:
            requests.put_if_absent(place, key, data)
        except Exception as error:
            cause = error if isinstance(error, boto.ClientError) else error.__cause__
            status = cause.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(cause, boto.ClientError) else 0
            if status not in (409, 412):
                raise
            return False
        return True

    try:
        return with_retries(attempt, lambda error: place.explain(error, store.url_of(key)))
    except StorageError as error:
        if error.kind != "invalid":
            raise
    # a service that knows no conditions
    return None


def size(store: Store, key: str) -> int:
    """Return the size of an object in bytes. Raises `StorageError`, "missing" where there is none."""
    return requests.head(place_of(store), key)


def delete(store: Store, key: str) -> None:
    """Delete an object; one that is not there is no error."""
    requests.delete(place_of(store), key)


def check(store: Store, for_writing: bool) -> None:
    """Raise `StorageError` unless the bucket can be listed or, `for_writing`, be written to."""
    requests.check(place_of(store), for_writing)


def uploads(store: Store, below: str) -> Iterator[Upload]:
    """Yield every upload in parts to keys that begin with `below`, in the order of the keys.

    Some services list uploads for whole keys only, or not at all; a service that refuses is logged, and yields nothing.
    """
    place = place_of(store)
    arguments: dict[str, Any] = {"Prefix": place.prefix + below}
    while True:
        try:
            page = requests.call(place, "list_multipart_uploads", place.url, **arguments)
        except StorageError as error:
            if error.kind not in ("invalid", "denied"):
                raise
            log.warning("%s: unfinished uploads are not known: %s", place.url, error)
            return
        for one in page.get("Uploads", []):
            size = _bytes_arrived(place, {"Key": one["Key"], "UploadId": one["UploadId"]})
            yield Upload(one["Key"][len(place.prefix) :], one["UploadId"], one.get("Initiated"), size)
        if not page.get("IsTruncated"):
            return
        arguments |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _bytes_arrived(place: Place, name: dict[str, str]) -> int:
    """Return the bytes of an upload's first thousand parts, one page of the answer; 0 for an upload that is gone."""
    try:
        return sum(part["Size"] for part in requests.call(place, "list_parts", place.url, **name).get("Parts", []))
    except StorageError as error:
        if error.kind != "missing":
            raise
        return 0


def abort(store: Store, upload: Upload) -> None:
    """Abort an upload, which deletes its parts; one that is gone is no error."""
    place = place_of(store)
    name = {"Key": place.prefix + upload.key, "UploadId": upload.identifier}
    try:
        requests.call(place, "abort_multipart_upload", store.url_of(upload.key), **name)
    except StorageError as error:
        if error.kind != "missing":
            raise
