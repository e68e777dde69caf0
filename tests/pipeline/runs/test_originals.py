"""Decompressed pictures go by the keys of their originals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from darkroom import assemble, compress, decompress, open_destination, verify
from pipeline.errors import PlanError
from pipeline.pictures.decode import decode
from pipeline.requests.compression import decompression
from pipeline.requests.job import check_request
from pipeline.requests.pictures import DecompressRequest
from pipeline.runs.finish import develop
from pipeline.runs.forecast import forecast
from pipeline.storage.store import Store, list_objects, open_store, read, write
from tests.frame_files import animation, moving
from tests.runs import contents, picture_file, request, table

#: folders in folders, one stem with several endings, spaces, what is not ASCII, a name that ends like a stream
KEYS = [
    "a.png",
    "a b.png",
    "a.jpeg.png",
    "a.png.drk.png",
    "deep/er/a.png",
    "deep/a.png",
    "été/☂ 日本.png",
    "été/☂ 日本",
]
TWO_BRANCHES: dict[str, Any] = {
    "branches": {"fine": [{"step": "autoencode", "quality": 40}], "small": [{"step": "autoencode", "quality": 8}]},
    "output": {"format": "none"},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The destination of a run that has compressed pictures of all kinds of names."""
    folder = tmp_path_factory.mktemp("originals")
    for number, key in enumerate(KEYS):
        (folder / "in" / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / key).write_bytes(picture_file(number))
    assert compress(folder / "in", folder / "small", device="cpu").counts["good"] == len(KEYS)
    return folder / "small"


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The destination of a run that has left streams in two branches."""
    folder = tmp_path_factory.mktemp("branches")
    (folder / "in").mkdir()
    (folder / "in/a.png").write_bytes(picture_file())
    develop(request(folder / "in", folder / "small", TWO_BRANCHES))
    return folder / "small"


def keys(destination: Path) -> set[str]:
    return {key for (key,) in table(destination, "manifest", "key")}


def plain(source: object, destination: Path, **changes: Any) -> DecompressRequest:
    return DecompressRequest(source=str(source), destination=str(destination), device="cpu", **changes)


def test_keys_and_names_of_files_are_the_originals(small: Path, tmp_path: Path) -> None:
    """In every table and file name; the row names its stream; a second run has nothing to do; all is well."""
    assert decompress(small, tmp_path / "back", device="cpu").counts["good"] == len(KEYS)
    assert keys(tmp_path / "back") == set(KEYS)
    assert {key for (key,) in table(tmp_path / "back", "metrics", "key")} == set(KEYS)
    files = {path.removeprefix("pictures/decompressed/") for path in contents(tmp_path / "back", "pictures/")}
    assert files == {f"{key}.png" for key in KEYS}
    for key, file in table(tmp_path / "back", "manifest", "key, file"):
        assert file == f"streams/compressed/{key}.drk"
    assert open_destination(tmp_path / "back").picture("decompressed", "été/☂ 日本").pixels.shape == (40, 56, 3)
    assert decompress(small, tmp_path / "back", device="cpu").status == "nothing_to_do"
    assert verify(tmp_path / "back").findings == []


@pytest.mark.parametrize("copied", [False, True])
def test_streams_anywhere_lose_their_ending_alone(copied: bool, small: Path, tmp_path: Path) -> None:
    """In the folder of a branch, and below any folder that is no run's, even one that is called `streams`."""
    source, before = small / "streams/compressed", ""
    if copied:
        (tmp_path / "mine/streams/holiday").mkdir(parents=True)
        for number, name in enumerate(("a.png.drk", "b.drk", "b.DRK")):
            data = (source / KEYS[number]).with_name(KEYS[number] + ".drk").read_bytes()
            (tmp_path / "mine/streams/holiday" / name).write_bytes(data)
        source, before = tmp_path / "mine", "streams/holiday/"
    decompress(source, tmp_path / "back", device="cpu")
    expected = {f"{before}a.png", f"{before}b", f"{before}b.DRK"} if copied else set(KEYS)
    assert keys(tmp_path / "back") == expected


def test_one_stream_goes_by_its_original_too(small: Path, tmp_path: Path) -> None:
    decompress(small / "streams/compressed/deep/er/a.png.drk", tmp_path / "back", device="cpu")
    assert keys(tmp_path / "back") == {"a.png"}


def test_streams_of_a_bucket(small: Path, s3_store: Store, tmp_path: Path) -> None:
    for found in list_objects(open_store(small)):
        write(s3_store, f"small/{found.key}", read(open_store(small), found.key))
    decompress(f"{s3_store.url}/small", tmp_path / "back", device="cpu")
    assert keys(tmp_path / "back") == set(KEYS)


def test_a_changed_stream_is_decompressed_anew(small: Path, tmp_path: Path) -> None:
    """Its row takes the place of the earlier one; a stream that fails is tried again by its original's key."""
    (tmp_path / "in").mkdir()
    for name in ("a.png.drk", "b.png.drk"):
        (tmp_path / "in" / name).write_bytes((small / "streams/compressed/a.png.drk").read_bytes()[:-8])
    first = decompress(tmp_path / "in", tmp_path / "back", device="cpu", max_failure_rate=1)
    assert [row["key"] for row in first.failures] == ["a.png", "b.png"]
    (tmp_path / "in/a.png.drk").write_bytes((small / "streams/compressed/a.png.drk").read_bytes())
    again = decompress(tmp_path / "in", tmp_path / "back", device="cpu", max_failure_rate=1)
    assert (again.counts["objects"], again.counts["good"], again.counts["failed"]) == (1, 1, 0)
    current = open_destination(tmp_path / "back").table("manifest").to_table(columns=["key", "status"]).to_pylist()
    assert {row["key"]: row["status"] for row in current} == {"a.png": "ok", "b.png": "failed"}


def test_two_streams_of_one_original_are_refused(branches: Path, tmp_path: Path) -> None:
    """Nothing is written; a choice of one branch is taken, and the other one then only into another destination."""
    for refused in (lambda: decompress(branches, tmp_path / "back"), lambda: look(branches, tmp_path / "back")):
        with pytest.raises(
            PlanError, match=r"several branches, in streams/fine/ and streams/small/.*--include 'stream"
        ):
            refused()
    assert not list((tmp_path / "back").rglob("plan.json"))
    decompress(branches, tmp_path / "back", include=("streams/fine/**",), device="cpu")
    fine = contents(tmp_path / "back", "pictures/")
    with pytest.raises(PlanError, match=r"holds pictures of the streams in streams/fine/.*--fresh"):
        decompress(branches, tmp_path / "back", include=("streams/small/**",), device="cpu")
    assert contents(tmp_path / "back", "pictures/") == fine
    decompress(branches, tmp_path / "back", include=("streams/small/**",), device="cpu", fresh=True)
    assert keys(tmp_path / "back") == {"a.png"}
    assert contents(tmp_path / "back", "pictures/") != fine


def look(source: Path, destination: Path) -> object:
    return forecast(check_request(decompression(plain(source, destination))))


def test_streams_beside_those_of_a_run_are_refused(small: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    for found in list_objects(open_store(small)):
        write(open_store(tmp_path / "small"), found.key, read(open_store(small), found.key))
    (tmp_path / "small/a.png.drk").write_bytes(b"another's")
    with pytest.raises(PlanError, match=r"others beside them.*--include 'streams/compressed/\*\*'"):
        decompress(tmp_path / "small", tmp_path / "back", device="cpu")


def test_a_picture_beside_its_stream_is_refused_where_both_are_taken(small: Path, tmp_path: Path) -> None:
    """However many names lie between them; other pictures are no matter."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.png (1).png", "a.png-2.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(picture_file())
    (tmp_path / "in/c.png.drk").write_bytes((small / "streams/compressed/a.png.drk").read_bytes())
    asked = {"suffixes": (".drk", ".png"), "device": "cpu"}
    assert decompress(tmp_path / "in", tmp_path / "back", **asked).counts["good"] == 5  # type: ignore[arg-type]
    assert keys(tmp_path / "back") == {"a.png", "a.png (1).png", "a.png-2.png", "b.png", "c.png"}
    (tmp_path / "in/a.png.drk").write_bytes((small / "streams/compressed/a.png.drk").read_bytes())
    with pytest.raises(PlanError, match=r"holds a\.png and a\.png\.drk, both .* known as a\.png; .* --exclude"):
        decompress(tmp_path / "in", tmp_path / "back", **asked)  # type: ignore[arg-type]


def test_frames_come_back_as_frames(tmp_path: Path) -> None:
    """Keys of frames are those of the film's frames, so that they are put together under its name."""
    frames = moving(3)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/walk.gif").write_bytes(animation(frames, "GIF"))
    compress(tmp_path / "in", tmp_path / "small", device="cpu")
    decompress(tmp_path / "small", tmp_path / "back", device="cpu")
    assert keys(tmp_path / "back") == {f"walk.gif#000{number}" for number in range(3)}
    (film,) = assemble(tmp_path / "back", tmp_path / "films")
    assert (film.file, film.frames, film.missing) == ("walk.gif", 3, [])
    assert decode((tmp_path / f"films/{film.path}").read_bytes(), str(film.path)).pixels.shape[2] == 3
