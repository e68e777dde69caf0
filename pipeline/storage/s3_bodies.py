"""Bodies of answers of S3: whether they are the bytes of their object, and what they are packed in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import StorageError

#: digests that the AWS libraries have compared with the bytes where an answer declares them
_CHECKSUMS = ("ChecksumCRC32", "ChecksumSHA1", "ChecksumSHA256")
#: encodings that are unpacked, by the codec of Arrow that does it, and how bytes packed so begin, where that is known
_PACKED = {
    "gzip": ("gzip", b"\x1f\x8b"),
    "x-gzip": ("gzip", b"\x1f\x8b"),
    "deflate": ("gzip", b"\x78"),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd"),
    "br": ("brotli", b""),
}
#: what packed bytes may unpack to: so many bytes, or so many times their number
_UNPACKED, _TIMES = 64 << 20, 4


def check_digest(answer: Mapping[str, Any], data: bytes, came: set[bytes], what: str) -> None:
    """Raise `StorageError` ("transient") where bytes may not be those of their object, by what its answer says.

    A checksum that the answer declares has been compared already. An ETag may be anything, even what looks like an MD5
    (encrypted, appended and transcoded objects have such), and only its own object tells: bytes that come a second time
    are the object's. `came` keeps the digests of what came of this object so far.
    """
    if not is_own(data, md5_of(answer), came):
        raise not_its_own(what)


def md5_of(answer: Mapping[str, Any]) -> str:
    """Return the MD5 that the ETag of an answer may be, in hexadecimal digits; "" where it is certainly none."""
    said = str(answer.get("ETag", "")).strip('"').lower()
    return said if re.fullmatch("[0-9a-f]{32}", said) and not _settled_otherwise(answer) else ""


def is_own(data: bytes, said: str, came: set[bytes]) -> bool:
    """Tell whether bytes are of the MD5 that is `said`, or have come before; `came` is as in `check_digest`."""
    if not said:
        return True
    digest = md5(data)
    again = digest in came
    came.add(digest)
    return again or digest.hex() == said


def not_its_own(what: str) -> StorageError:
    """Make the error of bytes that are not of the MD5 of their object, as far as is known."""
    return StorageError("transient", f"{what}: the bytes that came are not those of its ETag")


def false_checksum(came: set[bytes], what: str) -> StorageError:
    """Make the error of bytes that are not those of a checksum that their answer declares; at the second time for good.

    `came` is as in `check_digest`.
    """
    again = b"" in came
    came.add(b"")
    said = "are not those of its checksum"
    if again:
        return StorageError("other", f"{what}: the bytes that came twice {said}; store the object anew")
    return StorageError("transient", f"{what}: the bytes that came {said}")


def _settled_otherwise(answer: Mapping[str, Any]) -> bool:
    """Tell whether a checksum was compared, or the ETag is of something else: of what a key has encrypted."""
    compared = any("-" not in answer[name] for name in _CHECKSUMS if answer.get(name))
    encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
    return compared or encrypted or "SSECustomerAlgorithm" in answer


def md5(data: bytes | memoryview) -> bytes:
    """Return the MD5 of bytes, 16 bytes."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def unpacked(data: bytes, encoding: str, what: str) -> bytes:
    """Return the bytes that an object's Content-Encoding says it packs; as they came where they are not packed so.

    Services between may unpack them and leave the header, and many put other words there. Raises `StorageError` where
    64 MiB, or four times the object, are not enough.
    """
    for name in reversed(re.split(r"[\s,]+", encoding.lower())):
        if name in _PACKED:
            codec, beginning = _PACKED[name]
            data = _unpack(data, codec, what) if data.startswith(beginning) else data
    return data


def _unpack(data: bytes, codec: str, what: str) -> bytes:
    import pyarrow

    most = max(_UNPACKED, _TIMES * len(data))
    try:
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(data), codec) as stream:
            found: bytes = stream.read(most + 1)
    except (OSError, ValueError):
        return data
    if len(found) > most:
        raise StorageError("other", f"{what}: unpacks to more than {most:,} bytes; store it without Content-Encoding")
    return found
