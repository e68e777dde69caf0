"""Pictures at keys that are no paths of files: with empty parts, `.` and `..`, a slash in front or at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkroom import assemble, collect, compress, compress_file, decompress, decompress_file, open_destination, verify
from pipeline.errors import PlanError
from pipeline.runs.finish import develop
from pipeline.storage import store as storage
from pipeline.storage.store import open_store
from tests.frame_files import animation, moving
from tests.runs import picture_file, request
from tests.told_s3 import Service, told_s3

RECIPE = {"branches": {"gamma": [{"step": "gamma"}]}, "output": {"format": "png"}}
#: keys below `in/`, and the files that their pictures are developed to
FILES = {
    "": "~.png",
    "%2e%2e/k.png": "%2e%2e/k.png.png",
    "..": "~...png",
    "../../up.png": "~../~../up.png.png",
    "./z.png": "~./z.png.png",
    "/": "~/~.png",
    "/q.png": "~/q.png.png",
    "a.png": "a.png.png",
    "a/../../up.png": "a/~../~../up.png.png",
    "d.png/": "d.png/~.png",
    "d/": "d/~.png",
    "x//y.png": "x/~/y.png.png",
    "x/y.png": "x/y.png.png",
    "~": "~~.png",
    "~.": "~~..png",
    "~/q.png": "~~/q.png.png",
    "~user/q.png": "~user/q.png.png",
}


def odd() -> dict[str, bytes]:
    return {f"in/{key}": picture_file(number) for number, key in enumerate(FILES)} | {"in/empty/": b""}


def below(url: object, service: Service, folder: str) -> list[str]:
    return [
        one.key.removeprefix(folder)
        for one in storage.list_objects(open_store(str(url), service.options), [f"{folder}**"])
    ]


@pytest.mark.parametrize("local", [True, False], ids=["to a folder", "to a bucket"])
def test_every_key_is_developed_and_known_by_all(local: bool, tmp_path: Path) -> None:
    destination = str(tmp_path / "deep/er/out") if local else "s3://bucket/out"
    with told_s3(odd()) as service:
        access = {"source_storage": service.options, "destination_storage": service.options}
        asked = request("s3://bucket/in", destination, RECIPE, **access)
        first = develop(asked)
        assert (first.counts["good"], first.counts["failed"], first.reasons) == (len(FILES), 0, {})
        manifest = open_destination(destination, service.options).table("manifest").to_table(["key"])
        assert sorted(manifest["key"].to_pylist()) == sorted(FILES)
        assert below(destination, service, "pictures/gamma/") == sorted(FILES.values())
        assert develop(asked).status == "nothing_to_do"
        for quick in (True, False):
            assert verify(destination, destination_storage=service.options, quick=quick).findings == []
        found = collect(destination, gone=True, dry_run=True, **access)
        assert (sum(one.pictures for one in found.gone), found.objects) == (0, {})
        del service.objects["in//q.png"]
        (gone,) = collect(destination, gone=True, dry_run=True, **access).gone
        assert gone.examples == ["/q.png"]
    assert [path.name for path in tmp_path.iterdir()] == (["deep"] if local else [])


def test_pictures_come_back_from_streams_under_their_own_keys(tmp_path: Path) -> None:
    wanted = ("", "/q.png", "../../up.png", "d.png/", "a.png")
    with told_s3({f"in/{key}": picture_file(number) for number, key in enumerate(wanted)}) as service:
        access = {"source_storage": service.options, "destination_storage": service.options}
        compress("s3://bucket/in", "s3://bucket/small", **access, device="cpu")
        for source in ("small", "small/streams/compressed"):
            out = tmp_path / source.replace("/", "-")
            back = decompress(f"s3://bucket/{source}", out, source_storage=service.options, device="cpu")
            assert (back.counts["good"], back.reasons) == (len(wanted), {})
            manifest = open_destination(out).table("manifest").to_table(["key"])
            assert sorted(manifest["key"].to_pylist()) == sorted(wanted)
            assert below(out, service, "pictures/decompressed/") == sorted(FILES[key] for key in wanted)
            assert verify(out).findings == []


def test_two_streams_of_one_odd_key_are_refused(tmp_path: Path) -> None:
    with told_s3({"a.png": picture_file()}) as service:
        access = {"source_storage": service.options, "destination_storage": service.options}
        compress_file("s3://bucket/a.png", "s3://bucket/in/~/a.png.drk", **access, device="cpu")
        service.objects["in//a.png.drk"] = service.objects["in/~/a.png.drk"]
        with pytest.raises(PlanError, match=r"both of which would be known as /a[.]png"):
            decompress("s3://bucket/in", tmp_path / "out", source_storage=service.options, device="cpu")


@pytest.mark.parametrize("key", ["/x.png", "a//x.png", "a/./x.png", "../x.png", "a/../x.png"])
def test_one_object_is_one_file_whatever_its_key(key: str, tmp_path: Path) -> None:
    """To one file, from one file, and as a run, without its folder being asked for."""
    with told_s3({key: picture_file(), "x.png": b"another"}) as service:
        access = {"source_storage": service.options, "device": "cpu"}
        source = f"s3://bucket/{key}"
        compress_file(source, tmp_path / "x.drk", **access)
        report = decompress_file(str(tmp_path / "x.drk"), tmp_path / "x.png", **access)
        assert (report.width, report.height) == (56, 40)
        summary = develop(request(source, tmp_path / "out", RECIPE, source_storage=service.options))
        assert (summary.counts["objects"], summary.counts["good"]) == (1, 1)
        assert verify(tmp_path / "out").findings == []


def test_frames_of_odd_files_are_pictures_and_put_together_again(tmp_path: Path) -> None:
    files = {"/w.gif": "~/w.gif", "../v.gif": "~../v.gif", "d.gif/": "d.gif/~.gif"}
    data = animation(moving(2), "gif")
    with told_s3({f"in/{key}": data for key in files}) as service:
        summary = develop(request("s3://bucket/in", tmp_path / "out", RECIPE, source_storage=service.options))
    assert summary.counts["good"] == 6
    done = {one.file: one.path for one in assemble(tmp_path / "out", tmp_path / "films")}
    assert done == {key: f"pictures/gamma/{name}" for key, name in files.items()}


def test_what_is_called_like_a_picture_and_is_none_fails_whatever_slashes_follow(tmp_path: Path) -> None:
    with told_s3({"in/broken.png/": b"no picture", "in/notes/": b"words", "in/a.png": picture_file()}) as service:
        found = develop(request("s3://bucket/in", tmp_path / "out", RECIPE, source_storage=service.options))
    assert (found.counts["good"], found.counts["failed"], found.counts["left_out"]) == (1, 1, 1)


def test_a_hidden_picture_that_is_named_is_no_hidden_result(tmp_path: Path) -> None:
    (tmp_path / ".hidden.png").write_bytes(picture_file())
    assert develop(request(tmp_path / ".hidden.png", tmp_path / "out", RECIPE)).counts["good"] == 1
    assert [path.name for path in (tmp_path / "out/pictures/gamma").iterdir()] == ["~.hidden.png.png"]
    assert verify(tmp_path / "out", quick=True).findings == []
