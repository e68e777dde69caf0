"""Errors of S3, turned into a `StorageError` for people."""

from __future__ import annotations

import re

import aiohttp
import botocore.exceptions as boto
from botocore.parsers import ResponseParserError

from pipeline.errors import StorageError
from pipeline.storage.access import StorageOptions, explain_os_error

_DENIED_CODES = {
    "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
    "NotSignedUp", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
}  # fmt: skip
_MISSING_CODES = {"NoSuchBucket", "NoSuchKey", "NoSuchUpload", "NoSuchVersion"}
_TRANSIENT_CODES = {
    "BadDigest", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "XAmzContentSHA256Mismatch",
}  # fmt: skip
_REGION_CODES = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
#: what services say of buckets whose readers pay; Amazon says no more than that access is denied
_PAYER = re.compile(r"(?i)request(er)?[ -]?pay|UserProjectMissing")
_RESTORE = "restore it there, as by `aws s3api restore-object`, then run again"
_PAYING = "say that you do: --requester-pays or DARKROOM_S3_REQUESTER_PAYS=true"
_CREDENTIAL_ERRORS = (
    boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.ProfileNotFound,
    boto.TokenRetrievalError, boto.SSOError,
)  # fmt: skip
_LOST_CONNECTION = (
    boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, aiohttp.ClientError, ResponseParserError,
)  # fmt: skip


def explain(error: Exception, what: str, bucket: str, options: StorageOptions) -> StorageError:
    """Turn whatever s3fs, botocore or aiohttp raised over `what` into a `StorageError` without secrets."""
    found = _explain(error, what, bucket, options)
    return StorageError(found.kind, options.scrub(found.message))


def _explain(error: Exception, what: str, bucket: str, options: StorageOptions) -> StorageError:
    endpoint = options.endpoint
    cause = error if isinstance(error, boto.ClientError) else error.__cause__
    if isinstance(cause, boto.ClientError):
        return _explain_answer(cause, what, bucket, options)
    if isinstance(error, _CREDENTIAL_ERRORS):
        return StorageError(
            "denied", f"{what}: no usable credentials ({error}); set DARKROOM_S3_KEY and DARKROOM_S3_SECRET"
        )
    if isinstance(error, (boto.ParamValidationError, boto.InvalidEndpointConfigurationError)):
        return StorageError("invalid", f"{what}: not a possible S3 bucket, key or endpoint")
    if isinstance(error, (boto.ConnectTimeoutError, boto.SSLError, boto.ProxyConnectionError)) or (
        isinstance(error, boto.EndpointConnectionError)
        and isinstance(error.kwargs.get("error"), aiohttp.ClientConnectorError)
    ):
        cause = error.kwargs.get("error")
        reason = getattr(cause, "strerror", None) or cause or type(error).__name__
        return StorageError(
            "unreachable", f"{what}: nothing answers at {endpoint} ({reason}); check the endpoint and the network"
        )
    if isinstance(error, _LOST_CONNECTION):
        return StorageError("transient", f"{what}: lost the connection to {endpoint} ({type(error).__name__})")
    if isinstance(error, (boto.BotoCoreError, ValueError)):
        return StorageError("invalid", f"{what}: {error}")
    return explain_os_error(error, what)


def _explain_answer(error: boto.ClientError, what: str, bucket: str, options: StorageOptions) -> StorageError:
    """Turn an error answer of S3 into a `StorageError`, by its code, or by its HTTP status where that is unknown."""
    endpoint = options.endpoint
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = error.response.get("Error", {}).get("Message") or "no message"
    answer = f"{endpoint} answered {status} {code}: {said}".replace(f"{status} {status}", f"{status}").rstrip(".")
    if code == "NoSuchBucket":
        return StorageError(
            "missing", f"the bucket {bucket!r} does not exist at {endpoint}; create it or correct {what}"
        )
    if code == "InvalidObjectState":
        return StorageError("archived", f"{what}: {_archived(error)} ({answer}); {_RESTORE}")
    if code in _MISSING_CODES or status == 404:
        return StorageError("missing", f"{what}: no such object ({answer})")
    if code in _TRANSIENT_CODES or status == 429 or (status >= 500 and status != 501):
        return StorageError("transient", f"{what}: {answer}")
    if code in _REGION_CODES or status in (301, 307):
        return StorageError("invalid", f"{what}: {answer}; set DARKROOM_S3_REGION to the bucket's region")
    if not options.requester_pays and _PAYER.search(f"{code} {said}"):
        return StorageError("denied", f"{what}: its readers pay ({answer}); {_PAYING}")
    if code in _DENIED_CODES or status in (401, 403):
        known = code not in ("", "403", "AccessDenied", "AllAccessDisabled")
        advice = "" if known or options.requester_pays else f"; if its readers pay, {_PAYING}"
        todo = "check the key, the secret and what they are allowed to do"
        return StorageError("denied", f"{what}: {answer}; {todo}{advice}")
    return StorageError("invalid", f"{what}: {answer}")


def _archived(error: boto.ClientError) -> str:
    """Say that an object is archived, and in which storage class and tier where the answer tells."""
    told = [str(error.response[name]) for name in ("StorageClass", "AccessTier") if error.response.get(name)]
    return f"archived in {', '.join(told)}" if told else "archived, as in Glacier"
