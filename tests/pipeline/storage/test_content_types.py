"""What is written to a service of objects says what it is, on machines that have no table of types, too."""

from __future__ import annotations

import mimetypes

import pytest

from pipeline.frames.writers import ENDINGS
from pipeline.pictures.encode import EXTENSIONS
from pipeline.storage import store as storage
from pipeline.storage.access import PART
from pipeline.storage.content_types import CONTENT_TYPES
from pipeline.storage.store import open_store
from tests.told_s3 import told_s3

EXPECTED = {
    "a.png": "image/png",
    "a.jpg": "image/jpeg",
    "a.webp": "image/webp",
    "a.avif": "image/avif",
    "a.tif": "image/tiff",
    "a.tiff": "image/tiff",
    "a.jp2": "image/jp2",
    "a.JXL": "image/jxl",
    "a.gif": "image/gif",
    "a.apng": "image/apng",
    "a.mp4": "video/mp4",
    "a.webm": "video/webm",
    "a.svg": "image/svg+xml",
    "a.html": "text/html; charset=utf-8",
    "a.css": "text/css; charset=utf-8",
    "a.js": "text/javascript; charset=utf-8",
    "runs/r0/run.json": "application/json",
    "part-0.parquet": "application/vnd.apache.parquet",
    "a.png.drk": "application/octet-stream",
    "runs/r0/_SUCCESS": "application/octet-stream",
    "png": "application/octet-stream",
    "b.png/plain": "application/octet-stream",
}


@pytest.fixture
def no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that knows no types at all."""
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_, **__: (None, None))


def test_what_is_written_says_what_it_is(no_table: None) -> None:
    with told_s3({}) as service:
        store = open_store("s3://bucket/out", service.options)
        for key in EXPECTED:
            storage.write(store, key, b"x")
        storage.write(store, "large.jp2", bytes(PART + 1))
        storage.create(store, "lease.json", b"{}")
        found = {key: told.headers["Content-Type"] for key, told in service.objects.items()}
    more = {"large.jp2": "image/jp2", "lease.json": "application/json"}
    assert found == {f"out/{key}": kind for key, kind in (EXPECTED | more).items()}


def test_every_ending_that_is_written_is_known() -> None:
    from pipeline.requests.catalogue import all_steps

    written = {*EXTENSIONS.values(), *(step.extension for step in all_steps() if step.has_stream)}
    written |= {"html", "json", "parquet", "css", "js", "svg", "safetensors", "onnx"}
    endings = {f".{one}" for one in written} | {ending for many in ENDINGS.values() for ending in many}
    assert endings <= set(CONTENT_TYPES)
