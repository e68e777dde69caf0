"""The parts that every kind of store shares: stores, objects, options, and how often something is tried again."""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from pipeline.errors import StorageError

Result = TypeVar("Result")
log = logging.getLogger("darkroom.storage")

#: The kinds that another attempt may cure.
RETRIED = frozenset({"transient", "unreachable"})

# Requests and files beyond this size are cut into pieces of this size, which travel at the same time.
PART = 16 * 2**20
PARTS_AT_ONCE = 8

# What fails for now is tried so often, and not again once so many seconds are over.
ATTEMPTS = 8
PATIENCE = 90.0
#: of our own: drawing from the one that all share would change what others draw
_chance = random.Random()
_BACKOFF_BASE = 0.5
_BACKOFF_CAP = 20.0

_MISSING = {errno.ENOENT, errno.ENODEV, errno.ENXIO}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_INVALID = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ELOOP, errno.EILSEQ}
_TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageOptions(BaseModel):
    """The options for reaching an S3 service. The AWS libraries find by themselves whatever is left None.

    They read `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
    `AWS_DEFAULT_REGION`, `AWS_PROFILE`, the shared credentials file and the instance's role.
    `path_style` True puts the bucket into the path (`host/bucket/key`), False into the host name
    (`bucket.host/key`); None means path style for an `endpoint_url` of one's own, host style for Amazon.
    `anonymous` reads public buckets without signing. `requester_pays` says with every request that its costs are
    ours, without which buckets whose readers pay refuse it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    endpoint_url: str | None = None
    key: SecretStr | None = None
    secret: SecretStr | None = None
    token: SecretStr | None = None
    region: str | None = None
    path_style: bool | None = None
    anonymous: bool = False
    requester_pays: bool = False

    @model_validator(mode="after")
    def _whole_credentials(self) -> StorageOptions:
        if (self.key is None) != (self.secret is None):
            raise ValueError("give both the key and the secret, or neither")
        if self.endpoint_url is not None and not re.match(r"https?://[^/@\s]+(/|$)", self.endpoint_url):
            raise ValueError("endpoint_url must be http:// or https:// and a host, without credentials")
        return self

    @classmethod
    def from_environment(cls) -> StorageOptions:
        """Read the options from `DARKROOM_S3_ENDPOINT` (`endpoint_url`), `_KEY`, `_SECRET` and so on for each option.

        An empty variable counts as unset. Raises `StorageError` ("invalid") for values that are not allowed.
        """
        names = ("endpoint", "key", "secret", "token", "region", "path_style", "anonymous", "requester_pays")
        found = {name: os.environ.get(f"DARKROOM_S3_{name.upper()}", "").strip() for name in names}
        found["endpoint_url"] = found.pop("endpoint")
        try:
            return cls.model_validate({name: value for name, value in found.items() if value})
        except ValueError as error:
            raise StorageError("invalid", f"the DARKROOM_S3_* environment variables: {error}") from None

    @property
    def endpoint(self) -> str:
        """Name of the service for messages: its URL without credentials, or "Amazon S3"."""
        variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        url = self.endpoint_url or next((os.environ[v] for v in variables if os.environ.get(v)), "Amazon S3")
        return without_credentials(url)

    def scrub(self, text: str) -> str:
        """Return `text` without the secrets of these options and without `user:password@` in URLs."""
        for hidden in (self.secret, self.token):
            if hidden is not None and hidden.get_secret_value():
                text = text.replace(hidden.get_secret_value(), "***")
        return without_credentials(text)


@dataclass(frozen=True)
class Store:
    """A place of objects: a kind of file system and a root in it. Made by `open_store`; cheap, can be pickled.

    `url` is for people and holds no credentials; `root` is the root as its file system writes it;
    `scheme` is "s3", "file", "memory" or another that fsspec knows.
    """

    url: str
    root: str
    scheme: str
    options: StorageOptions = field(default_factory=StorageOptions, repr=False)
    address: str = field(default="", repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this machine."""
        return self.scheme == "file"

    @property
    def is_in_process(self) -> bool:
        """Whether the store is in the memory of this process, where no other process finds it."""
        return self.scheme == "memory"

    def url_of(self, key: str) -> str:
        """Return the whole URL of an object, without credentials."""
        return f"{self.url.rstrip('/')}/{key}"


@dataclass(frozen=True)
class StoredObject:
    """One object as listed.

    `key` is the path below the store's root, with `/`, and in S3 may begin or end with one; `url` is the whole URL,
    without credentials;
    `size` is in bytes; `etag` changes whenever the content does; `modified` carries a time zone, or is None.
    """

    key: str
    url: str
    size: int
    etag: str
    modified: datetime | None


def moment(seconds: float) -> datetime | None:
    """Return the UTC time of so many seconds since 1970; None outside of the years 1 to 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def without_credentials(text: str) -> str:
    """Return `text` with `user:password@` taken out of every URL in it."""
    return re.sub(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@]*(?:@[^/\s@]*)*@", r"\1", text)


def with_retries(
    function: Callable[[], Result],
    explain: Callable[[Exception], StorageError] | None = None,
    attempts: int = ATTEMPTS,
    retried: frozenset[str] = RETRIED,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Call `function` until it succeeds, at most `attempts` times within 90 s, and return what it returns.

    Only kinds in `retried` are tried again, after a random pause between 0 and 0.5 s, 1 s, 2 s … (20 s at most).
    `explain` turns any exception into a `StorageError`; the default knows those of the operating system.
    Raises the `StorageError` of the last attempt.
    """
    started = time.monotonic()
    for attempt in range(attempts):
        try:
            return function()
        except Exception as raised:
            error = raised if isinstance(raised, StorageError) else (explain or explain_os_error)(raised)
        # Outside the except block: the original exception may quote the request, so it must not be chained.
        late = time.monotonic() - started > PATIENCE
        if error.kind not in retried or attempt == attempts - 1 or late:
            raise error
        pause = _chance.uniform(0, min(_BACKOFF_CAP, _BACKOFF_BASE * 2**attempt))
        log.info("attempt %d of %d failed, next in %.1f s: %s", attempt + 1, attempts, pause, error.message)
        sleep(pause)
    raise AssertionError("attempts must be at least 1")


def explain_os_error(error: Exception, what: str = "storage") -> StorageError:
    """Turn an exception of the operating system or of fsspec into a `StorageError` about `what`.

    Any other exception is a mistake in the program and is raised again as it is.
    """
    number = getattr(error, "errno", None)
    reason = without_credentials(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    if isinstance(error, FileNotFoundError) or number in _MISSING:
        return StorageError("missing", f"{what}: does not exist")
    if isinstance(error, PermissionError) or number in _DENIED:
        return StorageError("denied", f"{what}: not allowed ({reason}); check the permissions of the folder")
    if isinstance(error, NotADirectoryError):
        return StorageError("invalid", f"{what}: a file, not a folder, or below a file; name a folder")
    if isinstance(error, (FileExistsError, IsADirectoryError)) or number in _INVALID:
        return StorageError("invalid", f"{what}: cannot be a file here ({reason})")
    if number in _FULL:
        return StorageError("other", f"{what}: no space left ({reason}); free some and run again")
    if isinstance(error, (TimeoutError, ConnectionError, EOFError)) or number in _TRANSIENT:
        return StorageError("transient", f"{what}: failed for now ({reason})")
    if isinstance(error, (OSError, NotImplementedError)):
        return StorageError("other", f"{what}: {reason}")
    raise error


def changed(what: str, then: int, now: int) -> StorageError:
    """Make the error of an object that is not as it was listed; its sizes then and now are in bytes."""
    said = f"has changed since it was listed: {then} bytes then, {now} now; list the source again"
    return StorageError("other", f"{what}: {said}")


class Upload(NamedTuple):
    """An upload in parts that was begun and not completed: key, identifier, when it began, and the bytes that arrived.

    Where its process was killed nobody will complete it; no listing shows it, and its parts cost money until it goes.
    """

    key: str
    identifier: str
    begun: datetime | None
    size: int


def time_of(told: object) -> datetime | None:
    """Return a time that a file system gave, in UTC; None where it gave none."""
    if isinstance(told, (int, float)):
        return moment(told)
    return told.astimezone(UTC) if isinstance(told, datetime) else None
