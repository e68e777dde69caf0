"""Objects at any fsspec URL: the few lines that `models` needs of a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec

#: keyword arguments of fsspec's S3 file system; used for s3:// URLs only
StorageArguments = dict[str, Any]


def locate(url: str, storage: StorageArguments | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL and the path in it."""
    return fsspec.core.url_to_fs(url, **((storage or {}) if url.startswith(("s3://", "s3a://")) else {}))


def write_bytes(url: str, data: bytes, storage: StorageArguments | None = None) -> None:
    """Put bytes at a URL so that a reader sees the old or the new object, never half of one."""
    fs, path = locate(url, storage)
    if "file" not in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        fs.pipe_file(path, data)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    os.replace(partial, target)
