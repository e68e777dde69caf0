"""Creating an object only where there is none: what tells two processes apart that both want to be the one.

Local folders are exact. S3 is as exact as the service: Amazon's conditional writes are, others let several of those
through that come at the same moment, or know no conditions. Whoever needs to be sure reads back a moment later.
"""

from __future__ import annotations

import contextlib
import os
import secrets

from pipeline.errors import StorageError
from pipeline.storage import local
from pipeline.storage.access import explain_os_error
from pipeline.storage.store import Store, exists, place_of, with_retries, write


def create(store: Store, key: str, data: bytes) -> bool:
    """Store an object unless there is one of that key; says whether it was. Raises StorageError."""
    if store.scheme == "s3":
        return _create_s3(store, key, data)
    if store.scheme == "file":
        path = local.path_of(store.root, key, True)
        return with_retries(lambda: _create_file(path, data), lambda error: explain_os_error(error, path))
    if exists(store, key):
        return False
    write(store, key, data)
    return True


def _create_file(path: str, data: bytes) -> bool:
    """A file of its own first, so that nobody ever sees half of it under the name that counts."""
    folder = os.path.dirname(path)
    unfinished = os.path.join(folder, f".darkroom-{secrets.token_hex(8)}.part")
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


def _create_s3(store: Store, key: str, data: bytes) -> bool:
    import botocore.exceptions as boto

    from pipeline.storage.s3 import explain, put_if_absent

    place = place_of(store)

    def attempt() -> bool:
        try:
            put_if_absent(place, key, data)
        except Exception as error:
            cause = error if isinstance(error, boto.ClientError) else error.__cause__
            status = cause.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(cause, boto.ClientError) else 0
            if status not in (409, 412):
                raise
            return False
        return True

    try:
        return with_retries(attempt, lambda error: explain(error, store.url_of(key), place))
    except StorageError as error:
        if error.kind != "invalid":
            raise
    # a service that knows no conditions
    if exists(store, key):
        return False
    write(store, key, data)
    return True
