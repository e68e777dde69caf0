"""Optuna's journal as small objects at any URL, one written at a time: what is there is whole."""

from __future__ import annotations

import json
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from models.errors import TooLargeError
from models.files import Files
from pipeline.errors import RequestError

#: bytes of an entry; larger ones are none of ours
_ENTRY = 1 << 20


class Journal(BaseJournalBackend):
    """A journal for one process at a time; `url` is the folder of the entries, `00000000.json` and so on.

    Raises RequestError when what lies there is no journal.
    """

    def __init__(self, url: str, files: Files):
        self._url, self._files = url.rstrip("/"), files
        self._logs: list[dict[str, Any]] = []
        self._entries = 0
        for found in files.find(self._url):
            self._entries += 1
            if found.key.endswith(".json"):
                self._logs += _entry(found.url, files)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._files.write(f"{self._url}/{self._entries:08d}.json", json.dumps(logs).encode())
        self._entries += 1
        self._logs += logs


def _entry(path: str, files: Files) -> list[dict[str, Any]]:
    try:
        logs = json.loads(files.read(path, _ENTRY) or b"")
    except (ValueError, TooLargeError) as error:
        raise RequestError(f"{path} is no entry of a sweep's journal ({error}); give another destination") from error
    if not isinstance(logs, list) or not all(isinstance(log, dict) for log in logs):
        raise RequestError(f"{path} is no entry of a sweep's journal; give another destination")
    return logs
