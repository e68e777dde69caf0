"""Files of figures that others have published: JSON at a path or URL, bounded and checked."""

from __future__ import annotations

import os
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import RequestError
from pipeline.storage.store import StorageOptions, open_store, read, size

_SIZE_LIMIT = 1 << 24
Figures = TypeVar("Figures")


def read_figures(
    url: str, kind: TypeAdapter[Figures], what: str, example: str, options: StorageOptions | None
) -> Figures:
    """Read a file of figures, at most 16 MiB of JSON, and check it.

    Raises StorageError, and RequestError, which says that the file holds no `what` and that `example` is how to write
    it.
    """
    place = url if "://" in url else os.path.realpath(url)
    folder, slash, name = place.replace(os.sep, "/").rpartition("/")
    store = open_store(folder + slash, options)
    length = size(store, name)
    if length > _SIZE_LIMIT:
        raise RequestError(f"{url} is {length:,} bytes; files of figures over {_SIZE_LIMIT:,} are refused")
    try:
        return kind.validate_json(read(store, name, size=length))
    except ValidationError as error:
        first = error.errors()[0]
        where = ", ".join(map(str, first["loc"])) or "the file"
        raise RequestError(f"{url} holds no {what}: {where}: {first['msg']}; write {example}") from error
