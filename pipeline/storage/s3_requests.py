"""Requests to S3 through s3fs, one at a time, each retried here and nowhere else.

s3fs supplies the connection, the signing and the event loop. Its own listing, `cat_file` and `pipe_file` are not
used: they keep whole listings in memory, ask for the size before every read, and retry on top of the retries here.
One repetition remains below: aiohttp sends a GET again, once, when a kept-open connection turns out to be closed.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import botocore.config
import botocore.exceptions as boto
import s3fs
from fsspec.asyn import sync

from pipeline.errors import StorageError
from pipeline.storage.access import PART, PARTS_AT_ONCE, RETRIED, StorageOptions, with_retries
from pipeline.storage.content_types import content_type
from pipeline.storage.s3_bodies import check_digest, false_checksum, is_own, md5, md5_of, not_its_own
from pipeline.storage.s3_errors import explain

CONNECT_TIMEOUT = 10.0
# Between two arrivals of bytes.
READ_TIMEOUT = 30.0
# Of one request as a whole, so that a server which sends a byte a minute cannot hold a run for ever: of a small one,
# and how many bytes a second a large one may count on.
REQUEST_DEADLINE = 40.0
_SLOWEST = 100_000
#: how often a large object is fetched for its bytes to come as they are, or a second time as they came before
_COMPARED = 3
MAX_PARTS = 10_000  # S3's own limit


class Filesystem(s3fs.S3FileSystem):
    """An s3fs file system with its own retries off; a class of its own, so that no instance is shared with other code.

    A forked child must not close the connections it inherits: that would take them out of the event loop which
    parent and child share in the kernel, and the parent would wait for its answers until they time out. So only the
    process that made an instance closes it, and in a child it is never freed, not even when the interpreter ends.
    """

    retries = 1

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.close_session = partial(_close_own, os.getpid(), s3fs.S3FileSystem.close_session)
        _KEPT.append(self)


_KEPT: list[Filesystem] = []


def _close_own(owner: int, close: Callable[..., None], *session: Any) -> None:
    if os.getpid() == owner:
        close(*session)


def _keep_for_ever() -> None:
    for inherited in _KEPT:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_for_ever)


class Place(NamedTuple):
    """A place in S3: a bucket and the prefix that every key is put behind ("" or ending in "/")."""

    fs: Filesystem
    bucket: str
    prefix: str
    url: str
    options: StorageOptions

    def explain(self, error: Exception, what: str) -> StorageError:
        """Turn what was raised over `what` in this place into a `StorageError` without secrets."""
        return explain(error, what, self.bucket, self.options)


class Body(NamedTuple):
    """An answer to a read: the bytes, their number, the object's ETag and Content-Encoding.

    The bytes are None where there were more than the limit, or other than those of the range that was asked for. `md5`
    is what the ETag says of the whole object, or "". With a range, `whole` are the bytes of the object, where known.
    """

    data: bytes | None
    length: int
    etag: str
    encoding: str = ""
    md5: str = ""
    whole: int | None = None


def filesystem(options: StorageOptions) -> Filesystem:
    """Return the connection for these options: one for each process and set of options, usable from any thread."""
    addressing = {None: "auto", True: "path", False: "virtual"}[options.path_style]
    config: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "max_pool_connections": 64,
        "s3": {"addressing_style": addressing},
        # Other services than Amazon's often refuse the checksums that newer clients add unasked.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    known = botocore.config.Config.OPTION_DEFAULTS
    hidden = {"key": options.key, "secret": options.secret, "token": options.token}
    return Filesystem(
        anon=options.anonymous,
        endpoint_url=options.endpoint_url,
        client_kwargs={"region_name": options.region} if options.region else {},
        config_kwargs={name: value for name, value in config.items() if name in known},
        use_listings_cache=False,
        # left out of requests that know no such field
        s3_additional_kwargs={"RequestPayer": "requester"} if options.requester_pays else {},
        **{name: value.get_secret_value() for name, value in hidden.items() if value is not None},
    )


def call(place: Place, method: str, what: str, **arguments: Any) -> dict[str, Any]:
    """Send one S3 request, retried while it fails for now, and return its parsed answer. Raises `StorageError`."""
    return _tried(lambda: _once(place, method, arguments), what, place)


def _tried(function: Callable[[], Any], what: str, place: Place) -> Any:
    try:
        return with_retries(function, lambda error: place.explain(error, what))
    except StorageError as error:
        if error.kind != "transient" or _answers(place):
            raise
        said = f"{error.message}; nothing else can be had of {place.options.endpoint} either: run again when it is well"
    raise StorageError("unreachable", said)


def _answers(place: Place) -> bool:
    """Tell whether the service answers at all, so that only this one object is not to be had."""
    try:
        with_retries(
            lambda: _once(place, "list_objects_v2", {"Prefix": place.prefix, "MaxKeys": 1}, deadline=10.0),
            lambda error: place.explain(error, place.url),
            attempts=3,
        )
    except StorageError as error:
        return error.kind not in RETRIED
    return True


def _once(place: Place, method: str, arguments: dict[str, Any], deadline: float | None = None) -> dict[str, Any]:
    seconds = deadline or _deadline(len(arguments.get("Body", b"")))
    return sync(place.fs.loop, place.fs._call_s3, method, Bucket=place.bucket, timeout=seconds, **arguments)


def _deadline(count: int) -> float:
    """Return the seconds that a request of `count` bytes may take."""
    return REQUEST_DEADLINE + count / _SLOWEST


def list_pages(place: Place, below: str = "") -> Iterator[dict[str, Any]]:
    """Yield every object under the prefix (and `below` it), page by page: memory is that of 1000 objects.

    Each is a dictionary with "Key" (whole), "Size", "ETag" and "LastModified", in the order of the keys.
    """
    arguments: dict[str, Any] = {"Prefix": place.prefix + below}
    while True:
        page = call(place, "list_objects_v2", place.url, **arguments)
        yield from page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        arguments["ContinuationToken"] = page["NextContinuationToken"]


def get(place: Place, key: str, start: int | None = None, end: int | None = None, limit: int | None = None) -> Body:
    """Fetch bytes `start` to `end` (excluded) of an object, or all of it when both are None, in one request.

    A whole object of more than `limit` bytes is not fetched: its size and ETag come back, its data is None. So is that
    of a range where the service knows none and would send all bytes.
    """
    what = f"{place.url}/{key}"
    whole = start is None and end is None
    wanted = {"ChecksumMode": "ENABLED"} if whole else {"Range": _range_header(start or 0, end)}
    count = PART if end is None else end - (start or 0)
    came: set[bytes] = set()

    async def fetch() -> Body:
        try:
            answer = await place.fs._call_s3("get_object", Bucket=place.bucket, Key=place.prefix + key, **wanted)
        except OSError as error:
            # S3 has no way of asking for nothing: a range behind the last byte is an error there, empty here.
            if isinstance(error.__cause__, boto.ClientError) and _is_empty_range(error.__cause__):
                return Body(b"", 0, "")
            raise
        body = answer["Body"]
        try:
            length, etag = answer.get("ContentLength"), answer.get("ETag", "")
            if _is_other_range(answer, start, end) or (whole and limit is not None and (length or 0) > limit):
                return Body(None, length or 0, etag)
            data = await body.read()
        except boto.FlexibleChecksumError:
            raise false_checksum(came, what) from None
        finally:
            body.close()
        if length is not None and len(data) != length:
            raise StorageError("transient", f"{what}: {len(data)} bytes came of {length} announced")
        if whole:
            check_digest(answer, data, came, what)
        total = str(answer.get("ContentRange", "")).rpartition("/")[2]
        size = int(total) if total.isdecimal() else None
        return Body(data, len(data), etag, answer.get("ContentEncoding", ""), md5_of(answer), size)

    return _tried(lambda: sync(place.fs.loop, fetch, timeout=_deadline(count)), what, place)


def _range_header(start: int, end: int | None) -> str:
    return f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"


def _is_empty_range(error: boto.ClientError) -> bool:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416


def _is_other_range(answer: dict[str, Any], start: int | None, end: int | None) -> bool:
    """Tell whether a service sends more than the range that was asked for, as those do that transcode objects."""
    if (start is None and end is None) or answer["ResponseMetadata"]["HTTPStatusCode"] != 200:
        return False
    length = answer.get("ContentLength")
    return bool(start) or (end is not None and (length is None or length > end))


def get_in_parts(place: Place, key: str, start: int, end: int) -> Body:
    """Fetch bytes `start` to `end` (excluded) as ranges that travel together, fewer where the object ends before.

    The data are None where the service knows no ranges.
    Raises `StorageError` ("transient") when the object was replaced while the ranges were on their way.
    """
    starts = range(start, end, PART)
    with ThreadPoolExecutor(min(PARTS_AT_ONCE, len(starts))) as pool:
        bodies = list(pool.map(lambda first: get(place, key, first, min(first + PART, end)), starts))
    if len({body.etag for body in bodies if body.etag}) > 1:
        raise StorageError("transient", f"{place.url}/{key}: was replaced while it was being read")
    pieces = [body.data for body in bodies]
    if any(piece is None for piece in pieces):
        return Body(None, 0, bodies[0].etag)
    data = b"".join(piece for piece in pieces if piece)
    return bodies[0]._replace(data=data, length=len(data))


def get_all(place: Place, key: str, size: int) -> Body:
    """Fetch a whole object of `size` bytes in parts, again where its bytes may not be its own.

    The data are None where the service knows no ranges; the length is that of the object as it is now.
    """
    came: set[bytes] = set()
    for _ in range(_COMPARED):
        body = get_in_parts(place, key, 0, size)
        if body.data is None or is_own(body.data, body.md5, came):
            return body._replace(length=body.length if body.whole is None else body.whole)
    raise not_its_own(f"{place.url}/{key}")


def put(place: Place, key: str, data: bytes | bytearray | memoryview) -> None:
    """Store an object in one request up to 16 MiB, else in parts of at least 16 MiB. Readers see all of it or none."""
    what = f"{place.url}/{key}"
    view = memoryview(data).cast("B")
    kind = content_type(key)
    name = {"Key": place.prefix + key}
    if len(view) <= PART:
        call(place, "put_object", what, **name, **_body(view), ContentType=kind)
        return
    upload = call(place, "create_multipart_upload", what, **name, ContentType=kind)["UploadId"]
    name["UploadId"] = upload
    size = max(PART, -(-len(view) // MAX_PARTS))

    def send(number: int) -> dict[str, Any]:
        piece = view[(number - 1) * size : number * size]
        answer = call(place, "upload_part", what, **name, PartNumber=number, **_body(piece))
        return {"PartNumber": number, "ETag": answer["ETag"]}

    try:
        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            parts = list(pool.map(send, range(1, -(-len(view) // size) + 1)))
        _complete(place, key, name, parts, len(view))
    except BaseException:
        _abandon(place, name)
        raise


def put_if_absent(place: Place, key: str, data: bytes) -> None:
    """Store a small object in one request unless there is one of that key.

    Tried once; raises what the service answers, a `botocore` ClientError or an OSError.
    """
    kind = content_type(key)
    _once(place, "put_object", {"Key": place.prefix + key, "Body": data, "IfNoneMatch": "*", "ContentType": kind})


def _body(view: memoryview) -> dict[str, Any]:
    """Return the body of a request, with a digest by which the service refuses other bytes."""
    data = bytes(view)
    return {"Body": data, "ContentMD5": base64.b64encode(md5(data)).decode()}


def _complete(place: Place, key: str, name: dict[str, str], parts: list[dict[str, Any]], size: int) -> None:
    what = f"{place.url}/{key}"
    try:
        call(place, "complete_multipart_upload", what, **name, MultipartUpload={"Parts": parts})
    except StorageError as error:
        # an earlier attempt may have completed it, and only its answer was lost
        if error.kind != "missing":
            raise
    if (found := head(place, key)) != size:
        raise StorageError("transient", f"{what}: {found} bytes are there of {size} written")


def _abandon(place: Place, name: dict[str, str]) -> None:
    """Abort an upload, whose parts cost money until then; a failure to do so must not hide the first error."""
    with contextlib.suppress(Exception):
        _once(place, "abort_multipart_upload", name)


def head(place: Place, key: str) -> int:
    """Return the size of an object in bytes. Raises `StorageError`, "missing" where there is none."""
    return call(place, "head_object", f"{place.url}/{key}", Key=place.prefix + key)["ContentLength"]


def is_listed(place: Place, key: str, size: int) -> bool:
    """Tell whether a listing has an object of that size in bytes, or its head where listings are not allowed."""
    try:
        listing = call(place, "list_objects_v2", place.url, Prefix=place.prefix + key, MaxKeys=1)
    except StorageError as error:
        if error.kind != "denied":
            raise
        return bool(head(place, key) == size)
    return any((one["Key"], one["Size"]) == (place.prefix + key, size) for one in listing.get("Contents", []))


def look_up(place: Place, key: str) -> dict[str, Any]:
    """Ask for size, ETag and time of an object. Raises `StorageError`; who does not answer is not asked again."""
    return _soon(place, "head_object", f"{place.url}/{key}", {"Key": place.prefix + key})


def _soon(place: Place, method: str, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Send one request, three times at most while it fails for now, and once to an endpoint that does not answer."""
    return with_retries(
        lambda: _once(place, method, arguments),
        lambda error: place.explain(error, what),
        attempts=3,
        retried=RETRIED - {"unreachable"},
    )


def delete(place: Place, key: str) -> None:
    """Delete an object; one that is not there is no error."""
    call(place, "delete_object", f"{place.url}/{key}", Key=place.prefix + key)


def check(place: Place, for_writing: bool) -> None:
    """Ask for one object of the listing, or start and abort an upload, which leaves nothing behind.

    Raises `StorageError`. An endpoint that does not answer is not asked again.
    """
    key = f"{place.prefix}.darkroom-access"
    listing: dict[str, Any] = {"Prefix": place.prefix, "MaxKeys": 1}
    method, arguments = ("create_multipart_upload", {"Key": key}) if for_writing else ("list_objects_v2", listing)
    answer = _soon(place, method, place.url, arguments)
    if for_writing:
        _abandon(place, {"Key": key, "UploadId": answer["UploadId"]})
