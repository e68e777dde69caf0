"""Who may reach a store: what is checked before a run, URLs that cannot be, and options from the environment."""

from __future__ import annotations

import logging
import pickle
import re
import time
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage import store as storage
from pipeline.storage.store import StorageOptions, Store, filesystem, open_store
from tests.pipeline.storage.test_store import keys


@pytest.mark.parametrize("for_writing", [False, True])
def test_access_to_s3_is_checked(
    s3_store: Store, s3_options: StorageOptions, for_writing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    storage.check_access(s3_store, for_writing)
    assert keys(s3_store) == []
    wrong = {
        "secret": ("denied", {"secret": "not-the-secret-at-all"}),
        "key": ("denied", {"key": "test:nobody"}),
        "endpoint": ("unreachable", {"endpoint_url": "http://127.0.0.1:9"}),
    }
    caplog.set_level(logging.DEBUG)
    for kind, change in wrong.values():
        options = StorageOptions.model_validate({**s3_options.model_dump(), **change})
        began = time.monotonic()
        with pytest.raises(StorageError, match=re.escape(s3_store.url)) as caught:
            storage.check_access(open_store(s3_store.url, options), for_writing)
        assert caught.value.kind == kind
        assert time.monotonic() - began < 15
        assert options.secret is not None
        for text in (str(caught.value), repr(caught.value), repr(options), caplog.text):
            assert options.secret.get_secret_value() not in text
    with pytest.raises(StorageError, match="bucket 'no-such-bucket' does not exist") as caught:
        storage.check_access(open_store("s3://no-such-bucket/x", s3_options), for_writing)
    assert caught.value.kind == "missing"


def test_access_to_folders_is_checked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage.check_access(open_store(tmp_path))
    storage.check_access(open_store(tmp_path / "to" / "be" / "made"), for_writing=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for name, for_writing, kind in [
        ("no", False, "missing"), ("file", False, "invalid"), ("file/x", True, "invalid")
    ]:  # fmt: skip
        with pytest.raises(StorageError, match=str(tmp_path)) as caught:
            storage.check_access(open_store(tmp_path / name), for_writing)
        assert caught.value.kind == kind
    with pytest.raises(StorageError, match="does not exist"):
        keys(open_store(tmp_path / "no"))


def test_urls_that_cannot_be_are_refused() -> None:
    with pytest.raises(StorageError, match="give s3://bucket/prefix"):
        storage.locate("s3://", StorageOptions())
    for url in ("", "s3://", "s3://key:word@bucket/x", "nothing-like-it://key:word@x", "a\0b"):
        with pytest.raises(StorageError) as caught:
            open_store(url, StorageOptions())
        assert caught.value.kind == "invalid"
        assert "word" not in str(caught.value)
    assert open_store("file:///some/where/").root == open_store(Path("/some/where")).root == "/some/where"
    assert open_store("s3://bucket/a/b/", StorageOptions()).url_of("c d") == "s3://bucket/a/b/c d"


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "KEY", "SECRET", "TOKEN", "REGION", "PATH_STYLE"):
        monkeypatch.setenv(f"DARKROOM_S3_{name}", "")
    assert StorageOptions.from_environment() == StorageOptions()
    monkeypatch.setenv("DARKROOM_S3_KEY", "visible-key")
    with pytest.raises(StorageError, match="both the key and the secret") as caught:
        StorageOptions.from_environment()
    assert "visible-key" not in str(caught.value)
    monkeypatch.setenv("DARKROOM_S3_SECRET", "hidden")
    monkeypatch.setenv("DARKROOM_S3_ENDPOINT", "https://storage.example")
    monkeypatch.setenv("DARKROOM_S3_PATH_STYLE", "false")
    options = StorageOptions.from_environment()
    assert options.path_style is False
    assert options.endpoint == "https://storage.example"
    assert "hidden" not in f"{options} {options!r} {options.model_dump_json()} {open_store('s3://b', options)!r}"
    assert pickle.loads(pickle.dumps(open_store("s3://b", options))) == open_store("s3://b", options)


def test_different_credentials_never_share_a_connection() -> None:
    a, b = (StorageOptions.model_validate({"key": "k", "secret": secret}) for secret in ("one", "two"))
    assert filesystem(open_store("s3://b", a)) is filesystem(open_store("s3://c", a))
    assert filesystem(open_store("s3://b", a)) is not filesystem(open_store("s3://b", b))
