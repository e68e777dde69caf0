"""Objects whose ETags, encodings, storage classes and keys are not what a plain object has, as services serve them."""

from __future__ import annotations

import gzip
import hashlib
import zlib

import pyarrow as pa
import pytest

from pipeline.errors import StorageError
from pipeline.storage import access, s3, s3_bodies, s3_requests
from pipeline.storage import store as storage
from pipeline.storage.files import StoredFiles
from pipeline.storage.store import open_store
from tests.told_s3 import Told, checksum, told_s3

DATA = bytes(range(256)) * 40
OTHER = bytes(reversed(range(256))) * 40
FALSE = hashlib.md5(b"of something else").hexdigest()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_BACKOFF_BASE", 0.01)


def encrypted(kind: str) -> Told:
    return Told(DATA, FALSE, {"x-amz-server-side-encryption": kind})


#: kinds of objects, and how many GETs each takes
KINDS: dict[str, tuple[Told, int]] = {
    "plain": (Told(DATA), 1),
    "kms": (encrypted("aws:kms"), 1),
    "dsse": (encrypted("aws:kms:dsse"), 1),
    "own key": (Told(DATA, FALSE, {"x-amz-server-side-encryption-customer-algorithm": "AES256"}), 1),
    "encrypted in silence": (encrypted("AES256"), 2),
    "appended": (Told(DATA, FALSE.upper(), {"x-oss-object-type": "Appendable"}), 2),
    "of parts": (Told(DATA, f"{FALSE}-3"), 1),
    "of one part": (Told(DATA, f"{FALSE}-1", {"x-amz-checksum-crc32": "AAAAAA==-1"}), 1),
    "no digest": (Told(DATA, "0x8DC5"), 1),
    "with a checksum": (Told(DATA, FALSE, checksum("sha256", DATA)), 1),
    "with an older one": (Told(DATA, FALSE, checksum("sha1", DATA)), 1),
    "gzip": (Told(gzip.compress(DATA), headers={"Content-Encoding": "gzip"}), 1),
    "deflate": (Told(zlib.compress(DATA), headers={"Content-Encoding": "deflate, aws-chunked"}), 1),
    "brotli": (Told(pa.compress(DATA, "brotli", asbytes=True), headers={"Content-Encoding": "br"}), 1),
    "zstd": (Told(pa.compress(DATA, "zstd", asbytes=True), headers={"Content-Encoding": "zstd"}), 1),
    "not packed after all": (Told(DATA, headers={"Content-Encoding": "gzip, br, zstd, deflate"}), 1),
    "in other words": (Told(DATA, headers={"Content-Encoding": "utf-8"}), 1),
    "unpacked on its way": (
        Told(gzip.compress(DATA), sent=[DATA], headers={"Content-Encoding": "gzip"}, whole=True), 2
    ),
    "made smaller on its way": (Told(OTHER + OTHER, sent=[DATA], whole=True), 2),
}  # fmt: skip


@pytest.mark.parametrize("order", [list(KINDS), list(reversed(KINDS))], ids=["plain first", "plain last"])
def test_every_kind_of_object_is_read_whatever_came_before(order: list[str]) -> None:
    with told_s3({name: told for name, (told, _) in KINDS.items()}) as service:
        store = open_store("s3://bucket", service.options)
        sizes = {one.key: one.size for one in storage.list_objects(store)}
        for name in order:
            assert storage.read(store, name, size=sizes[name]) == DATA, name
        assert {name: service.gets(name) for name in KINDS} == {name: count for name, (_, count) in KINDS.items()}
        assert all(storage.read(store, name) == DATA for name in order)


@pytest.mark.parametrize(
    ("told", "said", "gets"),
    [
        (Told(DATA, sent=[bytes([number]) * 9 for number in range(20)]), "not those of its ETag", 8),
        (Told(DATA, headers=checksum("sha256", OTHER)), "not those of its checksum", 2),
        (Told(DATA, FALSE, checksum("sha1", OTHER)), "not those of its checksum", 2),
        (Told(gzip.compress(DATA), headers={"Content-Encoding": "gzip"} | checksum("sha1", DATA)), "checksum", 2),
    ],
    ids=["always other bytes", "another checksum", "and another ETag", "checksum of what is packed"],
)
def test_what_is_damaged_is_still_found(told: Told, said: str, gets: int) -> None:
    with told_s3({"before": DATA, "x": told}) as service:
        store = open_store("s3://bucket", service.options)
        assert storage.read(store, "before") == DATA
        with pytest.raises(StorageError, match=said):
            storage.read(store, "x")
        assert service.gets("x") == gets


def test_bytes_that_were_damaged_once_are_read_again() -> None:
    declared = Told(DATA, FALSE, checksum("sha256", DATA), sent=[OTHER, DATA])
    with told_s3({"a": Told(DATA, sent=[OTHER, DATA]), "b": declared}) as service:
        store = open_store("s3://bucket", service.options)
        assert storage.read(store, "a") == storage.read(store, "b") == DATA
        assert service.gets("a") == service.gets("b") == 2


def test_an_object_that_was_replaced_since_it_was_listed_is_refused() -> None:
    with told_s3({"x": OTHER + OTHER}) as service:
        store = open_store("s3://bucket", service.options)
        service.objects["x"] = Told(DATA)
        with pytest.raises(StorageError, match="has changed since it was listed"):
            storage.read(store, "x", size=len(OTHER + OTHER))


def test_what_was_transcoded_is_read_where_nothing_may_be_listed() -> None:
    with told_s3({"x": Told(OTHER + OTHER, sent=[DATA]), "y": DATA}, listings=False) as service:
        store = open_store("s3://bucket", service.options)
        assert storage.read(store, "x", size=storage.size(store, "x")) == DATA
        with pytest.raises(StorageError, match="has changed since it was listed"):
            storage.read(store, "y", size=5)


def test_a_large_object_is_compared_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts say nothing of themselves; and where there is more of it than was listed, it is another one."""
    for module in (s3, s3_requests):
        monkeypatch.setattr(module, "PART", 4000)
    parts = -(-len(DATA) // 4000)
    held = {
        "plain": Told(DATA),
        "odd": Told(DATA, FALSE),
        "once": Told(DATA, sent=[OTHER] * parts + [DATA]),
        "never": Told(DATA, sent=[bytes([number]) * len(DATA) for number in range(1, 30)]),
    }
    with told_s3(held) as service:
        store = open_store("s3://bucket", service.options)
        for name, times in {"plain": 1, "odd": 2, "once": 2}.items():
            assert storage.read(store, name, size=len(DATA)) == DATA
            assert service.gets(name) == times * parts, name
        with pytest.raises(StorageError, match="not those of its ETag"):
            storage.read(store, "never", size=len(DATA))
        with pytest.raises(StorageError, match="has changed since it was listed: 5000 bytes then, 10240 now"):
            storage.read(store, "plain", size=5000)


def test_a_service_without_ranges_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (s3, s3_requests):
        monkeypatch.setattr(module, "PART", 1000)
    with told_s3({"x": Told(DATA, whole=True)}) as service:
        store = open_store("s3://bucket", service.options)
        for size in (None, len(DATA)):
            assert storage.read(store, "x", size=size) == DATA
        for start, end in [(0, 10), (10, 20), (500, 5000), (9000, None), (0, len(DATA)), (0, 20_000)]:
            assert storage.read(store, "x", start, end) == DATA[start:end], (start, end)


def test_packed_bytes_unpack_to_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_bodies, "_UNPACKED", 1000)
    packed = Told(gzip.compress(bytes(100_000)), headers={"Content-Encoding": "gzip"})
    with told_s3({"x": packed}) as service, pytest.raises(StorageError, match="more than 1,000 bytes"):
        storage.read(open_store("s3://bucket", service.options), "x")


def test_training_reads_every_object_that_it_finds() -> None:
    """Also those whose URLs end with slashes; an archived one is a fault of its own."""
    keys = ["in/", "in//", "in//q.png", "in/../up.png", "in/a.png", "in/d/"]
    held = {key: Told(key.encode()) for key in keys}
    with told_s3(held | {"in/cold.png": Told(DATA, error="403 InvalidObjectState")}) as service:
        files = StoredFiles(service.options)
        found = {f"in/{one.key}": one for one in files.find("s3://bucket/in")}
        assert set(found) == {*keys, "in/cold.png"}
        for key in keys:
            assert files.read(found[key].url, 1000, found[key].size) == key.encode()
        with pytest.raises(files.faults, match="archived"):
            files.read(found["in/cold.png"].url, 1 << 20, len(DATA))
        for url in ("s3://bucket/in/", "s3://bucket/in//", "s3://bucket"):
            with pytest.raises(StorageError, match="names no object"):
                files.write(url, b"x")
