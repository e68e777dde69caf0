"""Objects in archives, whose names need be no paths of files."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage import store as storage
from pipeline.storage.store import open_store

NAMES = ["../up.png", "a.png", "a/../b.png", "a/./b.png", "deep/er/b.png"]


def archive(kind: str, path: Path, names: list[str]) -> str:
    """Write an archive in which every file holds its own name, and return its URL."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name in names:
                zipped.writestr(name, name)
    else:
        with tarfile.open(path, "w") as taken:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.size = len(name)
                taken.addfile(entry, io.BytesIO(name.encode()))
    return f"{kind}://::{path}"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_every_file_of_an_archive_is_listed_and_read(kind: str, tmp_path: Path) -> None:
    # tar itself takes a//b.png for a/b.png
    names = NAMES + (["a//b.png"] if kind == "zip" else [])
    store = open_store(archive(kind, tmp_path / "box", names))
    found = list(storage.list_objects(store))
    assert [one.key for one in found] == sorted(names)
    assert [storage.read(store, one.key, size=one.size).decode() for one in found] == sorted(names)
    assert [one.key for one in storage.list_objects(store, include=("deep/**",))] == ["deep/er/b.png"]


def test_a_folder_of_an_archive_is_a_store(tmp_path: Path) -> None:
    url = archive("zip", tmp_path / "box", [*NAMES, "deeper/c.png"])
    store = open_store(url.replace("zip://", "zip://deep"))
    assert [(one.key, storage.size(store, one.key)) for one in storage.list_objects(store)] == [("er/b.png", 13)]


def test_a_name_that_begins_with_a_slash_is_counted_and_refused(tmp_path: Path) -> None:
    store = open_store(archive("zip", tmp_path / "box", ["/a.png"]))
    assert [one.key for one in storage.list_objects(store)] == ["/a.png"]
    with pytest.raises(StorageError, match="does not exist"):
        storage.read(store, "/a.png")
