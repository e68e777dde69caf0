"""Objects of web servers, whose listings say little of them."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.storage import store as storage
from pipeline.storage.store import open_store


class _Folder(SimpleHTTPRequestHandler):
    """A folder as web servers show it: a listing tells names only, and of `streamed` files no size is ever told."""

    def send_header(self, keyword: str, value: str) -> None:
        if not (keyword.lower() == "content-length" and "streamed" in self.path):
            super().send_header(keyword, value)

    def log_message(self, *_: object) -> None:
        pass


def test_objects_of_a_web_server_have_sizes_times_and_marks(tmp_path: Path) -> None:
    """What its listing leaves open is asked for; a changed file has another mark, so that it is done again."""
    (tmp_path / "sub").mkdir()
    for name, data in {"a.bin": b"12345", "empty": b"", "streamed.bin": b"123", "sub/b.bin": b"1"}.items():
        (tmp_path / name).write_bytes(data)
        os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Folder, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = open_store(f"http://127.0.0.1:{server.server_port}")
        found = {one.key: one for one in storage.list_objects(store)}
        assert {key: one.size for key, one in found.items()} == {
            "a.bin": 5, "empty": 0, "streamed.bin": 3, "sub/b.bin": 1
        }  # fmt: skip
        assert {one.modified for one in found.values()} == {datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)}
        assert storage.read(store, "streamed.bin", size=3) == b"123"
        (tmp_path / "a.bin").write_bytes(b"54321")
        again = {one.key: one.etag for one in storage.list_objects(store)}
        assert {key for key, one in found.items() if again[key] != one.etag} == {"a.bin"}
        server.shutdown()
