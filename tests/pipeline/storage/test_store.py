"""Local folders, memory and a real S3 service must behave alike; where they cannot, each has its own test."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StorageError
from pipeline.storage import store as storage
from pipeline.storage.store import StorageOptions, Store, filesystem, open_store
from tests.processes import ROOT

ODD_KEYS = [
    "100% sure.png", "a#b.png", "a%20b.png", "a+b=c&d.png", "a?versionId=3.png", "deep/er/and er/é ü.png",
    "q\"'<>.png", "日本/🎞.png",
]  # fmt: skip


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of every kind."""
    if request.param == "s3":
        return request.getfixturevalue("s3_store")
    return open_store(tmp_path / "store" if request.param == "local" else f"memory://{uuid.uuid4().hex}/store")


def fill(store: Store, *keys: str) -> None:
    for key in keys:
        storage.write(store, key, key.encode())


def keys(store: Store, **choice: tuple[str, ...]) -> list[str]:
    return [found.key for found in storage.list_objects(store, **choice)]


def test_objects_are_listed_in_order_with_size_url_and_etag(store: Store) -> None:
    fill(store, "b.png", "a/b.png", "a.png", "a/b/c.PNG", "a!.png")
    found = list(storage.list_objects(store))
    assert [one.key for one in found] == ["a!.png", "a.png", "a/b.png", "a/b/c.PNG", "b.png"]
    assert [one.size for one in found] == [len(one.key) for one in found]
    assert all(one.url == f"{store.url}/{one.key}" for one in found)
    assert all(one.etag and '"' not in one.etag for one in found)
    assert all(one.modified is not None and abs(one.modified.timestamp() - time.time()) < 60 for one in found)
    assert found == list(storage.list_objects(store))


def test_listings_can_be_narrowed(store: Store) -> None:
    fill(store, "a.png", "b.JPG", "c.txt", "x/a.png", "x/y/a.jpeg", "x/y/b.png", "xx/a.png")
    assert keys(store, suffixes=("jpg", ".PNG")) == ["a.png", "b.JPG", "x/a.png", "x/y/b.png", "xx/a.png"]
    assert keys(store, include=("a.*",)) == ["a.png", "x/a.png", "x/y/a.jpeg", "xx/a.png"]
    assert keys(store, include=("x/*.png",)) == ["x/a.png"]
    assert keys(store, include=("x/**",)) == ["x/a.png", "x/y/a.jpeg", "x/y/b.png"]
    assert keys(store, include=("x/**/a.*", "c.txt"), exclude=("*.jpeg",)) == ["c.txt", "x/a.png"]
    assert keys(store, include=("x/**/[b-z].png",)) == ["x/y/b.png"]
    with pytest.raises(StorageError, match="not a pattern"):
        keys(store, include=("a**b",))


def test_litter_is_not_listed(store: Store) -> None:
    fill(store, ".DS_Store", "a/.DS_Store", "a/Thumbs.db", ".git/x.png", "__MACOSX/._a.png", "a/good.png")
    assert keys(store) == ["a/good.png"]


def test_folder_markers_are_not_listed(s3_store: Store) -> None:
    fill(s3_store, "a/good.png")
    for marker in ("", "a/", "b_$folder$"):
        filesystem(s3_store).call_s3(
            "put_object", Bucket=s3_store.root.split("/")[0], Key=f"pictures/{marker}", Body=b""
        )
    assert keys(s3_store) == ["a/good.png"]


def test_objects_with_the_names_of_folders_are_listed_where_they_hold_something(s3_store: Store) -> None:
    names = ["pictures/", "pictures//", "pictures//b.png", "pictures/a/", "pictures/a//b.png"]
    for name in names:
        filesystem(s3_store).call_s3("put_object", Bucket=s3_store.root.split("/")[0], Key=name, Body=name.encode())
    assert keys(s3_store) == [name.removeprefix("pictures/") for name in names]
    assert [storage.read(s3_store, key).decode() for key in keys(s3_store)] == names
    assert keys(s3_store, include=("*.png",)) == keys(s3_store, suffixes=("png",)) == ["/b.png", "a//b.png"]
    assert keys(s3_store, include=("/b.*",)) == ["/b.png"]
    for key in ("/b.png", "a//b.png"):
        assert storage.itself(s3_store.url_of(key), s3_store.options) is not None
        store, there = storage.locate(s3_store.url_of(key), s3_store.options)
        assert storage.read(store, there).decode() == f"pictures/{key}"
        storage.delete(store, there)
        assert key not in keys(s3_store)


def test_slashes_that_follow_each_other_belong_to_the_key() -> None:
    for address, found in {
        "s3://b/x.png": ("s3://b", "x.png"),
        "s3://b//x.png": ("s3://b", "/x.png"),
        "s3://b/a//x.png": ("s3://b/a", "/x.png"),
        "s3://b//a/x.png": ("s3://b//a", "x.png"),
        "s3://b/../x.png": ("s3://b/..", "x.png"),
        "s3://b/a//": ("s3://b/a", "/"),
        "s3://b//": ("s3://b", "/"),
    }.items():
        store, key = storage.locate(address, StorageOptions())
        assert (store.url, key) == found
        assert store.url_of(key) == address
    for folder in ("s3://b", "s3://b/", "s3://b/a/"):
        assert storage.locate(folder, StorageOptions())[1] == ""


def test_memory_keeps_keys_as_they_are() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}/store")
    fill(store, "a//b.png", "/c.png")
    assert keys(store) == ["/c.png", "a//b.png"]
    assert [storage.read(store, key).decode() for key in keys(store)] == keys(store)
    with pytest.raises(StorageError, match="end with /"):
        storage.write(store, "a/", b"x")


def test_nothing_outside_the_prefix_is_listed(s3_store: Store, s3_options: StorageOptions) -> None:
    fill(s3_store, "a.png")
    fill(open_store(s3_store.url + "-more", s3_options), "b.png")
    assert keys(s3_store) == ["a.png"]
    assert keys(open_store(s3_store.url.rsplit("/", 1)[0], s3_options)) == ["pictures-more/b.png", "pictures/a.png"]


def test_long_listings_come_in_pages(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.storage import s3_requests

    names = [f"{number:02}.png" for number in range(10)]
    fill(s3_store, *names)
    once, pages = s3_requests._once, []

    def in_threes(place: s3_requests.Place, method: str, arguments: dict) -> dict:
        pages.append(method)
        return once(place, method, {**arguments, "MaxKeys": 3})

    monkeypatch.setattr(s3_requests, "_once", in_threes)
    assert keys(s3_store) == names
    assert len(pages) == 4


def test_an_empty_store_lists_nothing(store: Store) -> None:
    fill(store, "gone.png")
    storage.delete(store, "gone.png")
    assert keys(store) == []


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_key_survives(store: Store, key: str) -> None:
    storage.write(store, key, key.encode())
    assert keys(store) == [key]
    assert storage.read(store, key) == key.encode()
    assert storage.size(store, key) == len(key.encode())
    storage.delete(store, key)
    assert not storage.exists(store, key)


def test_ranges_are_slices(store: Store) -> None:
    data = bytes(range(100))
    storage.write(store, "x", data)
    for start, end in [(0, 10), (10, 20), (90, None), (None, 5), (95, 200), (5, 5), (100, None), (200, 300)]:
        assert storage.read(store, "x", start, end) == data[start:end], (start, end)
    for start, end in [(-1, None), (5, 4)]:
        with pytest.raises(StorageError, match="no range"):
            storage.read(store, "x", start, end)


def test_empty_objects(store: Store) -> None:
    storage.write(store, "empty", b"")
    assert storage.read(store, "empty", size=0) == b""
    assert storage.read(store, "empty", 0, 10) == b""
    assert [found.size for found in storage.list_objects(store)] == [0]


def test_large_objects_come_back_whole(store: Store) -> None:
    data = os.urandom(30 * 2**20 + 1)
    storage.write(store, "large", memoryview(data))
    assert storage.size(store, "large") == len(data)
    assert storage.read(store, "large") == data
    assert storage.read(store, "large", size=len(data)) == data
    assert storage.read(store, "large", 5, 20 * 2**20) == data[5 : 20 * 2**20]
    assert [found.size for found in storage.list_objects(store)] == [len(data)]


def test_overwriting_replaces_and_changes_the_etag(store: Store) -> None:
    storage.write(store, "x", b"first, and longer")
    before = next(storage.list_objects(store))
    storage.write(store, "x", b"second")
    after = next(storage.list_objects(store))
    assert storage.read(store, "x") == b"second"
    assert after.etag != before.etag
    with pytest.raises(StorageError, match="has changed since it was listed"):
        storage.read(store, "x", size=before.size)


def test_what_is_deleted_is_missing(store: Store) -> None:
    fill(store, "x", "y")
    storage.delete(store, "x")
    storage.delete(store, "x")
    assert not storage.exists(store, "x")
    for function in (storage.read, storage.size):
        with pytest.raises(StorageError, match="x") as caught:
            function(store, "x")
        assert caught.value.kind == "missing"
    assert storage.exists(store, "y")


def test_many_threads_at_once(store: Store) -> None:
    names = [f"{number}.bin" for number in range(48)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda name: storage.write(store, name, name.encode() * 1000), names))
        back = list(pool.map(lambda name: storage.read(store, name), names * 2))
    assert back == [name.encode() * 1000 for name in names * 2]


FORKER = """
import os, sys
from pipeline.storage import store as storage
store = storage.open_store(sys.argv[1])
for _ in range(2):
    assert storage.read(store, "x") == b"x"
    child = os.fork()
    if child == 0:
        assert storage.read(store, "x") == b"x"
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
assert storage.read(store, "x") == b"x"
"""


def test_a_forked_process_goes_on_and_leaves_its_parent_alone(s3_store: Store) -> None:
    fill(s3_store, "x")
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKER, s3_store.url], cwd=ROOT, check=True, timeout=40)


def read_in_child(store: Store) -> None:
    assert storage.read(store, "x") == b"x"


def test_a_new_process_can_go_on(s3_store: Store) -> None:
    fill(s3_store, "x")
    child = multiprocessing.get_context("spawn").Process(target=read_in_child, args=(s3_store,))
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize("key", ["../up", "a/../../up", "a/..", "./a", "", "a\0b"])
def test_keys_that_lead_elsewhere_are_written_nowhere(store: Store, key: str) -> None:
    with pytest.raises(StorageError) as caught:
        storage.write(store, key, b"x")
    assert caught.value.kind == "invalid"


@pytest.mark.parametrize("key", ["/etc/passwd", "a//b", "a/", "..\\up", "C:\\up", "c:up", "\\\\host\\share"])
def test_local_files_are_only_written_below_the_root(tmp_path: Path, key: str) -> None:
    with pytest.raises(StorageError, match="refused") as caught:
        storage.write(open_store(tmp_path / "in"), key, b"x")
    assert caught.value.kind == "invalid"
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.sampled_from(["..", ".", "", "a", "\\", "C:", "/", "~", "\0", "é"]), max_size=6))
def test_no_key_leaves_its_root(parts: list[str]) -> None:
    from pipeline.storage.local import path_of

    try:
        path = path_of("/no/such/root", "/".join(parts), for_writing=True)
    except (StorageError, ValueError):
        return
    assert os.path.normpath(path).startswith("/no/such/root/")


def test_links_out_of_a_folder_are_listed_and_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    store = open_store(tmp_path / "in")
    fill(store, "real.png")
    for name, target in {"link.png": "real.png", "out.png": "../secret.png", "loop": ".", "up": ".."}.items():
        (tmp_path / "in" / name).symlink_to(target)
    os.mkfifo(tmp_path / "in" / "pipe.png")
    assert keys(store) == ["link.png", "out.png", "real.png"]
    assert storage.read(store, "link.png") == b"real.png"
    for key in ("out.png", "up/secret.png", "pipe.png"):
        with pytest.raises(StorageError) as caught:
            storage.read(store, key)
        assert caught.value.kind == "invalid"
    with pytest.raises(StorageError, match="leads out"):
        storage.write(store, "up/new.png", b"x")
    storage.write(store, "out.png", b"replaced, not followed")
    assert (tmp_path / "secret.png").read_bytes() == b"secret"


def test_names_that_are_no_text_are_listed_and_missing(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    store = open_store(tmp_path)
    assert keys(store) == ["caf\\xe9.png"]
    with pytest.raises(StorageError) as caught:
        storage.read(store, "caf\\xe9.png")
    assert caught.value.kind == "missing"


WRITER = """
import os, signal, sys
from pipeline.storage import local as storage_local
from pipeline.storage import store as storage
if sys.argv[2] == "sync":
    storage_local.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
store = storage.open_store(sys.argv[1])
print("ready", flush=True)
while True:
    for letter in b"ab":
        storage.write(store, "x", bytes([letter]) * 4_000_000, durable=sys.argv[2] == "sync")
"""


@pytest.mark.parametrize("moment", ["sync", "0.05", "0.2"])
def test_a_killed_write_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    store = open_store(tmp_path)
    storage.write(store, "x", b"old")
    command = [sys.executable, "-c", WRITER, str(tmp_path), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        if moment != "sync":
            time.sleep(float(moment))
            writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert storage.read(store, "x") in ([b"old"] if moment == "sync" else [b"old", b"a" * 4_000_000, b"b" * 4_000_000])
    assert keys(store) == ["x"]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    fill(open_store(tmp_path), "a/x")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "a" / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]
