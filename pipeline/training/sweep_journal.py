"""Optuna's journal as small objects at any fsspec URL, one written at a time: what is there is whole."""

from __future__ import annotations

import json
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from models.files import StorageArguments, locate, write_bytes
from pipeline.errors import RequestError

#: bytes of an entry; larger ones are none of ours
_ENTRY = 1 << 20


class Journal(BaseJournalBackend):
    """For one process at a time; `url` is the folder of the entries, `00000000.json` and so on.

    Raises RequestError when what lies there is no journal.
    """

    def __init__(self, url: str, storage: StorageArguments):
        self._url, self._storage = url.rstrip("/"), storage
        self._logs: list[dict[str, Any]] = []
        fs, root = locate(self._url, storage)
        fs.invalidate_cache()
        paths = sorted(fs.find(root))
        for path in (path for path in paths if path.endswith(".json")):
            self._logs += _entry(path, fs.cat_file(path, end=_ENTRY))
        self._entries = len(paths)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        write_bytes(f"{self._url}/{self._entries:08d}.json", json.dumps(logs).encode(), self._storage)
        self._entries += 1
        self._logs += logs


def _entry(path: str, data: bytes) -> list[dict[str, Any]]:
    try:
        logs = json.loads(data)
    except ValueError as error:
        raise RequestError(f"{path} is no entry of a sweep's journal ({error}); give another destination") from error
    if not isinstance(logs, list) or not all(isinstance(log, dict) for log in logs):
        raise RequestError(f"{path} is no entry of a sweep's journal; give another destination")
    return logs
